"""`local:` sources: the same files in every clone, in a git repository and without one; whatever else lies there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandkube import nar
from sandkube.build import plan, sources, spec
from sandkube.build.boxes.unboxed import Unboxed
from sandkube.build.builders import go_closure
from sandkube.build.lock import Pin
from sandkube.build.make import Making
from sandkube.build.sources import local
from sandkube.build.sources.kind import Ask
from sandkube.errors import UserError
from tests.odd import bound, deep
from tests.small import let_in

FILES = {"t/main.go": "package t\n", "t/bin/run": "#!/bin/sh\n", "t/deep/er/ü": "ü\n", ".gitignore": "*.o\n/t/made/\n"}
TREE = ["bin/run", "deep/er/ü", "link", "main.go"]


def git(root: Path, *words: str) -> None:
    settings = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *settings, *words], cwd=root, check=True, capture_output=True)


@pytest.fixture(autouse=True)
def _nothing_known() -> None:
    local._lists.clear()


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A checkout that is no git repository."""
    root = tmp_path / "plain"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "t/bin/run").chmod(0o755)
    (root / "t/link").symlink_to("/nonexistent")
    return root


@pytest.fixture
def repository(plain: Path, tmp_path: Path) -> Path:
    """The same files, tracked but for one."""
    root = tmp_path / "repository"
    shutil.copytree(plain, root, symlinks=True)
    git(root, "init", "--quiet")
    git(root, "add", ".gitignore", "t/main.go", "t/bin", "t/link")
    return root


def ask(root: Path, name: str = "t") -> Ask:
    return Ask("tool", sources.parse(f"local:{name}"), Pin(""), root, root / "cache")


def paths(root: Path, name: str = "t") -> list[str]:
    local._lists.clear()
    return list(local.Tree.of(root, name).paths)


def snapshot(root: Path, into: Path, name: str = "t") -> str:
    into.mkdir()
    found = local.KIND.snapshot(ask(root, name), into)
    assert found == nar.nar_hash(into)
    return found


def test_the_same_hash_with_and_without_git(plain: Path, repository: Path, tmp_path: Path) -> None:
    assert paths(plain) == paths(repository) == TREE
    assert local.KIND.identity(ask(plain)) == local.KIND.identity(ask(repository)) == snapshot(plain, tmp_path / "a")
    assert snapshot(repository, tmp_path / "b") == nar.nar_hash(tmp_path / "a")
    assert [oct(path.lstat().st_mode & 0o777) for path in (tmp_path / "b/bin/run", tmp_path / "b/main.go")] == [
        "0o755",
        "0o644",
    ]


@pytest.mark.parametrize(
    "name", [".#main.go", "main.go~", "#main.go#", ".main.go.swp", "__pycache__/a.pyc", "deep/.DS_Store"]
)
def test_what_editors_leave_is_no_source(plain: Path, repository: Path, name: str) -> None:
    for root in (plain, repository):
        (root / "t" / name).parent.mkdir(exist_ok=True)
        (root / "t" / name).symlink_to("user@machine:1:2")
        assert paths(root) == TREE


def test_what_the_repository_ignores_is_no_source(repository: Path) -> None:
    (repository / "t/made").mkdir()
    (repository / "t/made/a").touch()
    (repository / "t/main.o").touch()
    assert paths(repository) == TREE
    git(repository, "add", "--force", "t/main.o")
    assert paths(repository) == [*TREE, "main.o"]
    (repository / "t/main.o").unlink()
    assert paths(repository) == TREE


def test_what_the_user_ignores_is_a_source(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home/git").mkdir(parents=True)
    (tmp_path / "home/git/ignore").write_text("new\n")
    (tmp_path / "home/git/config").write_text("[core]\n excludesFile = ignore\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    (repository / ".git/info/exclude").write_text("new\n")
    git_config = repository / ".git/config"
    git_config.write_text(f"{git_config.read_text()}[core]\n excludesFile = {tmp_path}/home/git/ignore\n")
    (repository / "t/new").touch()
    assert paths(repository) == sorted([*TREE, "new"])


def test_a_repository_around_the_checkout_says_nothing(plain: Path, tmp_path: Path) -> None:
    """As a home folder that is kept in git, with all ignored that is not named."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("*\n")
    assert paths(plain) == TREE


def test_a_repository_inside_is_a_folder(plain: Path, repository: Path) -> None:
    for root in (plain, repository):
        (root / "t/inner").mkdir()
        (root / "t/inner/a").touch()
        git(root / "t/inner", "init", "--quiet")
    assert paths(plain) == paths(repository) == sorted([*TREE, "inner/a"])


def test_a_linked_worktree_is_a_repository(repository: Path, tmp_path: Path) -> None:
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "all")
    git(repository, "worktree", "add", "--quiet", str(tmp_path / "other"))
    (tmp_path / "other/t/main.o").touch()
    assert paths(tmp_path / "other") == TREE


@pytest.mark.parametrize("root", ["plain", "repository"])
def test_the_whole_checkout_leaves_out_what_is_made_in_it(root: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(root)
    for name in ("outputs/store/trees/a", ".venv/bin/python"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    assert paths(folder, ".") == [".gitignore", *(f"t/{each}" for each in TREE)]


@pytest.mark.parametrize("name", ["outputs", "outputs/store", ".venv/lib", ".git"])
def test_what_sandkube_makes_is_no_source(name: str) -> None:
    with pytest.raises(ValueError, match=r"is in what Sandkube itself makes$"):
        sources.parse(f"local:{name}")


@pytest.mark.parametrize("make", [os.mkfifo, bound])
@pytest.mark.parametrize("root", ["plain", "repository"])
def test_what_is_no_file_is_a_sentence(root: str, make: Callable[[Path], None], request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(root)
    make(folder / "t/pipe")
    with pytest.raises(UserError) as raised:
        local.KIND.identity(ask(folder))
    assert str(raised.value) == (
        "recipes/tool.toml: source: t/pipe: neither file, folder nor symbolic link: it cannot be part of a source"
    )


def test_a_name_in_a_source_breaks_no_line(plain: Path) -> None:
    (plain / "recipes").mkdir()
    (plain / "recipes/t.toml").write_text('description = "x"\nsource = "local:t"\n[build]\nkind = "tree"\n')
    os.mkfifo(plain / "t/a\nb")
    one = plan.load(plain)
    with pytest.raises(UserError, match=r"^recipes/t\.toml: source: t/a\\nb: neither file, folder nor symbolic link: "):
        plan.source_hash(one, one.recipes["t"])


@pytest.mark.parametrize("root", ["plain", "repository"])
def test_folders_without_an_end_are_a_sentence(root: str, request: pytest.FixtureRequest) -> None:
    """Whoever asks: for a key, for a copy, or for what chooses modules. git lists what it can name."""
    folder: Path = request.getfixturevalue(root)
    (folder / "recipes").mkdir()
    text = 'description = "x"\nsource = "local:t"\n[build]\nkind = "%s"\n%s'
    (folder / "recipes/t.toml").write_text(text % ("tree", ""))
    (folder / "recipes/g.toml").write_text(text % ("go", 'packages = ["."]\n'))
    (folder / "recipes/go.toml").write_text(text % ("tree", ""))
    (folder / "staging").mkdir()
    one = plan.load(folder)
    derived = plan.derivation_of(one, "t", lambda _: "")
    making = Making.of(one, "t", derived, {}, ask(folder), folder / "cache", folder / "staging", Unboxed())
    one.identities.clear()
    local._lists.clear()
    said = r"^recipes/%s\.toml: source: local:t: has folders more than 200 deep in each other$"
    with deep(folder / "t"):
        with pytest.raises(UserError, match=said % "t"):
            plan.source_hash(one, one.recipes["t"])
        with pytest.raises(UserError, match=said % "t"):
            making.snapshot()
        with pytest.raises(UserError, match=said % "g"):
            spec.spec_digest(one.recipes["g"], folder)


@pytest.fixture
def ordinary(plain: Path) -> Iterator[None]:
    """Goes on as a user who may not read everything, and who gets as far as the folder."""
    if os.geteuid() != 0:
        yield
        return
    let_in(plain)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_file_is_a_sentence(plain: Path, request: pytest.FixtureRequest) -> None:
    (plain / "t/main.go").chmod(0)
    (plain / "t").chmod(0o755)
    request.getfixturevalue("ordinary")
    with pytest.raises(UserError, match=r"^recipes/tool.toml: source: .*/t/main.go: Permission denied$"):
        local.KIND.identity(ask(plain))


def test_a_file_that_goes_away_is_a_sentence(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = local.Tree.of(plain, "t")
    (plain / "t/main.go").unlink()
    monkeypatch.setattr(local.Tree, "of", lambda *_words, **_named: tree)
    calls: tuple[Callable[[], str], ...] = (
        lambda: local.KIND.identity(ask(plain)),
        lambda: snapshot(plain, tmp_path / "a"),
    )
    for call in calls:
        with pytest.raises(UserError, match=r"^recipes/tool.toml: source: .*t/main.go: went away while it was read\n"):
            call()


def test_a_link_out_of_the_checkout_is_no_folder_of_it(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (plain / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"out leaves the repository through a symbolic link$"):
        local.KIND.identity(ask(plain, "out"))


def test_git_that_cannot_list_is_a_sentence(repository: Path) -> None:
    (repository / ".git/index").write_text("no index")
    with pytest.raises(UserError, match=r"^recipes/tool.toml: source: git does not list the files of .*: fatal: "):
        local.KIND.identity(ask(repository))


def test_a_snapshot_sees_a_file_that_is_new(repository: Path, tmp_path: Path) -> None:
    """Git was asked a moment ago for another recipe's sake; then the snapshot differs, and the next hash agrees."""
    before = local.KIND.identity(ask(repository))
    (repository / "t/new").touch()
    after = snapshot(repository, tmp_path / "a")
    assert after != before
    assert local.KIND.identity(ask(repository)) == after


def test_hashing_copies_nothing_and_hears_an_interrupt(plain: Path) -> None:
    """A sparse file of 1 TB would take an hour to hash, and more disk than there is."""
    with (plain / "t/large").open("wb") as file:
        file.truncate(1 << 40)
    code = (
        "import signal, sys, threading; from pathlib import Path\n"
        "from sandkube.build import sources; from sandkube.build.lock import Pin\n"
        "from sandkube.build.sources.kind import Ask; from sandkube.run import Interrupted, stop_children\n"
        "signal.signal(signal.SIGINT, lambda number, frame: stop_children())\n"
        "one = Ask('tool', sources.parse('local:t'), Pin(''), Path(sys.argv[1]), Path('/')); print('up', flush=True)\n"
        "try: sources.KINDS['local'].identity(one)\n"
        "except Interrupted: print('interrupted')"
    )
    words = [sys.executable, "-c", code, str(plain)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        assert said == "interrupted\n"


def test_what_is_no_source_chooses_no_module(repository: Path) -> None:
    """The pins of a Go program come from the imports of its source, and of nothing that lies beside it."""
    (repository / "t/main.go").write_text('package t\n\nimport "example.org/used"\n')
    for name in ("t/made/a.go", "t/.#b.go", "t/c.go~", "t/__pycache__/d.go"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text('package t\n\nimport "example.org/unused"\n')
    assert go_closure._imports(repository, "t") == ["example.org/used"]
