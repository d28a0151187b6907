"""`run-cluster --ingress`: Ingresses, Gateways and their routes answer at published ports here. One cluster."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sandkube.cluster import ports, stop
from sandkube.cluster.place import place
from sandkube.cluster.pod import Kubectl
from tests.certificates import Certificates, certificates
from tests.clones import ROOT, Clone
from tests.cluster.conftest import Cluster, got
from tests.cluster.test_hostile import create
from tests.cluster.test_system import controller, eventually

NAME = "ingress"
SECURE = "secure.example"
SERVE = """\
mkdir -p /w/two /w/cgi-bin
echo {0} | tee /w/index.html >/w/two/index.html
printf '#!/bin/sh\\necho\\nenv\\n' >/w/cgi-bin/env
chmod +x /w/cgi-bin/env
exec httpd -f -p 8080 -h /w
"""
GATEWAY = "gateway.networking.k8s.io/v1"


def web(name: str) -> list[dict[str, Any]]:
    """A Deployment that serves its own name at `/` and `/two/`, and what a request tells it; and its Service."""
    container = {"name": "web", "image": "sandkube.local/test:1", "command": ["sh", "-c", SERVE.format(name)]}
    template = {"spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    return [controller("Deployment", name, template), service]


def ingress(name: str, host: str, paths: dict[str, str], annotations: Any = None, **more: Any) -> dict[str, Any]:
    """An Ingress that leads paths of a host to Services."""
    backends = {path: {"service": {"name": to, "port": {"name": "http"}}} for path, to in paths.items()}
    leads = [{"path": path, "pathType": "Prefix", "backend": each} for path, each in backends.items()]
    spec = {"rules": [{"host": host, "http": {"paths": leads}}], **more}
    metadata = {"name": name, "annotations": annotations or {}}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


@dataclass(frozen=True)
class Mine(Cluster):
    """A cluster with an ingress controller, and where its ports 80 and 443 are here."""

    plain: int
    secure: int

    def status(self, host: str, path: str = "/") -> tuple[int, str]:
        """What a GET answers: the status, and the text or the place that it leads to."""
        client = http.client.HTTPConnection("127.0.0.1", self.plain, timeout=20)
        return _answer(client, host, path)

    def says(self, text: str, host: str, path: str = "/") -> None:
        """Wait until a GET has this answer."""
        eventually(f"{host}{path} is not {text}", 30, lambda: self.status(host, path) == (200, text))


def _answer(client: http.client.HTTPConnection, host: str, path: str) -> tuple[int, str]:
    try:
        client.request("GET", path, headers={"Host": host})
        answer = client.getresponse()
        return answer.status, answer.headers.get("Location") or answer.read().decode().strip()
    finally:
        client.close()


@pytest.fixture(scope="module")
def mine(here: Clone) -> Iterator[Mine]:
    """A cluster as people start it, with two things that serve; it is whole when the controller is ready."""
    one = place(ROOT / "outputs", NAME)
    try:
        here.do("run-cluster", "--name", NAME, "--ingress", "--wait", "--publish", "0:80", "--publish", "0:443")
        plain, secure = (each.port for each in ports.open_of(one))
        kubectl = Kubectl((ROOT / "outputs/result/kubectl/bin/kubectl").resolve(), one)
        made = Mine(one, kubectl, [], plain, secure)
        create(made, *web("one"), *web("two"))
        yield made
    finally:
        if one.folder.exists():
            stop.delete(one)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate of the host that is reached by TLS."""
    return certificates(tmp_path_factory.mktemp("certificates"), SECURE)


def test_it_is_a_system_pod_of_each_node(mine: Mine) -> None:
    said = (mine.place.logs / "system.log").read_text()
    assert re.search(r"^ingress was ready \d+\.\d\d s after the node was whole$", said, re.MULTILINE), said
    status = got(mine, "daemonset", "traefik", "--namespace=kube-system")["status"]
    assert (status["desiredNumberScheduled"], status["numberReady"]) == (1, 1)


def test_hosts_and_paths_lead_to_services(mine: Mine) -> None:
    """Whoever names no class gets the default one; what has another is left to others."""
    create(
        mine,
        ingress("app", "app.example", {"/": "one", "/two": "two"}),
        ingress("named", "named.example", {"/": "two"}, ingressClassName="traefik"),
        ingress("other", "other.example", {"/": "two"}, ingressClassName="other"),
    )
    mine.says("one", "app.example")
    mine.says("two", "app.example", "/two/")
    mine.says("two", "named.example")
    assert mine.status("other.example")[0] == 404
    assert mine.status("nobody.example")[0] == 404
    assert got(mine, "ingress", "app")["spec"]["ingressClassName"] == "traefik"


def test_an_ingress_has_the_load_balancers_address(mine: Mine) -> None:
    balancer = got(mine, "service", "traefik", "--namespace=kube-system")["status"]["loadBalancer"]["ingress"]
    assert [each["ip"] for each in balancer] == ["10.97.0.1"]
    mine.kubectl(
        "wait", "ingress/app", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}=10.97.0.1", "--timeout=30s"
    )
    assert not got(mine, "ingress", "other")["status"]["loadBalancer"]


def test_clients_are_the_node(mine: Mine) -> None:
    _, told = mine.status("app.example", "/cgi-bin/env")
    assert "HTTP_X_FORWARDED_FOR=10.88.0.1" in told.splitlines()


@pytest.mark.usefixtures("mine")
def test_without_a_published_port_it_is_exposed(here: Clone) -> None:
    words = ("traefik:web", "--namespace", "kube-system", "--name", NAME, "--background")
    url = here.result("expose", *words).strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
    client = http.client.HTTPConnection("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]), timeout=20)
    assert _answer(client, "app.example", "/") == (200, "one")


def test_tls_by_a_secret(mine: Mine, certificate: Certificates) -> None:
    mine.kubectl("create", "secret", "tls", "secure", f"--cert={certificate.server}", f"--key={certificate.key}")
    create(mine, ingress("secure", SECURE, {"/": "one"}, tls=[{"hosts": [SECURE], "secretName": "secure"}]))
    context = ssl.create_default_context(cafile=str(certificate.authority))

    def answers() -> bool:
        try:
            with (
                socket.create_connection(("127.0.0.1", mine.secure), timeout=20) as stream,
                context.wrap_socket(stream, server_hostname=SECURE) as client,
            ):
                client.sendall(f"GET / HTTP/1.0\r\nHost: {SECURE}\r\n\r\n".encode())
                return client.recv(4096).startswith(b"HTTP/1.0 200 OK")
        except ssl.SSLCertVerificationError:  # the controller's own, as long as it has no other
            return False

    eventually("it is not served with its certificate", 30, answers)


def test_a_middleware_of_traefik(mine: Mine) -> None:
    spec = {"redirectScheme": {"scheme": "https"}}
    create(
        mine,
        {"apiVersion": "traefik.io/v1alpha1", "kind": "Middleware", "metadata": {"name": "secured"}, "spec": spec},
        ingress(
            *("led", "led.example", {"/": "one"}),
            {"traefik.ingress.kubernetes.io/router.middlewares": "default-secured@kubernetescrd"},
        ),
    )
    eventually("nothing leads on", 30, lambda: mine.status("led.example", "/x") == (302, "https://led.example/x"))


def test_a_gateway_and_its_route(mine: Mine) -> None:
    listener = {"name": "web", "port": 80, "protocol": "HTTP"}
    route = {
        "parentRefs": [{"name": "gate"}],
        "hostnames": ["gate.example"],
        "rules": [{"backendRefs": [{"name": "two", "port": 80}]}],
    }
    create(
        mine,
        {
            "apiVersion": GATEWAY,
            "kind": "Gateway",
            "metadata": {"name": "gate"},
            "spec": {"gatewayClassName": "traefik", "listeners": [listener]},
        },
        {"apiVersion": GATEWAY, "kind": "HTTPRoute", "metadata": {"name": "gate"}, "spec": route},
    )
    mine.kubectl("wait", "gateway/gate", "--for=condition=Programmed", "--timeout=30s")
    assert [each["value"] for each in got(mine, "gateway", "gate")["status"]["addresses"]] == ["10.97.0.1"]
    mine.says("two", "gate.example")
    mine.kubectl("delete", "httproute", "gate")
    eventually("its route stays", 30, lambda: mine.status("gate.example")[0] == 404)


def test_a_route_ends_with_its_ingress(mine: Mine) -> None:
    mine.says("one", "app.example")
    mine.kubectl("delete", "ingress", "app")
    eventually("its route stays", 30, lambda: mine.status("app.example")[0] == 404)
    assert mine.status("named.example") == (200, "two")
