"""Locks that pass with their holder, and what killed processes leave."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from pathlib import Path

import pytest

from sandkube.build.sources import blobs
from sandkube.build.store import Store
from sandkube.errors import UserError
from sandkube.files import locked, make_folder, relink, sweep_locks, sweep_old
from tests.odd import ODD, waits_for_nobody


def test_a_passing_lock_keeps_others_out_and_leaves_no_file(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(100):
            with locked(tmp_path / "lock", passing=True):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(most), max(most)) == (400, 1)
    assert list(tmp_path.iterdir()) == []


def test_only_locks_that_nobody_holds_are_swept(tmp_path: Path) -> None:
    (tmp_path / "left").touch()
    with locked(tmp_path / "held", passing=True):
        sweep_locks(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["held"]
        with (tmp_path / "held").open() as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
    raise AssertionError("the lock was lost")


def test_only_old_files_are_swept(tmp_path: Path) -> None:
    for name in (".old", ".new", "old"):
        (tmp_path / name).touch()
        if "old" in name:
            os.utime(tmp_path / name, (1, 1))
    sweep_old(tmp_path, ".*")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new", "old"]
    sweep_old(tmp_path / "none", "*")


def test_a_store_and_a_cache_keep_nothing_of_the_dead(tmp_path: Path) -> None:
    store, cache = Store(tmp_path / "store"), tmp_path / "cache"
    store.prepare()
    (tmp_path / "got").write_text("got")
    kept = blobs.put(cache, tmp_path / "got")
    (cache / "partial").mkdir()
    part = cache / "partial" / hashlib.sha256(b"").hexdigest()
    leftovers = [
        store.root / "locks/0123",
        store.root / "records/.0123.json.abc",
        store.root / "last/.name.abc",
        blobs.path_of(cache, "tmpabc"),
        part.with_suffix(".lock"),
    ]
    for path in (*leftovers, part):
        path.touch()
        os.utime(path, (1, 1))
    store.sweep()
    blobs.sweep(cache)
    assert [path for path in leftovers if path.exists()] == []
    assert part.exists()
    assert blobs.path_of(cache, kept).exists()


def test_a_store_that_was_used_has_no_lock_left(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    with store.lock("key"):
        assert [path.name for path in (store.root / "locks").iterdir()] == ["key"]
    assert list((store.root / "locks").iterdir()) == []


@pytest.mark.parametrize("odd", sorted(set(ODD) - {"pipe"}))
def test_what_is_no_lock_is_said(tmp_path: Path, odd: str) -> None:
    """A lock that is a link never was the file at its path, and was taken again and again."""
    ODD[odd](tmp_path / "lock")
    hint = "\n  hint: move it away, or remove it"
    with waits_for_nobody():
        sweep_locks(tmp_path)
        with pytest.raises(UserError, match=f"/lock: is no regular file, where a lock belongs{hint}"):
            locked(tmp_path / "lock", passing=True).__enter__()


def test_what_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name, wrong in {"file": "file", "file/a/b": "file", "link": "link", "link/a": "link"}.items():
        with pytest.raises(UserError, match=f"^{tmp_path}/{wrong}: is no folder, where one belongs\n  hint: move"):
            make_folder(tmp_path / name)
    (tmp_path / "well").symlink_to("made")
    make_folder(tmp_path / "made/a")
    make_folder(tmp_path / "well/b")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["a", "b"]


def test_a_folder_in_a_links_place_is_kept_and_said(tmp_path: Path) -> None:
    (tmp_path / "link").mkdir()
    with pytest.raises(UserError, match=r"/link: is a folder, where a link belongs\n  hint: move it away"):
        relink(tmp_path / "link", tmp_path / "aim")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_cache_that_may_not_be_read_is_not_swept(tmp_path: Path) -> None:
    """Whoever needs it says so; a build with nothing to fetch does not."""
    (tmp_path / "blobs/sha256").mkdir(parents=True)
    tmp_path.chmod(0)
    os.seteuid(65534)
    try:
        blobs.sweep(tmp_path)
    finally:
        os.seteuid(0)
