"""Two nodes in one sandbox: what runs where, what reaches what, and how it ends."""

from __future__ import annotations

import json
import select
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from sandkube.cluster import stop
from sandkube.cluster.configured import configure
from sandkube.cluster.logs import components
from sandkube.cluster.place import place
from sandkube.cluster.programs import Programs
from tests.cluster.conftest import Cluster, boot, got, inside
from tests.cluster.test_hostile import create, event, pod, service

PATIENCE = 60.0
SERVE = ["nc", "-ll", "-p", "8080", "-e", "hostname"]
"""Each connection gets the pod's name."""
NODES = ("runsc", "runsc-2")
KILL_MEMBER = """
for each in /proc/[0-9]*; do
    [ "$(tr '\\0' ' ' <"$each/cmdline")" = "/usr/bin/sandkube-node member " ] && kill -KILL "${each#/proc/}"
done
"""


def with_nodes(programs: Programs, count: int) -> Programs:
    return replace(programs, configured=configure(None, {"cluster": {"nodes": count}}, str))


@pytest.fixture(scope="module")
def two(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two nodes, with a pod on each that serves its name."""
    one = place(tmp_path_factory.mktemp("outputs"), "two")
    try:
        made = boot(one, with_nodes(programs, 2))
        create(made, *(pod(f"on-{node}", SERVE, nodeName=node) for node in NODES))
        made.kubectl("wait", "pod", *(f"on-{node}" for node in NODES), "--for=condition=Ready", "--timeout=60s")
        yield made
    finally:
        if one.folder.exists():
            stop.stop(one)


def address(cluster: Cluster, node: str) -> str:
    found: str = got(cluster, "pod", f"on-{node}")["status"]["podIP"]
    return found


def from_pod(cluster: Cluster, node: str, where: str, port: int) -> str:
    """What the pod of a node hears there; "" where nobody answers."""
    script = f"nc -w 5 {where} {port} </dev/null || true"
    return cluster.kubectl("exec", f"on-{node}", "--", "sh", "-c", script).stdout.decode().strip()


def heard(cluster: Cluster, where: str, port: int) -> str:
    """What the first node hears there; "" where nobody answers."""
    return inside(cluster, f"nc -w 5 {where} {port} </dev/null || true").stdout.strip()


def eventually(cluster: Cluster, where: str, port: int) -> str:
    """The same, where somebody will answer: the proxy looks at a change within 50 ms, and tells nobody."""
    script = f"until nc -w 5 {where} {port} </dev/null; do sleep 0.1; done"
    return inside(cluster, script, timeout=PATIENCE).stdout.strip()


def where_pods_are(cluster: Cluster, selector: str) -> list[str]:
    found = got(cluster, "pods", f"--selector={selector}")["items"]
    return sorted(each["spec"]["nodeName"] for each in found if "deletionTimestamp" not in each["metadata"])


def test_both_are_ready(two: Cluster) -> None:
    nodes = {each["metadata"]["name"]: each["status"] for each in got(two, "nodes")["items"]}
    assert {*nodes} == {*NODES}
    for status in nodes.values():
        assert [each["status"] for each in status["conditions"] if each["type"] == "Ready"] == ["True"]
    addresses = {name: [each["address"] for each in status["addresses"]] for name, status in nodes.items()}
    assert addresses == {"runsc": ["10.88.0.1", "runsc"], "runsc-2": ["10.88.1.1", "runsc-2"]}
    assert "nodes" in [event.get("stage") for event in two.events]
    assert {"containerd-2", "kubelet-2"} <= {*components(two.place.logs)}


def test_pods_of_both_reach_each_other(two: Cluster) -> None:
    assert address(two, "runsc").startswith("10.88.0.")
    assert address(two, "runsc-2").startswith("10.88.1.")
    for client, server in (NODES, NODES[::-1]):
        assert from_pod(two, client, address(two, server), 8080) == f"on-{server}"


def test_names_and_logs_of_both(two: Cluster) -> None:
    for node in NODES:
        assert from_pod(two, node, "kubernetes.default.svc.cluster.local", 443) == ""
        two.kubectl("exec", f"on-{node}", "--", "sh", "-c", f"echo said on {node} >/proc/1/fd/1")
        assert two.kubectl("logs", f"on-{node}").stdout.decode() == f"said on {node}\n"


def test_a_host_networks_pod_has_its_nodes_name(two: Cluster) -> None:
    create(two, pod("plain", ["sleep", "infinity"], nodeName="runsc-2", hostNetwork=True))
    two.kubectl("wait", "pod", "plain", "--for=condition=Ready", "--timeout=60s")
    assert two.kubectl("exec", "plain", "--", "hostname").stdout == b"runsc-2\n"
    assert got(two, "pod", "plain")["status"]["podIP"] == "10.88.1.1"
    two.kubectl("delete", "pod", "plain", "--now")


def test_node_ports_are_on_each_node(two: Cluster) -> None:
    port = {"port": 80, "targetPort": 8080}
    only = {"app": "on-runsc-2"}
    local = {"externalTrafficPolicy": "Local", "selector": only}
    create(
        two,
        service("everywhere", type="NodePort", selector=only, ports=[port | {"nodePort": 30080}]),
        service("at-home", type="NodePort", ports=[port | {"nodePort": 30081}], **local),
    )
    assert [eventually(two, each, 30080) for each in ("10.88.0.1", "127.0.0.1", "10.88.1.1")] == ["on-runsc-2"] * 3
    assert eventually(two, "10.88.1.1", 30081) == "on-runsc-2"
    assert heard(two, "10.88.0.1", 30081) == "", "a node without endpoints answers under the traffic policy Local"


def test_a_health_check_tells_of_its_node(two: Cluster) -> None:
    """What a balancer outside asks each node, to send it traffic or not."""
    port = {"port": 80, "targetPort": 8080}
    local = {"externalTrafficPolicy": "Local", "selector": {"app": "on-runsc-2"}}
    create(two, service("checked", type="LoadBalancer", ports=[port], **local))
    check = got(two, "service", "checked")["spec"]["healthCheckNodePort"]
    asked = f"http://10.88.1.1:{check}/healthz"
    ready = f"until wget -q -T 5 -O - {asked}; do sleep 0.1; done"
    said = json.loads(inside(two, ready, timeout=PATIENCE).stdout)
    assert said["service"] == {"namespace": "default", "name": "checked"}
    assert (said["localEndpoints"], said["serviceProxyHealthy"]) == (1, True)
    other = inside(two, f"wget -q -T 5 -O - http://10.88.0.1:{check}/ 2>&1 || true")
    assert "503" in other.stdout + other.stderr
    two.kubectl("delete", "service", "checked")


def test_inside_each_node_has_its_own_endpoints(two: Cluster) -> None:
    two.kubectl("label", "pod", *(f"on-{node}" for node in NODES), "both=yes")
    port = {"port": 80, "targetPort": 8080}
    create(two, service("near", internalTrafficPolicy="Local", selector={"both": "yes"}, ports=[port]))
    cluster_ip = got(two, "service", "near")["spec"]["clusterIP"]
    eventually(two, cluster_ip, 80)
    for node in NODES:
        assert {from_pod(two, node, cluster_ip, 80) for _ in range(4)} == {f"on-{node}"}


def test_a_host_port_is_its_nodes(two: Cluster) -> None:
    port = {"containerPort": 8080, "hostPort": 8081}
    create(two, *(pod(f"port-{node}", SERVE, nodeName=node, ports=[port]) for node in NODES))
    two.kubectl("wait", "pod", *(f"port-{node}" for node in NODES), "--for=condition=Ready", "--timeout=60s")
    asked = [eventually(two, each, 8081) for each in ("10.88.0.1", "127.0.0.1", "10.88.1.1")]
    assert asked == ["port-runsc", "port-runsc", "port-runsc-2"]
    other = [{"containerPort": 8080, "hostPort": 8082, "hostIP": "127.0.0.1"}]
    create(two, pod("loopback", SERVE, nodeName="runsc-2", ports=other))
    two.kubectl("wait", "pod", "loopback", "--for=condition=Ready", "--timeout=60s")
    assert eventually(two, "127.0.0.1", 8082) == "loopback", "loopback is that of all nodes"
    third = [{"containerPort": 8080, "hostPort": 8082, "hostIP": "10.88.0.1"}]
    create(two, pod("foreign", SERVE, nodeName="runsc-2", ports=third))
    event(two, "foreign", "wants host IP 10.88.0.1, which is no address of the node: it has 10.88.1.1 and 127.0.0.1")
    two.kubectl("delete", "pod", "loopback", "foreign", *(f"port-{node}" for node in NODES), "--now")


def workload(kind: str, name: str, *, template: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A Deployment or DaemonSet of pods that serve."""
    labels = {"app": name}
    inside = {"metadata": {"labels": labels}, "spec": pod(name, SERVE)["spec"] | (template or {})}
    spec = {"selector": {"matchLabels": labels}, "template": inside, **more}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def test_a_drained_node_is_left(two: Cluster) -> None:
    labels = {"app": "spread"}
    two.kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=60s")  # a slow machine may have lost one
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
        "nodeTaintsPolicy": "Honor",
    }
    create(
        two,
        workload("Deployment", "spread", replicas=2, template={"topologySpreadConstraints": [constraint]}),
        workload("DaemonSet", "each"),
    )
    two.kubectl("rollout", "status", "deployment/spread", "daemonset/each", "--timeout=60s")
    assert where_pods_are(two, "app=spread") == where_pods_are(two, "app=each") == [*NODES]
    two.kubectl("drain", "runsc-2", "--ignore-daemonsets", "--pod-selector=app=spread", "--timeout=60s")
    two.kubectl("rollout", "status", "deployment/spread", "--timeout=60s")
    assert where_pods_are(two, "app=spread") == ["runsc", "runsc"]
    two.kubectl("uncordon", "runsc-2")
    two.kubectl("delete", "deployment/spread", "daemonset/each", "--wait=false")


def test_the_end_of_a_node_is_the_clusters(two: Cluster) -> None:
    """The last of this file."""
    with two.place.supervisor() as supervisor:
        inside(two, KILL_MEMBER)
        poll = select.poll()
        poll.register(supervisor, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), "the cluster goes on without a node"
    assert two.state.phase == "failed"
    assert two.state.reason == "kubelet-2: the process of node runsc-2 ended: signal: killed"
