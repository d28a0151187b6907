"""The one place that reads and writes archives: zip, tar, Debian packages.

Unpacking keeps names, contents, symbolic links that stay inside, and the executable bit; nothing else.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO

import zstandard

from sandkube.errors import UserError


def _inside(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{archive.name}: refuses to unpack {name!r}, which leaves its folder")
    return path


def unpack_zip(path: Path, into: Path, *, strip_prefix: str = "") -> None:
    """Unpack a zip into a folder; members outside of `strip_prefix` are refused."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.startswith(strip_prefix):
                raise UserError(f"{path.name}: {member.filename!r} is not below {strip_prefix!r}")
            target = into / _inside(member.filename[len(strip_prefix) :], path)
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            target.chmod(0o755 if (member.external_attr >> 16) & stat.S_IXUSR else 0o644)


def _link_stays(name: PurePosixPath, aim: str) -> bool:
    depth = len(name.parts) - 1
    if aim.startswith("/"):
        return False
    for part in PurePosixPath(aim).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return False
    return True


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, into: Path, strip: int, origin: Path) -> None:
    name = PurePosixPath(*_inside(member.name, origin).parts[strip:])
    if not name.parts:
        return
    target = into / name
    if any((into / parent).is_symlink() for parent in name.parents):
        raise UserError(f"{origin.name}: refuses to unpack {member.name!r} through a symbolic link")
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        target.mkdir(exist_ok=True)
    elif member.issym():
        aim = member.linkname
        if aim.startswith("/"):  # absolute in the package's own root: make it relative to stay inside
            aim = os.path.relpath(aim.lstrip("/"), str(name.parent))
        if not _link_stays(name, aim):
            raise UserError(f"{origin.name}: refuses the link {member.name!r} -> {member.linkname!r}")
        target.symlink_to(aim)
    elif member.isreg() or member.islnk():
        source = archive.extractfile(member)
        assert source is not None
        with target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        target.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)
    else:
        raise UserError(f"{origin.name}: {member.name!r} is neither file, folder nor link")


def _unpack_tar_stream(stream: IO[bytes], into: Path, strip: int, origin: Path) -> None:
    with tarfile.open(fileobj=stream, mode="r:*") as archive:
        for member in archive:
            _unpack_member(archive, member, into, strip, origin)


def unpack_tar(path: Path, into: Path, *, strip: int = 0) -> None:
    """Unpack a tar, plain or compressed by gzip, bzip2, xz or zstd, without the first `strip` parts of each name."""
    with path.open("rb") as stream:
        magic = stream.read(4)
        stream.seek(0)
        if magic == b"\x28\xb5\x2f\xfd":
            data = zstandard.ZstdDecompressor().stream_reader(stream).read()
            _unpack_tar_stream(io.BytesIO(data), into, strip, path)
        else:
            _unpack_tar_stream(stream, into, strip, path)


def unpack_deb(path: Path, into: Path) -> None:
    """Unpack the files (`data.tar.*`) of a Debian binary package: an ar archive, deb(5)."""
    with path.open("rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise UserError(f"{path.name}: not a Debian package")
        while header := stream.read(60):
            name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
            data = stream.read(size)
            stream.seek(size % 2, os.SEEK_CUR)
            if name.startswith("data.tar"):
                if name.endswith(".zst"):
                    data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
                _unpack_tar_stream(io.BytesIO(data), into, 0, path)
                return
    raise UserError(f"{path.name}: holds no data.tar")


def write_tar_gz(root: Path, target: Path, *, mtime: int) -> None:
    """`write_tar`, compressed; what is there already is replaced when the new file is whole."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=mtime) as stream:
            _write_tar(root, stream, {}, mtime)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_tar(root: Path, target: Path, *, modes: Mapping[str, int], mtime: int) -> None:
    """Write a tree as a plain tar: sorted names, owner 0:0, one time, modes 0644/0755 unless `modes` says else."""
    with target.open("wb") as file:
        _write_tar(root, file, modes, mtime)


def _write_tar(root: Path, out: IO[bytes] | gzip.GzipFile, modes: Mapping[str, int], mtime: int) -> None:

    def entry(path: Path) -> tarfile.TarInfo:
        name = str(path.relative_to(root))
        member = tarfile.TarInfo(name)
        member.mtime = mtime
        if path.is_symlink():
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
        elif path.is_dir():
            member.type, member.mode = tarfile.DIRTYPE, modes.get(name, 0o755)
        else:
            status = path.stat()
            member.size = status.st_size
            member.mode = modes.get(name, 0o755 if status.st_mode & stat.S_IXUSR else 0o644)
        return member

    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).parts):
            member = entry(path)
            if member.isreg():
                with path.open("rb") as stream:
                    archive.addfile(member, stream)
            else:
                archive.addfile(member)
