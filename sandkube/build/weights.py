"""Weights: which steps run side by side, and which one is next.

There are four lanes. A heavy step uses every core by itself, so there is one of them at a time, or several on machines
with cores and memory to spare. Light steps run beside it, one a core: the kernel shares the cores, and nobody waits
minutes for a heavy step to do a second's work. Fetches hold no core, nor do steps whose commands run on the workers of
a remote engine. In each lane the step goes first that most time
depends on: its own and that of the longest chain of steps that need it, by how long they took when they ran last.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandkube import machine
from sandkube.documents import parse_json, read_file
from sandkube.errors import UserError
from sandkube.files import write_whole
from sandkube.run import go_on, stopping

FETCH, LIGHT, HEAVY, REMOTE = "fetch", "light", "heavy", "remote"
_FETCHES = 4
_REMOTE = 8
"""Steps whose commands run on other machines; here they read, send and receive."""
_HEAVY_MEMORY = 3 << 30  # the linker of the node, at its most
_HEAVY_CORES = 4
"""Cores for each heavy step: one that links uses one core and leaves the rest idle."""
_GUESS = {LIGHT: 1.0, HEAVY: 60.0}
"""Seconds of a step that never ran here."""
_FEW = 3
"""Of so many steps, everybody sees which one took the time."""


def lanes(cores: int, memory: int) -> dict[str, int]:
    """How many steps each lane takes at a time; `memory` is in bytes."""
    return {
        FETCH: _FETCHES,
        LIGHT: cores,
        HEAVY: max(1, min(cores // _HEAVY_CORES, memory // _HEAVY_MEMORY)),
        REMOTE: _REMOTE,
    }


@dataclass(frozen=True, slots=True)
class Span:
    """When a step ran, in seconds of one clock; `waited` of them were spent on its place in a lane."""

    start: float
    end: float
    waited: float = 0.0


class Durations:
    """How many seconds each step took last, in a file that may be lost at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.seconds = self._read()

    def _read(self) -> dict[str, float]:
        try:
            found = parse_json(read_file(self._path, self._path.name))
        except (UserError, ValueError):
            return {}
        pairs = found.items() if isinstance(found, dict) else ()
        return {name: float(each) for name, each in pairs if isinstance(each, int | float) and 0 <= each < 1e6}

    def note(self, name: str, seconds: float) -> None:
        """Remember one. What the machine refuses to write is forgotten at the end of the run."""
        with self._lock, contextlib.suppress(OSError):
            self.seconds[name] = round(seconds, 3)
            text = json.dumps(self._read() | self.seconds, indent=1, sort_keys=True)
            write_whole(self._path, text, sync=False)


def ranks(needs: Mapping[str, Sequence[str]], seconds: Callable[[str], float]) -> dict[str, float]:
    """Seconds from the start of each step to the end of the longest chain of steps that begins with it."""
    found: dict[str, float] = {}
    users: dict[str, list[str]] = {name: [] for name in needs}
    for name, inputs in needs.items():
        for each in inputs:
            users[each].append(name)

    def rank(name: str) -> float:
        if name not in found:
            found[name] = seconds(name) + max(map(rank, users[name]), default=0.0)
        return found[name]

    return {name: rank(name) for name in needs}


@dataclass(slots=True, eq=False)
class _Waiter:
    rank: float
    lane: str


@dataclass(slots=True)
class Weights:
    """The lanes of one run. Thread-safe."""

    needs: Mapping[str, Sequence[str]]
    """Steps that must be there before each step."""
    heavy: Callable[[str], bool]
    durations: Durations
    capacity: Mapping[str, int] = field(default_factory=lambda: lanes(machine.cores(), machine.memory()))
    spans: dict[str, Span] = field(default_factory=dict)
    """Steps that ran, all of them to a good end."""
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _waiting: list[_Waiter] = field(default_factory=list)
    _running: dict[str, int] = field(default_factory=lambda: dict.fromkeys((FETCH, LIGHT, HEAVY, REMOTE), 0))
    _waited: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """When each step asked for a place, and for how many seconds it waited."""

    def lane(self, name: str) -> str:
        """The lane in which a step is built."""
        return HEAVY if self.heavy(name) else LIGHT

    def rank(self, name: str) -> float:
        """Seconds that depend on a step: it goes before those with fewer."""
        return ranks(self.needs, lambda each: self.durations.seconds.get(each, _GUESS[self.lane(each)]))[name]

    @contextlib.contextmanager
    def hold(self, name: str, lane: str = "") -> Iterator[None]:
        """Wait for a place in a lane, by default in that of the step, and hold it. Raises Interrupted."""
        waiter = _Waiter(self.rank(name), lane or self.lane(name))
        asked = time.monotonic()
        with self._changed:
            self._waiting.append(waiter)
            self._changed.wait_for(lambda: stopping() or self._is_next(waiter))
            self._waiting.remove(waiter)
            self._running[waiter.lane] += 1
            self._waited.setdefault(name, []).append((asked, time.monotonic() - asked))
            self._changed.notify_all()
        try:
            go_on()
            yield
        finally:
            with self._changed:
                self._running[waiter.lane] -= 1
                self._changed.notify_all()

    def _is_next(self, waiter: _Waiter) -> bool:
        lane = [each for each in self._waiting if each.lane == waiter.lane]
        first = max(lane, key=lambda each: each.rank)  # of equals, the one that came first
        return first is waiter and self._running[waiter.lane] < self.capacity[waiter.lane]

    def ran(self, name: str, started: float) -> None:
        """Note that a step, begun at `started` of time.monotonic(), has just ended well."""
        waited = sum(seconds for asked, seconds in self._waited.get(name, ()) if asked >= started)
        span = Span(started, time.monotonic(), waited)
        self.spans[name] = span
        self.durations.note(name, span.end - span.start - span.waited)


def critical_path(spans: Mapping[str, Span], needs: Mapping[str, Sequence[str]]) -> str:
    """The chain of steps that set the time of a run, in one line; empty for a run of a few steps.

    It ends with the step that ended last; before each step comes the one, of those it needs, that ended last.
    """
    if len(spans) <= _FEW:
        return ""
    chain = [max(spans, key=lambda name: spans[name].end)]
    while before := [each for each in needs[chain[0]] if each in spans]:
        chain.insert(0, max(before, key=lambda name: spans[name].end))
    whole = spans[chain[-1]].end - min(each.start for each in spans.values())
    words = []
    for name in chain:
        span = spans[name]
        waited = f" (waited {span.waited:.0f}s)" if span.waited >= 1 else ""
        words.append(f"{name} {span.end - span.start - span.waited:.0f}s{waited}")
    return f"critical path of {whole:.0f}s: " + ", ".join(words)
