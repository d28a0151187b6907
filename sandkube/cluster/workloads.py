"""Whether all that a cluster has been told to run does."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import replace
from typing import Any

from sandkube.cluster.deadline import LONGEST, Deadline
from sandkube.cluster.pod import Kubectl

_KINDS = ("deployments", "daemonsets", "statefulsets")
SYSTEM = {"local-storage": "local-path-provisioner", "metrics-server": "metrics-server"}
"""The Deployments of parts of the node that are pods: they come when it is whole."""


def rolled_out(kubectl: Kubectl, deadline: Deadline, disabled: Set[str] = frozenset()) -> int:
    """Wait until each Deployment, DaemonSet and StatefulSet that there is now is rolled out, and the system pods that
    are not disabled as well; how many there are.

    Raises UserError, in kubectl's words. Those whose pods are replaced by hand cannot be waited for (OnDelete).
    """
    kubectl = replace(kubectl, deadline=deadline)
    awaited = [f"deployment/{name}" for part, name in SYSTEM.items() if part not in disabled]
    for each in awaited if "services" not in disabled else ():  # by which they reach the API
        # One at a time: of several that are not there yet, kubectl makes an error that it does not wait for.
        kubectl("wait", each, "--namespace=kube-system", "--for=create", _patience(deadline))
    said = kubectl("get", ",".join(_KINDS), "--all-namespaces", "--output=json").stdout
    found = [each for each in json.loads(said)["items"] if _rolls(each)]
    for each in found:
        meta = each["metadata"]
        kind = each["kind"].lower()
        where = (f"{kind}/{meta['name']}", f"--namespace={meta['namespace']}")
        kubectl("rollout", "status", *where, _patience(deadline))
    return len(found)


def _patience(deadline: Deadline) -> str:
    left = deadline.left()
    return f"--timeout={LONGEST if left is None else left:.3f}s"


def _rolls(workload: Any) -> bool:
    return bool(workload["spec"].get("updateStrategy", {}).get("type") != "OnDelete")
