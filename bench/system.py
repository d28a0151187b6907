"""`./do bench system [ROUNDS]`: what system pods cost a cluster in seconds and in memory, each and all of them.

Clusters with them and without, and with an ingress controller too, take turns, alone. In a round: from the command to
the pod Running, from the whole node to each part being ready (the node's log `system` tells), and the cluster's memory
a minute later; what each pod takes is what `kubectl top` says.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from bench.built import cluster, programs
from sandkube.cluster import workloads
from sandkube.cluster.configured import Tables, configure
from sandkube.cluster.deadline import Deadline
from sandkube.cluster.pod import Kubectl, have_running
from sandkube.cluster.programs import bundle_for
from sandkube.cluster.status import row

ROUNDS = 3
IDLE = 60.0  # seconds from the pod to the look at memory
AIM = 8.0  # seconds from the whole node to the last part
_READY = re.compile(r"^(\S+) was ready ([\d.]+) s after the node was whole$", re.MULTILINE)
_USAGE = re.compile(r"^(\S+?)(?:-[a-z0-9]{6,10})?-[a-z0-9]{5} +(\d+)m +(\d+)Mi", re.MULTILINE)
Figures = dict[str, float]


def _round(settings: Tables) -> Figures:
    """One cluster's figures, by what they are of: seconds, and MB where it says so."""
    configured = configure(None, settings, str)
    made = replace(programs(bundle=bundle_for(configured)), configured=configured)
    began = time.monotonic()
    with cluster("bench-system", made) as kubectl:
        have_running(kubectl, fresh=True)
        found = {"pod Running": time.monotonic() - began}
        ended = time.monotonic()
        workloads.rolled_out(kubectl, Deadline(120), made.configured)
        time.sleep(IDLE - (time.monotonic() - ended))
        found["MB, cluster"] = row(kubectl.place).memory / 1e6
        if not configured.disabled & {*workloads.SYSTEM}:
            found |= dict(_of_parts(kubectl))
    return found


def _of_parts(kubectl: Kubectl) -> Iterator[tuple[str, float]]:
    """How long each part took, and its memory and CPU."""
    for name, seconds in _READY.findall((kubectl.place.logs / "system.log").read_text()):
        yield f"{name} ready", float(seconds)
    said = kubectl("top", "pods", "--namespace=kube-system", "--no-headers").stdout.decode()
    for name, cpu, memory in _USAGE.findall(said):
        yield f"MB, {name}", float(memory) * (1 << 20) / 1e6
        yield f"m of a core, {name}", float(cpu)


def main(rounds: int = ROUNDS) -> None:
    """Measure and print medians."""
    ways: dict[str, Tables] = {
        "with": {},
        "without": {"disable": sorted(workloads.SYSTEM)},
        "and ingress": {"ingress": {"enabled": True}},
    }
    found: dict[str, list[Figures]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, settings in ways.items():
            found[way].append(_round(settings))
    table = Table("WHAT", *ways, "", box=None)
    for what in found["and ingress"][0]:
        values = {way: [each[what] for each in rows if what in each] for way, rows in found.items()}
        cells = [f"{statistics.median(each):.2f}" if each else "" for each in values.values()]
        table.add_row(what, *cells, f"aim: under {AIM:.0f} s after the node is whole" if what.endswith("ready") else "")
    Console(width=130).print(table)
