"""`./do bench figures [ROUNDS [CHURN]]`: what is aimed at, side by side with a bare control plane and with kwok.

Each round has each of them once, one after the other and alone: the boot and later pods. The first rounds are longer:
a minute at rest, once more without system pods as the others have none, and boots under a CPU quota. With CHURN, as
many pods come and go in one more cluster.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import aims
from bench.built import product
from bench.subjects import PODS, Booted, bare, kwok, ours
from sandkube.cluster.pod import POD
from sandkube.cluster.workloads import SYSTEM
from sandkube.errors import UserError
from tests.api import Api, Said
from tests.quota import quota

ROUNDS = 10
LONG = 3  # rounds of them, the first ones, that measure what takes minutes
LATER = 100  # pods in all rounds together
IDLE = 60.0  # seconds after Ready when memory is read; CPU time is counted in the second half
REST = 600.0  # seconds after many pods
AT_ONCE = 20
CORES = 0.25
BASELINES = ("kubernetes-plain", "etcd", "kwok")
"""Recipes that `./do build` makes only when they are named."""
SUBJECTS: dict[str, Callable[..., AbstractContextManager[Booted]]] = {"ours": ours, "bare": bare, "kwok": kwok}


class Measured:
    """What was found in all rounds."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.boots: dict[str, list[dict[str, float]]] = defaultdict(list)
        self.notes: list[str] = []

    def idle(self, subject: str, booted: Booted, more: str = "") -> None:
        """Memory and CPU time of one that nobody asks anything, as figures whose names end with `more`."""
        time.sleep(IDLE / 2)
        began, before = time.monotonic(), booted.cpu()
        time.sleep(IDLE / 2)
        share = (booted.cpu() - before) / (time.monotonic() - began)
        self.found[f"cpu{more}", subject].append(100 * share)
        self.found[f"memory{more}", subject].append(booted.memory() / 1e6)

    def pods(self, subject: str, kubectl: Callable[..., Said], count: int) -> None:
        """Later pods, one after the other."""
        with closing(Api(kubectl)) as api, closing(Api(kubectl)) as watching:
            for at in range(count):
                execute = None if subject == "kwok" else kubectl
                for figure, seconds in one_pod(api, watching, f"later-{at}", execute).items():
                    self.found[figure, subject].append(seconds)

    def boot(self, subject: str, pods: int, *, rests: bool) -> None:
        """Boot one, and measure it."""
        with SUBJECTS[subject]() as booted:
            self.boots[subject].append(dict(booted.stages))
            for stage in ("whole", "pod Running"):
                if stage in booted.stages:
                    self.found[stage, subject].append(booted.stages[stage])
            if rests:
                self.idle(subject, booted, aims.WITH_SYSTEM_PODS if subject == "ours" else "")
            if booted.kubectl:
                self.pods(subject, booted.kubectl, pods)

    def bounded(self, subject: str) -> None:
        """Boot one with a part of a core for all of it, and ask it."""
        with quota(CORES) as bound, SUBJECTS[subject](bound.argv) as booted:
            for stage in ("whole", "pod Running"):
                if stage in booted.stages:
                    self.found[f"quota {stage}", subject].append(booted.stages[stage])
            if booted.kubectl:
                booted.kubectl("get", "pods")

    def round(self, pods: int, *, long: bool) -> None:
        """Each subject once; in a long round each under the quota once, unless a cgroup for it cannot be had."""
        for subject in SUBJECTS:
            self.boot(subject, pods, rests=long)
        if not long:
            return
        with ours(without=[*SYSTEM]) as booted:
            self.idle("ours", booted)
        if self.notes:
            return
        try:
            for subject in SUBJECTS:
                self.bounded(subject)
        except UserError as error:
            self.notes.append(f"under {CORES} core: {error.message}")


def one_pod(api: Api, watching: Api, name: str, execute: Callable[..., Said] | None) -> dict[str, float]:
    """Make a pod, run a command in it, delete it, watching; seconds of each."""
    found = {}
    events = watching.watch(f"{PODS}?watch=true&fieldSelector=metadata.name%3D{name}")

    def timed(figure: str, work: Callable[[], object], until: Callable[[Any], bool] | None = None) -> None:
        began = time.monotonic()
        work()
        if until and not any(until(each) for each in events):
            raise UserError(f"bench: the watch of pod {name} ended")
        found[figure] = time.monotonic() - began

    made = POD | {"metadata": {"name": name}}
    timed("later", lambda: api("POST", PODS, made), lambda event: event["object"]["status"].get("phase") == "Running")
    if execute:
        timed("exec", lambda: execute("exec", name, "--", "true"))
    timed("delete", lambda: api("DELETE", f"{PODS}/{name}"), lambda event: event["type"] == "DELETED")
    watching.close()
    return found


def come_and_go(api: Api, names: Sequence[str]) -> None:
    """Some pods at once: Running, then gone."""

    def phases() -> dict[str, str]:
        items = api("GET", PODS)["items"]
        return {each["metadata"]["name"]: each["status"].get("phase", "") for each in items}

    def until(holds: Callable[[dict[str, str]], bool]) -> None:
        end = time.monotonic() + 300
        while not holds(now := phases()):
            if time.monotonic() > end:
                raise UserError(f"bench: pods did not come and go: {now}")
            time.sleep(0.2)

    for name in names:
        api("POST", PODS, POD | {"metadata": {"name": name}})
    until(lambda now: all(now.get(name) == "Running" for name in names))
    for name in names:
        api("DELETE", f"{PODS}/{name}")
    until(lambda now: not set(names) & set(now))


def churn(count: int, rest: float = REST) -> tuple[float, float]:
    """Memory in MB, one minute after a boot, and when so many pods have come and gone and it has rested."""
    with ours() as booted:
        time.sleep(IDLE)
        before = booted.memory()
        assert booted.kubectl
        with closing(Api(booted.kubectl)) as api:
            for first in range(0, count, AT_ONCE):
                names = [f"churn-{at}" for at in range(first, min(count, first + AT_ONCE))]
                come_and_go(api, names)
                print(f"  {names[-1]}: {booted.memory() / 1e6:.0f} MB", flush=True)
        time.sleep(rest)
        return before / 1e6, booted.memory() / 1e6


def told(measured: Measured) -> Iterator[Table | str]:
    """Tables and notes of all that was measured."""
    for subject, boots in measured.boots.items():
        table = Table(f"STAGES OF {subject.upper()}", "BEST", "MEDIAN", "WORST", box=None)
        for row in aims.stages(boots):
            table.add_row(*row)
        yield table
        yield ""
    yield aims.table(measured.found)
    yield from measured.notes


def _measure(measured: Measured, rounds: int, pods: int) -> None:
    for at in range(rounds):
        measured.round(-(-LATER // rounds), long=at < LONG)
        print(f"round {at + 1} of {rounds}: {measured.found['whole', 'ours'][-1]:.2f} s to whole", flush=True)
    if pods:
        before, after = churn(pods)
        measured.found["churned", "ours"].append(100 * (after / before - 1))
        measured.notes.append(f"{pods} pods came and went: {before:.0f} MB, then {after:.0f} MB")


def main(rounds: int = ROUNDS, pods: int = 0) -> None:
    """Measure and print, what was measured until then if something fails. Raises UserError."""
    for each in BASELINES:
        product(each)
    measured = Measured()
    try:
        _measure(measured, rounds, pods)
    finally:
        console = Console(width=130)
        for part in told(measured):
            console.print(part)
