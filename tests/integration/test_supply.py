"""Sources without upstream: from vendored folders offline, and from shared caches when upstream has them no more."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandkube.build.cache import web
from sandkube.build.cache.folder import Folder
from sandkube.build.cache.http import Http
from sandkube.build.cache.kind import SourceCache
from sandkube.build.cache.threads import Threads
from sandkube.build.cache.web import Web
from sandkube.build.lock import File, Module, Pin
from sandkube.build.sources import Ask, Source, git, go, go_zip, parts
from sandkube.build.sources.go_zip import zip_h1
from sandkube.errors import Unusable, UserError
from tests.servers import (
    Drip,
    Reset,
    Served,
    Silent,
    Status,
    file_server,
    go_module,
    only_loopback,
    running,
    wheel,
    zip_of,
)
from tests.small import Said, Small, small

TREE = 'description = "d"\nsource = "%s"\n[build]\nkind = "tree"\n'
WORDS, SECOND = zip_of({"w-1/words": b"some words\n"}), zip_of({"more": b"more\n"})
WHEEL, OF_WHEEL = wheel("demo", "1.0")
ALONE = ("unshare", "--user", "--map-root-user", "--net")
"""A network namespace with nothing in it, not even loopback."""
NO_NAMESPACE = (
    not shutil.which("unshare") or subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode != 0
)


def pin(name: str, content: bytes) -> Pin:
    return Pin("", files=(File(name, hashlib.sha256(content).hexdigest(), len(content)),))


PINS = {"words": pin("words-1.zip", WORDS), "more": pin("more.zip", SECOND), "demo": pin(WHEEL, OF_WHEEL)}


@dataclass(frozen=True)
class Upstream:
    """A server that has all sources, and checkouts whose recipes name it."""

    served: Served
    base: Path

    def checkout(self, name: str, env: Mapping[str, str], *names: str) -> Small:
        """A clone with an empty home; with some of the recipes, if they are named."""
        recipes = {
            "words": TREE % f"url:{self.served.address}/words-1.zip",
            "more": TREE % f"url:{self.served.address}/more.zip",
            "demo": TREE % "pypi:demo@1.0",
        }
        one = small(self.base / name, {each: recipes[each] for each in names or recipes}, PINS)
        return dataclasses.replace(one, env={**one.env, "PIP_CONFIG_FILE": "/dev/null", **env})


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    page = f'<!DOCTYPE html><html><body><a href="/files/{WHEEL}">{WHEEL}</a></body></html>'.encode()
    files = {"/words-1.zip": WORDS, "/more.zip": SECOND, f"/files/{WHEEL}": OF_WHEEL, "/simple/demo/": page}
    with file_server(files) as served:
        yield Upstream(served, tmp_path)


def done(said: Said) -> Said:
    assert said.status == 0, said.err
    return said


@pytest.mark.skipif(NO_NAMESPACE, reason="no network namespace of its own can be had here")
def test_offline_from_a_vendored_folder(upstream: Upstream) -> None:
    """In a place without any network, with an empty home, in another clone."""
    folder = upstream.base / "vendored"
    one = upstream.checkout("one", {"PIP_INDEX_URL": f"{upstream.served.address}/simple/"})
    said = done(one.do("vendor", str(folder)))
    assert "3 files of 3 sources" in said.err
    assert f"SANDKUBE_CACHE=file://{folder} ./do build --offline" in said.out
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {p.files[0].sha256 for p in PINS.values()}
    asked = len(upstream.served.seen)
    other = dataclasses.replace(upstream.checkout("other", {"SANDKUBE_CACHE": f"file://{folder}"}), before=ALONE)
    assert {*done(other.do("build", "--offline")).steps()} == {*PINS}
    assert (other.folder / "outputs/result/words/words").read_text() == "some words\n"
    assert len(upstream.served.seen) == asked
    assert other.do("build", "--offline").steps() == {}


def test_a_vendored_folder_is_mended(upstream: Upstream) -> None:
    folder, name = upstream.base / "vendored", PINS["words"].files[0].sha256
    one = upstream.checkout("one", {}, "words", "more")
    done(one.do("vendor", str(folder)))
    (folder / "sources" / name).write_bytes(b"EVIL")
    said = done(one.do("vendor", str(folder)))
    assert re.findall(r"(\S+) was damaged in the folder; it is put there anew\n", said.err) == ["words-1.zip"]
    assert (folder / "sources" / name).read_bytes() == WORDS


def test_offline_what_is_missing_is_named(upstream: Upstream) -> None:
    """Upstream would answer, and is not asked; neither is a cache that is reached by a network."""
    env = {"SANDKUBE_CACHE": f"file://{upstream.base}/nothing {upstream.served.address}/cache"}
    one = upstream.checkout("one", env, "words")
    for words, more in ((("build", "--offline"), {}), (("build",), {"SANDKUBE_OFFLINE": "1"})):
        said = dataclasses.replace(one, env={**one.env, **more}).do(*words)
        assert said.status == 1
        assert re.search(
            r"words: offline, and no cache has words-1\.zip\n  hint: \./do vendor DIR, where there is a network, puts "
            r"all sources into a folder; here SANDKUBE_CACHE=file:///DIR names it",
            said.err,
        ), said.err
    assert upstream.served.seen == []
    offline = dataclasses.replace(one, env={**one.env, "SANDKUBE_OFFLINE": "1"})
    for verb in (("lock",), ("vendor", str(upstream.base / "v"))):
        assert f"error: {verb[0]}: offline, and it is about what the network has\n" in offline.do(*verb).err
    assert "no cache has words-1.zip" in one.do("export", "words", "words.tar", "--unsigned", "--offline").err
    assert upstream.served.seen == []
    assert {*done(one.do("build")).steps()} == {"words"}
    assert done(offline.do("build")).steps() == {}


def test_what_upstream_has_no_more_comes_from_a_cache(upstream: Upstream) -> None:
    """Who fetches first gives it to the caches, without a key; the hash is all that counts."""
    cache = upstream.base / "cache"
    one = upstream.checkout("one", {"SANDKUBE_CACHE": f"file://{cache}?write"}, "words", "more")
    done(one.do("build"))
    kept = {path.name: path.read_bytes() for path in (cache / "sources").iterdir()}
    assert kept == {PINS["words"].files[0].sha256: WORDS, PINS["more"].files[0].sha256: SECOND}
    upstream.served.faults["/words-1.zip"] = [Status(404)]
    (cache / "sources" / PINS["more"].files[0].sha256).write_bytes(b"EVIL")
    upstream.served.seen.clear()
    other = upstream.checkout("other", {"SANDKUBE_CACHE": f"file://{cache}"}, "words")
    said = done(other.do("build"))
    assert (other.folder / "outputs/result/words/words").read_text() == "some words\n"
    assert f"cache file://{cache}: 1 files of sources fetched (0.0 MB)\n" in said.err
    assert upstream.served.seen == []
    third = upstream.checkout("third", {"SANDKUBE_CACHE": f"file://{cache}"}, "more")
    said = done(third.do("build"))
    assert re.search(r"1 faults with sources, the first: source \w{12} has other bytes\n", said.err)
    assert (third.folder / "outputs/result/more/more").read_text() == "more\n"
    fourth = upstream.checkout("fourth", {"SANDKUBE_CACHE": f"file://{cache}?write"}, "more")
    done(fourth.do("build"))
    assert (cache / "sources" / PINS["more"].files[0].sha256).read_bytes() == SECOND


def test_sources_are_pushed_by_hand(upstream: Upstream) -> None:
    """Those that were fetched before there was a cache."""
    cache = upstream.base / "cache"
    one = upstream.checkout("one", {}, "words", "more")
    done(one.do("build", "words"))
    done(one.do("key", "new", "me"))
    pushing = dataclasses.replace(one, env={**one.env, "SANDKUBE_CACHE": f"file://{cache}?write"})
    assert "1 of 2 steps were there" in done(pushing.do("cache", "push")).err
    assert [path.name for path in (cache / "sources").iterdir()] == [PINS["words"].files[0].sha256]
    assert "pushed\n" not in done(pushing.do("cache", "push")).err.replace("to be pushed", "")


class Kept(Silent):
    """GET, HEAD and PUT of whatever comes."""

    files: dict[str, bytes]
    status = 0

    def _say(self, status: int, body: bytes = b"") -> None:
        self.send_response(self.status or status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):  # who asked has read enough
                self.wfile.write(body)

    def do_GET(self) -> None:
        self._say(200 if self.path in self.files else 404, self.files.get(self.path, b""))

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.files[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._say(201)


@pytest.fixture
def kept() -> Iterator[tuple[str, type[Kept]]]:
    """A server of one's own: its address, and what it keeps."""

    class Own(Kept):
        files: dict[str, bytes] = {}  # noqa: RUF012

    with running(Own) as server:
        yield f"http://127.0.0.1:{server.server_port}", Own


@pytest.mark.parametrize("kind", ["folder", "http"])
def test_caches_of_sources(kind: str, kept: tuple[str, type[Kept]], tmp_path: Path) -> None:
    one: SourceCache = Folder(tmp_path / "cache") if kind == "folder" else Http(kept[0], Web({}))
    content = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(content)
    assert not one.has_source("a")
    with (tmp_path / "got").open("w+b") as sink:
        assert not one.source("a", sink, 10)
        one.put_source("a", tmp_path / "file")
        assert one.has_source("a")
        assert one.source("a", sink, len(content))
    assert (tmp_path / "got").read_bytes() == content
    with (tmp_path / "got").open("w+b") as sink:
        assert one.source("a", sink, 1000)
        assert 1000 < sink.tell() < len(content), "no more than a piece above the limit is read"


def test_what_is_no_file_waits_for_nobody(tmp_path: Path) -> None:
    """A FIFO in a folder that several may write would keep a build until somebody writes to it."""
    (tmp_path / "sources").mkdir()
    os.mkfifo(tmp_path / "sources/a")
    pool = Threads(1, "test")
    with (tmp_path / "got").open("w+b") as sink:
        asked = pool.submit(Folder(tmp_path).source, "a", sink, 10)
        with pytest.raises(Unusable, match=r"sources/a: is no regular file$"):
            asked.result(30)


def test_a_source_that_is_cut_is_asked_for_again(tmp_path: Path) -> None:
    """From its start, whatever came before."""
    content = bytes(range(256)) * 9000
    with file_server({"/sources/a": content}) as served, (tmp_path / "got").open("w+b") as sink:
        served.faults["/sources/a"] = [Reset(100_000), Status(503)]
        assert Http(served.address, Web({})).source("a", sink, len(content))
    assert (tmp_path / "got").read_bytes() == content


def test_a_source_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is no silence."""
    monkeypatch.setattr(web, "PATIENCE", 0.2)
    with file_server({"/sources/a": b"x" * 4000}) as served, (tmp_path / "got").open("w+b") as sink:
        served.faults["/sources/a"] = [Drip(0.002)]
        with pytest.raises(Unusable, match=r"^127\.0\.0\.1: less than 1024 bytes a second$"):
            Http(served.address, Web({})).source("a", sink, 4000)


def test_a_server_that_refuses_sources_keeps_its_records(upstream: Upstream, kept: tuple[str, type[Kept]]) -> None:
    kept[1].status = 403
    one = upstream.checkout("one", {"SANDKUBE_CACHE": f"{kept[0]}?write"}, "words")
    said = done(one.do("build"))
    assert re.search(r"2 faults with sources, the first: 127\.0\.0\.1: status 403", said.err)
    assert "not asked any more\n" not in said.err
    with pytest.raises(Unusable, match="status 403"):
        Http(kept[0], Web({})).put_source("a", one.folder / "lock.json")


def test_go_modules_are_known_by_their_sums(tmp_path: Path) -> None:
    """Those that go itself gives this module: zip, go.mod; a damaged or absent one is not at hand."""
    files = go_module("example.com/Demo", "v1.2.3", {"demo.go": "package demo\n"})
    folder = tmp_path / "gomod/cache/download/example.com/!demo/@v"
    folder.mkdir(parents=True)
    for path, content in files.items():
        (folder / path.rpartition("/")[2]).write_bytes(content)
    h1, mod = zip_h1(folder / "v1.2.3.zip"), go._hash1([("go.mod", folder / "v1.2.3.mod")])
    one = Module("example.com/Demo", "v1.2.3", h1, mod)
    unpacked = tmp_path / "gomod/example.com/!demo@v1.2.3"
    unpacked.mkdir(parents=True)
    (unpacked / "demo.go").write_text("package demo\n")
    (unpacked / "go.mod").write_bytes((folder / "v1.2.3.mod").read_bytes())
    assert h1 == go.tree_h1(one, unpacked)
    ask = Ask("demo", Source("go", one.path, one.version), Pin("", h1=h1, mod=mod, modules=(one,)), tmp_path, tmp_path)
    (kind,) = parts.parts_of(ask)
    assert [each.label for each in kind.all()] == [
        f"{each}example.com/Demo@v1.2.3" for each in ("go.mod of ", "Go module ")
    ]
    assert [each.limit for each in kind.all()] == [16 << 20, 500 << 20]
    assert kind.lacking() == []
    assert [kind.at_hand(each, tmp_path) for each in kind.all()] == [folder / "v1.2.3.mod", folder / "v1.2.3.zip"]
    (folder / "v1.2.3.zip").write_bytes(b"damaged")
    assert [kind.at_hand(each, tmp_path) for each in kind.all()] == [folder / "v1.2.3.mod", None]


ZIPS: dict[str, tuple[int, int, str, int]] = {
    "sound": (zipfile.ZIP_DEFLATED, 2, "name", 3),
    "many files": (zipfile.ZIP_STORED, 11, "n", 0),
    "long names": (zipfile.ZIP_STORED, 2, "n" * 1000, 0),
    "another compression": (zipfile.ZIP_LZMA, 2, "name", 3),
    "unpacks to much": (zipfile.ZIP_DEFLATED, 2, "name", 3000),
}
"""How files are compressed, how many there are, their names' start, bytes of each."""


@pytest.mark.parametrize("kind", ZIPS)
def test_zips_that_take_too_much(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What go does not take either; a list of files is not read that is too long."""
    compression, count, name, size = ZIPS[kind]
    with zipfile.ZipFile(tmp_path / "zip", "w", compression) as made:
        for number in range(count):
            made.writestr(f"{name}{number}", bytes(size))
    h1 = zip_h1(tmp_path / "zip")
    assert bool(h1) == (kind != "another compression")
    for limit, value in (("ENTRIES", 10), ("_DIRECTORY", 1000), ("_LIMIT", 5000)):
        monkeypatch.setattr(go_zip, limit, value)
    if "files" in kind or "names" in kind:
        monkeypatch.setattr(zipfile, "ZipFile", None)
    assert zip_h1(tmp_path / "zip") == (h1 if kind == "sound" else "")


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e", *words],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def _fails(*_words: object) -> str:
    raise git._Failed("fatal: full")


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], parts.Commit]:
    """Gives the second commit of a repository, in a cache of that name."""
    only_loopback(monkeypatch, tmp_path)
    there = tmp_path / "there"
    there.mkdir()
    _git(there, "init", "--quiet")
    for text in ("first", "second"):
        (there / "file").write_text(text)
        _git(there, "add", ".")
        _git(there, "commit", "--quiet", "--message", text)
    source = Source("git", there.as_uri(), _git(there, "rev-parse", "HEAD"))
    pinned = Pin("", commit=source.version, tree=_git(there, "rev-parse", "HEAD^{tree}"))
    return lambda cache: parts.Commit("demo", source, pinned, tmp_path / cache)


def _ask(one: parts.Commit) -> Ask:
    return Ask(one.recipe, one.source, one.pin, one.cache, one.cache)


def test_a_commit_travels_as_a_pack(
    committed: Callable[[str], parts.Commit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = committed("one"), committed("other")
    assert parts.parts_of(_ask(one)) == [one]
    (part,) = one.all()
    assert (part.name, [*one.lacking()], one.at_hand(part, tmp_path)) == (f"git-{one.pin.commit}", [part], None)
    git.KIND.fetch(_ask(one))
    (tmp_path / "packed").mkdir()
    pack = one.at_hand(part, tmp_path / "packed")
    assert pack is not None
    assert one.lacking() == [], "who packs it leaves the repository as it was read"
    with monkeypatch.context() as broken:
        broken.setattr(git, "_git", _fails)
        with pytest.raises(UserError, match=rf"demo: git could not pack {part.label}: fatal: full$"):
            one.at_hand(part, tmp_path / "packed")
    (tmp_path / "there").rename(tmp_path / "gone")
    with pytest.raises(UserError):
        git.KIND.fetch(_ask(other))
    bad = tmp_path / "bad"
    bad.write_bytes(pack.read_bytes()[:-3] + b"bad")
    assert [other.is_sound(part.name, each) for each in (bad, tmp_path / "gone/file", pack)] == [False, False, True]
    other.take({part.name: pack})
    assert other.lacking() == []
    git.KIND.fetch(_ask(other))
    (tmp_path / "into").mkdir()
    assert git.KIND.snapshot(_ask(other), tmp_path / "into") == git.KIND.identity(_ask(other))
    assert (tmp_path / "into/file").read_text() == "second"


def test_a_full_disk_is_no_damage_of_a_repository(
    committed: Callable[[str], parts.Commit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps all that other recipes need; one that is damaged is made anew."""
    one = committed("one")
    git.KIND.fetch(_ask(one))
    (part,) = one.all()
    (tmp_path / "packed").mkdir()
    pack = one.at_hand(part, tmp_path / "packed")
    assert pack is not None
    (tmp_path / "there").rename(tmp_path / "gone")
    with monkeypatch.context() as full:
        real = git._git
        full.setattr(
            git, "_git", lambda at, *each, **more: _fails() if "index-pack" in each else real(at, *each, **more)
        )
        with pytest.raises(UserError, match=rf"^demo: git could not take in commit {one.pin.commit[:12]}: fatal: full"):
            one.take({part.name: pack})
    assert one.lacking() == [], "a full disk is no damage"
    (repository,) = (tmp_path / "one/git").glob("*/")
    (repository / "HEAD").write_text("damaged")
    one.take({part.name: pack})
    assert [path.name for path in (tmp_path / "one/git").glob("*/")] == [repository.name]
    assert one.lacking() == []
