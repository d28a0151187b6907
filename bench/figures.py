"""What a cluster takes, told again and again, and whether some of it grows without an end."""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube.cluster.place import Place, needs_running
from sandkube.cluster.pod import Kubectl
from sandkube.cluster.processes import memory_of, with_words
from sandkube.cluster.programs import sandbox
from sandkube.run import base_environment


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: what it may move by without growing, and whether it is a count that comes back to what it was."""

    unit: str
    slack: float
    counted: bool = False
    most: float = float("inf")


FIGURES: Mapping[str, Figure] = {
    "memory": Figure("MB", 25),
    "goroutines": Figure("", 60),
    "descriptors": Figure("", 12, counted=True),
    "on the host": Figure("", 24, counted=True),  # descriptors of the cluster's processes here
    "keys": Figure("", 100),  # counted once a minute by the API server
    "veths": Figure("", 1, counted=True),
    "mounts": Figure("", 4, counted=True),
    "processes": Figure("", 4, counted=True),
    "database": Figure("MB", 3),
    "log ahead": Figure("MB", 4, most=24),  # native/node/components/datastore.go cuts it to 8
    "pods' logs": Figure("MB", 12, counted=True),  # the kubelet removes those of deleted pods once a minute
}
_SCRIPT = """
echo descriptors $(ls /proc/1/fd | wc -l)
echo processes $(ls -d /proc/[0-9]* | wc -l)
echo mounts $(wc -l </proc/mounts)
echo veths $(grep -c veth /proc/net/dev)
echo database $(stat -c %s /var/lib/sandkube/db/state.db)
echo log $(stat -c %s /var/lib/sandkube/db/state.db-wal)
echo pods $(du -sk /var/log/pods | cut -f1)
"""
_OBJECTS = re.compile(r'^apiserver_(?:storage|resource)_objects\{.*resource="([^"]+)".*\} (\S+)$', re.MULTILINE)


def inside(kubectl: Kubectl, script: str) -> str:
    """What a script says in the node's own root."""
    state = needs_running(kubectl.place)
    argv = sandbox(kubectl.place, state.container).execute(["sh", "-c", script])
    return subprocess.run(
        argv, env=base_environment(Path("/")), capture_output=True, text=True, check=True, timeout=120
    ).stdout


def _descriptors(place: Place, supervisor: int) -> int:
    """Of the supervisor and the sandbox's own processes; the threads that run what is inside share theirs."""
    total = 0
    for each in {supervisor, *with_words(f"--root={place.runsc}")}:
        with contextlib.suppress(OSError):
            total += sum(1 for _ in Path(f"/proc/{each}/fd").iterdir())
    return total


def sample(kubectl: Kubectl) -> dict[str, float]:
    """Every figure, now."""
    state = needs_running(kubectl.place)
    said = {name: float(value) for name, value in (line.split() for line in inside(kubectl, _SCRIPT).splitlines())}
    metrics = kubectl("get", "--raw=/metrics").stdout.decode()
    (goroutines,) = re.findall(r"^go_goroutines (\S+)$", metrics, re.MULTILINE)
    return {
        "memory": memory_of(state.pid) / 1e6,
        "goroutines": float(goroutines),
        "descriptors": said["descriptors"],
        "on the host": _descriptors(kubectl.place, state.pid),
        "keys": sum(float(count) for kind, count in _OBJECTS.findall(metrics) if kind != "events" and float(count) > 0),
        "veths": said["veths"],
        "mounts": said["mounts"],
        "processes": said["processes"],
        "database": said["database"] / 1e6,
        "log ahead": said["log"] / 1e6,
        "pods' logs": said["pods"] / 1e3,
    }


def grows(values: Sequence[float], slack: float, *, counted: bool) -> bool:
    """Whether it goes on growing: over each of two halves of what follows the first third, which is warming up.

    With fewer than nine values only a count can be told: the last is beyond the first.
    """
    if len(values) < 9:
        return counted and len(values) > 1 and values[-1] > values[0] + slack
    third = len(values) // 3
    first, second, last = (statistics.median(values[at : at + third]) for at in (0, third, len(values) - third))
    return second > first + slack and last > second + slack


def faults(samples: Sequence[Mapping[str, float]]) -> Iterator[str]:
    """A sentence for each figure that goes on growing, or is beyond its bound."""
    for name, figure in FIGURES.items():
        values = [each[name] for each in samples]
        shown = ", ".join(f"{value:.0f}" for value in values[:: max(1, len(values) // 8)])
        if grows(values, figure.slack, counted=figure.counted):
            yield f"{name} goes on growing: {shown} {figure.unit}".rstrip()
        if values and max(values) > figure.most:
            yield f"{name} is {max(values):.0f} {figure.unit}, {figure.most:.0f} is the most: {shown}"
