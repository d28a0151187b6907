"""The API over one connection: a server on loopback with TLS says what the API's would."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sandkube.cluster import api as module
from sandkube.cluster.api import Api
from sandkube.cluster.deadline import NEVER, Deadline
from sandkube.cluster.place import Place, State, birth, boot_id
from sandkube.cluster.pod import NAME, POD, Kubectl, have_running
from sandkube.errors import UserError
from tests.certificates import Certificates, certificates


class Handler(BaseHTTPRequestHandler):
    """Takes one pod, at the second try; a watch says that it is there, ends, and says then that it is ready, in chunks
    as the API's.
    """

    protocol_version = "HTTP/1.1"
    taken = asked = False
    ending = 429
    """Of the Status that the watch of the pod ends with, the first time."""

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _say(self, status: int, document: object, headers: Mapping[str, str] | None = None) -> None:
        text = json.dumps(document).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _tell(self, kind: str, document: object) -> None:
        line = json.dumps({"type": kind, "object": document}).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def do_POST(self) -> None:
        found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if found != POD:
            self._say(422, {"kind": "Status", "message": 'pods "x" is invalid'})
            return
        if not self.asked:
            type(self).asked = True
            self._say(429, {"kind": "Status", "message": "storage is (re)initializing"}, {"Retry-After": "0"})
            return
        type(self).taken = True
        self._say(201, found)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        wanted = f"metadata.name={NAME}" in self.path and self.taken
        for status in ("False", "True") if wanted else ():
            self._tell("MODIFIED", {"status": {"conditions": [{"type": "Ready", "status": status}]}})
            if status == "False" and self.ending:
                self._tell("ERROR", {"kind": "Status", "status": "Failure", "message": "not now", "code": self.ending})
                type(self).ending = 0
                break
        self.wfile.write(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def one(tmp_path: Path, made: Certificates) -> Callable[[int], Place]:
    """A cluster that runs, with its API at a port."""

    def at(port: int) -> Place:
        place = Place(tmp_path / "clusters/a")
        place.folder.mkdir(parents=True)
        place.write(State("running", os.getpid(), birth(os.getpid()), boot_id(), "sandkube-1", 1.0))
        lines = [f"    server: https://127.0.0.1:{port}"]
        for name, path in (
            ("certificate-authority", made.authority),
            ("client-certificate", made.server),
            ("client-key", made.key),
        ):
            lines.append(f"    {name}-data: {base64.b64encode(path.read_bytes()).decode()}")
        place.kubeconfig.write_text("\n".join(lines) + "\n")
        return place

    return at


@pytest.fixture
def port(made: Certificates) -> Iterator[int]:
    """Of the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server, made.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Handler.taken = Handler.asked = False
    Handler.ending = 429
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_pod_is_made_and_waited_for(one: Callable[[int], Place], port: int) -> None:
    place = one(port)
    have_running(Kubectl(Path("/no/kubectl"), place), fresh=True)
    assert Handler.taken
    assert Handler.ending == 0, "it was watched again after its end"
    assert sorted(each.name for each in place.folder.iterdir()) == ["kubeconfig", "state.json"], "no key is left"


def test_a_refusal_is_the_servers_sentence(one: Callable[[int], Place], port: int) -> None:
    with closing(Api(one(port), NEVER)) as api, pytest.raises(UserError) as caught:
        api.post("/api/v1/namespaces/default/pods", {})
    assert caught.value.message == 'cluster a: pods "x" is invalid'


def test_a_watch_that_is_refused_in_the_middle(one: Callable[[int], Place], port: int) -> None:
    Handler.ending = 403
    with pytest.raises(UserError, match="^cluster a: not now"):
        have_running(Kubectl(Path("/no/kubectl"), one(port)), fresh=True)


def test_a_watch_without_an_end(one: Callable[[int], Place], port: int) -> None:
    with closing(Api(one(port), Deadline(0.2))) as api, pytest.raises(UserError) as caught:
        while True:
            assert list(api.watch("/nothing")) == []
    assert caught.value.message == "GET /nothing: cluster a gave no answer in 0 s"


def test_a_server_that_is_silent(one: Callable[[int], Place]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError) as caught:
        Api(one(silent.getsockname()[1]), Deadline(0.2)).post("/api", {})
    assert caught.value.message == "POST /api: cluster a gave no answer in 0 s"
    assert caught.value.hint == "./do logs --name a apiserver shows more; --timeout gives it longer"


def test_a_cluster_that_ended_meanwhile(one: Callable[[int], Place], monkeypatch: pytest.MonkeyPatch) -> None:
    place = one(1)
    place.write(State("failed", os.getpid(), birth(os.getpid()), boot_id(), "sandkube-1", 1.0, reason="it ended"))
    with pytest.raises(UserError, match="^cluster a failed: it ended"):
        Api(place, NEVER).post("/api", {})
    place.write(State("running", os.getpid(), birth(os.getpid()), boot_id(), "sandkube-1", 1.0))
    monkeypatch.setattr(module, "_FAREWELL", 0.1)
    with pytest.raises(UserError, match=r"^POST /api: cluster a: ConnectionRefusedError"):
        Api(place, NEVER).post("/api", {})
