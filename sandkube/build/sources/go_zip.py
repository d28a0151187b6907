"""The `h1:` sum of a module's zip, without unpacking it: dirhash.HashZip of golang.org/x/mod."""

from __future__ import annotations

import base64
import hashlib
import zipfile
import zlib
from pathlib import Path

from sandkube.archive import ENTRIES
from sandkube.run import go_on

_PIECE = 1 << 20
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # all that go reads; others may ask for gigabytes of memory
_LIMIT = 500 << 20  # bytes that it unpacks to: MaxZipFile of golang.org/x/mod/zip
_DIRECTORY = 64 << 20  # bytes of the list of its files, each of which takes ten times as many in memory


def _bearable(path: Path) -> bool:
    """Whether the record at its end tells a list of files that can be held in memory; ZipFile reads all of it."""
    with path.open("rb") as stream:
        end = zipfile._EndRecData(stream)  # type: ignore[attr-defined]  # also of zips with 64-bit sizes
    sizes = (zipfile._ECD_ENTRIES_TOTAL, zipfile._ECD_SIZE)  # type: ignore[attr-defined]
    return end is not None and all(end[at] <= most for at, most in zip(sizes, (ENTRIES, _DIRECTORY), strict=True))


def zip_h1(path: Path) -> str:
    """The sum; "" for what is no sound zip, or too large a one."""
    lines, room = [], _LIMIT
    try:
        if not _bearable(path):
            return ""
        with zipfile.ZipFile(path) as archive:
            for entry in sorted(archive.infolist(), key=lambda each: each.filename):
                if entry.compress_type not in _KINDS:
                    return ""
                state = hashlib.sha256()
                with archive.open(entry) as stream:
                    while piece := stream.read(_PIECE):
                        go_on()
                        room -= len(piece)
                        if room < 0:
                            return ""
                        state.update(piece)
                lines.append(f"{state.hexdigest()}  {entry.filename}\n")
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, OSError):
        return ""
    return f"h1:{base64.b64encode(hashlib.sha256(''.join(lines).encode()).digest()).decode()}"
