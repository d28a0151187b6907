"""The system pods: claims bind and data outlive pods, usage is told and scaled by, a Corefile is honoured."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from sandkube.cluster import stop
from sandkube.cluster.configured import configure
from sandkube.cluster.deadline import Deadline
from sandkube.cluster.place import place
from sandkube.cluster.pod import NAME, apply
from sandkube.cluster.programs import Programs
from sandkube.cluster.workloads import rolled_out
from tests.cluster.conftest import Cluster, boot, inside
from tests.cluster.test_hostile import create, event, pod

FASTER = ("--horizontal-pod-autoscaler-sync-period=5s", "--horizontal-pod-autoscaler-cpu-initialization-period=10s")
STORAGE = "/var/lib/sandkube/storage"
BUSY = ["sh", "-c", "while :; do :; done"]


def claim(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def controller(kind: str, name: str, template: dict[str, Any], **more: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": template["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template, **more}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def keeper() -> dict[str, Any]:
    """A StatefulSet whose pods have a claim each."""
    one = pod("keeper", ["sleep", "infinity"])
    one["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    one["spec"]["securityContext"] = {"runAsUser": 1000}
    return controller(
        "StatefulSet", "keeper", one, replicas=2, serviceName="keeper", volumeClaimTemplates=[claim("data")]
    )


def autoscaler() -> dict[str, Any]:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    memory = {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}
    metrics = [{"type": "Resource", "resource": each} for each in (cpu, memory)]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3, "metrics": metrics}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "busy"},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def mine(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the acceptance pod, a StatefulSet, and a busy deployment that is scaled."""
    one = place(tmp_path_factory.mktemp("outputs"), "system")
    arguments = {"controller-manager": {"arguments": list(FASTER)}}
    try:
        made = boot(one, replace(programs, configured=configure(None, arguments, str)))
        apply(made.kubectl, fresh=False)
        busy = controller("Deployment", "busy", pod("busy", BUSY, resources={"requests": {"cpu": "20m"}}))
        create(made, keeper(), busy, autoscaler())
        yield made
    finally:
        if one.folder.exists():
            stop.stop(one)


def eventually(what: str, seconds: float, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.5)


def told(cluster: Cluster, *words: str) -> str:
    return cluster.kubectl(*words).stdout.decode()


def test_usage_is_told_in_every_kind(cluster: Cluster) -> None:
    """Of memory too, which not every gVisor has in a way that the kubelet knows."""
    assert rolled_out(cluster.kubectl, Deadline(120)) >= 2
    items = json.loads(cluster.kubectl("get", "--raw=/apis/metrics.k8s.io/v1beta1/nodes").stdout)["items"]
    assert [int(each["usage"]["memory"].removesuffix("Ki")) > 100_000 for each in items] == [True]


def test_they_are_ready(mine: Cluster) -> None:
    for name in ("local-path-provisioner", "metrics-server"):
        mine.kubectl(
            "wait", "deployment", name, "--namespace=kube-system", "--for=condition=Available", "--timeout=120s"
        )
    mine.kubectl("wait", "apiservice", "v1beta1.metrics.k8s.io", "--for=condition=Available", "--timeout=60s")
    said = (mine.place.logs / "system.log").read_text()
    for name in ("local-storage", "metrics-server"):
        assert re.search(rf"^{name} was ready \d+\.\d\d s after the node was whole$", said, re.MULTILINE), said


def test_data_outlive_their_pod(mine: Cluster) -> None:
    mine.kubectl("rollout", "status", "statefulset/keeper", "--timeout=120s")
    mine.kubectl("exec", "keeper-1", "--", "sh", "-c", "echo kept >/data/file")
    mine.kubectl("delete", "pod", "keeper-1")
    mine.kubectl("rollout", "status", "statefulset/keeper", "--timeout=60s")
    assert told(mine, "exec", "keeper-1", "--", "cat", "/data/file") == "kept\n"
    assert told(mine, "exec", "keeper-0", "--", "ls", "/data") == ""


def test_a_volume_goes_with_its_claim(mine: Cluster) -> None:
    """A claim waits for a pod; the folder of one that is deleted is gone."""
    create(mine, claim("alone"))
    event(mine, "alone", "waiting for first consumer to be created before binding")
    mine.kubectl("delete", "pvc", "alone")
    folders = inside(mine, f"ls {STORAGE}").stdout.split()
    assert len(folders) == 2, folders
    mine.kubectl("delete", "statefulset", "keeper")
    mine.kubectl("delete", "pvc", "data-keeper-0", "data-keeper-1")
    eventually("folders stay", 60, lambda: inside(mine, f"ls {STORAGE}").stdout == "")
    eventually("volumes stay", 60, lambda: told(mine, "get", "pv") == "")


def test_usage_is_told(mine: Cluster) -> None:
    """Two looks at a pod make its usage, ten seconds apart."""
    eventually("no usage", 60, lambda: "busy-" in told(mine, "get", "--raw=/apis/metrics.k8s.io/v1beta1/pods"))
    node = told(mine, "top", "node", "--no-headers").split()
    assert node[0] == "runsc"
    assert int(node[1].removesuffix("m")) > 100, node
    assert int(node[3].removesuffix("Mi")) > 50, node
    pods = {line.split()[0]: line.split()[1:] for line in told(mine, "top", "pod", "--no-headers").splitlines()}
    busy = next(usage for name, usage in pods.items() if name.startswith("busy-"))
    assert int(busy[0].removesuffix("m")) > 100, pods
    assert int(pods[NAME][0].removesuffix("m")) < 50, pods
    for _, memory in pods.values():
        assert re.fullmatch(r"\d+Mi", memory), pods


def test_what_is_busy_is_scaled(mine: Cluster) -> None:
    mine.kubectl("wait", "deployment", "busy", "--for=jsonpath={.status.readyReplicas}=3", "--timeout=120s")
    status = json.loads(told(mine, "get", "hpa", "busy", "--output=json"))["status"]
    assert {each["resource"]["name"] for each in status["currentMetrics"]} == {"cpu", "memory"}
    mine.kubectl("delete", "hpa,deployment", "busy")


def test_the_api_and_metrics_server_believe_certificates_only(mine: Cluster) -> None:
    """Neither is told to skip the other's, nor the kubelet's."""
    service = json.loads(told(mine, "get", "apiservice", "v1beta1.metrics.k8s.io", "--output=json"))["spec"]
    assert service["caBundle"]
    assert not service.get("insecureSkipTLSVerify")
    deployment = told(mine, "get", "deployment", "metrics-server", "--namespace=kube-system", "--output=json")
    assert "insecure" not in deployment


def address(cluster: Cluster, name: str) -> list[str]:
    said = told(cluster, "exec", NAME, "--", "sh", "-c", f"nslookup -type=a {name} 10.96.0.10; true")
    return re.findall(r"^Address: ([\d.]+)$", said, re.MULTILINE)


def test_a_corefile_is_honoured(mine: Cluster) -> None:
    """The last good one is: a bad one is an event."""

    def change(text: str) -> None:
        patch = json.dumps({"data": {"Corefile": text}})
        mine.kubectl("patch", "configmap", "coredns", "--namespace=kube-system", f"--patch={patch}")

    own = json.loads(told(mine, "get", "configmap", "coredns", "--namespace=kube-system", "--output=json"))
    text = own["data"]["Corefile"]
    assert address(mine, "one.example") == []
    change(
        text.replace(
            "    nxdomain", "    hosts {\n        192.0.2.1 one.example\n        fallthrough\n    }\n    nxdomain"
        )
    )
    eventually("the Corefile has no effect", 30, lambda: address(mine, "one.example") == ["192.0.2.1"])
    change(text.replace("errors", "nosuch", 1))
    eventually(
        "a bad one is not refused",
        30,
        lambda: "Unknown directive 'nosuch'" in told(mine, "get", "events", "--namespace=kube-system"),
    )
    assert address(mine, "one.example") == ["192.0.2.1"]
    assert address(mine, "kubernetes.default.svc.cluster.local") == ["10.96.0.1"]
    mine.kubectl("delete", "configmap", "coredns", "--namespace=kube-system")
    eventually("the node's own is not used again", 30, lambda: address(mine, "one.example") == [])
    assert address(mine, "kubernetes.default.svc.cluster.local") == ["10.96.0.1"]
