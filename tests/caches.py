"""What tests of shared caches are made of: trees with records, people with keys, and caches as they set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandkube.build.cache.keys import Keys
from sandkube.build.cache.push import Pusher
from sandkube.build.cache.settings import Setting
from sandkube.build.cache.shared import Shared
from sandkube.build.cache.statement import read
from sandkube.build.derivation import key_of
from sandkube.build.store import Record
from sandkube.digest import Json
from sandkube.nar import nar_hash
from sandkube.tree import normalise


@dataclass(frozen=True)
class Made:
    """A record, and its tree."""

    record: Record
    tree: Path


def made(folder: Path, files: Mapping[str, bytes], *, name: str = "one", key: str = "") -> Made:
    """A tree in a new folder, by what a step of that name would have made of `key`."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    normalise(folder)
    preimage: dict[str, Json] = {"schema": 1, "key": key or name}
    return Made(Record(key_of(preimage), nar_hash(folder), name, preimage), folder)


@dataclass(frozen=True)
class Person:
    """Somebody with a folder of keys."""

    keys: Keys

    @classmethod
    def at(cls, folder: Path, *trusted: Person) -> Person:
        """A person with a key of the folder's name, who trusts these as well."""
        one = cls(Keys(folder))
        one.keys.new(folder.name)
        for each in trusted:
            one.keys.trust(each.keys.trusted()[0])
        return one

    def caches(self, *addresses: str, signatures: int = 1) -> Shared:
        """Caches in a new run; one that may be written ends with ?write."""
        parts = [each.partition("?") for each in addresses]
        return Shared([Setting(one, write=bool(flag), signatures=signatures) for one, _, flag in parts], self.keys)

    def push(self, one: Made, *addresses: str) -> list[str]:
        """Push a tree in a run of its own; what is said at the end."""
        shared = self.caches(*(f"{each}?write" for each in addresses))
        Pusher(shared).push(one.record, one.tree)
        return list(shared.report())


def pulled(shared: Shared, one: Record, at: Path, old: Path | None = None) -> str | None:
    """Fetch the tree of what a key has produced, as a build does; its hash, None where there is none that is believed.

    Whatever it is, it is checked here to be what was signed.
    """
    record = shared.record(one.name, one.key)
    if record is None:
        return None
    at.mkdir()
    found = shared.pull(one.name, record, at, old)
    if found is None:
        return None
    assert nar_hash(found[0]) == record.output
    return record.output


def index_of(data: bytes, key: str) -> str:
    """The SHA-256 of the index that a published record names."""
    index = read(data, key).index
    assert index is not None
    return index.sha256
