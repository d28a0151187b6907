"""The Python clients that people use, each in a script as they write it, with the kubeconfig that a command prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandkube.app.guard import guarded
from sandkube.app.kubeconfig import KubeconfigVerb
from sandkube.cli.building import Checkout
from tests.clones import ROOT
from tests.cluster.clients.conftest import Client
from tests.cluster.conftest import Cluster
from tests.wheels import environment

SERVES = "mkdir /w; echo page >/w/index.html; echo serving; exec httpd -f -p 8080 -h /w"
SAID = {"exec": "page", "logs": "serving", "port": "page"}


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("kubernetes", ()), ("kr8s", ()), ("lightkube", ("port",))],
)
def test_a_client(
    name: str,
    left_out: tuple[str, ...],
    mine: Cluster,
    kubectl: Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = Checkout(lambda *_words, **_settings: 0, outputs=mine.place.folder.parents[1])
    assert guarded(lambda: KubeconfigVerb(home).parse_execute(["--name", mine.place.name])) == 0
    config = tmp_path / "config"
    config.write_text(capsys.readouterr().out)
    container = {
        "name": "web",
        "image": "sandkube.local/test:1",
        "command": ["sh", "-c", SERVES],
        "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
    }
    pod = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    program = Client((str(environment("clients") / "bin/python"),), {**kubectl.env, "KUBECONFIG": str(config)})
    said = program(ROOT / f"tests/targets/python/with_{name}.py", json.dumps(pod))
    expected = {each: word for each, word in SAID.items() if each not in left_out} | {"deleted": name}
    assert dict(line.split(": ", 1) for line in said.splitlines()) == expected
