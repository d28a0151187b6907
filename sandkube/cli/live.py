"""A sink for a terminal: lines as anywhere, and below them, always anew, what runs right now."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sandkube import events
from sandkube.events import Downloading, Event, Failed, StepDoes, StepFinished, StepPulled, StillRunning

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_TAIL = 4096  # bytes of a log in which its last line is looked for
_RATE = 4  # refreshes a second


@dataclass(slots=True)
class _Step:
    doing: str
    log: str | None
    began: float = field(default_factory=lambda: time.monotonic())
    told: tuple[float, int] | None = None
    """When a download was told of last, and how much of it was there."""
    download: str = ""


def _downloaded(step: _Step, event: Downloading) -> str:
    """How far a download is: with its rate as soon as two moments are known, and with the rest if its size is."""
    now, parts = time.monotonic(), [f"{event.received / 1e6:.1f} MB"]
    if event.size is not None:
        parts = [f"{event.received / 1e6:.1f} of {event.size / 1e6:.1f} MB"]
    if step.told and now > step.told[0] and event.received > step.told[1]:
        rate = (event.received - step.told[1]) / (now - step.told[0])
        parts.append(f"{rate / 1e6:.1f} MB/s")
        parts += [f"{(event.size - event.received) / rate:.0f}s left"] if event.size is not None else []
    step.told = now, event.received
    return ", ".join(parts)


def last_line(path: str | None) -> str:
    """What a growing log said last, without what would move a terminal's cursor."""
    with contextlib.suppress(OSError):
        if path is not None:
            with Path(path).open("rb") as file:
                file.seek(-min(_TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
                lines = file.read().decode(errors="replace").split("\n")
            said = [re.sub(r"\x1b\[[\d;]*[A-Za-z]|[^\x20-\x7e\xa0-\uffff]", "", each).strip() for each in lines]
            return next((each for each in reversed(said) if each), "")
    return ""


class View:
    """The sink. Nothing is drawn, and rich is not imported, before the first step does something."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._live: Live | None = None
        self._steps: dict[str, _Step] = {}

    def take(self, event: Event, seconds: float) -> None:
        """Note what runs; print a line above it unless the view itself shows it."""
        match event:
            case StepDoes(name, doing, log):
                self._steps[name] = _Step(doing, log)
                self._start()
            case Downloading(name) if name in self._steps:
                self._steps[name].download = _downloaded(self._steps[name], event)
                return
            case StepFinished(name) | StepPulled(name) | Failed(name):
                self._steps.pop(name, None)
            case StillRunning():
                return
        if (text := events.line(event, seconds)) is None:
            return
        if self._live is not None and self._console is not None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            events.Plain().take(event, seconds)

    def _start(self) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._console = self._console or Console(stderr=True)
            self._live = Live(
                console=self._console,
                get_renderable=self.rows,
                refresh_per_second=_RATE,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
            self._console.show_cursor(True)  # a process that is killed cannot put it back

    def rows(self) -> RenderableType:
        """A line a step, cut to the terminal's width, and no more than fit on it."""
        from rich.console import Group
        from rich.text import Text

        assert self._console is not None
        now, steps = time.monotonic(), sorted(self._steps.items())
        room = max(1, self._console.height - 3)
        lines = [
            f"  {name} {step.doing} {now - step.began:.0f}s  {step.download or last_line(step.log)}".rstrip()
            for name, step in steps[:room]
        ]
        lines += [f"  and {len(steps) - room} more"] if len(steps) > room else []
        return Group(*(Text(each, style="dim", no_wrap=True, overflow="ellipsis") for each in lines))

    def close(self) -> None:
        """Take the view away; what was printed stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _is_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """While inside, people at a terminal see what runs; elsewhere nothing changes."""
    if not events.for_people() or not _is_terminal():
        yield
        return
    view = View()
    events.use(view)
    try:
        yield
    finally:
        events.use(events.Plain())
        view.close()
