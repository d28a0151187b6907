"""The one place that reads archives: zip, tar, Debian packages.

Unpacking keeps names, contents, symbolic links that stay inside, and the executable bit; nothing else. Archives may
come from anybody: whatever their bytes are, unpacking ends with a tree or with a UserError, one sentence that names the
archive; with nothing outside of the folder and bounded memory. Not more than `LIMIT` bytes and `ENTRIES` entries are
unpacked.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import zstandard

from sandkube import tree
from sandkube.errors import UserError
from sandkube.run import go_on

LIMIT = 8 << 30  # bytes; the largest source of today unpacks to a twentieth of it
ENTRIES = 1_000_000
_HEADER = 4 << 20  # bytes of headers before one member, which tarfile holds in memory
_AIM = 4095  # bytes of a symbolic link, path_resolution(7)
_DICTIONARY = 256 << 20  # bytes that an xz file may ask for; xz -9 asks for 64 MiB
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, zstandard.ZstdError, struct.error)
_ODD = (EOFError, ValueError, LookupError, ArithmeticError, RuntimeError)  # what the same libraries raise as well
_HINT = "look at what the address gives: a page may have been taken for the archive, or the file was cut short"


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Whatever is wrong with an archive as one sentence about it."""
    try:
        yield
    except tree.Refused as refusal:
        raise UserError(f"{name}: refuses to unpack: {refusal.message}") from None
    except (*_DAMAGE, *_ODD) as error:
        raise _damaged(name, error) from None
    except OSError as error:  # gzip and bz2 call damage so too, and an offset of a zip may lead anywhere
        if error.errno not in (None, errno.EINVAL, errno.EOVERFLOW):  # the machine's
            raise
        raise _damaged(name, error) from None


def _damaged(name: str, error: Exception) -> UserError:
    return UserError(f"{name}: damaged: {str(error) or type(error).__name__}", hint=_HINT)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Xz(io.RawIOBase):
    """xz and lzma, also several streams; `lzma.LZMAFile` gives a file all the memory that its header asks for."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._ahead = b""
        self._part: lzma.LZMADecompressor | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def _next(self) -> lzma.LZMADecompressor | None:
        """The stream that is being read or comes after padding; None at the end."""
        if self._part is not None and not self._part.eof:
            return self._part
        while not (ahead := self._ahead.lstrip(b"\0")):
            if not (ahead := self._stream.read(tree.PIECE)):
                return None
            self._ahead = ahead
        self._ahead = ahead
        self._part = lzma.LZMADecompressor(memlimit=_DICTIONARY)
        return self._part

    def readinto(self, buffer: Any) -> int:
        """At least one byte, but for the end. Raises LZMAError, EOFError."""
        while part := self._next():
            data = b""
            if part.needs_input:
                data, self._ahead = self._ahead or self._stream.read(tree.PIECE), b""
                if not data:
                    raise EOFError("it ends in the middle")
            found = part.decompress(data, len(buffer))
            if part.eof:
                self._ahead = part.unused_data
            if found:
                buffer[: len(found)] = found
                return len(found)
        return 0


class _Section(io.RawIOBase):
    """The next `size` bytes of a stream."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, size

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What is there of it. Raises EOFError when the stream ends before."""
        found = self._stream.read(min(len(buffer), self._left))
        if self._left and not found:
            raise EOFError("it ends in the middle")
        self._left -= len(found)
        buffer[: len(found)] = found
        return len(found)


def _unzipped(stream: io.BufferedReader) -> _Readable:
    """The bytes of a stream that is compressed as its first bytes say, or not at all."""
    magic = stream.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=stream)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(stream)
    if magic.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return io.BufferedReader(_Xz(stream))
    if magic.startswith(b"\x28\xb5\x2f\xfd") or re.match(rb"[\x50-\x5f]\x2a\x4d\x18", magic):
        return zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
    return stream


class _Forward:
    """A stream that is read forward only, in pieces, and counted: what `tarfile` reads from."""

    def __init__(self, stream: _Readable, limit: int) -> None:
        self._stream, self._limit, self._at = stream, limit, 0
        self.last = b""
        self.room: int | None = None
        """Bytes that may be read of headers; None while contents are read."""

    def tell(self) -> int:
        """Bytes so far."""
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """`size` bytes, fewer at the end only."""
        if size < 0 or (self.room is not None and size > self.room):
            raise tarfile.ReadError("a header of it is too large")
        if self.room is not None:
            self.room -= size
        pieces = []
        while size and (piece := self._stream.read(min(size, tree.PIECE))):
            go_on()
            pieces.append(piece)
            size -= len(piece)
            self._at += len(piece)
            if self._at > self._limit:
                raise tree.Refused(f"it holds more than {self._limit} bytes")
        self.last = b"".join(pieces)
        return self.last

    def seek(self, at: int) -> int:
        """Go forward."""
        if at < self._at:
            raise tarfile.ReadError("a size in it is wrong")
        room, self.room = self.room, None
        while self._at < at and self.read(min(at - self._at, tree.PIECE)):
            pass
        self.room = room
        return self._at


def _members(source: _Forward) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members of a tar, which must have its end, one at a time. Raises TarError and what `_reading` knows."""
    source.room = _HEADER
    archive = tarfile.TarFile(fileobj=source)  # type: ignore[arg-type]  # read, seek and tell are all that it calls
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
        if sum(len(key) + len(value) for key, value in archive.pax_headers.items()) > _HEADER:
            raise tarfile.ReadError("its headers are too large")
        source.room = None
        yield archive, member
        source.room = _HEADER
    if source.last != bytes(tarfile.BLOCKSIZE):  # tarfile takes a cut or damaged header for the end
        raise tarfile.ReadError("it ends in the middle")
    source.room = None
    while source.read(tree.PIECE):  # checksums come last
        pass


def _below(name: str, strip: int) -> str:
    return "/".join(tree.parts_of(name)[strip:])


def _tar_link(into: Path, name: str, member: tarfile.TarInfo) -> None:
    aim = member.linkname
    if aim.startswith("/"):  # absolute in the package's own root: make it relative to stay inside
        aim = os.path.relpath(aim.lstrip("/"), os.path.dirname(name))  # noqa: PTH120
    tree.discard(into, name)
    tree.link(into, name, aim)


def _hard_link(into: Path, name: str, aim: str) -> None:
    """A copy of what a hard link is the second name of."""
    found = tree.status(into, aim) if aim and aim != name else None
    if found is None or stat.S_ISDIR(found.st_mode):
        raise tree.Refused(f"the hard link {name!r} to {aim!r}, which is no file before it")
    tree.discard(into, name)
    if stat.S_ISLNK(found.st_mode):
        tree.link(into, name, tree.aim_of(into, aim))
    else:
        tree.copy(into, aim, into, name)


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, into: Path, strip: int) -> None:
    """One member; as tar does, a file or link takes the place of an earlier one."""
    name = _below(member.name, strip)
    if not name:
        return
    if member.isdir():
        tree.make_folder(into, name)
    elif member.issym():
        _tar_link(into, name, member)
    elif member.islnk():
        _hard_link(into, name, _below(member.linkname, strip))
    elif member.isreg():
        source = archive.extractfile(member)
        assert source is not None
        tree.discard(into, name)
        with tree.create(into, name, executable=bool(member.mode & stat.S_IXUSR)) as sink:
            shutil.copyfileobj(source, sink, tree.PIECE)
    else:
        raise tree.Refused(f"{member.name!r} is neither file, folder nor link")


def _unpack_tar(stream: io.BufferedReader, into: Path, strip: int, limit: int) -> None:
    unpacked = 0
    for count, (archive, member) in enumerate(_members(_Forward(_unzipped(stream), limit))):
        unpacked += member.size  # of a sparse file more than the archive holds
        _check_size(unpacked, count, limit)
        _unpack_member(archive, member, into, strip)
    tree.check_links(into)


def _check_size(unpacked: int, count: int, limit: int) -> None:
    if unpacked > limit or count >= ENTRIES:
        raise tree.Refused(f"it holds more than {limit} bytes or {ENTRIES} entries")


def unpack_tar(path: Path, into: Path, *, name: str, strip: int = 0, limit: int = LIMIT) -> None:
    """Unpack a tar into an empty folder, without the first `strip` parts of each name.

    It may be plain or compressed by gzip, bzip2, xz, lzma or zstd. `name` is what the user calls it.
    """
    with _reading(name), path.open("rb") as stream:
        _unpack_tar(stream, into, strip, limit)


def _ar_header(header: bytes) -> tuple[bytes, int]:
    """Name and size of an ar member."""
    if len(header) < 60 or header[58:] != b"`\n" or not (size := header[48:58].strip()).isdigit():
        raise tarfile.ReadError("a header of it is cut or no header")
    return header[:16].rstrip(), int(size)


def unpack_deb(path: Path, into: Path, *, name: str, limit: int = LIMIT) -> None:
    """Unpack the files (`data.tar.*`) of a Debian binary package: an ar archive, deb(5)."""
    with _reading(name), path.open("rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise UserError(f"{name}: not a Debian package", hint=_HINT)
        while header := stream.read(60):
            member, size = _ar_header(header)
            if member.startswith(b"data.tar"):
                _unpack_tar(io.BufferedReader(_Section(stream, size)), into, 0, limit)
                return
            stream.seek(size + size % 2, os.SEEK_CUR)
        raise UserError(f"{name}: holds no data.tar")


def _unpack_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, into: Path, room: int) -> int:
    """One entry of a zip; the number of its bytes."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        raise tree.Refused(f"{entry.filename!r} is compressed by method {entry.compress_type}")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.is_dir():
        tree.make_folder(into, entry.filename)
        return 0
    with archive.open(entry) as source:
        if kind == stat.S_IFLNK:
            tree.link(into, entry.filename, os.fsdecode(source.read(_AIM + 1)))
            return 0
        if kind not in (0, stat.S_IFREG):
            raise tree.Refused(f"{entry.filename!r} is neither file, folder nor link")
        executable = bool((entry.external_attr >> 16) & stat.S_IXUSR)
        with tree.create(into, entry.filename, executable=executable) as sink:
            counted = _Forward(source, room)
            shutil.copyfileobj(counted, sink, tree.PIECE)
            return counted.tell()


def unpack_zip(path: Path, into: Path, *, name: str, limit: int = LIMIT) -> None:
    """Unpack a zip into an empty folder. Two entries of one name are refused: readers differ on which one counts."""
    with _reading(name), zipfile.ZipFile(path) as archive:
        unpacked = 0
        for count, entry in enumerate(archive.infolist()):
            _check_size(unpacked, count, limit)
            unpacked += _unpack_entry(archive, entry, into, limit - unpacked)
        tree.check_links(into)


def decompressed(path: Path, name: str, *, limit: int = 1 << 30) -> bytes:
    """The bytes of a file that is compressed as the end of its `name` says, or not at all; `limit` of them at most."""
    with _reading(name), path.open("rb") as stream:
        match name.rpartition(".")[2]:
            case "xz":
                opened: _Readable = io.BufferedReader(_Xz(stream))
            case "gz":
                opened = gzip.GzipFile(fileobj=stream)
            case _:
                opened = stream
        source, pieces = _Forward(opened, limit), []
        while piece := source.read(tree.PIECE):
            pieces.append(piece)
        return b"".join(pieces)
