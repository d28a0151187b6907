"""What the user sees while work goes on: one event a fact, safe from many threads, never silent for long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sandkube import events
from sandkube.errors import UserError

SILENCE = 8.0
"""Seconds without an event after which running steps report how far they are."""

_lock = threading.Lock()
_spoken = time.monotonic()
_running: dict[tuple[str, int], tuple[float, str, Path | None]] = {}
"""What each step does, by its name and the thread that does it."""
_watch: threading.Thread | None = None


def tell(event: events.Event) -> None:
    """Something happened."""
    global _spoken
    events.send(event)
    _spoken = time.monotonic()


def say(text: str) -> None:
    """Tell people a sentence about the whole command."""
    tell(events.Said(text))


def step(name: str, text: str) -> None:
    """Tell people a sentence about one step."""
    tell(events.Noted(name, text))


def download(name: str, address: str, received: int, size: int | None) -> None:
    """Tell how many bytes of a step's source have come, of `size` if that is known."""
    tell(events.Downloading(name, address, received, size))


def result(text: str) -> None:
    """What a command was asked for, on standard output. Raises RunRefused where that is refused, as by a full disk."""
    events.put(text, sys.stdout)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of as many cells each, in columns. None is cut: a terminal wraps, a pipe gets whole lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        result("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _line_count(path: Path | None) -> int:
    if path is None:
        return 0
    with contextlib.suppress(OSError):
        return path.read_bytes().count(b"\n")
    return 0


def _keep_talking() -> None:
    while True:
        wait = SILENCE - (time.monotonic() - _spoken)
        if wait > 0:
            time.sleep(wait)  # the clock itself is the event: a line is due after so much silence
            continue
        with _lock:
            running = sorted(_running.items())
        if not running:
            time.sleep(SILENCE)
            continue
        now = time.monotonic()
        steps = (
            events.Working(name, what, round(now - since, 1), _line_count(path))
            for (name, _), (since, what, path) in running
        )
        try:
            tell(events.StillRunning(tuple(steps)))
        except (OSError, UserError):  # nobody reads on; the next event of a step meets it too, and ends the command
            return


@contextlib.contextmanager
def running(name: str, what: str, path: Path | None = None) -> Iterator[None]:
    """While inside, `name` is listed in the event that breaks a silence; `path` is its growing log."""
    global _watch
    events.send(events.StepDoes(name, what, str(path) if path else None))
    key = (name, threading.get_ident())
    with _lock:
        before = _running.get(key)
        _running[key] = (time.monotonic(), what, path)
        if _watch is None:
            _watch = threading.Thread(target=_keep_talking, name="progress", daemon=True)
            _watch.start()
    try:
        yield
    finally:
        with _lock:
            if before is None:
                _running.pop(key, None)
            else:
                _running[key] = before
