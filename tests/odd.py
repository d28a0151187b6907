"""What may stand in a place where a regular file belongs, each made at a path."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sandkube.tree import remove_tree

PATIENCE = 60  # seconds, for what is over at once or never


def folder(path: Path) -> None:
    """A folder with something in it."""
    path.mkdir()
    (path / "file").touch()


def bound(path: Path) -> None:
    """A socket that nobody listens to. An address has 107 characters at most, so it does without the folder's path."""
    above = os.open(path.parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{above}/{path.name}")
    os.close(above)


@contextlib.contextmanager
def deep(path: Path) -> Iterator[None]:
    """While inside, folders in each other below one that is there, and a file in the last: more than Python recurses.

    They go in any case: what pytest removes folders with does not get so far.
    """
    at = os.open(path, os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 100):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("x.go", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    try:
        yield
    finally:
        remove_tree(path / "d")


ODD: Mapping[str, Callable[[Path], object]] = {
    "folder": folder,
    "pipe": os.mkfifo,
    "socket": bound,
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@contextlib.contextmanager
def waits_for_nobody() -> Iterator[None]:
    """Fail what waits: for whoever writes to a pipe, or for a lock that never is the one at its path."""

    def fail(_number: int, _frame: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
