"""Whether all that a cluster has been told to run does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sandkube.cluster.deadline import LONGEST, Deadline
from sandkube.cluster.pod import Kubectl

_KINDS = ("deployments", "daemonsets", "statefulsets")


def rolled_out(kubectl: Kubectl, deadline: Deadline) -> int:
    """Wait until each Deployment, DaemonSet and StatefulSet that there is now is rolled out; how many there are.

    Raises UserError, in kubectl's words. Those whose pods are replaced by hand cannot be waited for (OnDelete).
    """
    kubectl = replace(kubectl, deadline=deadline)
    said = kubectl("get", ",".join(_KINDS), "--all-namespaces", "--output=json").stdout
    found = [each for each in json.loads(said)["items"] if _rolls(each)]
    for each in found:
        left = deadline.left()
        patience = f"--timeout={LONGEST if left is None else left:.3f}s"
        meta = each["metadata"]
        kind = each["kind"].lower()
        kubectl("rollout", "status", f"{kind}/{meta['name']}", f"--namespace={meta['namespace']}", patience)
    return len(found)


def _rolls(workload: Any) -> bool:
    return bool(workload["spec"].get("updateStrategy", {}).get("type") != "OnDelete")
