"""A tree from its NAR, which may come from anybody: read strictly, written below one folder, hashed on its way.

What `sandkube.nar` writes is the only form that is taken: names sorted and each once, padding of zeros, nothing
after the end. Files get their final modes and time, so that the tree is in the form that the store keeps.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sandkube.errors import UserError
from sandkube.run import go_on
from sandkube.tree import DEPTH, TIME
from sandkube.tree.names import enter, make_in

_TOKEN = 4095  # bytes of a link's aim, at most: PATH_MAX without its NUL
_NAME = 255  # bytes of a name, at most: NAME_MAX


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class BadNar(UserError):
    """Bytes that are not the NAR of a tree."""


@functools.cache
def _text(*words: bytes) -> bytes:
    """Words as they stand in a NAR: the length, 8 bytes, then the word, then zeros up to a multiple of 8 bytes."""
    return b"".join(len(word).to_bytes(8, "little") + word + bytes(-len(word) % 8) for word in words)


class _Stream:
    """Pieces of a byte stream, read in other sizes; all of it is hashed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece, self._at = b"", 0
        self.hash = hashlib.sha256()

    def _fill(self) -> bool:
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self.hash.update(piece)
            self._piece, self._at = piece, 0
        return True

    def some(self, most: int) -> memoryview:
        """From 1 to `most` bytes."""
        if not self._fill():
            raise BadNar("it ends in the middle")
        found = memoryview(self._piece)[self._at : self._at + most]
        self._at += len(found)
        return found

    def exactly(self, size: int) -> bytes:
        """So many bytes."""
        end = self._at + size
        if end <= len(self._piece):
            found = self._piece[self._at : end]
            self._at = end
            return found
        parts = []
        while size:
            parts.append(bytes(self.some(size)))
            size -= len(parts[-1])
        return b"".join(parts)

    def passes(self, *words: bytes) -> bool:
        """Pass these words if they stand here, which is not seen where a piece ends in the middle of them."""
        text = _text(*words)
        if not self._piece.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def number(self) -> int:
        """A size, 8 bytes."""
        return int.from_bytes(self.exactly(8), "little")

    def padding(self, size: int) -> None:
        """The zeros that follow `size` bytes."""
        if any(self.exactly(-size % 8)):
            raise BadNar("its padding is not zeros")

    def token(self) -> bytes:
        """A byte string that is a word of the format, a name or a link's aim."""
        size = self.number()
        if size > _TOKEN:
            raise BadNar("a name in it is too long")
        found = self.exactly(size)
        self.padding(size)
        return found

    def expect(self, *words: bytes) -> None:
        """These words, in this order."""
        for word in () if self.passes(*words) else words:
            if (found := self.token()) != word:
                raise BadNar(f"it has {found[:40]!r} where {word!r} belongs")

    def at_end(self) -> bool:
        """Whether there is nothing more."""
        return not self._fill()


def _name(found: bytes, before: bytes) -> str:
    odd = found in (b"", b".", b"..") or b"/" in found or b"\0" in found or len(found) > _NAME
    if odd or found <= before:
        raise BadNar(f"{found[:80]!r} is no name, or not the next one")
    return os.fsdecode(found)


def _regular(source: _Stream, folder: int, name: str) -> None:
    word, executable = source.token(), False
    if word == b"executable":
        source.expect(b"")
        word, executable = source.token(), True
    if word != b"contents":
        raise BadNar(f"it has {word[:40]!r} where a file's contents belong")
    _contents(source, folder, name, 0o555 if executable else 0o444)


def _contents(source: _Stream, folder: int, name: str, mode: int) -> None:
    left = size = source.number()
    file = os.open(name, _NEW, 0o600, dir_fd=folder)
    try:
        os.fchmod(file, mode)
        while left:
            rest = source.some(left)
            left -= len(rest)
            while rest:
                rest = rest[os.write(file, rest) :]
        os.utime(file, (TIME, TIME))
    finally:
        os.close(file)
    source.padding(size)
    source.expect(b")")


def _symlink(source: _Stream, folder: int, name: str) -> None:
    source.expect(b"target")
    aim = source.token()
    if not aim or b"\0" in aim:
        raise BadNar(f"the link {name!r} points to nothing")
    os.symlink(os.fsdecode(aim), name, dir_fd=folder)
    os.utime(name, (TIME, TIME), dir_fd=folder, follow_symlinks=False)
    source.expect(b")")


def _directory(source: _Stream, folder: int, name: str, depth: int) -> None:
    if depth > DEPTH:
        raise BadNar(f"it is more than {DEPTH} folders deep")
    make_in(folder, name)
    inside = enter(folder, name, name)
    try:
        before = b""
        for found in _entries(source):
            _node(source, inside, _name(found, before), depth + 1)
            source.expect(b")")
            before = found
        os.fchmod(inside, 0o555)
        os.utime(inside, (TIME, TIME))
    finally:
        os.close(inside)


def _entries(source: _Stream) -> Iterator[bytes]:
    """The names in a folder; what stands at each is to be read before the next one."""
    while True:
        if not source.passes(b"entry", b"(", b"name"):
            if (word := source.token()) == b")":
                return
            if word != b"entry":
                raise BadNar(f"it has {word[:40]!r} where an entry belongs")
            source.expect(b"(", b"name")
        name = source.token()
        source.expect(b"node")
        yield name


_USUAL = (
    ((b"(", b"type", b"regular", b"contents"), 0o444),
    ((b"(", b"type", b"regular", b"executable", b"", b"contents"), 0o555),
)
"""How most nodes begin, and the mode of such a file."""


def _node(source: _Stream, folder: int, name: str, depth: int = 0) -> None:
    go_on()
    for words, mode in _USUAL:
        if source.passes(*words):
            return _contents(source, folder, name, mode)
    source.expect(b"(", b"type")
    match source.token():
        case b"regular":
            _regular(source, folder, name)
        case b"symlink":
            _symlink(source, folder, name)
        case b"directory":
            _directory(source, folder, name, depth)
        case other:
            raise BadNar(f"{name!r} is of the unknown type {other[:40]!r}")
    return None


def restore(pieces: Iterable[bytes], at: Path) -> str:
    """Make the tree, file or link at a path where nothing is yet; the SHA-256 of the NAR that `pieces` are.

    Raises BadNar, and OSError for what the machine refuses; what was made so far stays then, for the caller to remove.
    """
    source = _Stream(pieces)
    folder = os.open(at.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        source.expect(b"nix-archive-1")
        _node(source, folder, at.name)
        if not source.at_end():
            raise BadNar("something follows its end")
    finally:
        os.close(folder)
    return source.hash.hexdigest()
