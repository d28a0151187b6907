"""What the user sees while work goes on: one line a fact, safe from many threads, never silent for long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

SILENCE = 8.0
"""Seconds without a line after which running steps report how far they are."""

_lock = threading.Lock()
_started = time.monotonic()
_spoken = _started
_running: dict[str, tuple[float, str, Path | None]] = {}
_watch: threading.Thread | None = None


def say(line: str) -> None:
    """Print one line at once; lines of several threads never mix."""
    global _spoken
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
        _spoken = time.monotonic()


def step(name: str, text: str) -> None:
    """A line of progress of one step, with the seconds since the command started."""
    say(f"[{time.monotonic() - _started:6.1f}s] {name}: {text}")


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
        parts = [
            f"{name} {what} {now - since:.0f}s" + (f" ({lines} lines of log)" if (lines := _line_count(path)) else "")
            for name, (since, what, path) in running
        ]
        step("still running", ", ".join(parts))


@contextlib.contextmanager
def running(name: str, what: str, path: Path | None = None) -> Iterator[None]:
    """While inside, `name` is listed in the line that breaks a silence; `path` is its growing log."""
    global _watch
    with _lock:
        before = _running.get(name)
        _running[name] = (time.monotonic(), what, path)
        if _watch is None:
            _watch = threading.Thread(target=_keep_talking, name="progress", daemon=True)
            _watch.start()
    try:
        yield
    finally:
        with _lock:
            if before is None:
                _running.pop(name, None)
            else:
                _running[name] = before
