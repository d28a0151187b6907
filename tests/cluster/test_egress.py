"""The way out of pods: to a server of this machine, by allow-list and by name, in gVisor with two nodes and on this
machine's own kernel.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sandkube.cluster import stop
from sandkube.cluster.configured import configure
from sandkube.cluster.destinations import HOST, HOST_NAME
from sandkube.cluster.egress import EGRESS
from sandkube.cluster.place import place
from sandkube.cluster.programs import Programs
from tests.cluster.conftest import Cluster, boot, inside, of_kind, processes
from tests.cluster.test_component_death import KILL_TRAFFIC
from tests.cluster.test_hostile import create, pod
from tests.cluster.test_policy import policy
from tests.name_servers import NameServer, name_server

BIG = 8 << 20
FAR = "192.0.2.7"
ALSO = f"{HOST}/32"


class Serve(socketserver.StreamRequestHandler):
    """A server of the host's: says what is asked for by a line, which may be of HTTP."""

    def handle(self) -> None:
        words = self.rfile.readline().split()
        if words[:1] == [b"GET"]:
            body = {b"/big": bytes(BIG)}.get(words[1], b"page\n")
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        elif words == [b"sum"]:
            sum_of = hashlib.sha256()
            while data := self.rfile.read(1 << 16):
                sum_of.update(data)
            self.wfile.write(sum_of.hexdigest().encode() + b"\n")
        elif words == [b"wait"]:
            self.rfile.read()


@dataclass(frozen=True)
class Yard:
    """A cluster, the port of the server that its pods may reach, and one of another that they may not."""

    cluster: Cluster
    port: int
    other: int
    names: NameServer
    own: str
    """An address of this machine beside its loopback; "" if it has none."""

    def run(self, script: str, name: str = "near") -> str:
        """What a script says in a pod, its faults and its status."""
        words = ("exec", name, "--", "sh", "-c", f"({script}) 2>&1; echo status $?")
        return self.cluster.kubectl(*words).stdout.decode()

    def fetch(self, to: str, name: str = "near") -> str:
        return self.run(f"wget -T 20 -q -O- http://{to}/", name)

    def log(self, words: str) -> str:
        """The line of the way out's log that has some words."""
        path = self.cluster.place.logs / "egress.log"
        for _ in range(100):
            found = [line for line in path.read_text().splitlines() if words in line] if path.exists() else []
            if found:
                return found[-1]
            time.sleep(0.1)  # it comes through a pipe
        raise AssertionError(words)


def own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect((FAR, 9))
        return str(probe.getsockname()[0])
    return ""


@contextlib.contextmanager
def served() -> Iterator[int]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(("0.0.0.0", 0), Serve) as one:
        threading.Thread(target=one.serve_forever, args=(0.1,)).start()
        try:
            yield one.server_address[1]
        finally:
            one.shutdown()


KINDS = ("modern", "linux")


def kind_of(programs: Programs, kind: str) -> Programs:
    made = of_kind(programs, kind)
    if kind == "linux" and not os.access("/dev/net/tun", os.W_OK):
        pytest.skip("this machine has no /dev/net/tun for this user")
    return made


@pytest.fixture(scope="module", params=KINDS)
def yard(
    request: pytest.FixtureRequest, programs: Programs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Yard]:
    made, own = kind_of(programs, request.param), own_address()
    one = place(tmp_path_factory.mktemp("outputs"), "egress")
    records = {"far.test": [FAR], "web.test": [own] if own else []}
    with contextlib.ExitStack() as stack:
        names = stack.enter_context(name_server(records))
        port, other = (stack.enter_context(served()) for _ in range(2))
        to = [f"localhost:{port}", "198.51.100.0/24", *([f"{own}:{port}"] if own else [])]
        settings: dict[str, Any] = {"egress": {"to": to, "nameservers": [names.address]}}
        settings["disable"] = ["local-storage", "metrics-server"]
        settings |= {"cluster": {"nodes": 2}} if request.param == "modern" else {}
        configured = configure(None, settings, str)

        def end() -> None:
            if one.folder.exists():
                stop.stop(one)

        stack.callback(end)
        cluster = boot(one, replace(made, configured=configured))
        populate(cluster, configured.nodes[-1])
        yield Yard(cluster, port, other, names, own)


def populate(cluster: Cluster, last: str) -> None:
    sleep = ["sleep", "infinity"]
    away = pod("away", sleep, nodeName=last)
    host = pod("host", sleep, hostNetwork=True)
    create(cluster, pod("near", sleep), pod("walled", sleep), pod("let", sleep), away, host)
    words = ("near", "walled", "let", "away", "host")
    cluster.kubectl("wait", "pod", *words, "--for=condition=Ready", "--timeout=90s")


@pytest.mark.parametrize("name", ["near", "away", "host"])
def test_a_server_of_this_machine(yard: Yard, name: str) -> None:
    """By the name that its loopback has, from a pod of each node and from one in the node's network."""
    assert yard.fetch(f"{HOST_NAME}:{yard.port}", name) == "page\nstatus 0\n"


def test_by_a_name_that_was_asked_for_outside(yard: Yard) -> None:
    if not yard.own:
        pytest.skip("this machine has no address but its loopback")
    assert yard.fetch(f"web.test:{yard.port}") == "page\nstatus 0\n"
    assert yard.log(f"-> {yard.own}:{yard.port} web.test: connected")


@pytest.mark.parametrize(
    ("to", "words"),
    [
        (
            "{host}:{other}",
            "this machine's loopback is reached only if it is named: run-cluster --egress-to localhost:",
        ),
        ("{far}:80", "this cluster may not go there; run-cluster --egress-to far.test:80 allows it"),
        ("10.88.0.250:80", "an address of the cluster's own is reached only if it is named"),
        ("169.254.169.254:80", "a link-local address (clouds tell machines their secrets there) is reached only"),
    ],
)
def test_what_is_refused_is_refused_at_once(yard: Yard, to: str, words: str) -> None:
    where = to.format(host=HOST, other=yard.other, far="far.test")
    began = time.monotonic()
    assert "Connection refused" in yard.fetch(where)
    assert time.monotonic() - began < 10
    assert "refused" in yard.log(words)


def test_names(yard: Yard) -> None:
    """Of the cluster, and outside."""
    said = yard.run("nslookup -type=a far.test; nslookup none.test; true")
    assert FAR in said
    assert "can't find none.test: NXDOMAIN" in said
    assert "10.96.0.1" in yard.run("nslookup -type=a kubernetes.default.svc.cluster.local")
    assert ("far.test", 28) not in yard.names.asked


def test_there_is_no_ipv6_of_a_name(yard: Yard) -> None:
    said = yard.run("nslookup -type=aaaa far.test")
    assert "NXDOMAIN" not in said
    assert FAR not in said
    assert ("far.test", 28) not in yard.names.asked


def test_udp_and_icmp_do_not_leave(yard: Yard) -> None:
    assert "100% packet loss" in yard.run(f"ping -c 1 -W 1 {HOST}")
    assert "refused" in yard.run(f"timeout 10 nslookup far.test {FAR}")


def test_many_bytes_both_ways(yard: Yard) -> None:
    """And the end of one direction by itself."""
    began = time.monotonic()
    zeros = hashlib.sha256(bytes(BIG)).hexdigest()
    to = f"{HOST} {yard.port}"
    assert zeros in yard.run(f"wget -T 60 -q -O- http://{HOST}:{yard.port}/big | sha256sum")
    assert zeros in yard.run(f"(echo sum; dd if=/dev/zero bs=1M count={BIG >> 20} 2>/dev/null) | nc {to}")
    print(f"{2 * BIG / (time.monotonic() - began) / 1e6:.0f} MB/s")


def test_many_at_once(yard: Yard) -> None:
    script = f"for n in $(seq 60); do wget -T 30 -q -O- http://{HOST}:{yard.port}/ 2>&1 & done; wait"
    said = yard.run(script)
    assert said.count("page") == 60, said


def test_policies_hold(yard: Yard) -> None:
    """Of what leaves the cluster, too: a range is one that is outside."""
    selects = {"policyTypes": ["Egress"], "podSelector": {"matchLabels": {"app": "walled"}}}
    lets = {
        **selects,
        "podSelector": {"matchLabels": {"app": "let"}},
        "egress": [{"to": [{"ipBlock": {"cidr": ALSO}}]}],
    }
    create(yard.cluster, policy("walled", selects), policy("let", lets))
    try:
        to = f"{HOST}:{yard.port}"
        for _ in range(50):
            if "status 0" not in (said := yard.run(f"wget -T 1 -q -O- http://{to}/", "walled")):
                break
            time.sleep(0.1)  # no status says that a policy is obeyed
        assert "timed out" in said
        assert yard.fetch(to, "let") == "page\nstatus 0\n"
        assert yard.fetch(to) == "page\nstatus 0\n"
        assert "timed out" in yard.run("wget -T 1 -q -O- http://198.51.100.1/", "let")
    finally:
        yard.cluster.kubectl("delete", "networkpolicy", "walled", "let")


def test_the_process_of_services_is_none_of_it(yard: Yard) -> None:
    """A connection outlives the process that serves Services and names, and names are asked for again after it."""
    inside(yard.cluster, KILL_TRAFFIC)
    assert yard.fetch(f"{HOST}:{yard.port}") == "page\nstatus 0\n"
    for _ in range(100):
        if FAR in yard.run("nslookup -type=a far.test"):
            return
        time.sleep(0.2)  # nothing tells when it is back
    raise AssertionError("names are not asked for any more")


def test_who_connects_is_started_again(yard: Yard) -> None:
    (one,) = processes(yard.cluster, EGRESS.module)
    os.kill(one, signal.SIGKILL)
    for _ in range(100):
        if "status 0" in yard.fetch(f"{HOST}:{yard.port}"):
            break
        time.sleep(0.2)  # the supervisor says nothing of it
    assert processes(yard.cluster, EGRESS.module) != [one]


def test_nothing_is_left(yard: Yard) -> None:
    """The last one: it stops the cluster."""
    stop.stop(yard.cluster.place)
    assert processes(yard.cluster, EGRESS.module) == []
