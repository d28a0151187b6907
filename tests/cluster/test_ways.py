"""Ways in: published and exposed ports, load balancers, and the cluster in the user's own kubeconfig. One cluster."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster import exposed, kubeconfig, ports, start, stop, workloads
from sandkube.cluster.deadline import Deadline
from sandkube.cluster.place import place
from sandkube.cluster.pod import NAME, Kubectl, apply
from sandkube.cluster.ports import publication
from sandkube.cluster.programs import Programs
from sandkube.errors import UserError
from tests.cluster.conftest import ROOT, Cluster, inside

NODE_PORT, NAMES_PORT = 30080, 30053
SERVE = "mkdir /w; hostname >/w/index.html; exec httpd -f -p 8080 -h /w"
CONTAINER = {
    "name": "web",
    "image": "sandkube.local/test:1",
    "imagePullPolicy": "Never",
    "command": ["sh", "-c", SERVE],
}


def service(name: str, kind: str, **more: Any) -> dict[str, Any]:
    spec = {"type": kind, "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **more}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def objects() -> list[dict[str, Any]]:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [CONTAINER]},
    }
    labels = {"kubernetes.io/service-name": "names"}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
        },
        service("web", "NodePort", ports=[{"port": 80, "targetPort": 8080, "nodePort": NODE_PORT}]),
        service("balanced", "LoadBalancer"),
        service("others", "LoadBalancer", loadBalancerClass="example.org/other"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "names"},
            "spec": {"type": "NodePort", "ports": [{"port": 53, "protocol": "UDP", "nodePort": NAMES_PORT}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "names", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 53, "protocol": "UDP"}],
            "endpoints": [{"addresses": ["10.96.0.10"]}],
        },
    ]


@pytest.fixture(scope="module")
def cluster(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With what is published, and a pod that serves its name."""
    outputs = tmp_path_factory.mktemp("outputs")
    (outputs / "result").symlink_to(ROOT / "outputs/result")
    one = place(outputs, "ways")
    words = (f"0:{NODE_PORT}", f"0:{NAMES_PORT}/udp")
    try:
        with one.lock():
            events = list(start.start(one, programs, publish=[publication(each) for each in words]))
        made = Cluster(one, Kubectl(programs.kubectl, one), events)
        apply(made.kubectl, fresh=True)
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects()}).encode()
        made.kubectl("apply", "--filename=-", stdin=text)
        assert workloads.rolled_out(made.kubectl, Deadline(120)) == 1 + len(workloads.SYSTEM)
        yield made
    finally:
        if one.folder.exists():
            stop.stop(one)


def told(cluster: Cluster, name: str, path: str) -> str:
    return cluster.kubectl("get", "service", name, f"--output=jsonpath={{{path}}}").stdout.decode()


def balancer(cluster: Cluster, name: str = "balanced") -> str:
    """The address in a Service's status, once it is there."""
    cluster.kubectl("wait", f"service/{name}", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}", "--timeout=30s")
    return told(cluster, name, ".status.loadBalancer.ingress[0].ip")


def web(url: str) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=20) as answer:
        return str(answer.read().decode().strip())


def from_node(cluster: Cluster, url: str) -> str:
    return inside(cluster, f"wget -T 5 -q -O- {url} 2>&1").stdout.strip()


def from_pod(cluster: Cluster, url: str) -> str:
    script = f"wget -T 5 -q -O- {url} 2>&1 || true"
    return cluster.kubectl("exec", NAME, "--", "sh", "-c", script).stdout.decode().strip()


def name_of(port: int) -> bytes:
    """The address of the API's Service, by a question to a DNS server on this machine's loopback."""
    labels = b"".join(bytes([len(each)]) + each for each in b"kubernetes.default.svc.cluster.local".split(b"."))
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.connect(("127.0.0.1", port))
        client.send(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1")
        return client.recv(4096)[-4:]


def test_published_ports(cluster: Cluster) -> None:
    stream, packets = ports.open_of(cluster.place)
    for _ in range(3):
        assert web(f"http://{stream}/").startswith("web-")
    assert name_of(packets.port) == bytes([10, 96, 0, 1])
    with ports._near(cluster.place) as path:
        assert stat.S_ISSOCK(Path(path).stat().st_mode)


def test_much_at_once_through_a_published_port(cluster: Cluster) -> None:
    """Ten megabytes each way, several times side by side, and nothing of it is lost."""
    cluster.kubectl(
        "exec", "deployment/web", "--", "sh", "-c", "head -c 10000000 /dev/urandom >/w/much; md5sum /w/much"
    )
    want = cluster.kubectl("exec", "deployment/web", "--", "md5sum", "/w/much").stdout.split()[0].decode()
    (stream, _) = ports.open_of(cluster.place)
    got: list[str] = []

    def fetch() -> None:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{stream}/much") as answer:
            got.append(hashlib.md5(answer.read()).hexdigest())

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert got == [want] * 4


EXPOSE = """\
import sys
from pathlib import Path
from sandkube.app.expose import Expose
from sandkube.app.guard import guarded
from sandkube.cli.building import Checkout
home = Checkout(lambda *_words, **_settings: 0, outputs=Path(sys.argv[1]))
sys.exit(guarded(lambda: Expose(home).parse_execute(sys.argv[2:])))
"""


@contextlib.contextmanager
def exposing(cluster: Cluster, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`./do expose` as it runs, and what it printed first."""
    argv = [sys.executable, "-c", EXPOSE, str(cluster.place.folder.parents[1]), "--name=ways", *words]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_service_is_exposed_until_it_is_asked_to_end(cluster: Cluster) -> None:
    assert web(f"http://{ports.open_of(cluster.place)[0]}/").startswith("web-")  # so there is one relay
    with exposing(cluster, "web") as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        assert web(url).startswith("web-")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    with pytest.raises(OSError, match="refused"):
        web(url)
    left = inside(cluster, "ps | grep '[s]andkube-node relay' | wc -l").stdout.strip()
    assert left == "1", "that of published ports"


def test_packets_of_a_service_are_exposed(cluster: Cluster) -> None:
    with exposing(cluster, "svc/kube-dns:dns", "--namespace=kube-system") as (_, url):
        assert url.startswith("udp://127.0.0.1:")
        assert name_of(int(url.rpartition(":")[2])) == bytes([10, 96, 0, 1])


def test_a_service_that_is_not_there(cluster: Cluster) -> None:
    with exposing(cluster, "nobody") as (process, url):
        assert (process.wait(20), url) == (1, "")
        assert process.stderr is not None
        assert process.stderr.readline() == "error: there is no Service nobody in namespace default\n"


def test_a_load_balancer_answers_from_everywhere(cluster: Cluster) -> None:
    address = balancer(cluster)
    assert address == "10.97.0.1"
    assert told(cluster, "balanced", ".status.loadBalancer.ingress[0].ipMode") == "VIP"
    url = f"http://{address}/"
    assert from_pod(cluster, url).startswith("web-")
    assert from_node(cluster, url).startswith("web-")
    with exposing(cluster, "balanced", "--background") as (process, there):
        assert process.wait(20) == 0
    assert web(there).startswith("web-"), "the supervisor has it"
    assert [each.of for each in ports.open_of(cluster.place)][2:] == ["Service default/balanced, port 80"]


def test_a_load_balancer_serves_its_sources_only(cluster: Cluster) -> None:
    cluster.kubectl("create", "service", "loadbalancer", "some", "--tcp=80:8080")
    selector = {"spec": {"selector": {"app": "web"}, "loadBalancerSourceRanges": ["192.0.2.0/24"]}}
    cluster.kubectl("patch", "service", "some", f"--patch={json.dumps(selector)}")
    url = f"http://{balancer(cluster, 'some')}/"
    assert until(lambda: from_node(cluster, url), lambda said: said.startswith("web-"))
    assert not from_pod(cluster, url).startswith("web-")
    selector["spec"]["loadBalancerSourceRanges"] = ["10.88.0.0/24"]
    cluster.kubectl("patch", "service", "some", f"--patch={json.dumps(selector)}")
    assert until(lambda: from_pod(cluster, url), lambda said: said.startswith("web-"))
    cluster.kubectl("delete", "service", "some", "--timeout=30s")


def until(look: Callable[[], str], good: Callable[[str], bool]) -> bool:
    """Whether something comes to be so: endpoints and listeners follow the API, and nothing tells."""
    return any(good(look()) for _ in range(40))


def test_a_load_balancer_of_another_class_is_left_alone(cluster: Cluster) -> None:
    balancer(cluster)
    assert told(cluster, "others", ".status.loadBalancer.ingress") == ""
    assert told(cluster, "others", ".metadata.finalizers") == ""


def test_an_address_is_free_when_its_service_has_gone(cluster: Cluster) -> None:
    cluster.kubectl("create", "service", "loadbalancer", "first", "--tcp=80:8080")
    address = balancer(cluster, "first")
    assert address != balancer(cluster)
    cluster.kubectl("delete", "service", "first", "--timeout=30s")
    for _ in range(20):  # whoever gives addresses may not have heard of the end yet
        cluster.kubectl("create", "service", "loadbalancer", "second", "--tcp=80:8080")
        if (given := balancer(cluster, "second")) == address:
            break
        cluster.kubectl("delete", "service", "second", "--timeout=30s")
    assert given == address
    cluster.kubectl("patch", "service", "second", '--patch={"spec": {"type": "ClusterIP"}}')
    assert until(lambda: told(cluster, "second", ".status.loadBalancer.ingress"), lambda said: said == "")
    cluster.kubectl("delete", "service", "second", "--timeout=30s")


def test_a_cluster_in_the_users_kubeconfig(cluster: Cluster, programs: Programs, tmp_path: Path) -> None:
    """kubectl finds it there, without a word of where it is."""
    file = tmp_path / "config"
    kubeconfig.merge(cluster.place, programs.kubectl, file)

    def kubectl(*words: str) -> str:
        env = {"KUBECONFIG": str(file), "HOME": str(tmp_path)}
        return subprocess.run([programs.kubectl, *words], env=env, capture_output=True, text=True, check=True).stdout

    assert kubectl("config", "current-context") == "sandkube-ways\n"
    assert "service/kubernetes" in kubectl("get", "services", "--output=name")
    assert (
        kubectl("--context=sandkube-ways", "auth", "whoami", "--output=jsonpath={.status.userInfo.username}") == "admin"
    )
    kubeconfig.unmerge(cluster.place)
    assert kubectl("config", "get-contexts", "--output=name") == ""


def test_a_headless_service_says_so(cluster: Cluster) -> None:
    cluster.kubectl("create", "service", "clusterip", "none", "--clusterip=None", "--tcp=80")
    with pytest.raises(UserError, match="^Service default/none is headless: it has no address"):
        exposed.find(cluster.kubectl, "default", "none")
