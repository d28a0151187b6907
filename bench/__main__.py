"""`./do bench`: what the README and the issue say of speed and size, measured here and now.

Needs a finished build. Times are wall seconds, the best and the median of several runs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sandkube.cluster.processes import memory_of

ROOT = Path(__file__).resolve().parents[1]
IDLE = 60.0  # seconds after Ready when memory is read


def do(*words: str) -> str:
    """Run `./do WORDS`; its output."""
    return subprocess.run(["./do", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def timed(times: int, work: Callable[[], object]) -> tuple[float, float]:
    """Best and median seconds of several runs."""
    found = []
    for _ in range(times):
        began = time.monotonic()
        work()
        found.append(time.monotonic() - began)
    return min(found), statistics.median(found)


@contextmanager
def cluster(name: str) -> Iterator[str]:
    """A cluster for as long as the block runs; gives what run-cluster said."""
    try:
        yield do("run-cluster", "--name", name)
    finally:
        do("stop-cluster", "--name", name)


def launcher(table: Table) -> None:
    """What `./do` costs over doit itself, and a build with nothing to do."""
    doit = str(ROOT / ".venv/bin/doit")
    ours = timed(7, lambda: do("list"))
    bare = timed(7, lambda: subprocess.run([doit, "list"], cwd=ROOT, check=True, capture_output=True))
    table.add_row("./do list", f"{ours[0]:.3f} s", f"{ours[1]:.3f} s", f"{(ours[1] - bare[1]) * 1000:.1f} ms over doit")
    nothing = timed(7, lambda: do("build"))
    table.add_row("./do build, nothing to do", f"{nothing[0]:.3f} s", f"{nothing[1]:.3f} s", "aim: under 0.7 s")


def boots(table: Table) -> None:
    """From the command to the node being Ready and to the pod Running, from a full store."""
    ready, running = [], []
    for _ in range(5):
        with cluster("bench") as said:
            lines = [line.split() for line in said.splitlines()]
            ready.append(next(float(each[0][:-1]) for each in lines if each[1:2] == ["ready"]))
            running.append(next(float(each[0][:-1]) for each in lines if each[1:3] == ["pod", "Running"]))
    for what, found, aim in (("node Ready", ready, 5), ("pod Running", running, 8)):
        best, median = min(found), statistics.median(found)
        table.add_row(f"run-cluster to {what}", f"{best:.2f} s", f"{median:.2f} s", f"aim: under {aim} s")


def memory(table: Table) -> None:
    """What one cluster with one pod takes, a minute after it came up."""
    with cluster("bench"):
        time.sleep(IDLE)
        state = json.loads((ROOT / "outputs/clusters/bench/state.json").read_text())
        taken = memory_of(state["pid"]) / 1e6
    table.add_row("idle memory", f"{taken:.0f} MB", "", "aim: under 300 MB")


def main() -> int:
    """Measure and print."""
    table = Table("WHAT", "BEST", "MEDIAN", "", box=None)
    for each in (launcher, boots, memory):
        each(table)
    Console(width=100).print(table)
    print(
        "Memory: proportional set size of all processes of the cluster on this machine, without shared memory, "
        "plus the allocated size of their memory files."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
