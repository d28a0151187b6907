"""Caches of a user as one: what is pushed comes back, what is wrong is not used and is mended, and people disagree."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube import events, run
from sandkube.build.cache import chunks, shared, threads
from sandkube.build.cache.chunks import Chunk, encode, pack
from sandkube.build.cache.kind import Blob
from sandkube.build.cache.place import Place
from sandkube.build.cache.push import Pusher
from sandkube.build.cache.settings import Setting
from sandkube.build.cache.statement import Index, read
from sandkube.digest import sha256_bytes
from sandkube.errors import Unusable
from sandkube.nar import nar_hash
from sandkube.tree import remove_tree
from tests.caches import Made, Person, index_of, made, pulled
from tests.unit.test_cache_restore import nar

SOME = random.Random(20261129).randbytes(3_000_000)


@pytest.fixture
def ci(tmp_path: Path) -> Person:
    return Person.at(tmp_path / "ci")


@pytest.fixture
def reader(tmp_path: Path, ci: Person) -> Person:
    return Person.at(tmp_path / "reader", ci)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Made]:
    at = made(tmp_path / "tree", {"a": SOME, "b/c": b"small"})
    yield at
    remove_tree(at.tree)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def address(folder: Path) -> str:
    return f"file://{folder}"


@pytest.fixture
def pushed(ci: Person, one: Made, address: str) -> Made:
    (said,) = ci.push(one, address)
    assert said.endswith("3.0 MB pushed")
    return one


@pytest.fixture
def fetch(reader: Person, address: str, tmp_path: Path) -> Iterator[Callable[[Made], tuple[bool, str]]]:
    """Fetch in a new run: whether the tree came, and what is said of the cache at the end."""
    count = iter(range(100))

    def fetched(one: Made) -> tuple[bool, str]:
        shared = reader.caches(address)
        got = pulled(shared, one.record, at := tmp_path / f"got-{next(count)}")
        if at.exists():
            remove_tree(at)
        return got == one.record.output, "; ".join(shared.report()).removeprefix(f"cache {address}: ")

    yield fetched


def blobs(folder: Path, one: Made) -> tuple[Path, list[Path]]:
    """The files of a tree's index, and of its chunks."""
    index = folder / "cas" / index_of((folder / "ac" / one.record.key).read_bytes(), one.record.key)
    return index, [folder / "cas" / each.blob.sha256 for each in chunks.decode(index.read_bytes())]


Fetch = Callable[[Made], tuple[bool, str]]


def test_what_is_pushed_comes_back(ci: Person, pushed: Made, fetch: Fetch, address: str) -> None:
    assert fetch(pushed) == (True, "1 trees fetched (3.0 MB)")
    assert ci.push(pushed, address) == []  # nothing is lacking


def test_a_version_brings_only_what_is_new(
    ci: Person, reader: Person, pushed: Made, address: str, tmp_path: Path
) -> None:
    new = made(tmp_path / "new", {"a": SOME, "b/c": b"other"}, key="new")
    (said,) = ci.push(new, address)
    sent = float(said.split()[-3])
    caches = reader.caches(address)
    assert pulled(caches, new.record, tmp_path / "got", pushed.tree) == new.record.output
    assert max(sent, caches.places[0].received / 1e6) <= 2.1  # of 3.0


def test_a_damaged_old_tree_does_no_harm(reader: Person, pushed: Made, address: str, tmp_path: Path) -> None:
    for number, old in enumerate((tmp_path / "none", made(tmp_path / "old", {"a": SOME[:2_000_000]}).tree)):
        assert pulled(reader.caches(address), pushed.record, tmp_path / str(number), old) == pushed.record.output


@pytest.mark.parametrize("victim", ["index", "chunk"])
@pytest.mark.parametrize("damage", ["gone", "other", "short", "long"])
def test_what_a_cache_lost_is_a_miss_until_somebody_pushes(
    ci: Person, pushed: Made, folder: Path, fetch: Fetch, victim: str, damage: str
) -> None:
    """A builder that finds out pushes anew what is wrong, even what has the right size."""
    index, listed = blobs(folder, pushed)
    path = index if victim == "index" else listed[1]
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"other": bytes([data[0] ^ 1]) + data[1:], "short": data[:-1], "long": data + b"x"}[damage])
    got, said = fetch(pushed)
    assert not got
    assert ("has other bytes" in said) == (damage != "gone")
    builder = ci.caches(f"file://{folder}?write")
    assert pulled(builder, pushed.record, folder / "got") is None
    Pusher(builder).push(pushed.record, pushed.tree)
    assert fetch(pushed) == (True, "1 trees fetched (3.0 MB)")


def test_chunks_come_from_wherever_they_are(
    ci: Person, reader: Person, pushed: Made, folder: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    ci.push(pushed, f"file://{second}")
    blobs(folder, pushed)[1][0].unlink()
    blobs(second, pushed)[1][1].unlink()
    caches = reader.caches(f"file://{folder}", f"file://{second}")
    assert pulled(caches, pushed.record, tmp_path / "got") == pushed.record.output


def rewrite(folder: Path, one: Made, listed: list[Chunk], packed: dict[str, bytes]) -> None:
    """Give a record another index, which nobody signs."""
    path = folder / "ac" / one.record.key
    index = encode(listed)
    for name, data in {sha256_bytes(index): index, **packed}.items():
        (folder / "cas" / name).write_bytes(data)
    signed = read(path.read_bytes(), one.record.key)
    path.write_bytes(replace(signed, index=Index(sha256_bytes(index), len(index))).encode())


def chunked(data: bytes) -> tuple[Chunk, dict[str, bytes]]:
    chunk, packed = pack(data)
    return chunk, {chunk.blob.sha256: packed}


def test_an_index_of_another_size_writes_nothing(pushed: Made, folder: Path, fetch: Fetch) -> None:
    _, listed = blobs(folder, pushed)
    more, packed = chunked(b"more")
    index = list(chunks.decode(blobs(folder, pushed)[0].read_bytes()))
    rewrite(folder, pushed, [*index, more], packed)
    assert fetch(pushed) == (
        False,
        "0 trees fetched (0.0 MB); 1 faults, the first: one: an index that is not of the size that was signed",
    )
    rewrite(folder, pushed, index[:-1], {})
    assert "an index that is not of the size that was signed" in fetch(pushed)[1]
    assert len(listed) == len(index)


def test_an_index_that_no_such_tree_has_is_not_fetched(pushed: Made, folder: Path, fetch: Fetch) -> None:
    """Bytes of it are memory of the reader's, before its sum is known."""
    index, _ = blobs(folder, pushed)
    rows = list(chunks.decode(index.read_bytes()))
    size = sum(each.size for each in rows)
    assert index.stat().st_size < chunks.index_limit(size) < 5000
    more, packed = chunked(b"x")
    rewrite(folder, pushed, [*rows, *[more] * 100], packed)
    got, said = fetch(pushed)
    assert (got, said) == (False, "1 faults, the first: one: an index that is too large for what was signed")


@pytest.mark.parametrize("content", ["another tree", "no tree", "swapped", "names", "bomb"])
def test_an_index_of_something_else(pushed: Made, folder: Path, fetch: Fetch, content: str) -> None:
    """As long as what was signed; nothing of it is used."""
    index = list(chunks.decode(blobs(folder, pushed)[0].read_bytes()))
    size = sum(each.size for each in index)
    packed: dict[str, bytes] = {}
    if content == "swapped":
        index[0], index[1] = index[1], index[0]
    elif content == "bomb":
        data = chunked(bytes(chunks.LARGEST))[1].popitem()[1]
        name = sha256_bytes(data)
        index[0], packed = replace(index[0], blob=Blob(name, len(data))), {name: data}
    else:
        data = {
            "another tree": nar({b"a": bytes(size)})[:size],
            "no tree": bytes(size),
            "names": nar({b"x" * 300: b"", b"y": bytes(size)})[:size],
        }[content]
        index = []
        for at in range(0, size, chunks.LARGEST):
            chunk, more = chunked(data[at : at + chunks.LARGEST])
            index.append(chunk)
            packed |= more
    rewrite(folder, pushed, index, packed)
    got, _ = fetch(pushed)
    assert not got


@pytest.mark.parametrize("kind", ["link", "file"])
def test_an_output_is_a_folder(ci: Person, one: Made, fetch: Fetch, address: str, tmp_path: Path, kind: str) -> None:
    """The store sets modes of what it takes in: by a link it would do so elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("x")
    victim.chmod(0o600)
    at = tmp_path / "odd"
    at.symlink_to(victim) if kind == "link" else at.write_text("x")
    odd = Made(replace(one.record, output=nar_hash(at)), at)
    assert ci.push(odd, address) == [f"cache {address}: 0.0 MB pushed"]
    assert fetch(odd) == (False, "0 trees fetched (0.0 MB); 1 faults, the first: one: what it has is no folder")
    assert victim.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_push_left_goes(ci: Person, one: Made, folder: Path, address: str) -> None:
    """A day after: until then somebody may be writing it."""
    (folder / "cas").mkdir(parents=True)
    old, new = folder / "cas/.old.x", folder / "cas/.new.x"
    for each in (old, new):
        each.write_text("x")
    os.utime(old, (1, 1))
    ci.push(one, address)
    assert (old.exists(), new.exists()) == (False, True)


def test_another_keys_record(pushed: Made, folder: Path, fetch: Fetch, tmp_path: Path) -> None:
    other = made(tmp_path / "other", {"x": b"y"}, name="two")
    (folder / "ac" / other.record.key).write_bytes((folder / "ac" / pushed.record.key).read_bytes())
    got, said = fetch(other)
    assert (got, said) == (False, "not used, the record of another key: two")


def test_nobody_replaces_what_somebody_signed(
    reader: Person, pushed: Made, address: str, folder: Path, tmp_path: Path
) -> None:
    mine = made(tmp_path / "mine", {"a": b"mine"}, name="one")
    assert mine.record.key == pushed.record.key
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    outputs = f"ci signed {pushed.record.output[:12]}, here it is {mine.record.output[:12]}"
    assert reader.push(mine, address) == [f"cache {address}: not pushed, {outputs}: one"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    stranger = Person.at(tmp_path / "stranger")
    assert stranger.push(mine, address)[0].endswith("MB pushed")  # who does not trust ci has no reason to spare it


def test_an_older_record_of_the_same_key(ci: Person, reader: Person, pushed: Made, tmp_path: Path) -> None:
    """What ci signed before is what ci said: it is used, and is the tree that ci signed; both at once are a quarrel."""
    old = made(tmp_path / "old", {"a": b"old"}, name="one")
    second = f"file://{tmp_path}/second"
    ci.push(old, second)
    assert pulled(reader.caches(second), pushed.record, tmp_path / "got") == old.record.output
    both = reader.caches(f"file://{tmp_path}/cache", second)
    assert pulled(both, pushed.record, tmp_path / "none") is None
    (said,) = (line for line in both.report() if line.startswith("warning"))
    assert said == (
        "warning: caches disagree on one, so none is used: "
        f"{pushed.record.output[:12]} by ci in file://{tmp_path}/cache; {old.record.output[:12]} by ci in {second}"
    )


def test_two_signers(ci: Person, one: Made, address: str, folder: Path, tmp_path: Path) -> None:
    """Each adds a signature; what the first one pushed is not pushed again."""
    second = Person.at(tmp_path / "second")
    third = Person.at(tmp_path / "third", ci, second)
    ci.push(one, address)
    assert pulled(third.caches(address, signatures=2), one.record, tmp_path / "early") is None
    assert second.push(one, address) == []
    assert pulled(third.caches(address, signatures=2), one.record, tmp_path / "got") == one.record.output
    assert len(json.loads((folder / "ac" / one.record.key).read_bytes())["signatures"]) == 2


def test_a_tree_by_another_name_keeps_its_signatures(ci: Person, one: Made, address: str, tmp_path: Path) -> None:
    """A key has no name in it: two recipes may have it. What ci signed is signed by the second one as it is."""
    second = Person.at(tmp_path / "second")
    third = Person.at(tmp_path / "third", ci, second)
    ci.push(one, address)
    renamed = Made(replace(one.record, name="other"), one.tree)
    second.push(renamed, address)
    for each in (one, renamed):
        caches = third.caches(address, signatures=2)
        assert pulled(caches, each.record, tmp_path / each.record.name) == one.record.output


@pytest.mark.parametrize("damage", ["other bytes", "gone"])
def test_a_tree_that_is_not_what_its_record_says_is_not_pushed(
    ci: Person, one: Made, address: str, folder: Path, damage: str
) -> None:
    if damage == "gone":
        remove_tree(one.tree)
    else:
        (one.tree / "b/c").chmod(0o644)
        (one.tree / "b/c").write_bytes(b"EVIL!")
        (one.tree / "b/c").chmod(0o444)
    said = ci.push(one, address)
    why = {"gone": "No such file or directory", "other bytes": "the tree here is damaged"}[damage]
    assert said[-1] == f"cache {address}: not pushed, {why}: one"
    assert not (folder / "ac").exists()


def test_what_was_made_in_the_open_is_nobodys(ci: Person, one: Made, address: str, folder: Path) -> None:
    assert ci.push(Made(replace(one.record, unboxed=True), one.tree), address) == []
    assert not folder.exists()


def test_a_folder_that_may_only_be_read_is_read_still(ci: Person, pushed: Made, folder: Path, tmp_path: Path) -> None:
    """Three pushes fail, nothing more is pushed; fetching goes on."""
    broken = replace(Setting(f"file://{folder}"), write=True)
    caches = ci.caches()

    class Full:
        def __init__(self, place: Place) -> None:
            self.missing, self.record, self.blob = place.cache.missing, place.cache.record, place.cache.blob

        def put(self, _one: Blob, _data: bytes) -> None:
            raise Unusable("/srv/cache: No space left on device")

        def publish(self, _key: str, _record: bytes, _blobs: object) -> None:
            raise Unusable("/srv/cache: No space left on device")

    place = ci.caches(f"file://{folder}").places[0]
    caches.places.append(Place(broken, Full(place), place.trusted))
    pusher = Pusher(caches)
    pusher._keys = ci.keys.own()
    for number in range(5):
        each = made(tmp_path / f"t{number}", {"x": b"%d" % number}, name=f"n{number}")
        pusher.push(each.record, each.tree)
    assert caches.places[0].faults == 3
    assert pulled(caches, pushed.record, tmp_path / "got") == pushed.record.output
    (said,) = caches.report()
    assert said.endswith(
        "1 trees fetched (3.0 MB); 3 faults, the first: /srv/cache: No space left on device; not written to any more"
    )


@pytest.mark.parametrize("odd", ["file", "folders", "fifo"])
def test_odd_folders(one: Made, folder: Path, fetch: Fetch, odd: str) -> None:
    """A sentence in the report, a miss, and nothing that waits."""
    if odd == "file":
        folder.write_text("x")
    else:
        (folder / "ac").mkdir(parents=True)
        path = folder / "ac" / one.record.key
        path.mkdir() if odd == "folders" else os.mkfifo(path)
    got, said = fetch(one)
    assert not got
    assert "1 faults, the first: " in said


def test_who_waits_leaves_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a cache is silent."""
    silent, pool = threading.Event(), threads.Threads(1, "test")
    future = pool.submit(silent.wait, 60)
    monkeypatch.setattr(run, "_asked", True)
    with pytest.raises(run.Interrupted):
        threads.result(future)
    monkeypatch.undo()
    silent.set()
    assert threads.result(future)
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda one: 1 // one, [1, 0])


def test_what_is_left_of_a_tree_that_failed_is_not_asked_for(
    ci: Person, folder: Path, reader: Person, tmp_path: Path
) -> None:
    """One chunk is gone: those far behind it are never asked for."""
    one = made(tmp_path / "large", {"a": random.Random(1).randbytes(16_000_000)})
    ci.push(one, f"file://{folder}")
    caches = reader.caches(f"file://{folder}")
    index, listed = blobs(folder, one)
    assert len(listed) > 40
    listed[0].unlink()
    assert pulled(caches, one.record, tmp_path / "got") is None
    assert caches.places[0].received < index.stat().st_size + sum(each.stat().st_size for each in listed[1:])


def test_how_far_it_is_is_told(
    pushed: Made, address: str, reader: Person, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shared, "_SILENCE", -1.0)
    monkeypatch.setattr(events, "_sink", recorded := events.Recorded(events.Plain()))
    assert pulled(reader.caches(address), pushed.record, tmp_path / "got") == pushed.record.output
    told = [event for _, event in recorded.events if isinstance(event, events.Downloading)]
    assert len(told) > 3
    assert [each.received for each in told] == sorted(each.received for each in told)
    assert told[-1].received == told[-1].size
    assert {(each.step, each.address) for each in told} == {("one", address)}
