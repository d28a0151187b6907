"""The acceptance pod: proof that the cluster runs pods."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sandkube.cluster.api import Api
from sandkube.cluster.deadline import NEVER, Deadline
from sandkube.cluster.place import Place, needs_running
from sandkube.errors import UserError
from sandkube.run import CommandFailed, Finished, TimedOut, base_environment, run

NAME = "test-100-final"
_PODS = "/api/v1/namespaces/default/pods"
_PATIENCE = 120.0  # seconds
_ANSWER = 10.0  # seconds that kubectl has beyond a deadline, to say what it waited for
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": NAME, "namespace": "default"},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "test",
                "image": "sandkube.local/test:1",
                "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", "echo ready; trap 'exit 0' TERM; sleep 2147483647 & wait"],
            }
        ],
    },
}


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with one cluster's kubeconfig; what it caches stays in the cluster's folder."""

    program: Path
    place: Place
    deadline: Deadline = NEVER
    """It is killed after that."""

    def argv(self, *words: str) -> list[str]:
        """The command line."""
        return [
            str(self.program),
            f"--kubeconfig={self.place.kubeconfig}",
            f"--cache-dir={self.place.folder / 'kubectl-cache'}",
            *words,
        ]

    def __call__(self, *words: str, stdin: bytes | None = None) -> Finished:
        """Run it to its end. Raises UserError with what it said."""
        left = self.deadline.left()
        with tempfile.TemporaryFile(dir=self.place.folder) as log, self.place.supervisor() as supervisor:
            try:
                return run(
                    self.argv(*words),
                    env=base_environment(self.place.folder),
                    cwd=self.place.folder,
                    log=log,
                    stdin=stdin,
                    capture=True,
                    no_longer_than=supervisor,
                    seconds=None if left is None else left + _ANSWER,
                )
            except TimedOut as error:
                raise UserError(
                    f"kubectl {' '.join(words[:2])}: cluster {self.place.name} gave no answer in {error.seconds:.0f} s",
                    hint=f"./do logs --name {self.place.name} apiserver shows more; --timeout gives it longer",
                ) from None
            except CommandFailed:
                needs_running(self.place)
                log.seek(0)
                said = log.read().decode(errors="replace").strip()
                raise UserError(
                    f"kubectl {' '.join(words[:2])}: {said}",
                    hint=f"./do logs --name {self.place.name} kubelet shows more",
                ) from None


def _present(kubectl: Kubectl) -> bool:
    """Whether the pod is there and neither ended nor being deleted."""
    found = kubectl("get", "pod", NAME, "--ignore-not-found", "--output=json").stdout
    if not found.strip():
        return False
    pod = json.loads(found)
    if pod["status"].get("phase") in ("Pending", "Running") and "deletionTimestamp" not in pod["metadata"]:
        return True
    kubectl("delete", "pod", NAME, "--ignore-not-found", "--wait")
    return False


def apply(kubectl: Kubectl, *, fresh: bool, deadline: Deadline | None = None) -> str:
    """Have the pod Running and ready; returns the table of pods. For the rest, see `have_running` and `table`."""
    have_running(kubectl, fresh=fresh, deadline=deadline)
    return table(kubectl)


def table(kubectl: Kubectl) -> str:
    """What `get pods` shows. Raises UserError."""
    return kubectl("get", "pods", "--output=wide").stdout.decode().rstrip()


def have_running(kubectl: Kubectl, *, fresh: bool, deadline: Deadline | None = None) -> None:
    """Have the pod Running and ready, within two minutes if there is no deadline.

    `fresh`: nobody can have made it yet. Raises UserError with the pod's events.
    """
    kubectl = replace(kubectl, deadline=deadline or Deadline(_PATIENCE))
    api = Api(kubectl.place, kubectl.deadline)
    try:
        if fresh or not _present(kubectl):
            api.post(_PODS, POD)
        _await_ready(api, kubectl)
    finally:
        api.close()


def _await_ready(api: Api, kubectl: Kubectl) -> None:
    try:
        while True:  # a server ends each watch at some time
            for event in api.watch(f"{_PODS}?watch=true&fieldSelector=metadata.name={NAME}"):
                if _ready(event["object"]):
                    return
    except UserError as error:
        events = b""
        with suppress(UserError):
            events = kubectl("get", "events", "--field-selector", f"involvedObject.name={NAME}").stdout
        said = f"{error.message}\n{events.decode(errors='replace')}".rstrip()
        raise UserError(said, hint=error.hint) from None


def _ready(found: dict[str, Any]) -> bool:
    conditions = found.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
