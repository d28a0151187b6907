"""Ports of this machine that lead into a cluster, with a stand-in for runsc whose node is on this loopback."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster import exposed, ports, start, stop
from sandkube.cluster.configured import Configured
from sandkube.cluster.forward import listen
from sandkube.cluster.place import Place, place
from sandkube.cluster.ports import Port, Publication, publication
from sandkube.cluster.processes import with_words
from sandkube.errors import UserError
from tests.unit.fake_runsc import BOOTS, WAITS, programs

HERE = Configured("a.toml", document={"disable": [], "cluster": {"pods": "127.0.0.0/24"}})
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Place]:
    yield (made := place(tmp_path, "a"))
    if made.folder.exists():
        stop.delete(made)


def boot(one: Place, *words: str, keep: bool = False) -> None:
    made = replace(programs(one.folder.parents[1] / "bundle", "sys.stdin.read()\n" + BOOTS + WAITS), configured=HERE)
    with one.lock():
        list(start.start(one, made, keep=keep, publish=[publication(each) for each in words]))


@contextlib.contextmanager
def answering(kind: socket.SocketKind) -> Iterator[int]:
    """A port that gives back what it has got: packets, or all that came until the end."""
    server = socket.socket(type=kind)
    server.bind(("127.0.0.1", 0))

    def packets() -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = server.recvfrom(1 << 16)
                if client is None:  # it was shut down
                    return
                server.sendto(data[::-1], client)

    def connections() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    def answer(client: socket.socket) -> None:
        with client:
            said = b"".join(iter(lambda: client.recv(1 << 16), b""))
            client.sendall(said[::-1])

    if kind == socket.SOCK_STREAM:
        server.listen()
    thread = threading.Thread(target=connections if kind == socket.SOCK_STREAM else packets, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    server.close()


def say(client: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # of a reset that is told here the reader learns by an end
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)


def asked(port: int, data: bytes) -> bytes:
    """The answer at a port, once all was said."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        threading.Thread(target=say, args=(client, data), daemon=True).start()
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def unanswered(port: int) -> bool:
    """Whether a port takes connections, and nobody answers behind it."""
    try:
        return asked(port, b"ab") == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    ("word", "want"),
    [
        ("8080:80", Publication("127.0.0.1", 8080, 80, "tcp")),
        ("8080:80/udp", Publication("127.0.0.1", 8080, 80, "udp")),
        ("0.0.0.0:0:30080/tcp", Publication("0.0.0.0", 0, 30080, "tcp")),
        ("[::1]:8080:80", Publication("::1", 8080, 80, "tcp")),
    ],
)
def test_what_is_published(word: str, want: Publication) -> None:
    assert publication(word) == want
    assert publication(str(want)) == want


@pytest.mark.parametrize(
    "word", ["", "80", "a:80", "8080:0", "65536:80", "8080:80/sctp", "localhost:8080:80", "1:2:3:4"]
)
def test_what_is_no_publication(word: str) -> None:
    with pytest.raises(UserError) as caught:
        publication(word)
    assert caught.value.message == f"--publish {word}: not of the form [ADDRESS:]HOSTPORT:PORT[/tcp|udp]"


@pytest.mark.parametrize(("network", "what"), [("tcp", "port"), ("udp", "UDP port")])
def test_a_port_that_is_taken_is_a_sentence_before_the_boot(one: Place, network: str, what: str) -> None:
    with listen(network, "127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as caught:
            boot(one, f"{port}:80/{network}")
        assert caught.value.message == (
            f"--publish 127.0.0.1:{port}:80/{network}: {what} {port} of 127.0.0.1: Address already in use"
        )
    assert not one.folder.exists()


def test_two_that_want_one_port(one: Place) -> None:
    with listen("tcp", "127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with pytest.raises(
        UserError, match=f"^--publish 127.0.0.1:{port}:81/tcp: port {port} of 127.0.0.1: Address already"
    ):
        boot(one, f"{port}:80", f"{port}:81")


def test_published_ports_lead_into_the_node(one: Place) -> None:
    large = bytes(range(256)) * 8192
    with answering(socket.SOCK_STREAM) as stream, answering(socket.SOCK_DGRAM) as packets:
        boot(one, f"0:{stream}", f"0:{packets}/udp", f"0:{stream}")
        first, second, third = ports.open_of(one)
        assert (first.to, first.of) == (f"127.0.0.1:{stream}", f"port {stream} of the node")
        assert [each.network for each in (first, second, third)] == ["tcp", "udp", "tcp"]
        assert asked(first.port, large) == large[::-1]
        assert asked(third.port, b"ab") == b"ba"
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            client.connect(("127.0.0.1", second.port))
            for data in (b"one", b"", b"x" * 60_000):
                client.send(data)
                assert client.recv(1 << 16) == data[::-1]
        relays = [*with_words(f"--root={one.runsc}", "exec")]
        assert len(relays) == 1, "one is enough"
    assert unanswered(first.port)
    stop.stop(one)
    assert [*with_words(f"--root={one.runsc}")] == []
    with pytest.raises(ConnectionRefusedError):
        asked(first.port, b"")


def test_a_relay_that_ends_is_started_again(one: Place) -> None:
    with answering(socket.SOCK_STREAM) as stream:
        boot(one, f"0:{stream}")
        (port,) = ports.open_of(one)
        assert asked(port.port, b"ab") == b"ba"
        for pid in with_words(f"--root={one.runsc}", "exec"):
            with contextlib.suppress(ProcessLookupError):
                process = os.pidfd_open(pid)
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [], 20)
                os.close(process)
        assert asked(port.port, b"cd") == b"dc"


def test_published_ports_stay_with_data(one: Place) -> None:
    with listen("tcp", "127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    boot(one, f"{port}:80", keep=True)
    stop.stop(one, now=True)
    boot(one)
    assert [each.port for each in ports.open_of(one)] == [port]
    stop.stop(one, now=True)
    boot(one, "0:81")
    assert [each.to for each in ports.open_of(one)] == ["127.0.0.1:81"]


def test_a_supervisor_is_asked_for_a_port(one: Place) -> None:
    with answering(socket.SOCK_STREAM) as stream, listen("tcp", "127.0.0.1", 0) as taken:
        boot(one)
        assert ports.open_of(one) == []
        wanted = Port("127.0.0.1", 0, "tcp", f"127.0.0.1:{stream}", "Service default/web, port 80")
        made = ports.ask(one, wanted)
        assert ports.open_of(one) == [made]
        assert asked(made.port, b"ab") == b"ba"
        with pytest.raises(UserError, match=r"^port \d+ of 127.0.0.1: Address already in use"):
            ports.ask(one, replace(wanted, port=taken.getsockname()[1]))
        with socket.socket(socket.AF_UNIX) as other, ports._near(one) as path:
            other.connect(path)
            other.sendall(b"nonsense\n")
            assert b'"error"' in other.recv(4096)
    stop.stop(one)
    with pytest.raises(UserError, match="^cluster a: its supervisor does not answer"):
        ports.ask(one, wanted)


EXPOSES = """\
import sys
from pathlib import Path
from sandkube.cluster import exposed
from sandkube.cluster.forward import listen
from sandkube.cluster.place import Place
with listen("tcp", "127.0.0.1", 0) as listener:
    print(listener.getsockname()[1], flush=True)
    print(exposed.forward(Place(Path(sys.argv[1])), listener, "tcp", sys.argv[2]), flush=True)
"""


@pytest.mark.parametrize("ended", [False, True])
def test_a_port_in_the_foreground(one: Place, ended: bool) -> None:  # noqa: FBT001
    """It is there until a signal comes, or the cluster ends; nothing of it stays in the node."""
    with answering(socket.SOCK_STREAM) as stream:
        boot(one)
        words = [sys.executable, "-c", EXPOSES, str(one.folder), f"127.0.0.1:{stream}"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            assert asked(int(process.stdout.readline()), b"ab") == b"ba"
            relays = [*with_words(f"--root={one.runsc}", "exec")]
            if ended:
                stop.stop(one)
            else:
                process.send_signal(signal.SIGINT)
            assert process.stdout.readline().strip() == str(not ended)
        assert process.returncode == 0
        assert len(relays) == 1


def service(*ported: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"clusterIP": "10.96.0.7", "ports": [*ported], **spec},
    }


HTTP: dict[str, Any] = {"name": "http-alt", "port": 8080, "protocol": "TCP"}
NAMES: dict[str, Any] = {"name": "names", "port": 53, "protocol": "UDP"}


@pytest.mark.parametrize(
    ("given", "wanted", "url"),
    [
        (service({"port": 80}), "", "http://127.0.0.1:9/"),
        (service({"port": 443}), "443", "https://127.0.0.1:9/"),
        (service({"port": 5432}), "", "tcp://127.0.0.1:9"),
        (service(HTTP, NAMES), "http-alt", "http://127.0.0.1:9/"),
        (service(HTTP, NAMES), "53", "udp://127.0.0.1:9"),
        (service({"port": 81, "appProtocol": "https"}), "", "https://127.0.0.1:9/"),
    ],
)
def test_where_a_service_is(given: dict[str, Any], wanted: str, url: str) -> None:
    found = exposed.target(given, wanted)
    port = found.wanted(9)
    assert found.url(port) == url
    assert port.to.startswith("10.96.0.7:")


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        (service(HTTP, NAMES), "", "Service default/web has several ports\n  hint: name one: http-alt, names"),
        (service(HTTP), "x", "Service default/web has no port x\n  hint: name one: http-alt"),
        (service(HTTP, clusterIP="None"), "", "Service default/web is headless: it has no address"),
        (service(type="ExternalName", clusterIP=""), "", "Service default/web is an external name: it has no address"),
        (service({"port": 1, "protocol": "SCTP"}), "", "Service default/web: port 1 is SCTP, which is not served"),
    ],
)
def test_a_service_that_is_nowhere(given: dict[str, Any], wanted: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        exposed.target(given, wanted)
    assert str(caught.value).startswith(message)
