"""Events: what people read of each, and what machines get."""

from __future__ import annotations

import io
import json
import threading

import pytest

from sandkube import events
from sandkube.events import (
    Booting,
    Built,
    Downloading,
    Event,
    Failed,
    JsonLines,
    Noted,
    Said,
    StageReached,
    StepDoes,
    StepFinished,
    StepStarted,
    StillRunning,
    Working,
)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Said("a sentence"), "a sentence"),
        (Noted("runc", "asking again"), "[   1.5s] runc: asking again"),
        (StepStarted("runc", "the source changed"), "[   1.5s] runc: building, because: the source changed"),
        (StepDoes("runc", "building", None), None),
        (StepFinished("runc", 2.0, "abcdef0123456789", same=False), "[   1.5s] runc: done in 2.0s: abcdef012345"),
        (
            StepFinished("runc", 2.0, "abcdef0123456789", same=True),
            "[   1.5s] runc: done in 2.0s: same bytes as before, so nothing after it runs for its sake",
        ),
        (Downloading("go", "there", 1_500_000, None), "[   1.5s] go: 1.5 MB from there"),
        (Downloading("go", "there", 1_500_000, 3_000_000), "[   1.5s] go: 1.5 of 3.0 MB from there"),
        (
            StillRunning((Working("a", "fetching", 9.2, 0), Working("b", "building", 10.0, 7))),
            "[   1.5s] still running: a fetching 9s, b building 10s (7 lines of log)",
        ),
        (Built(0, 0, 23, 0.291), "nothing to do: 23 steps are up to date (0.29 s)"),
        (Built(2, 0, 21, 3.0), "2 steps ran, 21 were up to date (3.00 s)"),
        (Built(0, 3, 20, 1.0), "0 steps ran, 3 were fetched from a cache, 20 were up to date (1.00 s)"),
        (Booting("dev", ""), "booting cluster dev"),
        (Booting("dev", "a wall"), "booting cluster dev\n  a wall"),
        (StageReached("dev", "ready", 3.01, 2.41), "   3.01s  ready               2.41s in the sandbox"),
    ],
)
def test_a_line_for_people(event: Event, line: str | None) -> None:
    assert events.line(event, 1.5) == line


def test_a_line_for_machines() -> None:
    stream = io.StringIO()
    JsonLines(stream).take(StillRunning((Working("a", "fetching", 9.2, 0),)), 1.23456)
    JsonLines(stream).take(StepStarted("ü", "\n"), 2)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first == {
        "event": "still-running",
        "at": 1.235,
        "steps": [{"step": "a", "doing": "fetching", "seconds": 9.2, "lines": 0}],
    }
    assert second == {"event": "step-started", "at": 2, "step": "ü", "reason": "\n"}


def test_what_failed_is_told_to_people_too(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    JsonLines(stream).take(Failed("runc", "error: runc: no", bug=False), 0)
    assert json.loads(stream.getvalue())["text"] == "error: runc: no"
    assert capsys.readouterr() == ("", "error: runc: no\n")


def test_events_of_many_threads_never_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(io.StringIO):
        """Gives other threads their turn within a line."""

        def write(self, text: str) -> int:
            for each in text:
                super().write(each)
                threading.Event().wait(0)
            return len(text)

    stream = Slow()
    monkeypatch.setattr(events, "_sink", JsonLines(stream))
    threads = [threading.Thread(target=events.send, args=(Noted(str(each), "x" * 50),)) for each in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert {json.loads(line)["step"] for line in stream.getvalue().splitlines()} == {str(each) for each in range(20)}
