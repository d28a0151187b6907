"""Processes of this machine as /proc shows them: who came from whom, what they take, how to end them."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path

_PSS = re.compile(r"^Pss_(?:Anon|File):\s+(\d+) kB", re.MULTILINE)


def _processes() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in _processes():
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


def with_words(*words: str) -> Iterator[int]:
    """Processes that have all of `words` on their command line, arguments compared whole."""
    wanted = {os.fsencode(word) for word in words}
    for entry in _processes():
        with contextlib.suppress(OSError):
            if wanted <= set((entry / "cmdline").read_bytes().split(b"\0")):
                yield int(entry.name)


def end(pid: int, number: signal.Signals, seconds: float) -> bool:
    """Signal a process and wait for its end; whether it ended. Raises PermissionError for somebody else's."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(descriptor, number)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


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
    """Bytes of this machine that a process and all that came from it take.

    The proportional set size without shared memory, plus the allocated size of memory files: a sandbox's own
    memory is such a file, of which a process maps only a part at a time. Several processes of a sandbox share one
    address space (clone(2), CLONE_VM), which is known by its mappings and counted once.
    """
    spaces: dict[bytes, int] = {}
    files: dict[tuple[int, int], int] = {}
    for each in tree_of(pid):
        with contextlib.suppress(OSError):
            mappings = Path(f"/proc/{each}/maps").read_bytes()
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
            spaces[mappings] = sum(int(kilobytes) << 10 for kilobytes in _PSS.findall(text))
        files |= _memory_files(each)
    return sum(spaces.values()) + sum(files.values())
