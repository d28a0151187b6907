"""Changes in a folder as events: inotify(7), which Python does not wrap."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from sandkube.errors import UserError

MODIFY, CREATE, DELETE, MOVED_TO = 0x2, 0x100, 0x200, 0x80
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """A watched folder. `descriptor` is readable when something happened in it."""

    def __init__(self, folder: Path, events: int = MODIFY | CREATE | DELETE | MOVED_TO) -> None:
        self.descriptor: int = _libc.inotify_init1(_FLAGS)
        if self.descriptor < 0 or _libc.inotify_add_watch(self.descriptor, os.fsencode(folder), events) < 0:
            reason = os.strerror(ctypes.get_errno())
            self.close()
            raise UserError(
                f"cannot watch {folder}: {reason}",
                hint="sysctl fs.inotify.max_user_instances and max_user_watches limit it",
            )

    def drain(self) -> list[tuple[int, str]]:
        """What happened since the last call: masks and names within the folder."""
        found = []
        with suppress(BlockingIOError):
            while block := os.read(self.descriptor, 1 << 16):
                at = 0
                while at < len(block):
                    _, mask, _, length = _EVENT.unpack_from(block, at)
                    at += _EVENT.size
                    found.append((mask, os.fsdecode(block[at : at + length].rstrip(b"\0"))))
                    at += length
        return found

    def close(self) -> None:
        """Stop watching."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.close()
