"""The Nix archive format (NAR): one byte string a tree, as in figure 5.2 of Dolstra's thesis.

It keeps names, contents, symbolic links and the executable bit; not times, owners, other modes. The output hash
is the SHA-256 of this serialisation: `nix-hash --type sha256 PATH` prints the same 64 characters.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from sandkube.errors import UserError
from sandkube.run import go_on

_PIECE = 1 << 20


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data + b"\0" * (-len(data) % 8)


_OPEN, _CLOSE, _TYPE = _string(b"("), _string(b")"), _string(b"type")
_REGULAR = _OPEN + _TYPE + _string(b"regular")
_EXECUTABLE = _string(b"executable") + _string(b"")
_CONTENTS = _string(b"contents")
_SYMLINK = _OPEN + _TYPE + _string(b"symlink") + _string(b"target")
_DIRECTORY = _OPEN + _TYPE + _string(b"directory")
_ENTRY = _string(b"entry") + _OPEN + _string(b"name")
_NODE = _string(b"node")


def _dump_file(path: str, status: os.stat_result, sink: Callable[[bytes], object]) -> None:
    sink(_REGULAR + (_EXECUTABLE if status.st_mode & stat.S_IXUSR else b"") + _CONTENTS)
    sink(status.st_size.to_bytes(8, "little"))
    left = status.st_size
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - a Path a file costs more than the hashing
        while piece := stream.read(_PIECE):
            go_on()
            left -= len(piece)
            sink(piece)
    if left:
        raise UserError(f"{path}: changed its size while it was read")
    sink(b"\0" * (-status.st_size % 8) + _CLOSE)


def _dump(path: str, sink: Callable[[bytes], object], names: Callable[[str], Iterable[str]]) -> None:
    status = os.lstat(path)
    if stat.S_ISREG(status.st_mode):
        _dump_file(path, status, sink)
    elif stat.S_ISLNK(status.st_mode):
        sink(_SYMLINK + _string(os.fsencode(os.readlink(path))) + _CLOSE)  # noqa: PTH115
    elif stat.S_ISDIR(status.st_mode):
        sink(_DIRECTORY)
        for name in sorted(map(os.fsencode, names(path))):  # bytes order, as Nix sorts
            sink(_ENTRY + _string(name) + _NODE)
            _dump(os.path.join(path, os.fsdecode(name)), sink, names)  # noqa: PTH118
            sink(_CLOSE)
        sink(_CLOSE)
    else:
        raise UserError(f"{path}: neither file, folder nor symbolic link: it cannot be part of an output")


def dump(path: Path, sink: Callable[[bytes], object], names: Callable[[str], Iterable[str]] = os.listdir) -> None:
    """Feed the NAR of a tree, file or link to `sink`, piece by piece.

    `names` gives what counts of the folder at a path: all of it, unless told otherwise.
    """
    sink(_string(b"nix-archive-1"))
    _dump(str(path), sink, names)


def nar_hash(path: Path) -> str:
    """The output hash of a tree: SHA-256 of its NAR, 64 hexadecimal characters."""
    state = hashlib.sha256()
    dump(path, state.update)
    return state.hexdigest()
