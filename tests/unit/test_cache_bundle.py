"""Bundles in process: what may be handed on and by whose word, what must be whole, and what a reader believes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sandkube import log
from sandkube.build.cache.bundle import Bundle, take_in, write
from sandkube.build.cache.push import Pusher
from sandkube.build.cache.statement import read
from sandkube.build.store import Condition, Record, Store
from sandkube.errors import UserError
from sandkube.tree import remove_tree
from tests.caches import Person, made

FILES = {"a": b"some bytes", "b/c": b"more"}


@dataclass(frozen=True)
class Builder:
    """Somebody with a store and a key."""

    person: Person
    store: Store

    @classmethod
    def at(cls, folder: Path, *trusted: Builder) -> Builder:
        store = Store(folder / "store")
        store.prepare()
        return cls(Person.at(folder, *(each.person for each in trusted)), store)

    @property
    def public(self) -> str:
        """The public key, base64."""
        (found,) = (each.public for each in self.person.keys.trusted() if each.name == self.person.keys.folder.name)
        return found

    def build(self, name: str, files: Mapping[str, bytes] = FILES, *, key: str = "", unboxed: bool = False) -> Record:
        """What a step of that name leaves in the store."""
        with self.store.staging() as staging:
            one = made(staging / "out", files, name=name, key=key)
            return self.store.commit(name, one.record.key, one.record.preimage, one.tree, unboxed=unboxed)

    def write(self, target: Path, *records: Record, whole: str, unsigned: bool = False) -> Bundle:
        """Export them by their names."""
        named = {each.name: each for each in records}
        write(target, named, {whole}, self.store, self.person.keys, unsigned=unsigned)
        return Bundle(target)

    def known(self, one: Record) -> Record:
        """The record as it is kept here."""
        found = self.store.record(one.key)
        assert found is not None
        return found

    def push(self, one: Record, folder: Path) -> tuple[set[str], list[str]]:
        """Push what is here to a folder: who has signed it there now, and what is said of the cache."""
        shared = self.person.caches(f"file://{folder}?write")
        Pusher(shared, self.store.signed).push(self.known(one), self.store.tree(one.output))
        path = folder / "ac" / one.key
        return {*read(path.read_bytes(), one.key).signatures} if path.exists() else set(), list(shared.report())


@pytest.fixture
def g(tmp_path: Path) -> Builder:
    return Builder.at(tmp_path / "g")


@pytest.fixture
def f(tmp_path: Path, g: Builder) -> Builder:
    return Builder.at(tmp_path / "f", g)


def test_what_was_made_in_the_open_is_not_handed_on(g: Builder, tmp_path: Path) -> None:
    """Neither the tree that is asked for, nor a record on the way to it."""
    base, top = g.build("base", unboxed=True), g.build("top", {"x": b"x"}, unboxed=True)
    with pytest.raises(UserError) as caught:
        g.write(tmp_path / "top.tar", base, top, g.build("other"), whole="other")
    assert str(caught.value) == (
        "export: made without the build sandbox, which nobody else is to believe: base, top\n"
        "  hint: without --no-build-sandbox they are built anew"
    )
    assert not (tmp_path / "top.tar").exists()
    Pusher(g.person.caches(f"file://{tmp_path}/cache?write")).tell(base)
    assert not (tmp_path / "cache").exists()


def test_the_word_of_others_stays_theirs(g: Builder, f: Builder, tmp_path: Path) -> None:
    """Who has taken a tree in hands it on with the signatures that it came with; who has built it adds one."""
    one = g.build("one")
    take_in(g.write(tmp_path / "one.tar", one, whole="one"), f.store, f.person.keys)
    assert (f.known(one).adopted, f.known(one).output) == (True, one.output)
    assert f.push(one, tmp_path / "cache")[0] == {g.public}
    take_in(
        f.write(tmp_path / "again.tar", f.known(one), whole="one"),
        (h := Builder.at(tmp_path / "h", g)).store,
        h.person.keys,
    )
    assert h.push(one, tmp_path / "third")[0] == {g.public}
    remove_tree(f.store.tree(one.output))
    assert f.build("one") == one
    take_in(Bundle(tmp_path / "one.tar"), f.store, f.person.keys)
    assert not f.known(one).adopted
    assert f.push(one, tmp_path / "cache")[0] == {g.public, f.public}
    assert h.push(one, tmp_path / "cache")[0] == {g.public, f.public}  # nothing is taken away from it


def test_what_nobody_has_signed_is_not_handed_on(g: Builder, f: Builder, tmp_path: Path) -> None:
    one = g.build("one")
    unsigned = g.write(tmp_path / "one.tar", one, whole="one", unsigned=True)
    assert not read(unsigned.record(one.key) or b"", one.key).signatures
    with pytest.raises(UserError, match="one: not signed"):
        take_in(unsigned, f.store, f.person.keys)
    take_in(unsigned, f.store, f.person.keys, unsigned=True)
    why = "it was taken in without a signature that counts"
    assert f.push(one, tmp_path / "cache") == (set(), [f"cache file://{tmp_path}/cache: not pushed, {why}: one"])
    with pytest.raises(UserError, match=rf"^export: one: {why}\n  hint: what was imported with --unsigned is"):
        f.write(tmp_path / "again.tar", f.known(one), whole="one")
    again = f.write(tmp_path / "again.tar", f.known(one), whole="one", unsigned=True)
    assert not read(again.record(one.key) or b"", one.key).signatures
    signed = g.write(tmp_path / "signed.tar", one, whole="one")
    take_in(signed, f.store, f.person.keys)
    assert f.push(one, tmp_path / "cache")[0] == {g.public}


def test_who_signed_without_the_tree(g: Builder, f: Builder, tmp_path: Path) -> None:
    """The size of a tree is signed, so such a word cannot be handed on with one."""
    one, other = g.build("one"), g.build("other", {"x": b"x"})
    take_in(g.write(tmp_path / "other.tar", one, other, whole="other"), f.store, f.person.keys)
    f.build("same", FILES, key="same")
    cache = f"cache file://{tmp_path}/cache"
    assert f.push(one, tmp_path / "cache") == (set(), [f"{cache}: not pushed, who signed it had not its tree: one"])
    taken = f.write(tmp_path / "again.tar", f.known(one), f.known(other), whole="other")
    assert {*read(taken.record(one.key) or b"", one.key).signatures} == {g.public}


def test_a_word_takes_no_tree_away(g: Builder, tmp_path: Path) -> None:
    one, cache = g.build("one"), tmp_path / "cache"
    g.push(one, cache)
    before = (cache / "ac" / one.key).read_bytes()
    Pusher(g.person.caches(f"file://{cache}?write")).tell(one)
    assert (cache / "ac" / one.key).read_bytes() == before


def test_recipes_of_one_key_are_one(g: Builder, f: Builder, tmp_path: Path) -> None:
    """The record has the name of whichever was built last."""
    one = g.build("zlib", key="same")
    assert g.build("alib", key="same").key == one.key
    kept = g.known(one)
    write(tmp_path / "z.tar", {"alib": kept, "zlib": kept}, {"zlib"}, g.store, g.person.keys, unsigned=False)
    assert take_in(Bundle(tmp_path / "z.tar"), f.store, f.person.keys).trees == ["zlib"]
    assert f.store.inspect(one.output) is Condition.SOUND


@pytest.mark.parametrize("damage", ["gone", "other bytes"])
def test_a_tree_that_is_not_whole_is_no_export(g: Builder, tmp_path: Path, damage: str) -> None:
    one = g.build("one")
    tree = g.store.tree(one.output)
    if damage == "gone":
        remove_tree(tree)
    else:
        (tree / "a").chmod(0o644)
        (tree / "a").write_bytes(b"EVIL")
    why = {"gone": "No such file or directory", "other bytes": "the tree here is damaged"}[damage]
    with pytest.raises(UserError, match=rf"^export: one: {why}$"):
        g.write(tmp_path / "one.tar", one, whole="one")
    assert not (tmp_path / "one.tar").exists()


def test_as_many_signatures_as_the_reader_wants(g: Builder, f: Builder, tmp_path: Path) -> None:
    one = g.write(tmp_path / "one.tar", record := g.build("one"), whole="one")
    with pytest.raises(UserError, match=r"^\S+/one\.tar: one: signed by g; 2 signatures are wanted\n"):
        take_in(one, f.store, f.person.keys, signatures=2)
    assert f.store.record(record.key) is None


def test_what_is_built_meanwhile_stays(g: Builder, f: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import waits for who holds the lock of a key."""
    one = g.write(tmp_path / "one.tar", record := g.build("one"), whole="one")
    waits = threading.Event()
    monkeypatch.setattr(log, "say", lambda _: waits.set())
    thread = threading.Thread(target=take_in, args=(one, f.store, f.person.keys))
    with f.store.lock(record.key):
        thread.start()
        assert waits.wait(30)
        f.build("one", {"a": b"built here"})
    thread.join()
    assert f.known(record) == replace(record, output=f.known(record).output)
    assert f.known(record).output != record.output
