"""Files of sources in caches: what is wrong with one costs that one, what is wrong with a cache costs no step."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from sandkube import run
from sandkube.build.cache.folder import Folder
from sandkube.build.cache.place import Place
from sandkube.build.cache.push import Pusher
from sandkube.build.cache.settings import Setting
from sandkube.build.cache.shared import Shared
from sandkube.build.cache.stock import Stock
from sandkube.build.cache.threads import Threads, result
from sandkube.build.lock import File, Pin
from sandkube.build.sources import Ask, Source
from sandkube.build.supply import Supply
from sandkube.digest import sha256_bytes, sha256_file
from sandkube.errors import Unusable, UserError
from tests.caches import Person

FULL = OSError(errno.ENOSPC, "No space left on device")
CONTENTS = [b"a", b"bb", b"ccc", b"dddd", b"eeeee"]
WANTED = [(sha256_bytes(each), len(each)) for each in CONTENTS]


def sound(name: str, path: Path) -> bool:
    return sha256_file(path) == name


@pytest.fixture
def me(tmp_path: Path) -> Person:
    return Person.at(tmp_path / "me")


@pytest.fixture
def got(tmp_path: Path) -> Path:
    (folder := tmp_path / "got").mkdir()
    return folder


def filled(at: Path, *wrong: int) -> str:
    """A folder with all sources, these of them with other bytes; its address."""
    (at / "sources").mkdir(parents=True)
    for number, each in enumerate(CONTENTS):
        (at / "sources" / sha256_bytes(each)).write_bytes(b"EVIL"[: len(each)] if number in wrong else each)
    return f"file://{at}"


def odd(caches: Shared, ask: Callable[[str, BinaryIO], bool]) -> Place:
    """Put such a cache before the others."""

    class Own(Folder):
        def source(self, name: str, sink: BinaryIO, _limit: int) -> bool:
            return ask(name, sink)

    place = Place(Setting("file:///odd"), Own(Path("/nonexistent")), ())
    caches.places.insert(0, place)
    return place


def test_a_wrong_file_costs_itself(me: Person, tmp_path: Path, got: Path) -> None:
    """And is put anew by who may write, from upstream."""
    address = filled(tmp_path / "cache", 1)
    caches = me.caches(f"{address}?write")
    stock = Stock(caches)
    found = dict(stock.find_all(WANTED, got, sound))
    assert {*found} == {name for name, _ in WANTED} - {WANTED[1][0]}
    assert found == dict(stock.find_all(WANTED, got, sound))
    (place,) = caches.places
    assert (place.sources, place.usable, place.has_sources) == (8, True, True)
    name = WANTED[1][0]
    assert [*caches.report()][0].endswith(f"; 1 faults with sources, the first: source {name[:12]} has other bytes")
    (tmp_path / "upstream").write_bytes(CONTENTS[1])
    stock.give(name, lambda: tmp_path / "upstream")
    assert (tmp_path / "cache/sources" / name).read_bytes() == CONTENTS[1]
    assert len(Stock(me.caches(address)).find_all(WANTED, got, sound)) == len(WANTED)


def test_three_wrong_files_are_enough(me: Person, tmp_path: Path, got: Path) -> None:
    """It is not asked any more, and is given still what mends it."""
    caches = me.caches(f"{filled(tmp_path / 'cache', 0, 1, 2, 3)}?write")
    stock = Stock(caches)
    for each in WANTED:
        stock.find_all([each], got, sound)
    (place,) = caches.places
    assert (place.sources, place.has_sources, place.usable, stock.writable()) == (0, False, True, True)
    assert "not asked for sources any more" in next(iter(caches.report()))
    (tmp_path / "upstream").write_bytes(CONTENTS[0])
    stock.give(WANTED[0][0], lambda: tmp_path / "upstream")
    assert (tmp_path / "cache/sources" / WANTED[0][0]).read_bytes() == CONTENTS[0]


def test_a_cache_that_fills_the_disk(me: Person, tmp_path: Path, got: Path) -> None:
    caches = me.caches(filled(tmp_path / "cache"))

    def endless(_name: str, sink: BinaryIO) -> bool:
        sink.write(b"x" * 1000)
        raise FULL

    place = odd(caches, endless)
    found = dict(Stock(caches).find_all(WANTED[:1], got, sound))
    assert found[WANTED[0][0]].read_bytes() == CONTENTS[0]
    assert place.source_fault == "No space left on device"

    def bad(_name: str, _path: Path) -> bool:
        raise FULL

    assert Stock(caches).find_all(WANTED[:1], got, bad) == []
    assert [*got.iterdir()] == []


def test_who_is_asked_to_stop_leaves_nobody_behind(
    me: Person, tmp_path: Path, got: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = me.caches(filled(tmp_path / "cache"))
    asked, inside = threading.Semaphore(0), set()

    def slow(name: str, _sink: BinaryIO) -> bool:
        inside.add(name)
        asked.release()
        try:
            while True:  # as a body that comes byte by byte
                run.go_on()
                time.sleep(0.001)
        finally:
            inside.remove(name)

    odd(caches, slow)
    many = [(f"{number:064}", 10) for number in range(30)]

    def stop() -> None:
        for _ in range(8):
            asked.acquire()
        monkeypatch.setattr(run, "_asked", True)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(run.Interrupted):
        Stock(caches).find_all(many, got, sound)
    assert inside == set()
    thread.join()
    assert not asked.acquire(timeout=0), "those that nobody had begun with are left"


FAULTS: Sequence[Exception] = (FULL, Unusable("full"), UserError("git: exit status 128"))


@pytest.mark.parametrize("fault", FAULTS, ids=["disk", "cache", "command"])
def test_what_cannot_be_given_fails_no_step(me: Person, tmp_path: Path, fault: Exception) -> None:
    """Neither where the file is made, nor in what is done behind a step."""
    caches = me.caches(f"file://{tmp_path}/cache?write")
    stock, pusher = Stock(caches), Pusher(caches)

    def fails() -> Path:
        raise fault

    pusher.behind("one", lambda: stock.give("a", fails))
    pusher.behind("two", lambda: print(fails()))
    assert [*pusher.drain()] == ["one", "two"]
    text = {FULL: "No space left on device"}.get(fault, str(fault))  # type: ignore[call-overload]
    assert [*caches.report()] == [
        f"cache file://{tmp_path}/cache: 1 faults, the first: {text}; 1 faults with sources, the first: {text}"
    ]


def test_a_disk_that_is_full_for_what_a_cache_has(
    me: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The step goes on with upstream, which says it if it is so still."""
    stock = Stock(me.caches(filled(tmp_path / "cache")))
    file = File("file", WANTED[0][0], WANTED[0][1])
    ask = Ask("demo", Source("url", "http://127.0.0.1:9/file"), Pin("", files=(file,)), tmp_path, tmp_path / "own")
    puts = iter([FULL, None])
    put = Path.replace

    def replaced(path: Path, target: Path) -> Path:
        if error := next(puts, None):
            raise error
        return put(path, target)

    monkeypatch.setattr(Path, "replace", replaced)
    with pytest.raises(UserError, match="file could not be fetched"):
        Supply(stock).bring(ask)
    assert "demo: No space left on device; they are fetched anew\n" in capsys.readouterr().err
    Supply(stock, offline=True).bring(ask)


@pytest.mark.parametrize("starts", [0, 1, 3])
def test_a_machine_that_refuses_threads(
    me: Person, tmp_path: Path, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some are as good as all; with none a cache is not asked, and a push is a fault of caches."""
    left, start = [starts], threading.Thread.start

    def refuse(one: threading.Thread) -> None:
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(one)

    caches = me.caches(f"file://{tmp_path}/cache?write")
    pusher, pool = Pusher(caches), Threads(4, "test")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    if starts:
        assert pool.map(len, ["a", "bb"]) == [1, 2]
        return
    for _ in range(2):
        with pytest.raises(UserError, match="this machine starts no thread"):
            pool.submit(len, "a")
    pusher.behind("one", lambda: None)
    assert [*pusher.drain()] == []
    assert "1 faults, the first: this machine starts no thread" in next(iter(caches.report()))
    monkeypatch.undo()
    assert result(pool.submit(len, "a")) == 1
