"""What is aimed at, and how measurements are told beside it: medians, percentiles, tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

SUBJECTS = ("ours", "bare", "kwok")
Found = Mapping[tuple[str, str], Sequence[float]]
"""Measurements, by figure and subject."""


@dataclass(frozen=True, slots=True)
class Aim:
    """A figure: in words, by its key, what it may be at most in a unit, and which part of the measurements it is above;
    `most` infinite: it is enough that there is one; not a number: nothing is aimed at.
    """

    what: str
    key: str
    most: float
    unit: str = "s"
    share: float = 0.5

    def told(self, value: float) -> str:
        """A value of it, in its unit."""
        if math.isnan(value):
            return ""
        return f"{value:.2f} {self.unit}" if self.unit in ("s", "times") else f"{value:.0f} {self.unit}"


RATIO = "ratio"
WITH_SYSTEM_PODS = " with system pods"
AIMS = (
    Aim("command to node Ready and whole", "whole", 2.0),
    Aim("the same, measured by the bare control plane's first answer", RATIO, 1.5, "times"),
    Aim("command to acceptance pod Running", "pod Running", 3.0),
    Aim("later pods, create to Running, p50", "later", 0.6),
    Aim("later pods, create to Running, p99", "later", 1.2, share=0.99),
    Aim("exec round trip, by kubectl", "exec", 0.15),
    Aim("delete of a pod with a willing process", "delete", 1.0),
    Aim("idle memory one minute after Ready", "memory", 280, "MB"),
    Aim("idle memory with system pods", f"memory{WITH_SYSTEM_PODS}", math.nan, "MB"),
    Aim("after many pods came and went, ten minutes later: more memory by", "churned", 15, "%"),
    Aim("idle CPU, of a core", "cpu", 3, "%"),
    Aim("idle CPU with system pods, of a core", f"cpu{WITH_SYSTEM_PODS}", math.nan, "%"),
    Aim("0.25 core: command to node Ready and whole", "quota whole", math.inf),
    Aim("0.25 core: command to acceptance pod Running", "quota pod Running", math.inf),
)


def part(values: Sequence[float], share: float) -> float:
    """The median, or for another share than a half the smallest value that so many are not above (nearest rank)."""
    if share == 0.5:
        return statistics.median(values)
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


def value(found: Found, aim: Aim, subject: str) -> float | None:
    """What was measured of a figure; None for nothing."""
    if aim.key == RATIO:
        both = found.get(("whole", subject)), found.get(("whole", "bare"))
        return None if not all(both) or subject == "bare" else part(both[0] or (), 0.5) / part(both[1] or (), 0.5)
    values = found.get((aim.key, subject))
    return part(values, aim.share) if values else None


def verdict(aim: Aim, now: float | None) -> str:
    """Whether our cluster holds to it."""
    if now is None:
        return "not measured"
    if math.isnan(aim.most):
        return ""
    return "met" if now <= aim.most else "missed"


def rows(found: Found) -> Iterator[tuple[str, ...]]:
    """A row for each aim: in words, now, aimed at, whether it is met, and what the other subjects do."""
    for aim in AIMS:
        now, *others = (value(found, aim, subject) for subject in SUBJECTS)
        most = "boots" if math.isinf(aim.most) else aim.told(aim.most)
        shown = ("" if each is None else aim.told(each) for each in (now, *others))
        first, *rest = shown
        yield (aim.what, first, most, verdict(aim, now), *rest)


def table(found: Found) -> Table:
    """All figures."""
    made = Table(box=None)
    for head in ("FIGURE", "NOW", "AIM", "", "API SERVER AND ETCD", "KWOK"):
        made.add_column(head, justify="left" if head in ("FIGURE", "") else "right")
    for row in rows(found):
        made.add_row(*row)
    return made


def stages(boots: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, str, str, str]]:
    """Each stage of several boots, in the order of their medians: best, median, worst."""
    by_name: dict[str, list[float]] = {}
    for boot in boots:
        for name, seconds in boot.items():
            by_name.setdefault(name, []).append(seconds)
    for name, found in sorted(by_name.items(), key=lambda item: statistics.median(item[1])):
        best, median, worst = (f"{each:.2f} s" for each in (min(found), statistics.median(found), max(found)))
        yield name, best, median, worst
