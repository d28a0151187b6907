"""A folder of a cache, cleaned up: what is used stays, what is damaged is put aside and pushed anew."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sandkube.build.cache import upkeep
from tests.caches import Made, Person, made, pulled

WEEK = 7 * 86400.0


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person.at(tmp_path / "keys/ci")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def two(tmp_path: Path, person: Person, cache: Path) -> tuple[Made, Made]:
    """Two trees in the cache that share a chunk, all of it a week old."""
    both = b"".join(os.urandom(1) * 4096 for _ in range(64))
    old = made(tmp_path / "old", {"a": both, "old": b"old"}, name="old")
    new = made(tmp_path / "new", {"a": both, "new": b"new"}, name="new")
    for each in (old, new):
        person.push(each, f"file://{cache}")
    for path in cache.rglob("*"):
        os.utime(path, (time.time() - WEEK,) * 2)
    return old, new


def test_what_nobody_used_goes_and_what_others_need_stays(
    person: Person, cache: Path, two: tuple[Made, Made], tmp_path: Path
) -> None:
    old, new = two
    assert upkeep.collect(cache, days=8) == upkeep.Freed(0, 0, 0)
    reader = person.caches(f"file://{cache}")
    assert reader.record("new", new.record.key) is not None  # it is used
    freed = upkeep.collect(cache, days=6)
    assert freed.records == 1
    assert freed.blobs >= 1
    assert freed.size > 0
    again = person.caches(f"file://{cache}")
    assert pulled(again, new.record, tmp_path / "got") == new.record.output
    assert again.record("old", old.record.key) is None
    assert upkeep.collect(cache, days=6) == upkeep.Freed(0, 0, 0)


def test_what_a_push_has_just_put_stays(cache: Path, two: tuple[Made, Made]) -> None:
    stray = cache / "cas" / ("0" * 64)
    stray.write_bytes(b"of a push that is under way")
    assert upkeep.collect(cache, days=0).records == len(two)
    assert [path.name for path in (cache / "cas").iterdir()] == [stray.name]


def test_a_folder_that_is_not_there(cache: Path) -> None:
    assert upkeep.collect(cache, days=0) == upkeep.Freed(0, 0, 0)
    assert list(upkeep.quarantine(cache)) == []


def test_what_is_damaged_is_put_aside_and_pushed_anew(
    person: Person, cache: Path, two: tuple[Made, Made], tmp_path: Path
) -> None:
    old = two[0]
    assert list(upkeep.quarantine(cache)) == []
    blob = max((cache / "cas").iterdir(), key=lambda path: path.stat().st_size)
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    record = cache / "ac" / old.record.key
    record.write_bytes(b"{}")
    (cache / "sources").mkdir()
    (cache / "sources" / ("1" * 64)).write_bytes(b"x")
    said = sorted(upkeep.quarantine(cache))
    aside = {line.partition(": ")[0] for line in said}
    assert aside >= {f"ac/{old.record.key}", f"cas/{blob.name}", f"sources/{'1' * 64}"}
    assert aside - {f"ac/{each.record.key}" for each in two} == {f"cas/{blob.name}", f"sources/{'1' * 64}"}
    assert not blob.exists()
    assert (cache / "quarantine/cas" / blob.name).is_file()
    for each in two:
        person.push(each, f"file://{cache}")
    assert blob.read_bytes() == data
    for each in two:
        got = tmp_path / f"got {each.record.name}"
        assert pulled(person.caches(f"file://{cache}"), each.record, got) == each.record.output
    assert list(upkeep.quarantine(cache)) == []
