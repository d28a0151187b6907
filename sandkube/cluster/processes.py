"""Processes of this machine as /proc shows them: who came from whom, what they take, how to end them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

_NOBODY = (errno.ESRCH, errno.EINVAL, errno.ENOENT)
"""What pidfd_open(2) says of a number that no process has; the latter two of a thread's number."""
_PSS = re.compile(r"^Pss_(?:Anon|File):\s+(\d+) kB", re.MULTILINE)


def _processes() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _parent(pid: int) -> int:
    """The parent of a process; 0 for none or one that cannot be seen, -1 when the process itself is not there."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return -1


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in _processes():
        found.setdefault(_parent(int(entry.name)), []).append(int(entry.name))
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
    return (int(entry.name) for entry in _processes() if _has_words(int(entry.name), *words))


def _has_words(pid: int, *words: str) -> bool:
    try:
        said = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return {os.fsencode(word) for word in words} <= set(said)


def _comes_from(ancestor: int, pid: int) -> bool:
    one = pid
    while one > 0 and one != ancestor:
        parent = _parent(one)
        one = pid if parent < 0 and one != pid else parent  # where that one has ended, its children have another
    return one == ancestor


@contextlib.contextmanager
def opened(pid: int, is_meant: Callable[[], bool]) -> Iterator[int | None]:
    """A pidfd of a process; None unless `is_meant`, which looks the number up, says that it is the one that is meant.

    It is asked when the pidfd is there: a number may be another's by the time it is used, a pidfd stays its process's.
    So whoever signals a process, or waits for one, that is no child of its own does it by this.
    """
    try:
        process = os.pidfd_open(pid)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno not in _NOBODY:
            raise
        yield None
        return
    try:
        yield process if is_meant() else None
    finally:
        os.close(process)


def opened_with_words(*words: str) -> Iterator[tuple[int, int]]:
    """Number and pidfd of each process `with_words`, the latter open until the next is asked for."""
    for pid in with_words(*words):
        with opened(pid, partial(_has_words, pid, *words)) as process:
            if process is not None:
                yield pid, process


def opened_descendant(pid: int) -> contextlib.AbstractContextManager[int | None]:
    """A pidfd of a process that came from this one, None if that number is nobody's or another's."""
    return opened(pid, partial(_comes_from, os.getpid(), pid))


def signal_descendant(pid: int, number: signal.Signals) -> None:
    """Signal a process that came from this one, if that number is such a one's."""
    with opened_descendant(pid) as process, contextlib.suppress(ProcessLookupError):
        if process is not None:
            signal.pidfd_send_signal(process, number)


def kill_descendants() -> None:
    """Kill every process that came from this one; orphans are its children (PR_SET_CHILD_SUBREAPER).

    Also what those start in the meantime.
    """
    seen = {os.getpid()}
    while found := [pid for pid in tree_of(os.getpid()) if pid not in seen]:
        for pid in found:
            signal_descendant(pid, signal.SIGKILL)
        seen.update(found)


def end_descendants() -> None:
    """Kill and wait for every process that came from this one."""
    with contextlib.suppress(ChildProcessError):
        while True:
            kill_descendants()
            os.waitpid(-1, 0)


def end(process: int, number: signal.Signals, seconds: float) -> bool:
    """Signal the process behind a pidfd and wait for its end; whether it ended. Raises PermissionError for another's.

    A stopped process is woken: it would act on nothing but SIGKILL.
    """
    try:
        signal.pidfd_send_signal(process, number)
        signal.pidfd_send_signal(process, signal.SIGCONT)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def end_or_kill(process: int, seconds: float) -> bool:
    """Ask the process behind a pidfd to end, kill it when it has not after so many seconds; whether it ended."""
    return end(process, signal.SIGTERM, seconds) or end(process, signal.SIGKILL, seconds)


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes that this process and all others of its control groups may use together; 0 for no limit (cgroups(7)).

    A container that shows itself as the root of a hierarchy still names the machine's path: both are looked at.
    """
    found = []
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        below = base / path.lstrip("/")
        for folder in (below, *below.parents):
            if folder.is_relative_to(base):
                with contextlib.suppress(OSError, ValueError):  # the file is missing at a hierarchy's root, or "max"
                    found.append(int((folder / name).read_text()))
    return min((each for each in found if each < 1 << 60), default=0)  # version 1 writes "no limit" as a large number


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
