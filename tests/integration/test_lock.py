"""`./do lock` from end to end: a made-up project in a clone, whose sources are served on loopback."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clones import Clone, clone
from tests.servers import Served, file_server, git_server, wheel

WHO = ("-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgSign=false", "-c", "init.defaultBranch=main")
VERSIONS = ("0.9", "1.0", "1.1")


def git(folder: Path, *words: str) -> str:
    """Run git in a folder; its output."""
    argv = ["git", *WHO, *words]
    return subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def archive_of(text: str) -> bytes:
    """A tar.gz with one file in one folder."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        member = tarfile.TarInfo("words-1/words")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(sink.getvalue(), mtime=0)


@dataclass(frozen=True)
class Project:
    """The clone, the server of its files, the work tree that its git repository is served from."""

    one: Clone
    served: Served
    work: Path
    git_address: str

    @property
    def lock(self) -> dict[str, Any]:
        """What lock.json says of each recipe."""
        found: dict[str, Any] = json.loads((self.one.folder / "lock.json").read_text())["recipes"]
        return found

    def commit(self, text: str) -> str:
        """A commit more in the served repository; its name."""
        (self.work / "page").write_text(text)
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "--message", text)
        git(self.work, "push", "--quiet", str(self.work.parent / "pages.git"), "HEAD:refs/heads/main")
        return git(self.work, "rev-parse", "HEAD")

    def write(self, name: str, source: str, build: str = 'kind = "tree"\n') -> Path:
        """Write a recipe."""
        path = self.one.folder / f"recipes/{name}.toml"
        line = f'source = "{source}" # kept\n' if source else ""
        path.write_text(f'# Kept.\ndescription = "What {name} is for."\n{line}\n[build]\n{build}')
        return path

    def begin(self) -> None:
        """The recipes as they are at first, and the lock of them."""
        for old in (self.one.folder / "recipes").iterdir():
            old.unlink()
        shutil.rmtree(self.one.folder / "patches", ignore_errors=True)
        (self.one.folder / "lock.json").unlink(missing_ok=True)
        self.served.files["/words-1.tar.gz"] = archive_of("first\n")
        self.write("words", f"url:{self.served.address}/words-1.tar.gz")
        self.write("pages", f"git:{self.git_address}/pages.git@{git(self.work, 'rev-list', '--max-parents=0', 'HEAD')}")
        self.write("demo", "pypi:demo@1.0")
        self.write("own", "local:native/podnet")
        row = '{from = "%s", path = ".", to = "%s"}'
        rows = ", ".join(row % (name, name) for name in ("words", "pages", "demo"))
        self.write("top", "", f'kind = "rootfs"\ninstall = [{rows}]\n')
        self.one.do("lock")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    base = tmp_path_factory.mktemp("lock")
    one = clone(base, "clone")
    one.do("help")  # .venv comes from the index of this machine
    work = base / "served/work"
    git(base, "init", "--quiet", str(work))
    git(base, "init", "--quiet", "--bare", str(work.parent / "pages.git"))
    git(work.parent / "pages.git", "config", "uploadpack.allowAnySHA1InWant", "true")
    wheels = [wheel("demo", each) for each in VERSIONS]
    page = "".join(f'<a href="/files/{name}">{name}</a>' for name, _ in wheels)
    files = {"/simple/demo/": f"<!DOCTYPE html><html><body>{page}</body></html>".encode()}
    files |= {f"/files/{name}": content for name, content in wheels}
    with file_server(files) as served, git_server(work.parent) as git_address:
        alone = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "")
        env = {**alone, "PIP_INDEX_URL": f"{served.address}/simple/", "PIP_CONFIG_FILE": "/dev/null", "NO_PROXY": "*"}
        found = Project(dataclasses.replace(one, env=env), served, work, git_address)
        found.commit("first")
        yield found


@pytest.fixture
def project(made: Project) -> Project:
    """The made-up project as it is at first, with a lock."""
    made.begin()
    return made


def test_every_source_is_pinned_and_the_pins_are_kept(project: Project) -> None:
    one = project.one
    assert project.lock.keys() == {"words", "pages", "demo", "own"}
    before = (one.folder / "lock.json").read_bytes()
    assert "nothing changed" in one.do("lock")
    assert "lock.json matches the recipes" in one.do("lock", "--check")
    assert (one.folder / "lock.json").read_bytes() == before
    one.do("build")
    assert (one.folder / "outputs/result/top/words/words").read_text() == "first\n"
    assert (one.folder / "outputs/result/top/pages/page").read_text() == "first"
    assert "What demo is for." in one.result("list")


def test_a_recipe_that_moved_on_is_told_and_pinned_alone(project: Project) -> None:
    before = project.lock
    project.write("demo", "pypi:demo@0.9")
    said = project.one.do("lock", "--check", status=1)
    assert "recipes/demo.toml: pypi:demo@0.9 and what chooses its modules do not match the pin of demo" in said
    assert "run ./do lock" in project.one.do("build", status=1)
    assert "pins that moved: demo\n" in project.one.do("lock")
    assert {name for name, pin in project.lock.items() if pin != before[name]} == {"demo"}
    assert project.lock["demo"]["source"]["files"][0]["name"] == "demo-0.9-py3-none-any.whl"


@pytest.mark.parametrize(("wanted", "version"), [("demo", "1.1"), ("demo@0.9", "0.9")])
def test_a_wheel_is_upgraded_and_nothing_else(project: Project, wanted: str, version: str) -> None:
    path, before = project.one.folder / "recipes/demo.toml", project.lock
    text = path.read_text()
    assert f"demo: 1.0 -> {version}" in project.one.do("lock", "--upgrade", wanted)
    assert path.read_text() == text.replace("demo@1.0", f"demo@{version}")
    assert {name for name, pin in project.lock.items() if pin != before[name]} == {"demo"}
    project.one.do("lock", "--check")


def test_a_commit_is_upgraded(project: Project) -> None:
    newest = project.commit("second")
    project.one.do("lock", "--upgrade", "pages")
    assert project.lock["pages"]["source"]["commit"] == newest
    assert newest in (project.one.folder / "recipes/pages.toml").read_text()


def test_a_file_is_pinned_anew_when_asked_and_refused_when_not(project: Project) -> None:
    before = project.lock["words"]
    project.served.files["/words-1.tar.gz"] = archive_of("second\n")
    assert "nothing changed" in project.one.do("lock")
    shutil.rmtree(project.one.home / ".cache/sandkube/blobs")
    shutil.rmtree(project.one.folder / "outputs/store", ignore_errors=True)
    assert "the bytes do not match their pin" in project.one.do("build", "words", status=1)
    assert "its pin is made anew" in project.one.do("lock", "--upgrade", "words")
    assert project.lock["words"] != before
    project.one.do("build", "words")
    assert (project.one.folder / "outputs/result/words/words").read_text() == "second\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--upgrade", "dmeo"), "no recipe 'dmeo' (did you mean demo?)"),
        (("--upgrade", "top"), "top: is composed of other outputs and has no version"),
        (("--upgrade", "demo@7"), "pip could not fetch demo==7"),
        (("--upgrade", "demo@1 --x"), "'1 --x' is no version of a project"),
        (("--upgrade", f"pages@{'0' * 40}"), f"has no commit {'0' * 40}"),
        (("demo",), "lock takes no argument, got 'demo'"),
    ],
)
def test_what_cannot_be_pinned_is_a_sentence(project: Project, words: tuple[str, ...], sentence: str) -> None:
    before = (project.one.folder / "lock.json").read_bytes()
    said = project.one.do("lock", *words, status=1)
    assert sentence in said
    assert "Traceback" not in said
    assert (project.one.folder / "lock.json").read_bytes() == before


def conflict(project: Project) -> None:
    """Leave lock.json as a merge does where both sides moved a pin."""
    folder = project.one.folder
    if not (folder / ".git").is_dir():
        git(folder, "init", "--quiet")
    git(folder, "checkout", "--quiet", "--orphan", "ours")
    git(folder, "add", "--all", "recipes", "lock.json")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "base")
    git(folder, "branch", "--force", "main")
    for branch, version in (("ours", "0.9"), ("theirs", "1.1")):
        git(folder, "checkout", "--quiet", "-B", branch, "main")
        project.one.do("lock", "--upgrade", f"demo@{version}")
        git(folder, "commit", "--quiet", "--all", "--message", version)
    git(folder, "checkout", "--quiet", "ours")
    done = subprocess.run(["git", *WHO, "merge", "--quiet", "theirs"], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 1
    git(folder, "checkout", "--theirs", "recipes/demo.toml")


def test_the_hint_after_a_conflict_works(project: Project) -> None:
    """Conflict markers in lock.json: what the hint names brings the project back."""
    conflict(project)
    for words in (("lock",), ("lock", "--check"), ("build",)):
        said = project.one.do(*words, status=1)
        assert re.search(r"lock\.json: line \d+: <<<<<<< is a marker of an unfinished merge", said)
    found = re.search(r"hint: (git checkout [^,]*lock\.json)", said)
    assert found is not None
    git(project.one.folder, *shlex.split(found[1])[1:])
    assert "pins that moved: demo\n" in project.one.do("lock")
    assert project.lock["demo"]["source"]["files"][0]["name"] == "demo-1.1-py3-none-any.whl"
    (project.one.folder / "lock.json").unlink()
    project.one.do("lock")
    project.one.do("lock", "--check")


def test_what_is_left_over_is_told(project: Project) -> None:
    one = project.one
    one.do("build")
    (one.folder / "patches/demo").mkdir(parents=True)
    (one.folder / "patches/demo/1.patch").touch()
    warning = "warning: patches/demo/1.patch: is not used: recipes/demo.toml does not list it"
    for words in (("build",), ("lock",), ("lock", "--check")):
        assert one.do(*words).count(warning) == 1
    (one.folder / "recipes/own.toml").unlink()
    assert "lock.json: own is pinned, but no such recipe has a source" in one.do("build", status=1)
    one.do("lock")
    assert "outputs/result/own is removed: there is no recipe own any more" in one.do("build")
    assert not (one.folder / "outputs/result/own").is_symlink()


def test_without_a_server_nothing_is_lost(project: Project) -> None:
    before = (project.one.folder / "lock.json").read_bytes()
    with file_server() as gone:
        address = gone.address
    project.write("words", f"url:{address}/words-1.tar.gz")
    said = project.one.do("lock", status=1)
    assert "words: no address could be fetched" in said
    assert "is the network reachable?" in said
    assert (project.one.folder / "lock.json").read_bytes() == before
