"""What one pod or Service may do to others and to the node: the cluster answers after each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sandkube.cluster import stop
from sandkube.cluster.place import place
from sandkube.cluster.pod import NAME, apply
from sandkube.cluster.programs import Programs
from sandkube.cluster.status import row
from sandkube.errors import UserError
from tests.cluster.conftest import ROOT, Cluster, boot, inside

FLOWS = 100_000
GROWTH = 200  # MB that a flood may add to a cluster's memory; 1,000 flows of 128 KB would be 128


@pytest.fixture(scope="module")
def mine(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that may be harmed, with the acceptance pod."""
    one = place(tmp_path_factory.mktemp("outputs"), "hostile")
    try:
        made = boot(one, programs)
        apply(made.kubectl, fresh=False)
        yield made
    finally:
        if one.folder.exists():
            stop.stop(one)


def create(cluster: Cluster, *objects: dict[str, Any]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}).encode()
    cluster.kubectl("apply", "--filename=-", stdin=text)


def pod(name: str, command: list[str], **more: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "sandkube.local/test:1", "imagePullPolicy": "Never", "command": command}
    inside = {key: more.pop(key) for key in ("ports", "resources") if key in more}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container | inside], **more}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def answers(cluster: Cluster) -> None:
    assert cluster.kubectl("get", "--raw=/readyz").stdout == b"ok"
    assert NAME in cluster.kubectl("get", "pods").stdout.decode()


def event(cluster: Cluster, name: str, words: str) -> None:
    """Wait for an event of a pod."""
    said = ""
    for _ in range(60):
        said = cluster.kubectl("get", "events", f"--field-selector=involvedObject.name={name}").stdout.decode()
        if words in said:
            return
        time.sleep(0.5)  # events have no condition to wait for
    pytest.fail(f"no event of {name} says {words!r}:\n{said}")


@pytest.mark.parametrize(
    ("name", "port", "words"),
    [
        ("api", {"hostPort": 6443}, "host port 6443/TCP is the node's own"),
        ("kubelet", {"hostPort": 10250}, "host port 10250/TCP is the node's own"),
        (
            "foreign",
            {"hostPort": 8443, "hostIP": "10.96.0.1"},
            "wants host IP 10.96.0.1, which is no address of the node",
        ),
        ("six", {"hostPort": 8443, "hostIP": "::1"}, "wants host IP ::1, which is no address of the node"),
    ],
)
def test_host_ports_of_others(mine: Cluster, name: str, port: dict[str, Any], words: str) -> None:
    create(mine, pod(name, ["sleep", "infinity"], ports=[{"containerPort": 8080, **port}]))
    event(mine, name, words)
    answers(mine)
    mine.kubectl("delete", "pod", name, "--wait=false")


def test_external_addresses_are_refused(mine: Cluster) -> None:
    """CVE-2020-8554: by the API, before the proxy sees any."""
    with pytest.raises(UserError, match="external IPs is denied"):
        create(mine, service("thief", externalIPs=["10.96.0.1"], ports=[{"port": 443}], selector={"app": "thief"}))
    answers(mine)


def test_a_flood_of_packets(mine: Cluster) -> None:
    """Each from a socket of its own, to several Services: bounded memory, and names and Services go on."""
    names = [f"sink-{number}" for number in range(4)]
    port = {"port": 9, "protocol": "UDP"}
    create(
        mine,
        pod("sink", ["sh", "-c", "nc -u -ll -p 9 -e true"]),
        *(service(each, selector={"app": "sink"}, ports=[port]) for each in names),
    )
    mine.kubectl("wait", "pod", "sink", "--for=condition=Ready", "--timeout=60s")
    mine.kubectl("cp", str((ROOT / "outputs/result/test-flood/bin/flood").resolve()), f"{NAME}:/tmp/flood")
    addresses = [
        mine.kubectl("get", "service", each, "--output=jsonpath={.spec.clusterIP}").stdout.decode() + ":9"
        for each in names
    ]
    before = row(mine.place).memory >> 20
    sent = int(mine.kubectl("exec", NAME, "--", "/tmp/flood", str(FLOWS // len(names)), *addresses).stdout)
    grown = (row(mine.place).memory >> 20) - before
    print(f"{sent} packets: {before} MB, {grown} MB more")
    assert sent > FLOWS * 0.9
    assert grown < GROWTH
    answers(mine)
    said = mine.kubectl(
        "exec", NAME, "--", "nslookup", "-type=a", "kubernetes.default.svc.cluster.local"
    ).stdout.decode()
    assert "10.96.0.1" in said


def test_a_pod_that_fills_its_disk(mine: Cluster) -> None:
    """Most of it is set aside and never touched, so it is no memory of this machine."""
    fill = (
        "free=$(df -k / | awk 'END {print $4}'); fallocate -l $(((free - 65536) * 1024)) /most; "
        "dd if=/dev/zero of=/rest bs=1M count=256; df -k / | awk 'END {print $4}'"
    )
    create(mine, pod("full", ["sleep", "infinity"]))
    mine.kubectl("wait", "pod", "full", "--for=condition=Ready", "--timeout=60s")
    free = int(mine.kubectl("exec", "full", "--", "sh", "-c", fill).stdout.split()[-1])
    assert free < 4096, "it has room left"
    for number in range(30):  # more than the datastore had free inside of its file
        data = {"text": "x" * 200_000}
        create(mine, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"s-{number}"}, "stringData": data})
    answers(mine)
    mine.kubectl("delete", "pod", "full", "--wait")
    create(mine, pod("after", ["true"], restartPolicy="Never"))
    mine.kubectl("wait", "pod", "after", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")


def test_a_fork_bomb_ends_in_its_pod(mine: Cluster) -> None:
    create(mine, pod("bomb", ["sh", "-c", "b() { b | b & }; b; sleep 5; b; sleep 60"], restartPolicy="Never"))
    mine.kubectl("wait", "pod", "bomb", "--for=jsonpath={.status.containerStatuses[0].started}=true", "--timeout=60s")
    for _ in range(5):
        answers(mine)
    mine.kubectl("delete", "pod", "bomb", "--grace-period=0", "--force", "--wait=false")
    answers(mine)


def test_node_ports_are_outside_of_connections(mine: Cluster) -> None:
    """So is what gVisor has otherwise in its range of ports of outgoing connections: 16000 to 65535."""
    files = "/proc/sys/net/ipv4/ip_local_port_range /etc/machine-id /etc/hosts /etc/resolv.conf"
    lines = inside(mine, f"cat {files}").stdout.splitlines()
    assert lines[0].split() == ["32768", "60999"]
    assert len(lines[1]) == 32
    assert "10.88.0.1\trunsc" in lines
    assert lines[-1] == "nameserver 10.96.0.10"
    (node,) = json.loads(mine.kubectl("get", "nodes", "--output=json").stdout)["items"]
    assert node["status"]["nodeInfo"]["machineID"] == lines[1]
    assert node["status"]["nodeInfo"]["systemUUID"]
