"""What a cluster's containerd is answered, by registries on loopback."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster import pull, pulling
from sandkube.errors import Unusable
from sandkube.registry.client import _Redirects
from sandkube.registry.images import Registries, _found, named
from tests.certificates import certificates
from tests.image_maker import Made, digest, layer
from tests.registries import PASSWORD, USER, Registry
from tests.registries import registry as served

IMAGE = Made([layer({"bin/busybox": b"a program" * 9000})])
BLOB = IMAGE.blobs[0]
SECRET = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture
def registry() -> Iterator[Registry]:
    with served() as one:
        one.manifests["1"] = IMAGE.manifest
        one.blobs[digest(BLOB)] = BLOB
        yield one


@dataclass(frozen=True)
class Said:
    """An answer: its status line's two parts, its headers and its body."""

    status: int
    sentence: str
    headers: Message
    body: bytes


def ask(registries: Registries, path: str, method: str = "GET", **headers: str) -> Said:
    """What containerd is answered, on a stream as the node has it."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=pull.serve, args=(theirs, registries))
    thread.start()
    connection = http.client.HTTPConnection("node")
    connection.sock = ours
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return Said(answer.status, answer.reason, answer.headers, answer.read())
    finally:
        connection.close()
        thread.join()


def place(one: Registry, part: str = "manifests/1") -> str:
    return f"/v2/team/web/{part}?ns=127.0.0.1:{one.port}"


def plain(one: Registry, environment: dict[str, str] | None = None, **more: Any) -> Registries:
    return Registries(environment or {}, [one.address], **more)


def logged_in(folder: Path, one: Registry, password: str = PASSWORD) -> dict[str, str]:
    """An environment with a login of docker's."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {f"127.0.0.1:{one.port}": {"auth": auth}}}))
    return {"DOCKER_CONFIG": str(folder)}


def test_parts_of_images_have_names() -> None:
    blob = f"blobs/{digest(BLOB)}"
    assert named("/v2/library/web/manifests/v1.2_a") == ("library/web", "manifests/v1.2_a")
    assert named(f"/v2/a/b/c/{blob}") == ("a/b/c", blob)
    for wrong in (
        *("/v2/", "/v2/a/tags/list", "/v2/a/blobs/uploads/", "/v2/../a/manifests/1", "/v2/a/manifests/1/x"),
        *(
            "/v2/A/manifests/1",
            "/v2/a/manifests/1\n",
            "/v2/a/manifests/-1",
            "/v2//manifests/1",
            "http://x/v2/a/manifests/1",
        ),
    ):
        assert named(wrong) is None, wrong


def test_a_part_comes_as_it_is(registry: Registry) -> None:
    said = ask(plain(registry), place(registry, f"blobs/{digest(BLOB)}"))
    assert (said.status, said.body) == (200, BLOB)
    said = ask(plain(registry), place(registry), "HEAD")
    assert (said.status, said.body, said.headers["Content-Length"]) == (200, b"", str(len(IMAGE.manifest)))


def test_nothing_but_parts_is_asked_for(registry: Registry) -> None:
    for path in (
        "/",
        "/v2/",
        place(registry, "blobs/uploads/"),
        "/v2/a/manifests/1",
        place(registry) + "&ns=a",
        place(registry) + "/",
    ):
        assert ask(plain(registry), path).status == 404, path
    assert ask(plain(registry), place(registry), "POST").status == 501
    assert registry.seen == []


def test_a_registry_that_may_not_be_asked(registry: Registry) -> None:
    said = ask(Registries({}, ["registry.example"]), place(registry), "HEAD")
    name = f"127.0.0.1:{registry.port}"
    sentence = f"this cluster may not pull from {name}; run-cluster --pull-from {name} allows it"
    assert (said.status, said.sentence) == (403, sentence)
    assert ask(Registries({}), place(registry)).sentence == f"{name}: it speaks no TLS (wrong version number)"
    assert registry.seen == []


@pytest.mark.parametrize("wants", ["basic", "bearer"])
def test_logins_of_this_user(registry: Registry, tmp_path: Path, wants: str) -> None:
    registry.wants = wants
    one = plain(registry, logged_in(tmp_path, registry))
    assert [ask(one, place(registry)).body for _ in range(3)] == [IMAGE.manifest] * 3
    assert registry.given == (1 if wants == "bearer" else 0)


@pytest.mark.parametrize("wants", ["basic", "bearer"])
def test_pull_secrets(registry: Registry, tmp_path: Path, wants: str) -> None:
    """Without a login containerd is asked for one; with a wrong one it is told so, whatever this user has."""
    registry.wants = wants
    for environment in ({}, logged_in(tmp_path, registry, "not-this-one")):
        one = plain(registry, environment)
        said = ask(one, place(registry), "HEAD")
        assert (said.status, said.headers["WWW-Authenticate"]) == (401, f'Basic realm="127.0.0.1:{registry.port}"')
        assert ask(one, place(registry), Authorization=SECRET).body == IMAGE.manifest
        said = ask(one, place(registry), Authorization="Basic YTpi")
        assert said.status == 403
        assert said.sentence.endswith("with the login of the pull secret")
        assert ask(one, place(registry), "HEAD").status == 401, "the secret of one is nobody else's"


def test_a_storage_is_shown_no_login(registry: Registry, tmp_path: Path) -> None:
    registry.wants = "basic"
    with served() as storage:
        storage.blobs[digest(BLOB)] = BLOB
        registry.storage = storage.address
        said = ask(plain(registry, logged_in(tmp_path, registry)), place(registry, f"blobs/{digest(BLOB)}"))
        assert said.body == BLOB
        assert [each.shown for each in storage.seen] == [""]


def test_a_redirect_out_of_tls() -> None:
    request = urllib.request.Request("https://registry.example/v2/a/blobs/b", method="HEAD")
    for place in ("http://storage.example/b", "file:///etc/passwd"):
        with pytest.raises(Unusable, match="which is not https"):
            _Redirects().redirect_request(request, io.BytesIO(), 307, "", Message(), place)
    made = _Redirects().redirect_request(request, io.BytesIO(), 307, "", Message(), "https://storage.example/b")
    assert made is not None
    assert made.get_method() == "HEAD"


def test_mirrors_are_asked_before(registry: Registry, tmp_path: Path) -> None:
    name = f"127.0.0.1:{registry.port}"
    with served() as mirror:
        away = "http://127.0.0.1:1"
        one = plain(registry, mirrors={name: [away, f"{mirror.address}/copies"]})
        assert ask(one, place(registry)).body == IMAGE.manifest
        assert [each.path for each in mirror.seen] == ["/v2/copies/team/web/manifests/1"]
        mirror.manifests["1"] = b"{}"
        assert ask(one, place(registry), Authorization=SECRET).body == b"{}"
        assert [each.shown for each in mirror.seen] == ["", ""], "a pull secret is for the registry itself"
        assert len(registry.seen) == 1
    assert tmp_path.exists()


def test_faults_are_told(registry: Registry) -> None:
    one, path, name = plain(registry), "GET /v2/team/web/manifests/1", f"127.0.0.1:{registry.port}"
    registry.faults[path] = [(429, {"Retry-After": "7"}), (500, {}), (0, {})]
    said = ask(one, place(registry))
    assert (said.status, said.sentence, said.headers["Retry-After"]) == (429, f"Too Many Requests, says {name}", "7")
    assert ask(one, place(registry)).sentence == f"Internal Server Error, says {name}"
    said = ask(one, place(registry))
    assert (said.status, said.sentence) == (502, f"{name}: Remote end closed connection without response")
    assert ask(one, place(registry, "manifests/2")).status == 404


def test_a_part_that_is_cut(registry: Registry, capfd: pytest.CaptureFixture[str]) -> None:
    """containerd meets the end that the registry made, not a shorter part."""
    registry.faults["GET /v2/team/web/manifests/1"] = [(200, {"Content_Length": "10"})]
    with pytest.raises(http.client.IncompleteRead):
        ask(plain(registry), place(registry))
    assert f"127.0.0.1:{registry.port} ended after 0 of 10 bytes" in capfd.readouterr().err


def test_authorities(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="the authorities of --pull-authority: "):
        ask_client(tmp_path, "no certificate")
    ask_client(tmp_path, certificates(tmp_path).authority.read_text())


def ask_client(folder: Path, text: str) -> None:
    Registries({"HOME": str(folder)}, authorities=text)._client("registry.example")


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "https://index.docker.io/v1/"])
def test_logins_of_docker_hub(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {name: {"auth": "YTpi"}}}))
    found = _found("docker.io", "library/web", {"DOCKER_CONFIG": str(tmp_path)})
    assert found is not None
    assert (found.name, found.password) == ("a", "b")


def test_each_packet_has_a_stream(registry: Registry) -> None:
    node, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=pull.answer_all, args=(control, plain(registry)))
    thread.start()
    with node, control:
        for _ in range(3):
            node.send(b"\1")
            _, (descriptor,), _, _ = socket.recv_fds(node, 16, 1)
            with socket.socket(fileno=descriptor) as stream:
                stream.sendall(f"GET {place(registry)} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert b"".join(iter(lambda: stream.recv(1 << 16), b"")).endswith(IMAGE.manifest)  # noqa: B023
        node.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_what_of_the_environment_is_handed_on() -> None:
    given = {
        "HOME": "/home/a",
        "PATH": "/x",
        "DOCKER_CONFIG": "/d",
        "AWS_PROFILE": "p",
        "LANG": "de",
        "https_proxy": "http://p",
    }
    (found,) = pulling.inherited(given).values()
    assert json.loads(found) == {key: given[key] for key in ("HOME", "DOCKER_CONFIG", "AWS_PROFILE", "https_proxy")}
