"""Services from everywhere: pods, the node, and a pod that is its own endpoint."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster.pod import NAME, apply
from sandkube.cluster.programs import Programs
from sandkube.cluster.programs import sandbox as sandbox_of
from sandkube.run import base_environment
from tests.cluster.conftest import Cluster

PORT = 30080
SERVE = "mkdir /w; hostname >/w/index.html; exec httpd -f -p 8080 -h /w"


def service(name: str, **more: Any) -> dict[str, Any]:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **more}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def objects() -> list[dict[str, Any]]:
    container = {
        "name": "web",
        "image": "sandkube.local/test:1",
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", SERVE],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    }
    return [
        deployment,
        service("web"),
        service("sticky", sessionAffinity="ClientIP"),
        service("headless", clusterIP="None"),
        service("port", type="NodePort", ports=[{"port": 80, "targetPort": 8080, "nodePort": PORT}]),
    ]


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Iterator[set[str]]:
    """Two pods that serve their names; gives the names."""
    apply(cluster.kubectl, fresh=False)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects()}).encode()
    cluster.kubectl("apply", "--filename=-", stdin=text)
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    pods = json.loads(cluster.kubectl("get", "pods", "--selector=app=web", "--output=json").stdout)["items"]
    yield {pod["metadata"]["name"] for pod in pods}
    cluster.kubectl("delete", "--filename=-", "--wait", stdin=text)


def address(cluster: Cluster, name: str) -> str:
    return cluster.kubectl("get", "service", name, "--output=jsonpath={.spec.clusterIP}").stdout.decode()


def get(cluster: Cluster, pod: str, url: str) -> str:
    return cluster.kubectl("exec", pod, "--", "wget", "-q", "-O-", url).stdout.decode().strip()


def test_cluster_ip_from_a_pod_reaches_every_endpoint(cluster: Cluster, web: set[str]) -> None:
    url = f"http://{address(cluster, 'web')}/"
    assert {get(cluster, NAME, url) for _ in range(8)} == web


@pytest.mark.usefixtures("web")
def test_session_affinity_keeps_to_one(cluster: Cluster) -> None:
    url = f"http://{address(cluster, 'sticky')}/"
    assert len({get(cluster, NAME, url) for _ in range(8)}) == 1


def test_a_pod_reaches_itself_through_its_service(cluster: Cluster, web: set[str]) -> None:
    url = f"http://{address(cluster, 'web')}/"
    for pod in web:
        assert {get(cluster, pod, url) for _ in range(8)} == web


def test_node_port(cluster: Cluster, web: set[str]) -> None:
    assert get(cluster, NAME, f"http://10.88.0.1:{PORT}/") in web


@pytest.mark.usefixtures("programs")
def test_from_the_node(cluster: Cluster, web: set[str]) -> None:
    sandbox = sandbox_of(cluster.place, cluster.state.container)
    for url in (f"http://{address(cluster, 'web')}/", f"http://10.88.0.1:{PORT}/"):
        done = subprocess.run(
            sandbox.execute(["wget", "-q", "-O-", url]),
            env=base_environment(Path("/root")),
            capture_output=True,
        )
        assert done.stdout.decode().strip() in web, done.stderr


def test_the_api_from_a_pod(cluster: Cluster, programs: Programs) -> None:
    """kubectl, copied into a pod, finds the API by the pod's environment and proves who it is by the pod's token."""
    apply(cluster.kubectl, fresh=False)
    cluster.kubectl("cp", str(programs.kubectl), f"{NAME}:/tmp/kubectl")
    said = cluster.kubectl("exec", NAME, "--", "/tmp/kubectl", "auth", "whoami", "--output=json").stdout
    assert json.loads(said)["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
