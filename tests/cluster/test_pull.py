"""Images that are pulled: from a real registry that wants a login, and from one that fails in the ways of real ones.

One cluster, which may pull from these two alone.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sandkube.cluster import pull, stop
from sandkube.cluster.configured import configure
from sandkube.cluster.place import place
from sandkube.cluster.programs import Programs
from tests.certificates import Certificates, certificates
from tests.cluster.conftest import Cluster, boot, inside, processes
from tests.cluster.test_hostile import create, event
from tests.image_maker import LAYER, OCI, Made, digest
from tests.pushed import image, upload
from tests.real_registries import AUTH, HTPASSWD, debians, started
from tests.registries import PASSWORD, USER, Registry, registry


@dataclass(frozen=True)
class Yard:
    """A cluster, and its two registries."""

    cluster: Cluster
    real: str
    made: Certificates
    odd: Registry


def push(yard: Yard, repository: str, tag: str, one: Made) -> None:
    host, port = yard.real.split(":")
    context = ssl.create_default_context(cafile=str(yard.made.authority))
    connection = http.client.HTTPSConnection(host, int(port), context=context)
    upload(connection, f"{repository}:{tag}", one, Authorization=f"Basic {AUTH}")


@pytest.fixture(scope="module")
def yard(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("registry")
    made = certificates(folder / "certificates")
    (folder / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    one = place(tmp_path_factory.mktemp("outputs"), "pull")
    with contextlib.ExitStack() as stack:
        real = f"127.0.0.1:{stack.enter_context(started(debians(folder), folder, made, auth)).port}"
        odd = stack.enter_context(registry())
        (folder / "auth.json").write_text(json.dumps({"auths": {f"{real}/team": {"auth": AUTH}}}))
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("REGISTRY_AUTH_FILE", str(folder / "auth.json"))
        settings = {"from": [real, odd.address], "authorities": str(made.authority)}
        configured = configure(None, {"pull": settings}, str)

        def end() -> None:
            if one.folder.exists():
                stop.stop(one)

        stack.callback(end)
        yield Yard(boot(one, replace(programs, configured=configured)), real, made, odd)


def pod(name: str, image: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": image, "imagePullPolicy": "Always"}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def runs(yard: Yard, name: str) -> str:
    """What a pod's image holds, once it runs."""
    yard.cluster.kubectl("wait", "pod", name, "--for=condition=Ready", "--timeout=90s")
    return yard.cluster.kubectl("exec", name, "--", "cat", "/note").stdout.decode()


def test_with_a_login_of_this_user(yard: Yard) -> None:
    """And with the policy Always a tag that moved is seen."""
    for number in ("first", "second"):
        push(yard, "team/web", "1", image(number))
        create(yard.cluster, pod(number, f"{yard.real}/team/web:1"))
        assert runs(yard, number) == number


def test_with_a_pull_secret(yard: Yard) -> None:
    push(yard, "secret/web", "1", image("told"))
    name = f"{yard.real}/secret/web:1"
    create(yard.cluster, pod("no-secret", name))
    event(yard.cluster, "no-secret", "pull access denied, repository does not exist or may require authorization")
    for kind, login in (("right", {"auth": AUTH}), ("wrong", {"username": USER, "password": "x"})):
        text = json.dumps({"auths": {yard.real: login}}).encode()
        data = {".dockerconfigjson": base64.b64encode(text).decode()}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": kind}, "data": data}
        secret |= {"type": "kubernetes.io/dockerconfigjson"}
        create(yard.cluster, secret, pod(f"{kind}-secret", name, imagePullSecrets=[{"name": kind}]))
    assert runs(yard, "right-secret") == "told"
    event(yard.cluster, "wrong-secret", f"{yard.real} refuses secret/web, with the login of the pull secret")


def test_a_registry_that_is_not_named(yard: Yard) -> None:
    create(yard.cluster, pod("elsewhere", "registry.example/somebodys/web:1"), pod("hub", "busybox"))
    event(
        yard.cluster,
        "elsewhere",
        "this cluster may not pull from registry.example; run-cluster --pull-from registry.example allows it",
    )
    event(yard.cluster, "hub", "this cluster may not pull from docker.io; run-cluster --pull-from docker.io allows it")


def test_an_image_that_is_not_there(yard: Yard) -> None:
    create(yard.cluster, pod("missing", f"{yard.real}/team/missing:1"))
    event(yard.cluster, "missing", f"{yard.real}/team/missing:1: not found")


def serves(one: Registry, tag: str, made: Made) -> list[str]:
    """Have the odd registry serve an image; the paths of its layers."""
    for blob in (*made.blobs, made.config, made.manifest):
        one.blobs[digest(blob)] = one.manifests[digest(blob)] = blob
    one.manifests[tag] = made.manifest
    one.types |= dict.fromkeys((tag, digest(made.manifest)), f"{OCI}manifest.v1+json")
    return [f"GET /v2/odd/blobs/{digest(blob)}" for blob in made.blobs]


@pytest.mark.parametrize(
    ("tag", "status", "words"),
    [
        ("busy", 429, "429 Too Many Requests, says 127.0.0.1"),
        ("broken", 500, "500 Internal Server Error, says 127.0.0.1"),
        ("away", 0, "502 127.0.0.1"),
    ],
)
def test_a_registry_that_fails(yard: Yard, tag: str, status: int, words: str) -> None:
    """It is said, and a later attempt of the kubelet's has the image."""
    serves(yard.odd, tag, image(tag))
    faults: list[tuple[int, dict[str, str]]] = [(status, {})] * 8
    yard.odd.faults[f"HEAD /v2/odd/manifests/{tag}"] = faults
    create(yard.cluster, pod(tag, f"127.0.0.1:{yard.odd.port}/odd:{tag}"))
    event(yard.cluster, tag, words)
    faults.clear()
    assert runs(yard, tag) == tag


def test_a_layer_that_is_cut(yard: Yard) -> None:
    layers = serves(yard.odd, "cut", image("cut"))
    yard.odd.faults[layers[1]] = [(200, {"Content_Length": "99"})]
    create(yard.cluster, pod("cut", f"127.0.0.1:{yard.odd.port}/odd:cut"))
    assert runs(yard, "cut") == "cut"
    assert yard.odd.faults[layers[1]] == []


def test_a_layer_that_is_another(yard: Yard) -> None:
    made = image("changed")
    serves(yard.odd, "changed", made)
    wrong = bytearray(made.blobs[1])
    wrong[-1] ^= 1
    yard.odd.blobs[digest(made.blobs[1])] = bytes(wrong)
    create(yard.cluster, pod("changed", f"127.0.0.1:{yard.odd.port}/odd:changed"))
    event(yard.cluster, "changed", "unexpected commit digest")


def gate(yard: Yard) -> tuple[str, str]:
    """Where containerd goes out, and what it says there."""
    text = inside(yard.cluster, "cat /run/sandkube/registries/_default/hosts.toml").stdout
    found = re.search(r'server = "http://(.*)"(?s:.*)Sandkube-Pull = "(.*)"', text)
    assert found
    return found[1], found[2]


def test_pods_have_no_way_out(yard: Yard) -> None:
    """Not even one in the node's own network, which can connect."""
    command = ["sleep", "3600"]
    container = {"name": "c", "image": "sandkube.local/test:1", "imagePullPolicy": "Never", "command": command}
    for name, more in (("apart", {}), ("near", {"hostNetwork": True})):
        spec = {"terminationGracePeriodSeconds": 0, "containers": [container], **more}
        create(yard.cluster, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    yard.cluster.kubectl("wait", "pod", "apart", "near", "--for=condition=Ready", "--timeout=60s")
    place = f"/v2/team/web/manifests/1?ns={yard.real}"
    address, secret = gate(yard)

    def fetch(name: str, host: str) -> str:
        script = f"wget -T 5 -O- 'http://{host}{place}' 2>&1 || true"
        return yard.cluster.kubectl("exec", name, "--", "sh", "-c", script).stdout.decode()

    assert "403 only containerd pulls images" in fetch("near", address)
    for host in (address, address.replace("127.0.0.1", "10.88.0.1")):
        assert "Connection refused" in fetch("apart", host)
    accept = "application/vnd.oci.image.manifest.v1+json"
    told = inside(
        yard.cluster,
        f"wget -T 20 -q -O- --header 'Accept: {accept}' --header 'Sandkube-Pull: {secret}' 'http://{address}{place}'",
    )
    assert LAYER in told.stdout, "root of the node can"


def test_images_are_collected_again(yard: Yard) -> None:
    said = json.loads(yard.cluster.kubectl("get", "--raw=/api/v1/nodes/runsc/proxy/configz").stdout)["kubeletconfig"]
    assert (said["imageGCHighThresholdPercent"], said["imageGCLowThresholdPercent"]) == (85, 80)


def test_who_asks_is_started_again(yard: Yard) -> None:
    (one,) = processes(yard.cluster, pull.MODULE)
    before = gate(yard)
    os.kill(one, signal.SIGKILL)
    for _ in range(150):
        if gate(yard) != before:
            break
        time.sleep(0.2)  # the supervisor says nothing of it
    push(yard, "team/web", "3", image("third"))
    create(yard.cluster, pod("third", f"{yard.real}/team/web:3"))
    assert runs(yard, "third") == "third"
    assert PASSWORD not in "".join(each.read_text(errors="replace") for each in yard.cluster.place.logs.iterdir())


def test_nothing_is_left(yard: Yard) -> None:
    """The last one: it stops the cluster."""
    stop.stop(yard.cluster.place)
    assert processes(yard.cluster, pull.MODULE) == []
