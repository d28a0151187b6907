"""The store takes finished trees, finds damage, and loses races with grace."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sandkube.derivation import Derivation, difference
from sandkube.nar import nar_hash
from sandkube.store import Damaged, Store

DERIVATION = Derivation(kind="tree", builder="b", options={"x": [1, "ü"]}, source="s", inputs=(("go", "0" * 64),))


def make(store: Store, text: str = "hello\n") -> str:
    with store.staging() as folder:
        made = folder / "out"
        made.mkdir()
        (made / "file").write_text(text)
        (made / "program").write_text("#!/bin/true\n")
        (made / "program").chmod(0o755)
        (made / "link").symlink_to("file")
        (made / "folder").mkdir()
        return store.commit("x", DERIVATION.key(), DERIVATION.preimage(), made).output


def test_nar_hash_is_that_of_nix(tmp_path: Path) -> None:
    """The expected values were printed by `nix-hash --type sha256` of nix 2.8 for the same file and folder."""
    (tmp_path / "f").write_text("hello\n")
    assert nar_hash(tmp_path / "f") == "1c37d01af40be2e80691de3cc3df44377a699afbb17c68f080964b2fd071fc13"
    folder = tmp_path / "d"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("hello\n")
    (folder / "b-é").write_text("x")
    (folder / "b-é").chmod(0o755)
    (folder / "link").symlink_to("a")
    assert nar_hash(folder) == "1983a58efa23a98d49344539a1482894d43339efcfe6060a285dc3c6031a30b6"


def test_commit_and_find(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    output = make(store)
    record = store.record(DERIVATION.key())
    assert record is not None and record.output == output
    assert store.intact(output)
    tree = store.tree(output)
    assert oct((tree / "file").stat().st_mode) == "0o100444"
    assert oct((tree / "program").stat().st_mode) == "0o100555"
    assert list((tmp_path / "store/staging").iterdir()) == []
    assert make(store) == output  # the second builder finds the tree there


def test_damaged_file_is_found_though_times_are_put_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    output = make(store)
    file = store.tree(output) / "file"
    before = file.stat()
    file.chmod(0o644)
    file.write_text("hallo\n")
    file.chmod(0o444)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(Damaged, match=f"store: output {output} was damaged"):
        store.intact(output)
    assert not store.intact(output)
    assert make(store) == output


def test_touched_tree_is_still_intact(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    output = make(store)
    os.utime(store.tree(output) / "file")
    assert store.intact(output)


@pytest.mark.parametrize("text", ["", "{}", '{"output": 1}', "not json"])
def test_damaged_record_is_found(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path / "store")
    make(store)
    path = tmp_path / "store/records" / f"{DERIVATION.key()}.json"
    path.write_text(text)
    with pytest.raises(Damaged, match="is damaged"):
        store.record(DERIVATION.key())


def test_record_pointing_elsewhere_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    make(store)
    path = tmp_path / "store/records" / f"{DERIVATION.key()}.json"
    value = json.loads(path.read_text())
    value["output"] = "f" * 64
    path.write_text(json.dumps(value))
    with pytest.raises(Damaged):
        store.record(DERIVATION.key())


def test_sweep_spares_the_living(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "store/staging/dead/out").mkdir(parents=True)
    with store.staging() as living:
        store.sweep()
        assert living.is_dir()
    assert list((tmp_path / "store/staging").iterdir()) == []


def test_difference_names_what_changed() -> None:
    other = Derivation(
        kind="tree", builder="b", options={"x": [2]}, source="s", inputs=(("go", "1" * 64), ("zig", "2"))
    )
    assert difference(DERIVATION.preimage(), other.preimage()) == ("input changed: go, zig added", "option changed: x")


def test_key_is_stable() -> None:
    assert DERIVATION.key() == Derivation(**{f: getattr(DERIVATION, f) for f in DERIVATION.__slots__}).key()
