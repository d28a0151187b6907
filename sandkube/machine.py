"""What this process may use of the machine: cores and memory, within the limits of its container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_JOB = 512 << 20
"""Bytes of memory that one compiler at work takes, as a round number; most take less."""


def _groups(root: Path, own: Path) -> Iterator[Path]:
    """Folders of the cgroup (v2) that this process is in and of those above it; each of them limits it."""
    lines = own.read_text().splitlines() if own.is_file() else []
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = root / path.lstrip("/")
    yield from (each for each in (folder, *folder.parents) if each == root or root in each.parents)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # a cgroup of version 1, the root cgroup, or none
        return []


def cores(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """How many cores this process may use: its affinity, and `cpu.max` of its cgroups rounded up; at least 1."""
    count = len(os.sched_getaffinity(0))
    for folder in _groups(root, own):
        quota = _words(folder / "cpu.max")
        if len(quota) == 2 and quota[0].isdecimal():
            count = min(count, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, count)


def memory(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that this process and its children may still take: the machine's, and what `memory.max` leaves."""
    words = _words(meminfo)
    at = words.index("MemAvailable:") + 1 if "MemAvailable:" in words else 0
    found = [int(words[at]) << 10] if at else []
    for folder in _groups(root, own):
        most, now = _words(folder / "memory.max"), _words(folder / "memory.current")
        if most and now and most[0].isdecimal():
            found.append(max(0, int(most[0]) - int(now[0]) + _cached(folder)))
    return min(found, default=1 << 40)


def _cached(folder: Path) -> int:
    """Bytes of a cgroup's memory that are files' contents, which the kernel gives up for others."""
    words = _words(folder / "memory.stat")
    return int(words[words.index("inactive_file") + 1]) if "inactive_file" in words else 0


_compilers = 0
"""How many compilers run side by side if another machine runs them; 0: what this one has counts."""


def use_compilers(count: int) -> None:
    """Commands are for other machines: how many compilers each is to run, whatever this machine has."""
    global _compilers
    _compilers = count


def compilers() -> int:
    """How many compilers a step that uses every core runs side by side: as many as there are cores and memory for."""
    return _compilers or max(1, min(cores(), memory() // _JOB))
