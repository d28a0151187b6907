"""What a cache keeps of a key: a statement on what it produced, and who signed it.

    {"record": {"key", "name", "output", "size", "preimage"}, "index": {"sha256", "size"},
     "signatures": {<public key, base64>: <signature, base64>}}

A record that is kept without its tree has no index, and size 0: decisions are made from it, its tree is a miss.

Signed is the canonical JSON of `record`, after a line that says what it is. It is believed for nothing but what the key
produced: the bytes of the tree are hashed all the same. The index is not signed: it only says how a cache holds the
tree, which may differ by version of the compressor, and a wrong one gives other bytes, or not `size` of them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from sandkube.build.cache.chunks import INDEX_LIMIT
from sandkube.build.cache.kind import RECORD_LIMIT, Blob
from sandkube.build.derivation import key_of
from sandkube.build.store import Record
from sandkube.decode import Fault, decoded, looks_like
from sandkube.digest import canonical_json
from sandkube.documents import parse_json
from sandkube.errors import Problems, UserError
from sandkube.shapes import RecipeName, Sha256, Size

_CONTEXT = b"sandkube record 1\n"
PUBLIC, SIGNATURE = 32, 64  # bytes
IndexSize = Annotated[int, looks_like("the size of an index", lambda value: 0 < value <= INDEX_LIMIT)]
PublicText = Annotated[str, looks_like("a public key, base64", lambda value: unbase64(value, PUBLIC))]
SignatureText = Annotated[str, looks_like("a signature, base64", lambda value: unbase64(value, SIGNATURE))]


@dataclass(frozen=True, slots=True)
class Index:
    """The blob that lists a tree's chunks."""

    sha256: Sha256
    size: IndexSize

    def blob(self) -> Blob:
        """As caches hold it."""
        return Blob(self.sha256, self.size)


@dataclass(frozen=True, slots=True)
class Statement:
    """That a key produced an output, whose NAR has `size` bytes; 0 where nobody says."""

    key: Sha256
    name: RecipeName
    output: Sha256
    size: Size
    preimage: Mapping[str, Any]

    def message(self) -> bytes:
        """What is signed."""
        return _CONTEXT + canonical_json(asdict(self))

    def record(self) -> Record:
        """As the store keeps it."""
        return Record(self.key, self.output, self.name, self.preimage)


@dataclass(frozen=True, slots=True)
class Signed:
    """A statement, the index of the tree if that is kept, and signatures by public key; none is checked yet."""

    record: Statement
    index: Index | None
    signatures: Mapping[PublicText, SignatureText]

    def faults(self) -> Iterator[Fault]:
        """A tree whose size nobody says would be read without an end."""
        if self.index is not None and not self.record.size:
            yield ("index",), "expected null, for the record says no size"

    def encode(self) -> bytes:
        """As caches keep it."""
        return canonical_json(asdict(self))


def joined(known: Signed | None, more: Signed) -> Signed:
    """What two documents of one key and output say: one statement, with the signatures that both have of it.

    Where they differ in it, the first stays, unless only the second lists a tree.
    """
    if known is None or (known.index is None and more.index is not None and known.record != more.record):
        return more
    if known.record != more.record:
        return known
    return Signed(known.record, known.index or more.index, {**more.signatures, **known.signatures})


def kept(data: bytes | None, record: Record) -> Signed | None:
    """What a store keeps beside a record that it adopted; None where that is nothing, damaged, or on another output."""
    try:
        found = None if data is None else read(data, record.key)
    except UserError:
        return None
    return found if found and found.record.output == record.output else None


def unbase64(text: str, size: int) -> bytes | None:
    """Bytes of a given size; None for what is not their one form in base64."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if len(found) == size and base64.b64encode(found).decode() == text else None


def read(data: bytes, key: str) -> Signed:
    """What a cache keeps of a key. Raises UserError with a sentence for anything else."""
    if len(data) > RECORD_LIMIT:
        raise UserError("a record that is too large")
    try:
        found = decoded(Signed, parse_json(data), "record")
        own = key_of(found.record.preimage)
    except Problems as problems:
        raise UserError(f"no sound record: {problems.problems[0]}") from None
    except (ValueError, RecursionError) as error:  # of floats, surrogates and depths that no preimage has
        raise UserError(f"no sound record: {error}") from None
    if not found.record.key == own == key:
        raise UserError("the record of another key")
    return found
