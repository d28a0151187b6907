"""The commands as typed, from start to stop."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from sandkube.cluster import stop
from sandkube.cluster.place import place
from tests.clones import Said
from tests.cluster.conftest import ROOT

NAME = "test-cli"


def do(*words: str, status: int = 0, stdin: str = "") -> Said:
    done = subprocess.run(["./do", *words], cwd=ROOT, capture_output=True, text=True, input=stdin, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return Said(done.stdout, done.stderr)


@pytest.fixture(scope="module")
def said() -> Iterator[Said]:
    """What run-cluster says; the cluster is there for the tests of this file."""
    one = place(ROOT / "outputs", NAME)
    if one.folder.exists():
        stop.stop(one)
    try:
        yield do("run-cluster", "--name", NAME)
    finally:
        if one.folder.exists():
            stop.stop(one)


def test_run_cluster_shows_stages_the_pod_and_what_to_do_next(said: Said) -> None:
    for stage in ("containerd", "apiserver", "ready"):
        assert re.search(rf"^ +\d+\.\d\ds  {stage} ", said.err, re.MULTILINE), said
    assert re.search(r"^test-100-final +1/1 +Running +0 +\d+s +10\.88\.0\.\d+ +runsc ", said.out, re.MULTILINE)
    assert f"export KUBECONFIG=outputs/clusters/{NAME}/kubeconfig\n" in said.out
    assert f"./do stop-cluster --name {NAME}" in said.out


@pytest.mark.usefixtures("said")
def test_running_it_again_only_checks_the_pod() -> None:
    again = do("run-cluster", "--name", NAME)
    assert f"cluster {NAME} is running already\n" in again.err
    assert re.search(r"^test-100-final +1/1 +Running ", again.out, re.MULTILINE)


@pytest.mark.usefixtures("said")
def test_status_kubectl_logs_and_shell() -> None:
    row = next(line for line in do("status").out.splitlines() if line.startswith(NAME))
    assert re.fullmatch(
        rf"{NAME} +running +\S+ +modern +runsc +https://127\.0\.0\.1:\d+ +\d+ MB +outputs/clusters/{NAME} *", row
    )
    nodes = json.loads(do("kubectl", "--name", NAME, "--", "get", "nodes", "--output", "json").out)
    assert [node["metadata"]["name"] for node in nodes["items"]] == ["runsc"]
    assert do("shell-cluster", "--name", NAME, stdin="hostname; exit 4\n", status=4).out == "runsc\n"
    assert "kubelet" in do("logs", "--name", NAME).out.splitlines()
    assert len(do("logs", "kubelet", "--name", NAME, "--lines", "3").out.splitlines()) == 3


@pytest.mark.usefixtures("said")
def test_stop_leaves_nothing() -> None:
    assert do("stop-cluster", "--name", NAME).err == f"cluster {NAME} is stopped and gone\n"
    assert NAME not in do("status").out
    assert not (ROOT / "outputs/clusters" / NAME).exists()
    assert do("stop-cluster", "--name", NAME, status=1).err == (
        f"error: there is no cluster {NAME}\n  hint: ./do status lists them\n"
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "export-node takes one file name"),
        (["a.tar.gz", "b.tar.gz"], "export-node takes one file name"),
        (["node.zip"], "node.zip: a node is exported as .tar.gz only"),
        (["/proc"], "/proc is a folder"),
        (["/no/such/node.tar.gz"], "/no/such: there is no such folder"),
    ],
)
def test_export_node_refuses(words: list[str], text: str) -> None:
    assert f"error: {text}\n" in do("export-node", *words, status=1).err
