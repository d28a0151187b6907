"""What children of the supervisor tell: lines, objects, how they ended; and what went wrong, as a sentence."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from sandkube.errors import UserError


def object_of(line: bytes) -> dict[str, Any] | None:
    """An object of a line; None where it is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def sentence(error: BaseException) -> str:
    """What went wrong, for people."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    return str(error) if isinstance(error, UserError) else repr(error)


def how_it_ended(status: int) -> str:
    """How runsc ended: by a signal itself, or because its sandbox did (128 and the signal)."""
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "killed by signal 9; did this machine run out of memory?"
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


async def next_line(stream: asyncio.StreamReader) -> bytes:
    """The next line, a part of one that is too long, or b"" at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


class Failed(Exception):
    """The cluster cannot go on: which component, and why."""

    def __init__(self, component: str, error: str) -> None:
        super().__init__(error)
        self.event = {"type": "failed", "component": component, "error": error}
