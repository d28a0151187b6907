"""Where the files of a plain tar are: for archives of our own layout, which are read in place and not unpacked.

Only what our own writer and `tar --create` make of files with short names is taken: no compression, no links, no
extended headers, so that each header is 512 bytes and none asks for more.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sandkube.errors import UserError
from sandkube.run import go_on

ENTRIES = 4_000_000
"""Of a tar, at most: a terabyte in chunks."""
_BLOCK = tarfile.BLOCKSIZE
_HINT = "was it copied to its end? Copy it again, or have it made anew"


@dataclass(frozen=True, slots=True)
class Extent:
    """Where the bytes of a file are in its tar."""

    at: int
    size: int

    def read(self, descriptor: int, most: int) -> bytes:
        """So many of its bytes at most, from its start."""
        return os.pread(descriptor, min(self.size, most), self.at)


def _header(block: bytes, name: str) -> tarfile.TarInfo:
    try:
        found = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise UserError(f"{name}: no plain tar: {str(error) or type(error).__name__}", hint=_HINT) from None
    if found.size < 0:
        raise UserError(f"{name}: no plain tar: a size in it is negative", hint=_HINT)
    return found


def extents(descriptor: int, name: str, wanted: Callable[[str], bool]) -> Mapping[str, Extent]:
    """Every file of the tar behind a descriptor, by its name; `name` is what the user calls the tar.

    Raises UserError for anything that is no such tar, for one that ends early, and for a file's name that is not wanted
    or is there twice.
    """
    size, at = os.fstat(descriptor).st_size, 0
    found: dict[str, Extent] = {}
    for _ in range(ENTRIES):
        go_on()
        block = os.pread(descriptor, _BLOCK, at)
        if block == bytes(_BLOCK):
            return found
        if len(block) < _BLOCK:
            raise UserError(f"{name}: ends in the middle", hint=_HINT)
        member, at = _header(block, name), at + _BLOCK
        inner = member.name.removeprefix("./")
        if member.isdir():
            continue
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or not wanted(inner) or inner in found:
            raise UserError(f"{name}: holds {member.name[:100]!r}, which does not belong there")
        found[inner] = Extent(at, member.size)
        at += -(-member.size // _BLOCK) * _BLOCK
        if at > size:
            raise UserError(f"{name}: ends in the middle", hint=_HINT)
    raise UserError(f"{name}: holds more than {ENTRIES} files")
