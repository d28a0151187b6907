"""A program at a terminal: what is typed to it, and what it shows."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PATIENCE = 60.0  # seconds for what is over at once or never


@dataclass
class Terminal:
    """The end of a pseudo-terminal at which a person sits."""

    descriptor: int
    shown: bytes = b""
    """What was shown and not yet waited for."""
    all: list[bytes] = field(default_factory=list)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.descriptor, text.encode())

    def until(self, text: bytes) -> bytes:
        """What is shown up to a text, and that; an AssertionError where it does not come."""
        while text not in self.shown:
            assert select.select([self.descriptor], [], [], _PATIENCE)[0], (text, b"".join(self.all))
            try:
                piece = os.read(self.descriptor, 1 << 16)
            except OSError:  # EIO: nobody is at the other end
                piece = b""
            assert piece, (text, b"".join(self.all))
            self.all.append(piece)
            self.shown += piece
        before, _, self.shown = self.shown.partition(text)
        return before + text


@contextlib.contextmanager
def terminal(argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a program at one, in a session of its own; it is killed at the end."""
    host, own = pty.openpty()
    try:
        with subprocess.Popen(
            ["setsid", "--ctty", *argv], cwd=cwd, env={**env, "TERM": "dumb"}, stdin=own, stdout=own, stderr=own
        ) as process:
            os.close(own)
            try:
                yield Terminal(host)
            finally:
                process.kill()
    finally:
        os.close(host)
