"""One cluster for the tests of clients, and the programs that they are."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandkube import images
from sandkube.cluster import stop
from sandkube.cluster.images import load
from sandkube.cluster.place import place
from sandkube.cluster.pod import Kubectl
from sandkube.cluster.programs import Programs
from sandkube.image_files import folder_or_archive
from tests.clones import ROOT, Clone
from tests.cluster.conftest import Cluster

IMAGE = "--image=sandkube.local/test:1"
SERVES = ("sh", "-c", "mkdir /w; echo page >/w/index.html; echo serving; exec httpd -f -p 8080 -h /w")
NODE = "runsc"
NAME = "clients"
FASTER = ("--horizontal-pod-autoscaler-sync-period=5s", "--horizontal-pod-autoscaler-cpu-initialization-period=10s")
"""How often autoscalers look; people wait for 15 seconds, and for a new pod five minutes."""


@dataclass(frozen=True)
class Client:
    """A program as somebody runs it who has nothing but the kubeconfig."""

    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *words: str | Path, stdin: str = "", status: int = 0, **env: str) -> str:
        """What it says; on both streams where it is to fail."""
        done = self.run(*words, stdin=stdin, **env)
        said = done.stdout + done.stderr
        assert done.returncode == status, f"{' '.join(map(str, words))}: exit status {done.returncode}\n{said}"
        return said if status else done.stdout

    def run(self, *words: str | Path, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [*self.words, *map(str, words)],
            env={**self.env, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=ROOT,
        )

    def popen(self, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start it; both streams are one."""
        return subprocess.Popen(
            [*self.words, *words],
            env=self.env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )


@dataclass(frozen=True)
class Step:
    """A command of the README's transcript, and what it says there; empty if that is left out."""

    command: str
    said: str


def transcript() -> list[Step]:
    """Of the README's section on clients."""
    _, _, after = (ROOT / "README.md").read_text().partition("\n## Clients\n")
    block = "".join(re.findall(r"^(?:    .*)?\n", after.partition("\n## ")[0], re.MULTILINE))
    lines = textwrap.dedent(block).strip("\n")
    steps = [each.partition("\n") for each in re.split(r"^\$ ", lines, flags=re.MULTILINE)[1:]]
    return [Step(command, said.rstrip("\n")) for command, _, said in steps]


@pytest.fixture(scope="package")
def mine(here: Clone, programs: Programs) -> Iterator[Cluster]:
    """A cluster for all of them, booted as the README does; what each makes, it takes away."""
    (boots,) = [each.command for each in transcript() if each.command.startswith("./do run-cluster ")]
    one = place(ROOT / "outputs", NAME)
    try:
        here.do(*shlex.split(boots)[1:], "--name", NAME, *(f"--argument=controller-manager={each}" for each in FASTER))
        yield Cluster(one, Kubectl(programs.kubectl, one), [])
    finally:
        if one.folder.exists():
            stop.stop(one)


Start = Callable[[str], Client]


@pytest.fixture(scope="package")
def start(mine: Cluster, here: Clone, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Builds a recipe, and has its program."""
    home = tmp_path_factory.mktemp("home")
    path = f"{ROOT / 'outputs/result/kubectl/bin'}:{os.defpath}"
    env = {"HOME": str(home), "KUBECONFIG": str(mine.place.kubeconfig), "PATH": path}

    def found(name: str) -> Client:
        here.do("build", name)
        (program,) = (ROOT / f"outputs/result/{name}/bin").iterdir()
        return Client((str(program),), env)

    return found


@pytest.fixture(scope="package")
def kubectl(start: Start) -> Client:
    """As people type it."""
    return start("kubectl")


@pytest.fixture(scope="package")
def helm(start: Start) -> Client:
    """Helm, with a home of its own."""
    return start("helm")


@pytest.fixture(scope="package")
def kustomize(start: Start) -> Client:
    """The program that kubectl has a part of."""
    return start("kustomize")


@pytest.fixture(scope="package")
def operator(start: Start, mine: Cluster, here: Clone) -> Client:
    """The operator of tests; its image is in the cluster."""
    here.do("build", "image-test-operator")
    with folder_or_archive(ROOT / "outputs/result/image-test-operator", mine.place.folder) as files:
        load(mine.place, images.held(files, ""), lambda _sent, _size: None)
    return start("test-operator")


def value(k: Client, what: str, path: str) -> str:
    return k("get", *what.split(), f"--output=jsonpath={{{path}}}")


def eventually(what: str, holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.3)


def manifest(kind: str, name: str, **more: object) -> str:
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **more})


@pytest.fixture(scope="package")
def k(kubectl: Client) -> Client:
    """Kubectl in a namespace of these tests, which goes with the cluster."""
    kubectl("create", "namespace", "verbs")
    return Client((*kubectl.words, "--namespace=verbs"), kubectl.env)


@pytest.fixture(scope="package")
def web(k: Client) -> str:
    """A deployment of two that serve a page, and its Service."""
    k("create", "deployment", "web", IMAGE, "--replicas=2", "--", *SERVES)
    probe = {"httpGet": {"port": 8080}, "periodSeconds": 1}
    container = {"name": "test", "readinessProbe": probe}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    k("patch", "deployment", "web", "--patch", json.dumps({"spec": {"template": {"spec": spec}}}))
    k("expose", "deployment", "web", "--port=80", "--target-port=8080")
    k("rollout", "status", "deployment/web", "--timeout=60s")
    return "web"
