"""NetworkPolicies: who reaches whom, in gVisor and on this machine's own kernel."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster import stop
from sandkube.cluster.place import place
from sandkube.cluster.programs import Programs, fix_words
from tests.cluster.conftest import Cluster, boot, inside, of_kind
from tests.cluster.test_hostile import create, event, pod, service

SERVE = "mkdir /w; echo page >/w/index.html; httpd -p 8085 -h /w; exec httpd -f -p 8080 -h /w"
CHECK = """for each; do (
case $each in
udp:*) timeout 4 nslookup x ${each#udp:} 2>&1 | grep refused;;
icmp:*) timeout 4 ping -c 1 -W 2 ${each#icmp:};;
dns) timeout 4 nslookup kubernetes.default.svc.cluster.local;;
*) timeout 3 wget -q -O- http://$each/;;
esac >/dev/null 2>&1 && echo $each) & done; wait"""
"""Says which of its words can be reached. The test image has no server of UDP: a pod answers for its port by ICMP."""
ANYBODY: dict[str, Any] = {"podSelector": {}}
WEB: dict[str, Any] = {"podSelector": {"matchLabels": {"app": "web"}}}


@pytest.fixture(scope="module", params=["modern", "linux"])
def mine(
    request: pytest.FixtureRequest, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A pod that serves, and three that ask: a friend and a stranger beside it, one in a namespace apart."""
    made = of_kind(programs, request.param)
    one = place(tmp_path_factory.mktemp("outputs"), "policy")
    try:
        cluster = boot(one, made)
        populate(cluster)
        yield cluster
    finally:
        if one.folder.exists():
            stop.stop(one)


def policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    return kind | {"metadata": {"name": name}, "spec": spec}


def populate(cluster: Cluster) -> None:
    create(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "apart", "labels": {"team": "two"}}})
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    web = pod("web", ["sh", "-c", SERVE], ports=[{"name": "http", "containerPort": 8080}])
    web["spec"]["containers"][0]["readinessProbe"] = probe
    foreign = pod("foreign", ["sleep", "infinity"])
    foreign["metadata"]["namespace"] = "apart"
    port = {"port": 80, "targetPort": 8080}
    create(
        cluster,
        web,
        *(pod(name, ["sleep", "infinity"]) for name in ("friend", "stranger")),
        service("web", selector={"app": "web"}, ports=[port]),
        service("port", selector={"app": "web"}, type="NodePort", ports=[port | {"nodePort": 30080}]),
    )
    create(cluster, foreign)
    for words in (("web", "friend", "stranger"), ("foreign", "--namespace=apart")):
        cluster.kubectl("wait", "pod", "--for=condition=Ready", "--timeout=90s", *words)


def address(cluster: Cluster, name: str, *words: str) -> str:
    return cluster.kubectl("get", "pod", name, "--output=jsonpath={.status.podIP}", *words).stdout.decode()


@pytest.fixture(scope="module")
def ways(mine: Cluster) -> dict[str, str]:
    """All ways to the pod that serves, and names, each by the word of CHECK for it."""
    web = address(mine, "web")
    proxied = mine.kubectl("get", "service", "web", "--output=jsonpath={.spec.clusterIP}").stdout.decode()
    return {
        "pod": f"{web}:8080",
        "second": f"{web}:8085",
        "service": proxied,
        "node port": "10.88.0.1:30080",
        "udp": f"udp:{web}:9000",
        "icmp": f"icmp:{web}",
        "dns": "dns",
    }


ALL = "pod, second, service, node port, udp, icmp, dns"
BLOCKS = [f"192.0.{at // 128}.{2 * (at % 128)}/32" for at in range(600)]
MATRIX = {
    "nobody": (WEB, dict.fromkeys(("friend", "stranger", "foreign"), "dns")),
    "a friend": (
        WEB | {"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}]}]},
        {"friend": ALL, "stranger": "dns", "foreign": "dns"},
    ),
    "another namespace": (
        WEB | {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "two"}}}]}]},
        {"friend": "dns", "foreign": ALL},
    ),
    "a port by name": (
        WEB | {"ingress": [{"ports": [{"port": "http"}]}]},
        {"friend": "pod, service, node port, dns", "foreign": "pod, service, node port, dns"},
    ),
    "a range, and UDP": (
        WEB | {"ingress": [{"ports": [{"port": 8082, "endPort": 8090}, {"port": 9000, "protocol": "UDP"}]}]},
        {"friend": "second, udp, dns"},
    ),
    "a block without the friend": (
        WEB | {"ingress": [{"from": [{"ipBlock": {"cidr": "10.88.0.0/24", "except": ["FRIEND/32"]}}]}]},
        {"friend": "dns", "stranger": ALL, "foreign": ALL},
    ),
    "a list of six hundred blocks": (  # of which the kernel has a rule each
        WEB | {"ingress": [{"from": [{"ipBlock": {"cidr": each}} for each in ("FRIEND/32", *BLOCKS)]}]},
        {"friend": ALL, "foreign": "dns"},
    ),
    "nothing goes out": (
        {"podSelector": {"matchLabels": {"app": "friend"}}, "policyTypes": ["Egress"]},
        {"friend": "", "stranger": ALL, "foreign": ALL},
    ),
    "names go out": (
        {
            "podSelector": {"matchLabels": {"app": "friend"}},
            "policyTypes": ["Egress"],
            "egress": [
                {
                    "to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
                    "ports": [{"port": 53, "protocol": "UDP"}],
                }
            ],
        },
        {"friend": "dns"},
    ),
    "one port goes out": (
        {
            "podSelector": {"matchLabels": {"app": "friend"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [WEB], "ports": [{"port": 8080}]}],
        },
        {"friend": "pod, service, node port"},
    ),
    "answers go out": (WEB | {"policyTypes": ["Egress"]}, {"friend": ALL, "foreign": ALL}),
}
"""A policy of namespace default, and what each pod reaches by its ways while it is there."""


def reached(cluster: Cluster, name: str, ways: dict[str, str]) -> set[str]:
    space = "apart" if name == "foreign" else "default"
    words = ("exec", name, f"--namespace={space}", "--", "sh", "-c", CHECK, "sh", *ways.values())
    said = cluster.kubectl(*words).stdout.decode().splitlines()
    return {way for way, word in ways.items() if word in said}


def settles(cluster: Cluster, name: str, ways: dict[str, str], want: str) -> None:
    """A policy is obeyed some milliseconds after it is made."""
    wanted = set(filter(None, want.split(", ")))
    for _ in range(3):
        found = reached(cluster, name, ways)
        if found == wanted:
            return
    assert found == wanted, name


@pytest.mark.parametrize("name", MATRIX)
def test_a_policy_is_obeyed(mine: Cluster, ways: dict[str, str], name: str) -> None:
    spec, wants = MATRIX[name]
    create(mine, policy("one", json.loads(json.dumps(spec).replace("FRIEND", address(mine, "friend")))))
    try:
        for who, want in wants.items():
            settles(mine, who, ways, want)
        ready = mine.kubectl("get", "pod", "web", "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}")
        assert ready.stdout == b"True", "the kubelet's probe does not pass"
    finally:
        mine.kubectl("delete", "networkpolicy", "one")


def test_everything_passes_again(mine: Cluster, ways: dict[str, str]) -> None:
    for name in ("friend", "foreign"):
        settles(mine, name, ways, ALL)


def test_a_new_pod_is_isolated_from_its_first_moment(mine: Cluster) -> None:
    """Somebody asks for its address, the next that will be given, from before it is there."""
    create(mine, policy("late", {"podSelector": {"matchLabels": {"app": "late"}}}))
    last = inside(mine, "cat /run/sandkube/podnet/last").stdout.strip('"\n')
    mine.kubectl("wait", "pod", "stranger", "--for=condition=Ready", "--timeout=60s")
    late = ".".join([*last.split(".")[:3], str(int(last.split(".")[3]) + 1)])
    script = f"(until wget -q -T 1 -O /tmp/got http://{late}:8080/; do :; done) >/dev/null 2>&1 &"
    mine.kubectl("exec", "stranger", "--", "sh", "-c", script)
    create(mine, pod("late", ["sh", "-c", SERVE]))
    mine.kubectl("wait", "pod", "late", "--for=condition=Ready", "--timeout=60s")
    assert address(mine, "late") == late
    time.sleep(2)  # nothing is to happen
    assert mine.kubectl("exec", "stranger", "--", "sh", "-c", "ls /tmp").stdout == b""
    mine.kubectl("delete", "networkpolicy", "late")
    mine.kubectl("exec", "stranger", "--", "timeout", "30", "sh", "-c", "until [ -s /tmp/got ]; do sleep 0.1; done")
    mine.kubectl("delete", "pod", "late", "--wait=false")


def test_pods_on_a_bridge(programs: Programs, outputs: Path) -> None:
    """There nothing sees what they send to each other, and each policy has an event that says so."""
    one = place(outputs, "bridged")
    cluster = boot(one, replace(programs, arguments=tuple(fix_words(["pod-network=on"]))))
    create(cluster, policy("idle", ANYBODY))
    event(cluster, "idle", "Not enforced: pods are ports of a bridge")
