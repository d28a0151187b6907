"""What the user sees while work goes on: one line a fact, indented by nesting, safe from many threads."""

from __future__ import annotations

import sys
import threading
import time

_lock = threading.Lock()
_started = time.monotonic()


def say(line: str) -> None:
    """Print one line at once; lines of several threads never mix."""
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def step(name: str, text: str) -> None:
    """A line of progress of one step, with the seconds since the command started."""
    say(f"[{time.monotonic() - _started:7.1f}s] {name}: {text}")
