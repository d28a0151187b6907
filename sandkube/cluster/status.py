"""What runs, and what it takes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandkube.cluster.place import Place, all_places
from sandkube.cluster.start import describe

_PSS = re.compile(r"^Pss_(?:Anon|File):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Row:
    """One cluster: `memory` in bytes, `created` in seconds since 1970, `address` empty unless it runs."""

    name: str
    state: str
    created: float
    address: str
    memory: int
    folder: Path
    reason: str


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found.setdefault(parent, []).append(int(entry.name))
    return found


def tree_of(pid: int) -> Iterator[int]:
    """A process and all that came from it."""
    children = _children()
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += children.get(one, [])


def _memory_files(pid: int) -> dict[tuple[int, int], int]:
    """Allocated bytes of the memory files that a process has open, by device and inode."""
    found = {}
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(link).startswith("/memfd:"):  # noqa: PTH115
                    status = link.stat()
                    found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return found


def memory_of(pid: int) -> int:
    """Bytes of this machine that a supervisor's cluster takes.

    The proportional set size of all its processes without shared memory, plus the allocated size of their memory
    files: a sandbox's own memory is such a file, of which a process maps only a part at a time.
    """
    total = 0
    files: dict[tuple[int, int], int] = {}
    for each in tree_of(pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
            total += sum(int(kilobytes) << 10 for kilobytes in _PSS.findall(text))
        files |= _memory_files(each)
    return total + sum(files.values())


def row(place: Place) -> Row:
    """One cluster as it is now."""
    state = place.read()
    if state is None:
        return Row(place.name, "damaged", 0.0, "", 0, place.folder, "its state.json is missing or damaged")
    alive = state.alive()
    return Row(
        name=place.name,
        state=describe(state),
        created=state.created,
        address=f"https://127.0.0.1:{state.port}" if alive and state.port else "",
        memory=memory_of(state.pid) if alive else 0,
        folder=place.folder,
        reason=state.reason,
    )


def rows(outputs: Path) -> list[Row]:
    """Every cluster, by name."""
    return [row(place) for place in all_places(outputs)]
