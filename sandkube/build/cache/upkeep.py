"""Upkeep of a folder that is a cache: what nobody used for long is removed, what is damaged is put aside.

Both may run while others read and push: what is removed too early is a miss for a reader, who builds it then.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandkube.build.cache.chunks import decode
from sandkube.build.cache.statement import read
from sandkube.digest import sha256_bytes, sha256_file
from sandkube.errors import UserError
from sandkube.files import read_whole
from sandkube.run import go_on

DAY = 86400.0
_PUSHED = DAY
"""Seconds that a blob stays which no record needs: a push puts blobs first, its record last."""
QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Freed:
    """What was removed: how many records and blobs, and the bytes of both."""

    records: int
    blobs: int
    size: int


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Regular files in a folder that may not be there, without those that are being written."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            go_on()
            if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)


def _blobs_of(folder: Path, record: Path) -> Iterator[str]:
    """Names of the blobs that a record needs. Raises UserError, OSError for one that is damaged, or whose index is."""
    if index := read(read_whole(record), record.name).index:
        yield index.sha256
        yield from (each.blob.sha256 for each in decode(read_whole(folder / "cas" / index.sha256)))


def collect(folder: Path, days: float) -> Freed:
    """Remove records that nobody has read or pushed for so many days, and blobs that no other record needs."""
    now, records, blobs, size = time.time(), 0, 0, 0
    needed: set[str] = set()
    for path, found in list(_files(folder / "ac")):
        if now - found.st_mtime >= days * DAY:
            path.unlink(missing_ok=True)
            records, size = records + 1, size + found.st_size
        else:
            with contextlib.suppress(FileNotFoundError, UserError):  # a folder that fails for a while ends it
                needed.update(_blobs_of(folder, path))
    for path, found in list(_files(folder / "cas")):
        if path.name not in needed and now - found.st_mtime > _PUSHED:
            path.unlink(missing_ok=True)
            blobs, size = blobs + 1, size + found.st_size
    return Freed(records, blobs, size)


def quarantine(folder: Path) -> Iterator[str]:
    """Read all of a cache; what is not what its name says is moved to `quarantine/`, and told, a sentence each."""
    for path, _ in list(_files(folder / "cas")):
        yield from _judged(folder, path)
    for path, _ in list(_files(folder / "ac")):
        try:
            whole = all((folder / "cas" / each).is_file() for each in _blobs_of(folder, path))
            fault = "" if whole else "a part of its tree is gone"
        except UserError as error:
            fault = error.message
        except OSError:
            fault = "what lists its tree is gone"
        if fault:  # so that it is pushed anew, with all that it needs
            yield from _aside(folder, path, fault)
    for path, _ in list(_files(folder / "sources")):
        if len(path.name) == len(sha256_bytes(b"")):  # others are judged by who unpacks them
            yield from _judged(folder, path)


def _judged(folder: Path, path: Path) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):  # somebody else cleans up as well
        if (found := sha256_file(path)) != path.name:
            yield from _aside(folder, path, f"has other bytes, {found[:12]}")


def _aside(folder: Path, path: Path, why: str) -> Iterator[str]:
    place = folder / QUARANTINE / path.parent.name
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.replace(place / path.name)
        yield f"{path.parent.name}/{path.name}: {why}"
