"""The one place that writes archives: tar, plain and compressed by gzip, and zip. The same bytes wherever it runs."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO

from sandkube import tree


def write_tar_gz(
    places: Mapping[str, Path], target: Path, *, mtime: int, modes: Mapping[str, int] = MappingProxyType({})
) -> None:
    """`write_tar`, compressed; what is there already is replaced when the new file is whole."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=mtime) as stream:
            _write_tar(places, stream, modes, mtime)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_tar(places: Mapping[str, Path], target: Path, *, modes: Mapping[str, int], mtime: int) -> None:
    """Write a plain tar: sorted names, owner 0:0, one time, modes 0644/0755 unless `modes` says else.

    `places`: what stands at a name of it, a file or a whole tree; "." for the tar itself.
    """
    with target.open("wb") as file:
        _write_tar(places, file, modes, mtime)


def _laid_out(places: Mapping[str, Path]) -> dict[tuple[str, ...], tuple[Path, str] | None]:
    """Root and name of what stands at each name; None for a folder on the way to one."""
    found: dict[tuple[str, ...], tuple[Path, str] | None] = {}
    for name, place in places.items():
        parts = tree.parts_of(name)
        for end in range(1, len(parts)):
            found.setdefault(parts[:end], None)
        if parts:
            found[parts] = (place.parent, place.name)
        if place.is_dir() and not place.is_symlink():
            found |= {(*parts, *each.split("/")): (place, each) for each, _ in tree.walk(place)}
    return found


def _write_tar(
    places: Mapping[str, Path], out: IO[bytes] | gzip.GzipFile, modes: Mapping[str, int], mtime: int
) -> None:
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for parts, at in sorted(_laid_out(places).items()):
            member = tarfile.TarInfo("/".join(parts))
            member.mtime = mtime
            _add(archive, member, at, modes)


def _add(
    archive: tarfile.TarFile, member: tarfile.TarInfo, at: tuple[Path, str] | None, modes: Mapping[str, int]
) -> None:
    found = tree.status(*at) if at else None
    if at is None or found is None or stat.S_ISDIR(found.st_mode):
        member.type, member.mode = tarfile.DIRTYPE, modes.get(member.name, 0o755)
        archive.addfile(member)
    elif stat.S_ISLNK(found.st_mode):
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, tree.aim_of(*at), 0o777
        archive.addfile(member)
    else:
        member.mode = modes.get(member.name, 0o755 if found.st_mode & stat.S_IXUSR else 0o644)
        with tree.open_file(*at) as stream:
            member.size = os.fstat(stream.fileno()).st_size
            archive.addfile(member, stream)


def write_zip(files: Mapping[str, tuple[bytes, bool]], target: Path) -> None:
    """Write a zip, nothing in it compressed, sorted names, the time 1980-01-01: bytes and executable bit by name."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, (data, executable) in sorted(files.items()):
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3  # Unix: the upper half of `external_attr` is a mode
            entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            archive.writestr(entry, data)
