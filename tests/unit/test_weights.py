"""Scheduling: what runs side by side, what is next, and which chain of steps set the time."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from sandkube.build import plan
from sandkube.build.weights import FETCH, HEAVY, LIGHT, REMOTE, Durations, Span, Weights, critical_path, lanes, ranks
from tests.clones import ROOT

NEEDS: Mapping[str, Sequence[str]] = {"go": (), "node": ("go",), "tool": ("go",), "pause": (), "root": ("node",)}
GB = 1 << 30


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    heavy = {"node", "tool"}
    durations = Durations(tmp_path / "durations.json")
    return Weights(NEEDS, heavy.__contains__, durations, {FETCH: 1, LIGHT: 1, HEAVY: 1})


class Step:
    """A thread that holds its place in a lane until it is told to end."""

    def __init__(self, weights: Weights, name: str, order: list[str], lane: str = "") -> None:
        self.running, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(weights, name, order, lane))
        waiting = len(weights._waiting)
        self._thread.start()
        with weights._changed:
            weights._changed.wait_for(lambda: self.running.is_set() or len(weights._waiting) > waiting, 10)

    def _run(self, weights: Weights, name: str, order: list[str], lane: str) -> None:
        with weights.hold(name, lane):
            order.append(name)
            with weights._changed:
                self.running.set()
                weights._changed.notify_all()
            self._end.wait(60)

    def end(self) -> None:
        self.running.wait(60)
        self._end.set()
        self._thread.join(60)


def test_a_short_step_runs_beside_a_heavy_one(weights: Weights) -> None:
    order: list[str] = []
    heavy = Step(weights, "node", order)
    short = Step(weights, "pause", order)
    assert short.running.wait(60)
    short.end()
    heavy.end()


def test_a_fetch_holds_no_core(weights: Weights) -> None:
    order: list[str] = []
    steps = [Step(weights, "node", order), Step(weights, "pause", order), Step(weights, "tool", order, FETCH)]
    for each in reversed(steps):
        assert each.running.wait(60)
        each.end()


def test_heavy_steps_take_turns_the_longest_path_first(weights: Weights) -> None:
    """`tool` waits first, but `root` depends on `node`, and on `tool` depends nothing."""
    order: list[str] = []
    first = Step(weights, "tool", order)
    steps = [Step(weights, "tool", order), Step(weights, "node", order)]
    assert order == ["tool"]
    assert not any(each.running.is_set() for each in steps)
    for each in (first, steps[1], steps[0]):
        each.end()
    assert order == ["tool", "node", "tool"]


def test_a_failed_step_leaves_its_place(weights: Weights) -> None:
    with pytest.raises(ValueError, match="failed"), weights.hold("node"):
        raise ValueError("failed")
    with weights.hold("tool"):
        pass


def test_durations_decide_once_they_are_known(weights: Weights) -> None:
    assert weights.rank("node") > weights.rank("tool")
    weights.durations.note("tool", 900.0)
    assert weights.rank("node") < weights.rank("tool")


def test_ranks_add_up_along_the_longest_chain() -> None:
    seconds = {"go": 10.0, "node": 100.0, "tool": 20.0, "pause": 1.0, "root": 3.0}
    assert ranks(NEEDS, seconds.__getitem__) == {"go": 113.0, "node": 103.0, "tool": 20.0, "pause": 1.0, "root": 3.0}


@pytest.mark.parametrize(
    ("cores", "memory", "heavy"),
    [(1, GB, 1), (2, 64 * GB, 1), (8, 64 * GB, 2), (64, 64 * GB, 16), (64, 7 * GB, 2), (64, 0, 1)],
)
def test_heavy_lanes_want_cores_and_memory(cores: int, memory: int, heavy: int) -> None:
    assert lanes(cores, memory) == {FETCH: 4, LIGHT: cores, HEAVY: heavy, REMOTE: 8}


def test_durations_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "durations.json"
    Durations(path).note("a", 1.5)
    Durations(path).note("b", 2.5)
    assert Durations(path).seconds == {"a": 1.5, "b": 2.5}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": "x", "b": -1, "c": 1e999, "d": null}', "\udcff"])
def test_durations_that_say_nothing_are_no_matter(tmp_path: Path, text: str) -> None:
    path = tmp_path / "durations.json"
    path.write_text(text, errors="surrogateescape")
    assert Durations(path).seconds == {}
    Durations(path).note("a", 1)
    assert Durations(path).seconds == {"a": 1}


def test_durations_that_cannot_be_written_are_no_matter(tmp_path: Path) -> None:
    Durations(tmp_path / "none/durations.json").note("a", 1)


def test_the_critical_path_is_the_chain_that_ended_last(weights: Weights) -> None:
    weights.spans |= {"go": Span(0, 10), "pause": Span(0, 2), "tool": Span(10, 20), "node": Span(10, 70, 5)}
    weights.spans["root"] = Span(70, 73)
    assert critical_path(weights.spans, NEEDS) == "critical path of 73s: go 10s, node 55s (waited 5s), root 3s"


def test_a_run_of_few_steps_needs_no_path(weights: Weights) -> None:
    weights.spans |= {"go": Span(0, 10), "node": Span(10, 70)}
    assert critical_path(weights.spans, NEEDS) == ""


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[1]", "\udcff"])
def test_durations_that_are_none_are_forgotten(text: str, tmp_path: Path) -> None:
    path = tmp_path / "durations.json"
    path.write_text(text, errors="surrogateescape")
    assert Durations(path).seconds == {}


def test_durations_are_read_from_a_file_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "durations.json")
    assert Durations(tmp_path / "durations.json").seconds == {}


def test_a_compiler_with_next_to_nothing_to_do_is_not_heavy() -> None:
    one = plan.load(ROOT)
    assert [name for name in ("podnet", "runc-wrapper", "node", "containerd") if one.is_heavy(name)] == [
        "node",
        "containerd",
    ]
