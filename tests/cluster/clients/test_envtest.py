"""Controller-runtime's envtest, with this as the cluster that exists already."""

from __future__ import annotations

import json
from pathlib import Path

from tests.clones import ROOT
from tests.cluster.clients.conftest import Client

CHART = ROOT / "tests/charts/operator"
KIND = "pages.tests.sandkube.local"
POD = {
    "restartPolicy": "Never",
    "serviceAccountName": "envtest",
    "volumes": [{"name": "files", "configMap": {"name": "envtest"}}],
}


def test_envtest_on_this_machine(operator: Client, kubectl: Client) -> None:
    """It installs the CRD, runs a reconciler here, and takes the CRD away."""
    said = operator("envtest", CHART / "crds", USE_EXISTING_CLUSTER="true")
    assert said == "of-envtest: hello\n"
    assert kubectl("get", "crd", KIND, "--ignore-not-found") == ""


def test_envtest_with_webhooks_in_a_pod(operator: Client, helm: Client, kubectl: Client, tmp_path: Path) -> None:  # noqa: ARG001
    """The API reaches webhooks in pods; on this machine it reaches nothing."""
    hooks = tmp_path / "webhooks.yaml"
    hooks.write_text(helm("template", "operator", CHART, "--show-only=templates/webhooks.yaml"))
    files = (f"--from-file={CHART / 'crds/page.yaml'}", f"--from-file={hooks}")
    kubectl("create", "configmap", "envtest", *files)
    kubectl("create", "serviceaccount", "envtest")
    kubectl(
        "create", "clusterrolebinding", "envtest", "--clusterrole=cluster-admin", "--serviceaccount=default:envtest"
    )
    env = [
        {"name": "USE_EXISTING_CLUSTER", "value": "true"},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    container = {
        "name": "envtest",
        "image": "sandkube.local/operator:1",
        "args": ["envtest", "/files/page.yaml", "/files/webhooks.yaml"],
        "env": env,
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
    }
    metadata = {"name": "envtest"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**POD, "containers": [container]}}
    kubectl("create", "--filename=-", stdin=json.dumps(pod))
    ended = kubectl.run("wait", "pod/envtest", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    said = kubectl("logs", "envtest")
    assert ended.returncode == 0, said
    assert "of-envtest: nothing yet" in said.splitlines()
    assert 'the text "forbidden" is forbidden' in said
    assert kubectl("get", "crd", KIND, "--ignore-not-found") == ""
    kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations"
    kubectl("delete", kinds, "operator")  # which envtest leaves behind
    kubectl("delete", "pod/envtest", "configmap/envtest", "serviceaccount/envtest", "clusterrolebinding/envtest")
