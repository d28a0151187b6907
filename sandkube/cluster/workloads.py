"""Whether all that a cluster has been told to run does."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sandkube.cluster.configured import Configured
from sandkube.cluster.deadline import LONGEST, Deadline
from sandkube.cluster.pod import Kubectl

_KINDS = ("deployments", "daemonsets", "statefulsets")
SYSTEM = {"local-storage": "deployment/local-path-provisioner", "metrics-server": "deployment/metrics-server"}
"""The parts of the node that are pods: they come when it is whole."""
_USUAL = Configured()
INGRESS = "daemonset/traefik"
"""The same, of a part that is there where it is wanted."""


def rolled_out(kubectl: Kubectl, deadline: Deadline, configured: Configured = _USUAL) -> int:
    """Wait until each Deployment, DaemonSet and StatefulSet that there is now is rolled out, and the system pods of
    a cluster with these settings as well; how many there are.

    Raises UserError, in kubectl's words. Those whose pods are replaced by hand cannot be waited for (OnDelete).
    """
    kubectl = replace(kubectl, deadline=deadline)
    awaited = [name for part, name in SYSTEM.items() if part not in configured.disabled]
    awaited += [INGRESS] if configured.ingress else []
    for each in awaited if "services" not in configured.disabled else ():  # by which they reach the API
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
