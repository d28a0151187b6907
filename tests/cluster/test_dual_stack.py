"""Dual stack: addresses of IPv6 beside those of IPv4, in gVisor and on this machine's own kernel."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube.cluster import stop
from sandkube.cluster.configured import configure
from sandkube.cluster.place import place
from sandkube.cluster.programs import Programs, fix_words
from sandkube.errors import UserError
from tests.cluster.conftest import Cluster, boot, got, inside, of_kind
from tests.cluster.test_hostile import create, pod, service
from tests.cluster.test_policy import policy

SERVE = "mkdir /w; hostname >/w/index.html; exec httpd -f -p 8080 -h /w"
PORT = {"port": 80, "targetPort": 8080}
NODES = ("runsc", "runsc-2")
FIRST, SECOND = {"ipFamilies": ["IPv4"]}, {"ipFamilies": ["IPv6"]}
BOTH = {"ipFamilyPolicy": "RequireDualStack"}


def dual(programs: Programs, **more: object) -> Programs:
    return replace(programs, configured=configure(None, {"cluster": {"ip-family": "dual", **more}}, str))


@pytest.fixture(scope="module", params=["modern", "linux"])
def mine(
    request: pytest.FixtureRequest, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Two nodes: pods that serve their names on both, and one on each that asks."""
    made = of_kind(programs, request.param)
    one = place(tmp_path_factory.mktemp("outputs"), "dual")
    try:
        cluster = boot(one, dual(made, nodes=2))
        populate(cluster)
        yield cluster
    finally:
        if one.folder.exists():
            stop.stop(one)


def populate(cluster: Cluster) -> None:
    served = [{"name": "web", "containerPort": 8080, "hostPort": 8088}]
    web = pod("web", ["sh", "-c", SERVE], nodeName=NODES[0], ports=served)
    asking = [pod(f"on-{node}", ["sh", "-c", SERVE], nodeName=node) for node in NODES]
    chosen = {"selector": {"app": "web"}, "ports": [PORT]}
    create(
        cluster,
        web,
        *asking,
        service("first", **chosen, **FIRST),
        service("second", **chosen, **SECOND),
        service("both", **chosen, **BOTH),
        service("prefers", **chosen, ipFamilyPolicy="PreferDualStack"),
        service("headless", **chosen, **BOTH, clusterIP="None"),
        service("port", **(chosen | {"ports": [PORT | {"nodePort": 30080}]}), **BOTH, type="NodePort"),
        service("balanced", **chosen, **BOTH, type="LoadBalancer"),
    )
    names = [each["metadata"]["name"] for each in (web, *asking)]
    cluster.kubectl("wait", "pod", *names, "--for=condition=Ready", "--timeout=90s")


def addresses(cluster: Cluster, name: str) -> list[str]:
    """A pod's, one a family."""
    return [each["ip"] for each in got(cluster, "pod", name)["status"]["podIPs"]]


def address_of(cluster: Cluster, name: str, family: int) -> str:
    """A Service's."""
    (found,) = (each for each in got(cluster, "service", name)["spec"]["clusterIPs"] if (":" in each) == (family == 6))
    return str(found)


def at(address: str, port: int) -> str:
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


def asks(cluster: Cluster, who: str, where: str) -> str:
    """What a pod, or the node, is answered, where somebody will answer: the proxy looks at a change within 50 ms."""
    script = f"for i in $(seq 50); do wget -q -T 5 -O- {where} && break; sleep 0.1; done; true"
    if who == "node":
        return inside(cluster, script).stdout.strip()
    return cluster.kubectl("exec", who, "--", "sh", "-c", script).stdout.decode().strip()


def test_pods_and_nodes_have_both(mine: Cluster) -> None:
    for name, ranges in {"web": ("10.88.0.", "fd00:10:88::"), "on-runsc-2": ("10.88.1.", "fd00:10:88:1::")}.items():
        found = addresses(mine, name)
        assert [each.startswith(start) for each, start in zip(found, ranges, strict=True)] == [True, True], found
        said = mine.kubectl("exec", name, "--", "ip", "addr", "show", "dev", "eth0").stdout.decode()
        assert all(f" {each}/" in said for each in found), said
    told = {each["metadata"]["name"]: each["status"]["addresses"] for each in got(mine, "nodes")["items"]}
    internal = {name: [each["address"] for each in all_ if each["type"] == "InternalIP"] for name, all_ in told.items()}
    assert internal == {"runsc": ["10.88.0.1", "fd00:10:88::1"], "runsc-2": ["10.88.1.1", "fd00:10:88:1::1"]}


@pytest.mark.parametrize("who", ["on-runsc", "on-runsc-2", "node", "web"])
def test_a_pod_is_reached(mine: Cluster, who: str) -> None:
    for each in addresses(mine, "web"):
        assert asks(mine, who, at(each, 8080)) == "web", each


@pytest.mark.parametrize("who", ["on-runsc", "on-runsc-2", "node", "web"])
def test_services_of_each_family(mine: Cluster, who: str) -> None:
    for name, families in {"first": (4,), "second": (6,), "both": (4, 6), "prefers": (4, 6)}.items():
        assert len(got(mine, "service", name)["spec"]["clusterIPs"]) == len(families)
        for family in families:
            assert asks(mine, who, at(address_of(mine, name, family), 80)) == "web", (name, family)


def test_node_ports_and_host_ports(mine: Cluster) -> None:
    for each in ("10.88.0.1", "fd00:10:88::1", "fd00:10:88:1::1"):
        for who in ("on-runsc-2", "node"):
            assert asks(mine, who, at(each, 30080)) == "web", (who, each)
    for each in ("10.88.0.1", "fd00:10:88::1"):
        assert asks(mine, "on-runsc-2", at(each, 8088)) == "web", each


def test_load_balancers(mine: Cluster) -> None:
    mine.kubectl("wait", "service", "balanced", "--for=jsonpath={.status.loadBalancer.ingress}", "--timeout=60s")
    found = [each["ip"] for each in got(mine, "service", "balanced")["status"]["loadBalancer"]["ingress"]]
    assert [each.rpartition(":")[0] or each.rpartition(".")[0] for each in found] == ["10.97.0", "fd00:10:97:"]
    for each in found:
        assert asks(mine, "on-runsc", at(each, 80)) == "web", each


def looked_up(cluster: Cluster, name: str, kind: str) -> list[str]:
    """What a pod's nslookup prints after the server's answers of itself."""
    script = f"nslookup -type={kind} {name} 10.96.0.10; true"
    said = cluster.kubectl("exec", "on-runsc", "--", "sh", "-c", script).stdout.decode().partition("\n\n")[2]
    return re.findall(r"(?:^Address: |name = )(\S+)$", said, re.MULTILINE)


def test_names(mine: Cluster) -> None:
    second = address_of(mine, "second", 6)
    assert looked_up(mine, "second.default.svc.cluster.local", "aaaa") == [second]
    assert looked_up(mine, "second.default.svc.cluster.local", "a") == []
    assert looked_up(mine, "both.default.svc.cluster.local", "a") == [address_of(mine, "both", 4)]
    assert looked_up(mine, "both.default.svc.cluster.local", "aaaa") == [address_of(mine, "both", 6)]
    assert looked_up(mine, "headless.default.svc.cluster.local", "aaaa") == addresses(mine, "web")[1:]
    reverse = ipaddress.ip_address(second).reverse_pointer
    assert looked_up(mine, reverse, "ptr") == ["second.default.svc.cluster.local"]
    assert asks(mine, "on-runsc-2", "http://second.default.svc.cluster.local/") == "web"


def reached(cluster: Cluster, who: str, *places: str) -> list[str]:
    script = "for each; do (timeout 3 wget -q -O- $each >/dev/null 2>&1 && echo $each) & done; wait"
    return sorted(cluster.kubectl("exec", who, "--", "sh", "-c", script, "sh", *places).stdout.decode().split())


def test_policies(mine: Cluster) -> None:
    """Who is let in is, by both families and by Services, and the node's probes are; nobody else."""
    direct = [at(each, 8080) for each in addresses(mine, "web")]
    places = sorted([*direct, *(at(address_of(mine, "both", family), 80) for family in (4, 6))])
    friend = {"podSelector": {"matchLabels": {"app": "on-runsc-2"}}}
    create(mine, policy("one", {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [friend]}]}))
    try:
        for _ in range(3):  # it is obeyed some milliseconds later
            if not reached(mine, "on-runsc", *places):
                break
        assert reached(mine, "on-runsc", *places) == []
        assert reached(mine, "on-runsc-2", *places) == places
        assert asks(mine, "node", direct[1]) == "web"
        assert asks(mine, "web", at(addresses(mine, "on-runsc")[1], 8080)) == "on-runsc", "answers do not come back"
        block = {"ipBlock": {"cidr": "fd00:10:88::/64"}}
        create(mine, policy("one", {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [block]}]}))
        wanted = [each for each in places if "[" in each]
        for _ in range(3):
            if reached(mine, "on-runsc", *places) == wanted:
                break
        assert reached(mine, "on-runsc", *places) == wanted
    finally:
        mine.kubectl("delete", "networkpolicy", "one")
    for _ in range(3):
        if reached(mine, "on-runsc", *places) == places:
            break
    assert reached(mine, "on-runsc", *places) == places


@pytest.mark.parametrize("how", ["legacy", "bridge"])
def test_where_it_cannot_be_had(programs: Programs, outputs: Path, how: str) -> None:
    made = of_kind(programs, "legacy") if how == "legacy" else programs
    words = () if how == "legacy" else tuple(fix_words(["pod-network=on"]))
    with pytest.raises(UserError, match="there can be IPv4 only: the network of this sandbox does not forward"):
        boot(place(outputs, "refused"), replace(dual(made), arguments=words))
