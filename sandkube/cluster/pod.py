"""The acceptance pod: proof that the cluster runs pods."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandkube.cluster.place import Place, needs_running
from sandkube.errors import UserError
from sandkube.run import CommandFailed, Finished, base_environment, run

NAME = "test-100-final"
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
        with tempfile.TemporaryFile() as log, self.place.supervisor() as supervisor:
            try:
                return run(
                    self.argv(*words),
                    env=base_environment(self.place.folder),
                    cwd=self.place.folder,
                    log=log,
                    stdin=stdin,
                    capture=True,
                    no_longer_than=supervisor,
                )
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


def apply(kubectl: Kubectl, *, fresh: bool, timeout: int = 120) -> str:
    """Have the pod Running and ready; returns the table of `kubectl get pods`. `fresh`: nobody can have made it yet."""
    if fresh or not _present(kubectl):
        kubectl("create", "--validate=false", "--filename=-", stdin=json.dumps(POD).encode())
    try:
        kubectl("wait", f"pod/{NAME}", "--for=condition=Ready", f"--timeout={timeout}s")
    except UserError as error:
        events = kubectl("get", "events", "--field-selector", f"involvedObject.name={NAME}").stdout
        raise UserError(f"{error.message}\n{events.decode(errors='replace').rstrip()}", hint=error.hint) from None
    return kubectl("get", "pods", "--output=wide").stdout.decode().rstrip()
