"""What gVisor costs: pods in it and, side by side, in the kind of sandbox `linux`, the machine's own kernel."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

from rich.table import Table

from bench.built import cluster, programs
from sandkube.cluster import linux
from sandkube.cluster.pod import NAME, POD, Kubectl, apply
from sandkube.errors import UserError

KINDS = ("modern", "linux")
PODS = 10


def missing() -> str:
    """What the kind `linux` lacks here; "" for nothing."""
    try:
        linux.check()
    except UserError as error:
        return error.message
    return ""


def _pod(kubectl: Kubectl, name: str) -> None:
    """From create to Running, as a client sees it."""
    made = POD | {"metadata": {"name": name}}
    kubectl("create", "--validate=false", "--filename=-", stdin=json.dumps(made).encode())
    kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Running", "--timeout=60s")


def _delete(kubectl: Kubectl, name: str) -> None:
    kubectl("delete", "pod", name, "--wait")


def _exec(kubectl: Kubectl, _name: str) -> None:
    kubectl("exec", NAME, "--", "true")


STEPS: dict[str, Callable[[Kubectl, str], None]] = {
    "later pod, create to Running": _pod,
    "exec of a command": _exec,
    "delete of a pod with a willing process": _delete,
}


def pods(table: Table) -> None:
    """Later pods, exec and delete in both, which take turns."""
    if why := missing():
        table.add_row("what gVisor costs", "", "", why)
        return
    found: dict[tuple[str, str], list[float]] = {(step, kind): [] for step in STEPS for kind in KINDS}
    with ExitStack() as stack:
        clusters: dict[str, Kubectl] = {}
        for kind in KINDS:
            clusters[kind] = stack.enter_context(cluster(f"bench-{kind}", programs(kind)))
            apply(clusters[kind], fresh=True)
        for number in range(PODS):
            for step, work in STEPS.items():
                for kind, kubectl in clusters.items():
                    began = time.monotonic()
                    work(kubectl, f"pod-{number}")
                    found[step, kind].append(time.monotonic() - began)
    for (step, kind), seconds in found.items():
        median = statistics.median(seconds)
        note = "" if kind == "linux" else f"{median / statistics.median(found[step, 'linux']):.2f} times linux"
        table.add_row(f"{step}, {kind}", f"{min(seconds):.2f} s", f"{median:.2f} s", note)
