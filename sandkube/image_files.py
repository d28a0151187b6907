"""The files of an image's archive or folder, read where they lie; what is compressed as a whole is unpacked before.

Archives may come from anybody: names are looked up and never made into paths, and headers that ask for more memory than
any image needs are refused.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import posixpath
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Protocol, cast

from sandkube import tree
from sandkube.errors import UserError
from sandkube.files import open_regular
from sandkube.plain_tar import Extent
from sandkube.run import go_on

PIECE = 1 << 20
_HEADERS = 4 << 20  # bytes of headers before one member, which tarfile holds in memory
_ENTRIES = 1_000_000
_COPY = "was it copied to its end? Copy it again, or have it made anew"
_Opens = Callable[[BinaryIO], IO[bytes]]
_PACKED: dict[bytes, _Opens] = {
    b"\x1f\x8b": lambda stream: cast(IO[bytes], gzip.GzipFile(fileobj=stream)),
    b"BZh": lambda stream: bz2.BZ2File(stream),
    b"\xfd7zXZ\0": lambda stream: lzma.LZMAFile(stream),  # noqa: SIM115 - its user closes it
}
_ZSTD = b"\x28\xb5\x2f\xfd"


class Files(Protocol):
    """Files by name, of an archive or a folder that the user calls `name`."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        ...

    def origin(self, name: str) -> str:
        """The file that has the bytes: another one where `name` is a link to it."""
        ...

    def size(self, name: str) -> int:
        """Bytes of a file."""
        ...

    def pieces(self, name: str, size: int) -> Iterator[bytes]:
        """The bytes of a file, so many at a time. Raises UserError where it has become shorter."""
        ...


class FolderFiles:
    """The files of a folder, to follow no link."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return tree.status(self._folder, name)
        except tree.Refused:
            return None

    def has(self, name: str) -> bool:
        """Whether there is one."""
        found = self._status(name)
        return found is not None and stat.S_ISREG(found.st_mode)

    def origin(self, name: str) -> str:
        """Itself."""
        return name

    def size(self, name: str) -> int:
        """Bytes of a file."""
        found = self._status(name)
        assert found is not None
        return found.st_size

    def pieces(self, name: str, size: int) -> Iterator[bytes]:
        """Its bytes."""
        with tree.open_file(self._folder, name) as stream:
            left = os.fstat(stream.fileno()).st_size
            yield from _pieces(lambda at, most: os.pread(stream.fileno(), most, at), 0, left, size, self.name)


class TarFiles:
    """The files of a tar behind a descriptor."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self._stream = stream
        self._extents: dict[str, Extent] = {}
        self._links: dict[str, str] = {}
        self._read()

    def _read(self) -> None:
        size = os.fstat(self._stream.fileno()).st_size
        source = _Bounded(self._stream.fileno(), size)
        try:
            for member in _members(source):
                inner = posixpath.normpath(member.name)
                self._links.pop(inner, None)
                self._extents.pop(inner, None)
                if member.issym():
                    self._links[inner] = posixpath.normpath(posixpath.join(posixpath.dirname(inner), member.linkname))
                elif member.islnk():
                    self._links[inner] = posixpath.normpath(member.linkname)
                elif member.isreg() and not member.issparse():
                    self._extents[inner] = Extent(member.offset_data, member.size)
                    if member.offset_data + member.size > size:
                        raise UserError(f"{self.name}: ends in the middle", hint=_COPY)
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise UserError(f"{self.name} is no image: no tar ({str(error) or type(error).__name__})") from None
        if source.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes a cut or damaged header for the end
            raise UserError(f"{self.name}: ends in the middle", hint=_COPY)

    def origin(self, name: str) -> str:
        """Where links lead to."""
        for _ in range(8):
            if (name := self._links.get(name, name)) in self._extents:
                break
        return name

    def has(self, name: str) -> bool:
        """Whether there is one."""
        return self.origin(name) in self._extents

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._extents[self.origin(name)].size

    def pieces(self, name: str, size: int) -> Iterator[bytes]:
        """Its bytes."""
        one = self._extents[self.origin(name)]
        read = lambda at, most: os.pread(self._stream.fileno(), most, at)  # noqa: E731
        yield from _pieces(read, one.at, one.size, size, self.name)


class _Bounded:
    """A file by its descriptor, from which little is read at once: what `tarfile` reads headers from."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size, self._at = descriptor, size, 0
        self.room = _HEADERS
        self.last = b""

    def tell(self) -> int:
        """Where it is."""
        return self._at

    def seek(self, at: int) -> int:
        """Go there."""
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        self.room -= size
        if size < 0 or self.room < 0:
            raise tarfile.ReadError("a header of it is too large")
        self.last = os.pread(self._descriptor, size, self._at)
        self._at += len(self.last)
        return self.last


def _members(source: _Bounded) -> Iterator[tarfile.TarInfo]:
    archive = tarfile.TarFile(fileobj=source)  # type: ignore[arg-type]  # read, seek and tell are all that it calls
    for _ in range(_ENTRIES):
        source.room = _HEADERS
        if (member := archive.next()) is None:
            return
        archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
        go_on()
        yield member
    raise tarfile.ReadError(f"it holds more than {_ENTRIES} files")


class _Read(Protocol):
    def __call__(self, at: int, most: int, /) -> bytes: ...


def _pieces(read: _Read, at: int, left: int, size: int, name: str) -> Iterator[bytes]:
    while left:
        go_on()
        if not (piece := read(at, min(left, size))):
            raise UserError(f"{name}: became shorter while it was read")
        yield piece
        at, left = at + len(piece), left - len(piece)


@contextlib.contextmanager
def folder_or_archive(path: Path, scratch: Path) -> Iterator[Files]:
    """What stands at a path. Raises UserError; what is to be written lies in the folder `scratch`, without a name."""
    try:
        mode = path.stat().st_mode
        stream = None if stat.S_ISDIR(mode) else path.open("rb") if stat.S_ISFIFO(mode) else open_regular(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if stream is None:
        yield FolderFiles(path, str(path))
        return
    with stream, archive(stream, str(path), scratch) as files:
        yield files


@contextlib.contextmanager
def archive(stream: BinaryIO, name: str, scratch: Path) -> Iterator[Files]:
    """The files of an archive that is read from its start: a file, or a stream, which is kept in `scratch`."""
    with contextlib.ExitStack() as kept:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream = kept.enter_context(_whole(stream, scratch))
        magic = os.pread(stream.fileno(), 6, 0)
        if not magic:
            raise UserError(f"{name} is empty, no image")
        if magic.startswith(_ZSTD):
            raise UserError(f"{name} is compressed by zstd as a whole", hint=f"zstd -dc {name} | ./do load-image -")
        for start, opens in _PACKED.items():
            if magic.startswith(start):
                stream.seek(0)
                stream = kept.enter_context(_unpacked(stream, opens, name, scratch))
                break
        yield TarFiles(stream, name)


def _unpacked(stream: BinaryIO, opens: _Opens, name: str, scratch: Path) -> BinaryIO:
    try:
        with opens(stream) as unpacked:
            return _whole(unpacked, scratch)
    except EOFError:
        raise UserError(f"{name}: ends in the middle", hint=_COPY) from None
    except (zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the machine's
            raise
        raise UserError(f"{name}: damaged: {error}", hint=_COPY) from None


def _whole(stream: IO[bytes], scratch: Path) -> BinaryIO:
    """A stream's bytes as a file that nobody else sees."""
    whole = os.fdopen(os.open(scratch, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b")
    try:
        while piece := stream.read(PIECE):
            go_on()
            whole.write(piece)
        whole.flush()
    except BaseException:
        whole.close()
        raise
    return whole
