"""Settings of a cluster: one cluster has all of them, and what Kubernetes refuses is its own sentence."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandkube.cluster import stop
from sandkube.cluster.configured import configure
from sandkube.cluster.place import place
from sandkube.cluster.pod import NAME, apply
from sandkube.cluster.programs import Programs
from sandkube.cluster.start import NodeFailed
from sandkube.cluster.status import row
from tests.cluster.conftest import Cluster, boot, got, inside, of_kind

SETTINGS = """
feature-gates = {InPlacePodVerticalScaling = false}
runtime-config = {"networking.k8s.io/v1beta1" = true}
manifests = "objects"
verbosity = 1

[cluster]
pods = "10.77.0.0/24"
services = "10.78.0.0/20"
domain = "a.test"
api-port = 7443

[node]
name = "one"
labels = {"example.org/colour" = "blue"}

[apiserver]
arguments = ["--max-requests-inflight=123"]
enable-admission-plugins = ["NamespaceAutoProvision"]
disable-admission-plugins = ["DenyServiceExternalIPs"]

[controller-manager]
arguments = ["--concurrent-gc-syncs=7"]

[scheduler]
arguments = ["--leader-elect=true", "--leader-elect-resource-name=chosen"]

[kubelet]
arguments = ["--registry-burst=17"]
seccomp-default = true
configuration = {maxPods = 20}

[containerd]
arguments = ["--log-level=debug"]

[containerd.configuration.plugins."io.containerd.cri.v1.runtime".containerd.runtimes.other]
runtime_type = "io.containerd.runc.v2"

[audit]
policy = "policy.yaml"

[encryption]
secrets = true
"""
POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"
OBJECTS = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: widgets, kind: Widget}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
---
apiVersion: example.org/v1
kind: Widget
metadata: {name: w}
"""


def with_settings(programs: Programs, folder: Path, text: str) -> Programs:
    (folder / "sandkube.toml").write_text(text)
    return replace(programs, configured=configure(folder / "sandkube.toml", {}, str))


@pytest.fixture(scope="module", params=["confined", "legacy"])
def cluster(
    request: pytest.FixtureRequest, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """`confined` is `modern` without mounts of its own, in `legacy` Kubernetes is a process of its own."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "objects").mkdir()
    (folder / "objects/a.yaml").write_text(OBJECTS)
    one = place(folder, "set")
    try:
        made = boot(one, with_settings(of_kind(programs, request.param), folder, SETTINGS))
        apply(made.kubectl, fresh=True)
        yield made
    finally:
        if one.folder.exists():
            stop.stop(one)


def executed(cluster: Cluster, script: str) -> str:
    return cluster.kubectl("exec", NAME, "--", "sh", "-c", script).stdout.decode()


def test_ranges_names_and_ports(cluster: Cluster) -> None:
    assert got(cluster, "pod", NAME)["status"]["podIP"].startswith("10.77.0.")
    assert got(cluster, "service", "kubernetes")["spec"]["clusterIP"] == "10.78.0.1"
    assert got(cluster, "service", "kube-dns", "--namespace=kube-system")["spec"]["clusterIP"] == "10.78.0.10"
    assert got(cluster, "servicecidr", "kubernetes")["spec"]["cidrs"] == ["10.78.0.0/20"]
    slices = got(cluster, "endpointslice", "kubernetes")
    assert [each["port"] for each in slices["ports"]] == [7443]
    assert slices["endpoints"][0]["addresses"] == ["10.77.0.1"]
    assert "Address: 10.78.0.1\n" in executed(cluster, "nslookup -type=a kubernetes.default.svc.a.test")
    assert executed(cluster, "echo $KUBERNETES_SERVICE_HOST; cat /etc/resolv.conf").split() == [
        *("10.78.0.1", "search", "default.svc.a.test", "svc.a.test", "a.test"),
        *("nameserver", "10.78.0.10", "options", "ndots:5"),
    ]
    assert executed(cluster, "nc -w 5 kubernetes.default 443 </dev/null && echo reached") == "reached\n"


def test_the_node(cluster: Cluster) -> None:
    (node,) = got(cluster, "nodes")["items"]
    assert node["metadata"]["name"] == "one"
    assert node["metadata"]["labels"]["example.org/colour"] == "blue"
    assert node["status"]["capacity"]["pods"] == "20"
    assert "other" in {each["name"] for each in node["status"]["runtimeHandlers"]}
    assert inside(cluster, "hostname; cat /etc/hostname").stdout == "one\none\n"
    assert (row(cluster.place).node, row(cluster.place).settings[-13:]) == ("one", "sandkube.toml")


def test_the_api_server(cluster: Cluster) -> None:
    metrics = cluster.kubectl("get", "--raw=/metrics").stdout.decode()
    assert 'kubernetes_feature_enabled{name="InPlacePodVerticalScaling",stage="BETA"} 0' in metrics
    assert b'"ipaddresses"' in cluster.kubectl("get", "--raw=/apis/networking.k8s.io/v1beta1").stdout
    cluster.kubectl("create", "configmap", "x", "--namespace=made-by-a-plugin")
    external = {"externalIPs": ["192.0.2.1"], "ports": [{"port": 1}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "out"}, "spec": external}
    cluster.kubectl("create", "--filename=-", stdin=json.dumps(service).encode())
    assert got(cluster, "widgets", "w")["kind"] == "Widget"


def test_arguments(cluster: Cluster) -> None:
    given = {"controller-manager": 'concurrent-gc-syncs="7"', "kubelet": 'registry-burst="17"'}
    for component, text in given.items():  # which they log from verbosity 1 on
        assert f"FLAG: --{text}" in (cluster.place.logs / f"{component}.log").read_text(), component
    assert got(cluster, "lease", "chosen", "--namespace=kube-system")["spec"]["holderIdentity"].startswith("one_")
    assert "level=debug" in (cluster.place.logs / "containerd.log").read_text()


def test_what_is_audited_is_a_log(cluster: Cluster) -> None:
    for _ in range(100):  # a line takes its way to the host
        cluster.kubectl("get", "--raw=/version")
        events = [json.loads(line) for line in (cluster.place.logs / "audit.log").read_text().splitlines()]
        if any(each["requestURI"] == "/version" for each in events):
            return
    pytest.fail("nothing was audited")


def test_secrets_lie_encrypted(cluster: Cluster) -> None:
    cluster.kubectl("create", "secret", "generic", "s", "--from-literal=key=plain-to-see")
    found = inside(
        cluster, "cd /var/lib/sandkube/db; grep -c k8s:enc:secretbox:v1:node: state.db*; grep -c plain-to-see *"
    )
    assert ":0" in found.stdout
    assert sum(int(line.rpartition(":")[2]) for line in found.stdout.splitlines()[:-3]) > 0, found.stdout
    assert cluster.kubectl("get", "secret", "s", "--output=jsonpath={.data.key}").stdout == b"cGxhaW4tdG8tc2Vl"


def test_pods_get_a_seccomp_profile(cluster: Cluster) -> None:
    assert "Seccomp:\t2\n" in executed(cluster, "cat /proc/1/status")


def test_without_what_serves_pods(programs: Programs, outputs: Path) -> None:
    """Both parts of traffic are left out, and NetworkPolicies alone are in its process. Pods run, and find neither
    Services nor names.
    """
    made = boot(place(outputs, "less"), with_settings(programs, outputs, 'disable = ["dns", "services"]'))
    stages = {event["stage"] for event in made.events if event["type"] == "stage"}
    assert {"ready", "controllers", "service"} <= stages
    assert not {"dns", "services"} & stages
    apply(made.kubectl, fresh=True)
    assert "sandkube-node traffic" in inside(made, "ps -o args").stdout
    assert not [each for each in ("services", "dns") if (made.place.logs / f"{each}.log").exists()]
    assert made.kubectl("get", "service", "kube-dns", "--namespace=kube-system", "--ignore-not-found").stdout == b""
    ask = "nslookup -type=a kubernetes.default.svc.cluster.local 10.96.0.10"
    said = executed(made, f"nc -w 2 10.96.0.1 443 </dev/null && echo reached; timeout 3 {ask}; echo end")
    assert "reached" not in said
    assert "10.96.0.1\n" not in said
    assert said.endswith("end\n")
    assert "10.96.0.10" not in inside(made, "ip -4 addr").stdout


REFUSED = {
    "a feature gate": ("feature-gates = {NoSuchGate = true}", "apiserver", "unrecognized feature gate: NoSuchGate"),
    "an argument": ('[apiserver]\narguments = ["--no-such=1"]', "apiserver", "unknown flag: --no-such"),
    "a plugin": ('[apiserver]\nenable-admission-plugins = ["NoSuch"]', "apiserver", 'plugin "NoSuch" is unknown'),
    "an audit policy": ('[audit]\npolicy = "bad.yaml"', "apiserver", "loaded illegal policy with 0 rules"),
    "a key of the kubelet": ("[kubelet.configuration]\nmaxPodz = 3", "kubelet", 'unknown field "maxPodz"'),
    "a value of the kubelet": ("[kubelet.configuration]\nmaxPods = -3", "kubelet", "maxPods"),
    "a label": ('[node.labels]\n"kubernetes.io/x" = "y"', "kubelet", "unknown 'kubernetes.io' or 'k8s.io' labels"),
    "a label's value": (f'[node.labels]\na = "{"x" * 64}"', "kubelet", "must be no more than 63 characters"),
    "containerd's part": ('[containerd.configuration]\nimports = "x"', "containerd", "cannot decode TOML string"),
    "an object": ('manifests = "bad"', "manifests", 'ConfigMap "A_b" is invalid: metadata.name'),
    "an argument of the scheduler": ('[scheduler]\narguments = ["--no=1"]', "scheduler", "unknown flag: --no"),
    "controllers": ('[controller-manager]\narguments = ["--controllers=no"]', "controller-manager", '"no" is not in'),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_said_by_its_component(programs: Programs, outputs: Path, what: str) -> None:
    text, component, sentence = REFUSED[what]
    (outputs / "bad.yaml").write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n")
    (outputs / "bad").mkdir()
    (outputs / "bad/a.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: A_b}\n")
    began = time.monotonic()
    with pytest.raises(NodeFailed) as caught:
        boot(place(outputs, "bad"), with_settings(programs, outputs, text))
    said = caught.value.message.splitlines()[0]
    assert said.startswith(f"cluster bad: {component} failed: ")
    assert sentence in said
    assert "its settings are those of" in (caught.value.hint or "")
    assert time.monotonic() - began < 60
