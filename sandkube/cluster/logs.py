"""The components' logs: one file each, of bounded size, written by the supervisor and followed by `./do logs`."""

from __future__ import annotations

import os
import re
import select
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from sandkube.cluster.watch import Watch

LIMIT = 16 << 20
"""Bytes kept of one component, in two files."""
LAST = 20
_COMPONENT = re.compile(rb"[a-z][a-z0-9-]{0,40}")
_ERROR = re.compile(rb"[EF]\d{4} |.*\blevel=(error|fatal)\b")
"""Lines of klog and of logrus."""


class Logs:
    """Splits the node's standard error. A full disk loses lines, never the cluster."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._folder = folder
        self._limit = limit
        self._files: dict[str, IO[bytes]] = {}
        self._last: deque[str] = deque(maxlen=LAST)
        self._tails: dict[str, deque[str]] = {}
        self._wrong = ""
        folder.mkdir(exist_ok=True)

    def write(self, line: bytes) -> None:
        """Write one line, `component<TAB>text`. A line of another shape is runsc's, or a crash of the node program."""
        component, tab, text = line.rstrip(b"\n").partition(b"\t")
        if not tab or not _COMPONENT.fullmatch(component):
            component, text = b"sandbox", line.rstrip(b"\n")
        if component in (b"sandbox", b"node"):
            self._last.append(text.decode(errors="replace"))
        else:
            name = component.decode()
            self._tails.setdefault(name, deque(maxlen=LAST)).append(text.decode(errors="replace"))
            if _ERROR.match(text):
                self._wrong = name
        with suppress(OSError):
            self._append(component.decode(), text + b"\n")

    def _append(self, name: str, text: bytes) -> None:
        path = self._folder / f"{name}.log"
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = path.open("ab", buffering=0)
        file.write(text)
        if file.tell() > self._limit // 2:
            self._files.pop(name).close()
            path.replace(self._folder / f"{name}.log.1")

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()

    def last(self) -> list[str]:
        """The last lines that belong to no component."""
        return list(self._last)

    def complaint(self) -> list[str]:
        """The last lines of the component that was the last one to log an error, with its name."""
        return [f"{self._wrong}: {line}" for line in self._tails.get(self._wrong, ())]


def components(folder: Path) -> list[str]:
    """The components that have a log, by name."""
    return sorted(path.stem for path in folder.glob("*.log"))


def tail(folder: Path, component: str, count: int) -> list[bytes]:
    """The last lines of a component's log, all that is kept for 0."""
    with (folder / f"{component}.log").open("rb") as file:
        return _last_lines(folder, component, file, count)


def _last_lines(folder: Path, component: str, file: IO[bytes], count: int) -> list[bytes]:
    lines: list[bytes] = []
    with suppress(FileNotFoundError):
        lines = (folder / f"{component}.log.1").read_bytes().splitlines(keepends=True)
    lines += file.readlines()
    return lines[-count:] if count > 0 else lines


def follow(folder: Path, component: str, count: int, supervisor: int) -> Iterator[bytes]:
    """The last lines of a log, then what is added, until the process behind the pidfd `supervisor` ends."""
    path = folder / f"{component}.log"
    poll = select.poll()
    poll.register(supervisor, select.POLLIN)
    with Watch(folder) as watch:  # before the first read: nothing falls between
        poll.register(watch.descriptor, select.POLLIN)
        file, ended = path.open("rb"), False
        try:
            yield b"".join(_last_lines(folder, component, file, count))
            while True:
                while data := file.read(1 << 16):
                    yield data
                if _replaced(file, path):
                    file.close()
                    file = path.open("rb")
                    continue
                if ended:
                    return
                ended = any(descriptor == supervisor for descriptor, _ in poll.poll())
                watch.drain()
        finally:
            file.close()


def _replaced(file: IO[bytes], path: Path) -> bool:
    """Whether the log was cut: its name belongs to a newer file."""
    try:
        return not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
