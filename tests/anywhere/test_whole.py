"""All that the README shows of a cluster, in the containers that matter most: Docker's defaults, rootless podman."""

from __future__ import annotations

import json
import re

import pytest

from sandkube.cluster.pod import NAME
from tests.anywhere.checkouts import STEP
from tests.anywhere.containers import PLACE, USER, Container
from tests.anywhere.engines import ROOTLESS, Done, run
from tests.anywhere.measures import memory_of
from tests.anywhere.yard import RESULT, Yard, say
from tests.cluster.test_services import objects

KUBECTL = ("env", "KUBECONFIG=outputs/clusters/default/kubeconfig", "outputs/bin/kubectl")
OBJECTS = "outputs/objects.json"
COPY = f"{NAME}:/tmp/page"
WEB = "http://web.default.svc.cluster.local/"


def kubectl(*words: str) -> tuple[str, ...]:
    """kubectl as `run-cluster` tells to use it."""
    return (*KUBECTL, *words)


STEPS = {
    "run": ("./do", "run-cluster"),
    "again": ("./do", "run-cluster"),
    "apply": kubectl("apply", f"--filename={OBJECTS}"),
    "rollout": kubectl("rollout", "status", "deployment/web", "--timeout=90s"),
    "pods": kubectl("get", "pods", "--selector=app=web", "--output=name"),
    "by name": kubectl("exec", NAME, "--", "wget", "-q", "-O-", WEB),
    "logs": kubectl("logs", NAME),
    "copy in": kubectl("cp", "README.md", COPY),
    "copy out": kubectl("cp", COPY, "outputs/page"),
    "same": ("cmp", "README.md", "outputs/page"),
    "forward": (*KUBECTL[:2], "python3", "tests/anywhere/forwarded.py", KUBECTL[2], "service/web"),
    "shell": ("./do", "shell-cluster", "hostname"),
    "component": ("./do", "logs", "kubelet", "--lines", "2"),
    "status": ("./do", "status"),
    "stop": ("./do", "stop-cluster"),
    "none": ("./do", "status"),
}


@pytest.mark.parametrize(
    ("engine", "user", "owner", "kind"),
    [
        pytest.param("docker", 0, 0, "confined", id="docker, root"),
        pytest.param("docker", USER, USER, "confined", id="docker, user"),
        pytest.param("podman", 0, ROOTLESS, "modern", id="rootless podman"),
    ],
)
def test_everything(yard: Yard, engine: str, user: int, owner: int, kind: str) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": objects()}
    (yard.checkout.folder / OBJECTS).write_text(json.dumps(listed))
    yard.checkout.give_to(owner)
    steps = [list(words) for words in STEPS.values()]
    found = run(yard.engine(engine), Container(user=user), yard.checkout.folder, steps)
    done: dict[str, Done] = dict(zip(STEPS, found.done, strict=True))
    for name, each in done.items():
        assert each.status == 0, f"{name}: {each.words}: {each.said}"
    say(f"{engine}, user {user}: {kind}, {done['run'].seconds:.1f} s, {memory_of(done['status'])} MB")
    assert "is running already" in done["again"].said
    pods = {line.removeprefix("pod/") for line in done["pods"].said.split()}
    assert len(pods) == 2
    assert done["by name"].said.strip() in pods
    assert done["forward"].said.strip() in pods
    assert done["logs"].said == "ready\n"
    assert done["shell"].said == "runsc\n"
    assert len(done["component"].said.splitlines()) == 2
    assert re.search(rf"^default +running +\S+ +{kind} ", done["status"].said, re.MULTILINE)
    assert done["stop"].said == "cluster default is stopped and gone\n"
    assert done["none"].said == "no cluster; ./do run-cluster starts one\n"
    assert (found.left, found.gone) == ([], [])


def test_rootless_podman_builds_the_same_bytes(yard: Yard) -> None:
    products = ("userns", STEP)
    yard.checkout.give_to(ROOTLESS)
    for each in products:
        yard.checkout.forget(each)
    shown = [["readlink", f"outputs/result/{each}"] for each in products]
    found = run(yard.engine("podman"), Container(), yard.checkout.folder, [["./do", "build", *products], *shown])
    built, *links = found.done
    assert built.status == 0, built.said
    for name, link in zip(products, links, strict=True):
        assert f"{name}: building, because: " in built.said
        assert link.said.strip() == str((RESULT / name).readlink())
    assert PLACE not in built.said
