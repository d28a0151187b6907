"""What a shared cache is: records by key, and blobs by the SHA-256 of their bytes. It is trusted with nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from sandkube.errors import Unusable

RECORD_LIMIT = 4 << 20
"""Bytes of a record, at most."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that a cache holds: their SHA-256, 64 hexadecimal characters, and how many they are."""

    sha256: str
    size: int


class Stalled(Unusable):
    """A cache is silent for so long, or so slow, that it is asked no more."""


class Cache(Protocol):
    """One place. Several threads may use it at once. All methods raise Unusable."""

    def record(self, key: str) -> bytes | None:
        """What is kept of a key, as it was published; None for nothing. Raises UserError for what is no record."""
        ...

    def blob(self, one: Blob) -> bytes | None:
        """Bytes that are said to be a blob, not more than its size; None where there are none. The caller hashes."""
        ...

    def missing(self, blobs: Sequence[Blob]) -> list[Blob]:
        """Those that the cache has not, or not in their size."""
        ...

    def put(self, one: Blob, data: bytes) -> None:
        """Take a blob in."""
        ...

    def publish(self, key: str, record: bytes, blobs: Sequence[Blob]) -> None:
        """Make a record visible, when all `blobs` that it stands for were put."""
        ...


@runtime_checkable
class SourceCache(Protocol):
    """A cache that keeps files of sources, too, each whole and by a name that says which bytes it must have
    (`sandkube.build.sources.parts`). A cache without these methods has none, and is given none. All raise Unusable.
    """

    def source(self, name: str, sink: BinaryIO, limit: int) -> bool:
        """Write the bytes of a name to an empty file, one more than `limit` at most; whether there are any. The caller
        hashes."""
        ...

    def has_source(self, name: str) -> bool:
        """Whether there is something by a name."""
        ...

    def put_source(self, name: str, path: Path) -> None:
        """Take a file in."""
        ...
