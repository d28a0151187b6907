"""What happens while a command works, as values; a sink tells it: lines for people, or JSON lines for machines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from typing import Protocol, TextIO

from sandkube.errors import RunRefused

_EPOCH = time.monotonic()


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence about the command as a whole."""

    text: str


@dataclass(frozen=True, slots=True)
class Noted:
    """A sentence about one step, such as a fault that passes."""

    step: str
    text: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step is stale, for a reason, and runs."""

    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepWouldRun:
    """What a dry run found; not `certain` where it depends on the bytes of an input that would run."""

    step: str
    certain: bool
    reason: str


@dataclass(frozen=True, slots=True)
class StepDoes:
    """A step begins something that takes a while: fetching, waiting for a core, building. `log` is its growing log."""

    step: str
    doing: str
    log: str | None


@dataclass(frozen=True, slots=True)
class StepFinished:
    """A step has an output (its hash), after so many seconds; `same` if its bytes are those that it had before."""

    step: str
    seconds: float
    output: str
    same: bool


@dataclass(frozen=True, slots=True)
class StepPulled:
    """A step's output (its hash) came from a cache at an address, after so many seconds."""

    step: str
    seconds: float
    output: str
    address: str


@dataclass(frozen=True, slots=True)
class Failed:
    """What went wrong, as it is told to people; `step` is empty where it is no step's. `bug` if it is ours."""

    step: str
    text: str
    bug: bool


@dataclass(frozen=True, slots=True)
class Downloading:
    """Bytes that came so far, of `size` if that is known."""

    step: str
    address: str
    received: int
    size: int | None


@dataclass(frozen=True, slots=True)
class Working:
    """A step that has been at it for a while: seconds, and lines of its log."""

    step: str
    doing: str
    seconds: float
    lines: int


@dataclass(frozen=True, slots=True)
class StillRunning:
    """Nothing else happened for a while, and this is why."""

    steps: tuple[Working, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """All that was asked for is there: how many steps ran, were fetched from a cache, were up to date, and seconds."""

    ran: int
    pulled: int
    kept: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Booting:
    """A cluster boots; `wall` is what there is to say about its sandbox."""

    cluster: str
    wall: str


@dataclass(frozen=True, slots=True)
class StageReached:
    """A stage of a boot, `seconds` after the command began, `inside` after the sandbox did."""

    cluster: str
    stage: str
    seconds: float
    inside: float


@dataclass(frozen=True, slots=True)
class PodRunning:
    """The acceptance pod runs: the cluster can be used, with these two files."""

    cluster: str
    seconds: float
    kubeconfig: str
    kubectl: str


@dataclass(frozen=True, slots=True)
class Sending:
    """Bytes of images that went into a cluster so far, of `size`."""

    cluster: str
    sent: int
    size: int


Event = (
    Said
    | Noted
    | StepStarted
    | StepWouldRun
    | StepDoes
    | StepFinished
    | StepPulled
    | Failed
    | Downloading
    | StillRunning
    | Built
    | Booting
    | StageReached
    | PodRunning
    | Sending
)


class Sink(Protocol):
    """Where events go, from any thread, one at a time."""

    def take(self, event: Event, seconds: float) -> None:
        """Tell an event that happened so many seconds after the command began."""


def _working(one: Working) -> str:
    return f"{one.step} {one.doing} {one.seconds:.0f}s" + (f" ({one.lines} lines of log)" if one.lines else "")


def _about_step(event: Event) -> tuple[str, str] | None:
    """The step that an event is about, and the sentence; None for events that are no line of a step."""
    match event:
        case Noted(step, text):
            return step, text
        case StepStarted(step, reason):
            return step, f"building, because: {reason}"
        case StepFinished(step, seconds, output, same):
            word = "same bytes as before, so nothing after it runs for its sake" if same else output[:12]
            return step, f"done in {seconds:.1f}s: {word}"
        case StepPulled(step, seconds, output, address):
            return step, f"fetched in {seconds:.1f}s: {output[:12]} from {address}"
        case Downloading(step, address, received, size):
            whole = f" of {size / 1e6:.1f}" if size is not None else ""
            return step, f"{received / 1e6:.1f}{whole} MB from {address}"
        case StillRunning(steps):
            return "still running", ", ".join(map(_working, steps))
    return None


def line(event: Event, seconds: float) -> str | None:
    """An event as people read it; None for one that is no line."""
    if about := _about_step(event):
        return f"[{seconds:6.1f}s] {about[0]}: {about[1]}"
    match event:
        case Said(text) | Failed(_, text):
            return text
        case Built(0, 0, kept, took):
            return f"nothing to do: {kept} steps are up to date ({took:.2f} s)" if kept else None
        case Built(ran, pulled, kept, took):
            fetched = f"{pulled} were fetched from a cache, " if pulled else ""
            return f"{ran} steps ran, {fetched}{kept} were up to date ({took:.2f} s)"
        case Booting(cluster, wall):
            return f"booting cluster {cluster}" + (f"\n  {wall}" if wall else "")
        case StageReached(_, stage, took, inside):
            return f"  {took:5.2f}s  {stage:<20}{inside:.2f}s in the sandbox"
        case PodRunning(_, took):
            return f"  {took:5.2f}s  pod Running\n"
        case Sending(cluster, sent, size):
            return f"[{seconds:6.1f}s] cluster {cluster}: {sent / 1e6:.1f} of {size / 1e6:.1f} MB sent"
    return None


class Plain:
    """Lines for people, on standard error."""

    def take(self, event: Event, seconds: float) -> None:
        """Print a line at once."""
        if (text := line(event, seconds)) is not None:
            try:
                sys.stdout.flush()
            finally:  # what standard output refuses is to be told here
                sys.stderr.write(spoken(text) + "\n")
                sys.stderr.flush()


_program = "./do"


def call_program(name: str) -> None:
    """What people type to run a command here: sentences say that instead of ./do."""
    global _program
    _program = name


def spoken(text: str) -> str:
    """A text for people, with commands as they are typed here."""
    return text if _program == "./do" else text.replace("./do ", f"{_program} ")


def drop(stream: TextIO) -> None:
    """What is left in a stream's buffer goes nowhere, and so does what follows: a flush has nothing to complain of."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def put(text: str, stream: TextIO) -> None:
    """Write lines to standard output at once. Raises RunRefused where that is refused, as by a full disk."""
    try:
        stream.write(spoken(text) + "\n")
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop(stream)
        raise RunRefused(f"standard output: {error.strerror}") from None


class JsonLines:
    """One JSON object a line: `event` (its name, with hyphens), `at` (seconds), and the event's own fields."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._refusal: RunRefused | None = None

    def take(self, event: Event, seconds: float) -> None:
        """Print an object at once; what failed is told to people as well. Raises RunRefused, from the first time on."""
        name = re.sub(r"(?<=.)(?=[A-Z])", "-", type(event).__name__).lower()
        value = {"event": name, "at": round(seconds, 3), **dataclasses.asdict(event)}
        people_know = isinstance(event, Failed)
        if people_know:
            Plain().take(event, seconds)
        try:
            put(json.dumps(value), self._stream)
        except RunRefused as refusal:
            self._refusal = refusal
        if self._refusal and not people_know:
            raise self._refusal


_lock = threading.Lock()
_sink: Sink = Plain()


def use(sink: Sink) -> None:
    """From now on events go there."""
    global _sink
    with _lock:
        _sink = sink


class Recorded:
    """A sink that keeps what it hands on to another one."""

    def __init__(self, inner: Sink) -> None:
        self._inner = inner
        self.events: list[tuple[float, Event]] = []

    def take(self, event: Event, seconds: float) -> None:
        """Keep it, hand it on."""
        self.events.append((seconds, event))
        self._inner.take(event, seconds)


def record() -> Recorded:
    """From now on what happens is kept as well."""
    global _sink
    with _lock:
        _sink = recorded = Recorded(_sink)
    return recorded


def for_people() -> bool:
    """Whether events become lines as they come."""
    return isinstance(_sink, Plain)


def send(event: Event) -> None:
    """Tell an event; those of several threads never mix."""
    with _lock:
        _sink.take(event, time.monotonic() - _EPOCH)
