"""Names of the cluster, asked for by pods and by programs that are not ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from sandkube.cluster.pod import NAME, apply
from sandkube.cluster.programs import Programs
from tests.cluster.conftest import Cluster

SERVER = "10.96.0.10"
SHELL = {"name": "shell", "image": "sandkube.local/test:1", "command": ["sleep", "infinity"]}


def pod(number: int) -> dict[str, Any]:
    name = f"member-{number}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "members"}},
        "spec": {
            "hostname": name,
            "subdomain": "members",
            "terminationGracePeriodSeconds": 0,
            "containers": [SHELL],
        },
    }


def objects() -> list[dict[str, Any]]:
    def service(name: str, **spec: Any) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}

    port = [{"name": "web", "port": 80}]
    return [
        service("members", clusterIP="None", selector={"app": "members"}, ports=port),
        service("elsewhere", type="ExternalName", externalName="members.default.svc.cluster.local"),
        service("nobody", clusterIP="None", selector={"app": "nobody"}, ports=port),
        *(pod(number) for number in (1, 2)),
    ]


@pytest.fixture(scope="module")
def members(cluster: Cluster) -> Iterator[dict[str, str]]:
    """Two pods behind a headless Service: their addresses by name."""
    apply(cluster.kubectl, fresh=False)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects()}).encode()
    cluster.kubectl("apply", "--filename=-", stdin=text)
    cluster.kubectl("wait", "pod", "--selector=app=members", "--for=condition=Ready", "--timeout=60s")
    found = json.loads(cluster.kubectl("get", "pods", "--selector=app=members", "--output=json").stdout)["items"]
    yield {each["metadata"]["name"]: each["status"]["podIP"] for each in found}
    cluster.kubectl("delete", "--filename=-", "--wait", stdin=text)


def lookup(cluster: Cluster, name: str, kind: str = "-type=a", server: str = SERVER) -> tuple[list[str], str]:
    """The addresses that a pod's nslookup prints after the server's, and all it says."""
    command = f"nslookup {kind} {name} {server}; true"
    said = cluster.kubectl("exec", NAME, "--", "sh", "-c", command).stdout.decode()
    _, _, answer = said.partition("\n\n")
    return sorted(re.findall(r"^Address: (\S+)$", answer, re.MULTILINE)), said


def eventually(cluster: Cluster, name: str, expected: list[str]) -> None:
    """An endpoint is in the API before the server of names has seen it."""
    for _ in range(20):
        found, said = lookup(cluster, name)
        if found == expected:
            return
    pytest.fail(f"{name}: expected {expected}, got {said}")


@pytest.mark.usefixtures("members")
def test_a_service_has_a_name(cluster: Cluster) -> None:
    assert lookup(cluster, "kubernetes.default.svc.cluster.local")[0] == ["10.96.0.1"]
    assert lookup(cluster, "kube-dns.kube-system.svc.cluster.local")[0] == [SERVER]


def test_short_names_work_in_a_pod(cluster: Cluster, members: dict[str, str], programs: Programs) -> None:
    """The C library's resolver, with the pod's search list, and Go's: the API under its usual name."""
    found = cluster.kubectl("exec", "member-1", "--", "ping", "-c1", "-W5", "member-2.members").stdout.decode()
    assert f"({members['member-2']})" in found
    cluster.kubectl("cp", str(programs.kubectl), f"{NAME}:/tmp/kubectl")
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    command = (
        f"/tmp/kubectl --server=https://kubernetes.default --certificate-authority={account}/ca.crt "
        f"--token=$(cat {account}/token) auth whoami --output=json"
    )
    said = cluster.kubectl("exec", NAME, "--", "sh", "-c", command).stdout
    assert json.loads(said)["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"


def test_a_headless_service_has_all_its_pods(cluster: Cluster, members: dict[str, str]) -> None:
    eventually(cluster, "members.default.svc.cluster.local", sorted(members.values()))
    for name, address in members.items():
        eventually(cluster, f"{name}.members.default.svc.cluster.local", [address])


def test_srv_and_reverse(cluster: Cluster, members: dict[str, str]) -> None:
    _, said = lookup(cluster, "_web._tcp.members.default.svc.cluster.local", "-type=srv")
    expected = {f"{name}.members.default.svc.cluster.local" for name in members}
    assert set(re.findall(r"80 (\S+)$", said, re.MULTILINE)) == expected
    _, said = lookup(cluster, "10.96.0.1", "")
    assert "name = kubernetes.default.svc.cluster.local" in said


def test_an_external_name_is_followed(cluster: Cluster, members: dict[str, str]) -> None:
    found, said = lookup(cluster, "elsewhere.default.svc.cluster.local")
    assert "canonical name = members.default.svc.cluster.local" in said
    assert found == sorted(members.values())


@pytest.mark.usefixtures("members")
def test_what_is_not_there(cluster: Cluster) -> None:
    assert "NXDOMAIN" in lookup(cluster, "nothing.default.svc.cluster.local")[1]
    assert "NXDOMAIN" in lookup(cluster, "nobody.default.svc.cluster.local")[1]
    assert "NXDOMAIN" in lookup(cluster, "example.org")[1]
    found, said = lookup(cluster, "kubernetes.default.svc.cluster.local", "-type=aaaa")
    assert not found
    assert "NXDOMAIN" not in said


@pytest.mark.usefixtures("members")
def test_a_new_service_is_known_and_a_removed_one_forgotten(cluster: Cluster) -> None:
    cluster.kubectl("create", "service", "clusterip", "late", "--tcp=80")
    address = cluster.kubectl("get", "service", "late", "--output=jsonpath={.spec.clusterIP}").stdout.decode()
    eventually(cluster, "late.default.svc.cluster.local", [address])
    cluster.kubectl("delete", "service", "late")
    eventually(cluster, "late.default.svc.cluster.local", [])


@pytest.mark.usefixtures("members")
def test_udp_services(cluster: Cluster) -> None:
    """The server of names once more, behind a Service without a selector."""
    port = {"port": 53, "protocol": "UDP"}
    behind = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "datagrams-1", "labels": {"kubernetes.io/service-name": "datagrams"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [SERVER]}],
        "ports": [port],
    }
    front = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "datagrams"}, "spec": {"ports": [port]}}
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [front, behind]}).encode()
    cluster.kubectl("apply", "--filename=-", stdin=text)
    address = cluster.kubectl("get", "service", "datagrams", "--output=jsonpath={.spec.clusterIP}").stdout.decode()
    eventually(cluster, "datagrams.default.svc.cluster.local", [address])
    found, said = lookup(cluster, "kubernetes.default.svc.cluster.local", server=address)
    cluster.kubectl("delete", "--filename=-", stdin=text)
    assert f"Server:\t\t{address}" in said
    assert found == ["10.96.0.1"], said
