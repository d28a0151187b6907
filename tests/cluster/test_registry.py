"""A registry for development: pushed to from this machine, pulled from by pods, there again with data that stay."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster import stop
from sandkube.cluster.place import Place, place
from sandkube.cluster.pod import Kubectl
from sandkube.cluster.processes import tree_of
from sandkube.cluster.programs import Programs
from tests.clones import ROOT, Clone
from tests.cluster.conftest import Cluster, got
from tests.cluster.test_hostile import create, event
from tests.pushed import image, upload

NAME = "registry"
LEFT_OUT = tuple(f"--disable={each}" for each in ("local-storage", "metrics-server"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def started(here: Clone, programs: Programs, port: int) -> Cluster:
    """A cluster with a registry, by the command that people have."""
    said = here.result("run-cluster", "--name", NAME, "--keep", "--registry-port", str(port), *LEFT_OUT)
    assert f"localhost:{port} is a registry: push localhost:{port}/NAME there, and pods pull it by that name" in said
    one = place(ROOT / "outputs", NAME)
    return Cluster(one, Kubectl(programs.kubectl, one), [])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def mine(here: Clone, programs: Programs, port: int) -> Iterator[Cluster]:
    try:
        yield started(here, programs, port)
    finally:
        if (ROOT / "outputs/clusters" / NAME).exists():
            stop.delete(place(ROOT / "outputs", NAME))


def push(port: int, name: str, note: str) -> None:
    upload(http.client.HTTPConnection("localhost", port), name, image(note))


def pod(name: str, port: int, what: str) -> dict[str, Any]:
    container = {"name": "c", "image": f"localhost:{port}/{what}", "imagePullPolicy": "Always"}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def note_of(cluster: Cluster, name: str) -> str:
    cluster.kubectl("wait", "pod", name, "--for=condition=Ready", "--timeout=90s")
    return cluster.kubectl("exec", name, "--", "cat", "/note").stdout.decode()


def server_of(one: Place) -> int:
    """The registry's process."""
    state = one.read()
    assert state is not None
    (found,) = [
        each for each in tree_of(state.pid) if b"/bin/registry\0serve\0" in Path(f"/proc/{each}/cmdline").read_bytes()
    ]
    return found


def test_what_is_pushed_is_pulled_by_the_same_name(mine: Cluster, port: int) -> None:
    """Also what is pushed under a tag again."""
    for number in ("first", "second"):
        push(port, "team/web:1", number)
        create(mine, pod(number, port, "team/web:1"))
        assert note_of(mine, number) == number


def test_nothing_else_is_pulled(mine: Cluster) -> None:
    spec = {"containers": [{"name": "c", "image": "registry.example/web:1"}]}
    create(mine, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "other"}, "spec": spec})
    event(mine, "other", "run-cluster --pull-from registry.example allows it")


def test_tools_find_it(mine: Cluster, port: int) -> None:
    found = got(mine, "configmap", "local-registry-hosting", "--namespace=kube-public")
    assert f'host: "localhost:{port}"' in found["data"]["localRegistryHosting.v1"].splitlines()


def test_it_is_started_again(mine: Cluster, port: int) -> None:
    before = server_of(mine.place)
    os.kill(before, signal.SIGKILL)
    end = time.monotonic() + 30
    while True:
        try:
            push(port, "team/later:1", "later")
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.1)
    assert server_of(mine.place) != before
    create(mine, pod("later", port, "team/later:1"))
    assert note_of(mine, "later") == "later"


def test_a_port_that_somebody_has(here: Clone) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        said = here.do("run-cluster", "--name", "taken", "--registry-port", str(taken), status=1)
    here.do("stop-cluster", "--name", "taken")
    sentence = f"it cannot listen on port {taken} of 127.0.0.1: Address already in use; --registry-port takes another"
    assert f"cluster taken: registry failed: {sentence}" in said


def test_images_stay_with_the_data(mine: Cluster, here: Clone, programs: Programs, port: int) -> None:
    """And go with them."""
    here.do("stop-cluster", "--name", NAME)
    with pytest.raises(OSError, match="refused"):
        push(port, "team/late:1", "late")
    again = started(here, programs, port)
    create(again, pod("again", port, "team/later:1"))
    assert note_of(again, "again") == "later"
    folder = mine.place.folder
    assert json.loads((folder / "registry.json").read_text())["storage"]["filesystem"]["rootdirectory"] == str(
        folder / "registry"
    )
    here.do("delete-cluster", "--name", NAME)
    assert not folder.exists()
