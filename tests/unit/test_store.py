"""The store takes finished trees, finds damage, and loses races with grace."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandkube.build.derivation import Derivation
from sandkube.build.explain import Change, changes, sentences
from sandkube.build.store import Condition, DamagedRecord, Store
from sandkube.nar import nar_hash
from sandkube.tree import remove_tree
from tests.odd import ODD, deep, waits_for_nobody

DERIVATION = Derivation(kind="tree", builder="b", options={"x": [1, "ü"]}, source="s", inputs=(("go", "0" * 64),))


def make(store: Store, text: str = "hello\n") -> str:
    store.prepare()
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
    assert store.inspect(output) is Condition.SOUND
    tree = store.tree(output)
    assert oct((tree / "file").stat().st_mode) == "0o100444"
    assert oct((tree / "program").stat().st_mode) == "0o100555"
    assert list((tmp_path / "store/staging").iterdir()) == []
    assert make(store) == output  # the second builder finds the tree there


def test_an_adopted_record_is_marked_until_it_is_made_here(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    make(store)
    path = tmp_path / "store/records" / f"{DERIVATION.key()}.json"
    assert {*json.loads(path.read_bytes())} == {"preimage", "output", "name", "sum"}  # as it was before there were any
    own = store.record(DERIVATION.key())
    assert own is not None
    assert store.adopt(own, b"signed") == store.record(own.key) == replace(own, adopted=True)
    assert store.signed(own.key) == b"signed"
    path.write_bytes(path.read_bytes().replace(b'"adopted":true,', b""))
    with pytest.raises(DamagedRecord):  # the mark is in the sum
        store.record(own.key)
    store.adopt(own, None)
    assert store.signed(own.key) is None
    store.adopt(own, b"signed")
    make(store)
    assert (store.record(own.key), store.signed(own.key)) == (own, None)


def test_damaged_file_is_found_though_times_are_put_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    output = make(store)
    file = store.tree(output) / "file"
    before = file.stat()
    file.chmod(0o644)
    file.write_text("hallo\n")
    file.chmod(0o444)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.inspect(output) is Condition.DAMAGED
    assert store.quarantine(output)
    assert store.inspect(output) is Condition.ABSENT
    assert not store.quarantine(output)
    assert make(store) == output


def test_whoever_comes_late_takes_no_good_tree_away(tmp_path: Path) -> None:
    """Two find the same damage; the first mends it before the second acts."""
    store = Store(tmp_path / "store")
    output = make(store)
    (store.tree(output) / "file").chmod(0o644)
    (store.tree(output) / "file").write_text("hallo\n")
    assert store.inspect(output) is Condition.DAMAGED  # so says the second one
    store.quarantine(output)
    assert make(store) == output
    assert not store.quarantine(output)
    assert store.inspect(output) is Condition.SOUND


def test_a_builder_replaces_a_damaged_tree(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    output = make(store)
    (store.tree(output) / "file").chmod(0o644)
    (store.tree(output) / "file").write_text("hallo\n")
    assert make(store) == output
    assert store.inspect(output) is Condition.SOUND
    assert (store.tree(output) / "file").read_text() == "hello\n"


ASK = """\
import sys
from pathlib import Path
from sandkube.build.store import Store
store = Store(Path(sys.argv[1]))
for _ in range(200):
    print(store.inspect(sys.argv[2]).value, flush=True)
"""


def test_looking_while_another_one_removes_and_makes(tmp_path: Path) -> None:
    """A process that only looks sees a sound tree, a damaged one or none; it never fails, and it changes nothing."""
    store = Store(tmp_path / "store")
    output = make(store)
    looking = [
        subprocess.Popen([sys.executable, "-c", ASK, str(store.root), output], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    while any(each.poll() is None for each in looking):
        (store.tree(output) / "file").chmod(0o644)
        (store.tree(output) / "file").write_text("hallo\n")
        assert store.quarantine(output)
        assert make(store) == output
    for each in looking:
        said = each.communicate()[0].split()
        assert each.returncode == 0
        assert len(said) == 200
        assert set(said) <= {condition.value for condition in Condition}
    assert store.inspect(output) is Condition.SOUND


def contents(folder: Path) -> list[tuple[str, int, int, int]]:
    found = [(path, path.lstat()) for path in [folder, *sorted(folder.rglob("*"))]]
    return [(str(path), status.st_ino, status.st_mtime_ns, status.st_ctime_ns) for path, status in found]


def test_looking_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.inspect("0" * 64) is Condition.ABSENT
    assert store.record("0" * 64) is None
    assert store.previous("x") is None
    assert not store.root.exists()
    output = make(store)
    (store.root / f"seals/{output}.json").unlink()
    before = contents(store.root)
    assert store.inspect(output) is Condition.SOUND
    assert contents(store.root) == before
    store.vouch(output)
    assert (store.root / f"seals/{output}.json").is_file()


def test_what_no_output_has_is_damage(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    output = make(store)
    store.tree(output).chmod(0o755)
    os.mkfifo(store.tree(output) / "pipe")
    assert store.inspect(output) is Condition.DAMAGED
    remove_tree(store.tree(output))
    assert store.inspect(output) is Condition.ABSENT


def test_touched_tree_is_still_intact(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    output = make(store)
    os.utime(store.tree(output) / "file")
    assert store.inspect(output) is Condition.SOUND


@pytest.mark.parametrize("text", ["", "{}", '{"output": 1}', "not json"])
def test_damaged_record_is_found(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path / "store")
    make(store)
    path = tmp_path / "store/records" / f"{DERIVATION.key()}.json"
    path.write_text(text)
    with pytest.raises(DamagedRecord, match="is damaged"):
        store.record(DERIVATION.key())


def test_record_pointing_elsewhere_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    make(store)
    path = tmp_path / "store/records" / f"{DERIVATION.key()}.json"
    value = json.loads(path.read_text())
    value["output"] = "f" * 64
    path.write_text(json.dumps(value))
    with pytest.raises(DamagedRecord):
        store.record(DERIVATION.key())


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_file_is_damage(tmp_path: Path, odd: str) -> None:
    """Nothing waits for whoever writes to a pipe. A record is told, and goes; seals and last keys are written anew."""
    store, key = Store(tmp_path / "store"), DERIVATION.key()
    output = make(store)
    record, seal, last = (store.root / each for each in (f"records/{key}.json", f"seals/{output}.json", "last/x"))
    for path in (record, seal, last):
        path.unlink()
        ODD[odd](path)
    with waits_for_nobody():
        with pytest.raises(DamagedRecord, match=r"^store: record [0-9a-f]{64}\.json is damaged$"):
            store.record(key)
        store.forget(key)
        assert store.record(key) is None
        assert store.previous("x") is None
        store.remember("x", key)
        assert last.read_text() == key
        store.vouch(output)
        assert seal.is_file()


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_tree_is_damage(tmp_path: Path, odd: str) -> None:
    store = Store(tmp_path / "store")
    output = make(store)
    for mend in (store.quarantine, lambda _: make(store) == output):
        remove_tree(store.tree(output))
        ODD[odd](store.tree(output))
        assert store.inspect(output) is Condition.DAMAGED
        assert mend(output)
    assert store.inspect(output) is Condition.SOUND


def test_folders_without_an_end_are_damage(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    output = make(store)
    store.tree(output).chmod(0o755)
    with deep(store.tree(output)):
        assert store.inspect(output) is Condition.DAMAGED
        assert make(store) == output
    assert store.inspect(output) is Condition.SOUND


def test_a_last_key_that_is_no_text_is_written_anew(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    make(store)
    (store.root / "last/x").write_bytes(b"\xff")
    store.remember("x", DERIVATION.key())
    assert store.previous("x") is not None


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
    found = changes(DERIVATION.preimage(), other.preimage())
    assert sentences(found) == ("input changed: go, zig added", "option changed: x")
    assert found[0] == Change("inputs", "go", "0" * 64, "1" * 64)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"source": {"a": 1}}, {"source": "x"}, ("the source changed",)),
        ({"later": 1}, {}, ("later changed",)),
        ({"later": {"a": 1}}, {"later": {"a": 2}}, ("later changed: a",)),
        ({"inputs": "x"}, {"inputs": {}}, ("inputs changed",)),
        ({"kind": None}, {}, ("kind changed",)),
        ({"options": {"a": None}}, {"options": {}}, ("option changed: a",)),
    ],
)
def test_records_of_any_version_are_compared(old: Any, new: Any, said: tuple[str, ...]) -> None:
    assert tuple(re.sub(r" (added|removed)", "", each) for each in sentences(changes(old, new))) == said
