"""Commits over git's smart, dumb and file protocols; what a repository must not hold; a damaged cache."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from git import Repo

from sandkube.build.lock import Pin
from sandkube.build.sources import Source
from sandkube.build.sources import git as fetch_git
from sandkube.build.sources.settings import Patience
from sandkube.errors import HashMismatch, UserError
from sandkube.tree import seal_of
from tests.servers import Stall, file_server, git_server, only_loopback

QUICK = Patience(attempts=3, stall=5, pause=0.01)
WHO = ("-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgSign=false")


def git(folder: Path, *words: str, stdin: str = "") -> str:
    """Run git in a folder; its output."""
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"} | {
        f"GIT_{who}_DATE": "2020-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")
    }
    argv = ["git", *WHO, *words]
    done = subprocess.run(argv, cwd=folder, env=env, input=stdin, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bare repository `demo.git` of two commits, and its work tree `work`."""
    folder = tmp_path_factory.mktemp("served")
    work = folder / "work"
    work.mkdir()
    git(work, "init", "--quiet", "--initial-branch=main")
    (work / "plain.txt").write_bytes(b"line\r\n")
    (work / ".gitattributes").write_text("* text=auto eol=lf export-subst\nhidden export-ignore\n*.txt filter=lfs\n")
    (work / "hidden").write_text("$Format:%H$\n")
    (work / "deep/er").mkdir(parents=True)
    (work / "deep/er/run.sh").write_text("#!/bin/sh\n")
    (work / "deep/er/run.sh").chmod(0o755)
    (work / "link").symlink_to("deep/er")
    git(work, "-c", "core.autocrlf=false", "-c", "filter.lfs.clean=cat", "add", "--all")
    # The tree is to hold the carriage return, whatever the attributes would do to it.
    blob = git(work, "hash-object", "-w", "--no-filters", "plain.txt")
    git(work, "update-index", "--cacheinfo", f"100644,{blob},plain.txt")
    git(work, "commit", "--quiet", "--message", "first")
    git(work, "commit", "--quiet", "--allow-empty", "--message", "second")
    git(folder, "clone", "--quiet", "--bare", str(work), "demo.git")
    git(folder / "demo.git", "config", "uploadpack.allowAnySHA1InWant", "true")
    git(folder / "demo.git", "update-server-info")
    return folder


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_loopback(monkeypatch, tmp_path / "home")


@pytest.fixture
def first(served: Path) -> str:
    return git(served / "work", "rev-parse", "HEAD~1")


@pytest.fixture
def address(served: Path) -> Iterator[str]:
    with git_server(served) as found:
        yield f"{found}/demo.git"


def take(address: str, commit: str, cache: Path) -> tuple[Source, Pin]:
    source = Source("git", address, commit)
    found, tree = fetch_git.resolve("demo", source, cache, QUICK)
    return source, Pin("", commit=found, tree=tree)


def test_the_tree_is_written_byte_for_byte(address: str, first: str, tmp_path: Path) -> None:
    """No line ending, filter, export-ignore or export-subst touches it."""
    source, pin = take(address, first, tmp_path)
    fetch_git.fetch("demo", source, pin, tmp_path, QUICK)
    into = tmp_path / "into"
    into.mkdir()
    fetch_git.unpack(source, pin, into, tmp_path)
    found = {str(path.relative_to(into)) for path in into.rglob("*")}
    assert found == {"plain.txt", ".gitattributes", "hidden", "deep", "deep/er", "deep/er/run.sh", "link"}
    assert (into / "plain.txt").read_bytes() == b"line\r\n"
    assert (into / "hidden").read_text() == "$Format:%H$\n"
    assert (into / "link").readlink() == Path("deep/er")
    assert (into / "deep/er/run.sh").stat().st_mode & 0o777 == 0o755
    assert (into / "plain.txt").stat().st_mode & 0o777 == 0o644


def test_only_the_commit_is_fetched(address: str, first: str, tmp_path: Path) -> None:
    source, _ = take(address, first, tmp_path)
    (folder,) = (path for path in (tmp_path / "git").iterdir() if path.is_dir())
    assert git(folder, "rev-list", "--all") == first
    assert (folder / "shallow").read_text().strip() == first


def test_offline_once_it_is_there(served: Path, first: str, tmp_path: Path) -> None:
    with git_server(served) as base:
        source, pin = take(f"{base}/demo.git", first, tmp_path)
    fetch_git.fetch("demo", source, pin, tmp_path, QUICK)


def test_a_server_that_refuses_a_commit_gives_its_branches(served: Path, first: str, tmp_path: Path) -> None:
    """Over a plain file server there is no shallow fetch."""
    bare = served / "demo.git"
    files = {f"/demo.git/{path.relative_to(bare)}": path.read_bytes() for path in bare.rglob("*") if path.is_file()}
    with file_server(files) as server:
        source, pin = take(f"{server.address}/demo.git", first, tmp_path)
    assert pin.tree == git(bare, "rev-parse", f"{first}^{{tree}}")


def test_all_of_a_history_that_was_shallow(served: Path, first: str, tmp_path: Path) -> None:
    """One commit came by itself; an older one that is refused needs the history between them."""
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(served / "work"), str(bare))
    git(bare, "config", "protocol.version", "0")
    head = git(bare, "rev-parse", "main")
    address = f"file://{bare}"
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.gitconfig").write_text("[protocol]\n\tversion = 0\n")
    take(address, head, tmp_path)
    _, pin = take(address, first, tmp_path)
    assert pin.commit == first


def test_passing_faults(served: Path, first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with git_server(served, failing=[503, 500]) as base:
        take(f"{base}/demo.git", first, tmp_path)
    assert "error: 503; trying again\n" in capsys.readouterr().err


def test_a_server_that_falls_silent(first: str, tmp_path: Path) -> None:
    path = "/demo.git/info/refs?service=git-upload-pack"
    with file_server({path: b"x"}) as server, pytest.raises(UserError, match=r"Operation too slow"):
        server.faults[path] = [Stall(0)]
        source = Source("git", f"{server.address}/demo.git", first)
        fetch_git.resolve("demo", source, tmp_path, Patience(attempts=1, stall=1))


def test_no_such_repository(served: Path, first: str, tmp_path: Path) -> None:
    with git_server(served) as base, pytest.raises(UserError) as caught:
        take(f"{base}/other.git", first, tmp_path)
    assert str(caught.value) == (
        f"demo: git could not fetch {base}/other.git: fatal: repository '{base}/other.git/' not found\n"
        "  hint: is the address reachable? git's own credentials, insteadOf and proxy settings are honoured"
    )


def test_no_such_commit(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        take(address, "1" * 40, tmp_path)
    assert str(caught.value) == f"demo: {address} has no commit {'1' * 40} in its branches and tags"


def test_a_tree_is_no_commit(address: str, served: Path, tmp_path: Path) -> None:
    tree = git(served / "work", "rev-parse", "HEAD^{tree}")
    with pytest.raises(UserError, match=rf"has no commit {tree}"):
        take(address, tree, tmp_path)


def test_another_tree_than_the_pinned_one(address: str, first: str, tmp_path: Path) -> None:
    source, pin = take(address, first, tmp_path)
    with pytest.raises(HashMismatch) as caught:
        fetch_git.fetch("demo", source, Pin("", commit=first, tree="2" * 40), tmp_path, QUICK)
    assert caught.value.message == (
        f"demo: git:{address}@{first}: the bytes do not match their pin: expected tree {'2' * 40}, "
        f"got tree {pin.tree}, from {address}"
    )


def _packs(cache: Path) -> list[Path]:
    return list(cache.glob("git/*/objects/pack/*.pack"))


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_damaged_cache_is_named_and_mended(
    how: str, address: str, first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, pin = take(address, first, tmp_path)
    (pack,) = _packs(tmp_path)
    content = bytearray(pack.read_bytes())
    pack.chmod(0o644)
    if how == "cut":
        pack.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 2] ^= 0x55
        pack.write_bytes(content)
    else:
        pack.unlink()
    fetch_git.fetch("demo", source, pin, tmp_path, QUICK)
    assert f"demo: the cached repository of {address} was damaged (" in capsys.readouterr().err or how == "gone"
    (tmp_path / "into").mkdir()
    fetch_git.unpack(source, pin, tmp_path / "into", tmp_path)
    assert (tmp_path / "into/plain.txt").read_bytes() == b"line\r\n"


def test_a_false_object_is_not_believed(address: str, first: str, served: Path, tmp_path: Path) -> None:
    """A loose object under another's name: git shows it (it does not hash what it shows), we do not."""
    source, pin = take(address, first, tmp_path)
    blob = git(served / "work", "rev-parse", f"{first}:hidden")
    (folder,) = (path for path in (tmp_path / "git").iterdir() if path.is_dir())
    (pack,) = _packs(tmp_path)
    packed = pack.rename(tmp_path / "pack").read_bytes()
    subprocess.run(["git", "--git-dir", folder, "unpack-objects", "-q"], input=packed, check=True)
    false = git(folder, "hash-object", "-w", "--stdin", stdin="evil\n")
    (folder / "objects" / false[:2] / false[2:]).replace(folder / "objects" / blob[:2] / blob[2:])
    assert git(folder, "cat-file", "blob", blob) == "evil"
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match=rf"the cached repository is damaged: blob {blob} has other bytes"):
        fetch_git.unpack(source, pin, tmp_path / "into", tmp_path)


def test_objects_are_read_once_a_build(
    address: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read again to fetch what is there, and several read at once."""
    source, pin = take(address, first, tmp_path)
    read: list[bytes] = []
    original = fetch_git._read

    def noted(at: Repo, name: bytes, kind: str) -> bytes:
        read.append(name)
        return original(at, name, kind)

    monkeypatch.setattr(fetch_git, "_read", noted)
    fetch_git.fetch("demo", source, pin, tmp_path, QUICK)
    assert read == []
    with fetch_git._locked(source, tmp_path, fcntl.LOCK_SH):
        for number in range(2):
            (tmp_path / f"into{number}").mkdir()
            fetch_git.unpack(source, pin, tmp_path / f"into{number}", tmp_path)
    assert len(read) == 2 * len(set(read))


@pytest.mark.usefixtures("served")
def test_what_unpacking_finds_damaged_is_read_anew(address: str, first: str, tmp_path: Path) -> None:
    """The bytes changed under a seal that did not; so the next fetch trusts nothing and mends it."""
    source, pin = take(address, first, tmp_path)
    (pack,) = _packs(tmp_path)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 0x55
    pack.chmod(0o644)
    pack.write_bytes(content)
    folder = fetch_git._folder(source, tmp_path)
    fetch_git._note(folder, pin.tree).write_text(f"{first} {seal_of(folder)}")
    fetch_git.fetch("demo", source, pin, tmp_path, QUICK)
    (tmp_path / "damaged").mkdir()
    with pytest.raises(UserError, match=r"the cached repository is damaged: "):
        fetch_git.unpack(source, pin, tmp_path / "damaged", tmp_path)
    fetch_git.fetch("demo", source, pin, tmp_path, QUICK)
    (tmp_path / "into").mkdir()
    fetch_git.unpack(source, pin, tmp_path / "into", tmp_path)


def test_what_a_killed_git_left_is_taken_away(address: str, first: str, served: Path, tmp_path: Path) -> None:
    take(address, first, tmp_path)
    (folder,) = (path for path in (tmp_path / "git").iterdir() if path.is_dir())
    (folder / "shallow.lock").touch()
    (folder / "packed-refs.lock").touch()
    take(address, git(served / "work", "rev-parse", "HEAD"), tmp_path)


def test_several_at_once(address: str, first: str, served: Path, tmp_path: Path) -> None:
    commits = [first, git(served / "work", "rev-parse", "HEAD")] * 2
    found: list[str] = []
    threads = [threading.Thread(target=lambda c=c: found.append(take(address, c, tmp_path)[1].commit)) for c in commits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(commits)


def test_the_environment_of_a_hook_does_no_harm(
    address: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`./do` run from a git hook: GIT_DIR and its kin name the user's own repository."""
    mine = tmp_path / "mine"
    mine.mkdir()
    git(mine, "init", "--quiet", "--bare")
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.setenv(name, str(mine))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(mine / "objects"))
    take(address, first, tmp_path)
    assert not list(mine.glob("objects/*/*"))


def test_hooks_of_the_user_do_not_run(address: str, first: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "hooks").mkdir(parents=True)
    (home / ".gitconfig").write_text(f"[core]\n\thooksPath = {home}/hooks\n")
    hook = home / "hooks/reference-transaction"
    hook.write_text(f"#!/bin/sh\ntouch {home}/ran\n")
    hook.chmod(0o755)
    take(address, first, tmp_path)
    assert not (home / "ran").exists()


def test_mirrors_of_the_user_are_honoured(address: str, first: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "{address}"]\n\tinsteadOf = https://host.invalid/demo.git\n')
    take("https://host.invalid/demo.git", first, tmp_path)


def test_a_submodule_is_refused(served: Path, first: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    git(tmp_path, "clone", "--quiet", str(served / "work"), str(work))
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{first},third/party")
    git(work, "commit", "--quiet", "--message", "with a submodule")
    address = f"file://{work}"
    head = git(work, "rev-parse", "HEAD")
    with pytest.raises(UserError) as caught:
        take(address, head, tmp_path)
    assert str(caught.value) == (
        f"git:{address}@{head}: third/party is a submodule\n  hint: make a recipe of its own for it"
    )


def test_sha256_repositories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a commit of a SHA-256 repository, which is not supported"):
        take("https://host.invalid/x", "a" * 64, tmp_path)


def test_programs_as_transport_are_refused(first: str, tmp_path: Path) -> None:
    address = f"ext::touch {tmp_path}/ran"
    with pytest.raises(UserError, match=r"transport 'ext' not allowed"):
        take(address, first, tmp_path)
    assert not (tmp_path / "ran").exists()


def test_versions_are_the_head(address: str, served: Path, tmp_path: Path) -> None:
    head = git(served / "work", "rev-parse", "HEAD")
    assert fetch_git.versions(Source("git", address, "0" * 40), tmp_path) == [head]
