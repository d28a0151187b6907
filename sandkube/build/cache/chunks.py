"""A tree on its way: its NAR cut by content into chunks (FastCDC), so that versions of a tree share most of them.

A tree's index is the list of its chunks. In it each chunk is named twice: by its own bytes, by which a reader finds
it in a tree that it has already, and by the bytes of its compressed form, which is what caches hold.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandkube.build.cache.kind import Blob
from sandkube.digest import sha256_bytes
from sandkube.errors import UserError
from sandkube.later import later
from sandkube.nar import dump

if TYPE_CHECKING:
    import pyfastcdc
    import zstandard
else:
    pyfastcdc = later("pyfastcdc")
    zstandard = later("zstandard")

SMALLEST, USUAL, LARGEST = 64 << 10, 256 << 10, 1 << 20  # bytes of a chunk
INDEX_LIMIT = 64 << 20
"""Bytes of an index, at most: 900,000 chunks, 230 GB."""
_LEVEL = 3
_MAGIC = b"sandkube index 1\n"
_ROW = struct.Struct(">32sI32sI")
_HELD = 8 << 20  # bytes that are gathered before they are cut


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a NAR: its SHA-256 and size, and the blob that is its compressed form."""

    sha256: str
    size: int
    blob: Blob


def pack(data: bytes) -> tuple[Chunk, bytes]:
    """A chunk, and the bytes of its blob."""
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compress(data)
    return Chunk(sha256_bytes(data), len(data), Blob(sha256_bytes(packed), len(packed))), packed


def unpack(chunk: Chunk, packed: bytes) -> bytes | None:
    """The bytes of a chunk; None where these are not its blob, or hold more or less. Nothing larger is unpacked.

    That they are those of the chunk is not looked at: the blob is what the index names, and whether the index names
    the right one shows when the whole NAR is hashed, which is done anyway.
    """
    if len(packed) != chunk.blob.size or sha256_bytes(packed) != chunk.blob.sha256:
        return None
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            data: bytes = reader.read(chunk.size + 1)
    except zstandard.ZstdError:
        return None
    return data if len(data) == chunk.size else None


def cut(tree: Path, take: Callable[[bytes], None]) -> None:
    """Hand the chunks of a tree's NAR to `take`, in order."""
    cutter = pyfastcdc.FastCDC(avg_size=USUAL, min_size=SMALLEST, max_size=LARGEST)
    held = bytearray()

    def cut_off(least: int) -> None:
        at = 0
        for each in cutter.cut_buf(bytes(held)):
            if len(held) - at < least:
                break
            take(bytes(each.data))
            at += each.length
        del held[:at]

    def gather(data: bytes) -> None:
        held.extend(data)
        if len(held) > _HELD:
            cut_off(LARGEST)  # where the next one ends is known only with as many bytes as it may have

    dump(tree, gather)
    cut_off(0)


def index_limit(size: int) -> int:
    """Bytes of the index of a NAR of `size` bytes, at most: of its chunks only the last may be smaller than others."""
    return len(_MAGIC) + (size // SMALLEST + 1) * _ROW.size


def encode(chunks: list[Chunk]) -> bytes:
    """An index."""
    rows = (
        _ROW.pack(bytes.fromhex(each.sha256), each.size, bytes.fromhex(each.blob.sha256), each.blob.size)
        for each in chunks
    )
    return _MAGIC + b"".join(rows)


def decode(data: bytes) -> Iterator[Chunk]:
    """The chunks of an index. Raises UserError for what is none."""
    if not data.startswith(_MAGIC) or (len(data) - len(_MAGIC)) % _ROW.size:
        raise UserError("not an index of chunks")
    for own, size, packed, packed_size in _ROW.iter_unpack(data[len(_MAGIC) :]):
        if not (0 < size <= LARGEST and 0 < packed_size <= 2 * LARGEST):
            raise UserError("an index with a chunk of an impossible size")
        yield Chunk(own.hex(), size, Blob(packed.hex(), packed_size))
