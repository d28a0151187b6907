"""The README's transcript: its commands are run as they stand there, and say what they say there, and perhaps more."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import Counter

from tests.clones import ROOT, Clone, passed_on
from tests.cluster.clients.conftest import NAME, Client, transcript
from tests.cluster.conftest import Cluster

AGAIN = ("kubectl get ", "kubectl top ", "curl ")
"""Commands that may be asked until what they tell has come about."""


def shape(said: str) -> Counter[str]:
    """Lines without what differs from run to run: numbers, ages, times, names that were made up."""
    for pattern, word in (
        (r"^(LAST DEPLOYED|Last Started|Last Completed): .*", r"\1: TIME"),
        (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
        (r"-[0-9a-z]{7,10}-[0-9a-z]{5}\b", "-HASH"),
        (r"\b(\d+[smhd])+\b", "AGE"),
        (r"\d+", "0"),
        (r" +", " "),
    ):
        said = re.sub(pattern, word, said, flags=re.MULTILINE)
    return Counter(line.rstrip() for line in said.splitlines())


def ours(command: str) -> str:
    """The same for the cluster of these tests, which is not the default one."""
    command = re.sub(r"^(\./do (?:expose|stop-cluster|run-cluster)\b)", rf"\1 --name {NAME}", command)
    return command.replace("clusters/default/", f"clusters/{NAME}/")


def test_the_transcript_is_true(mine: Cluster, helm: Client, here: Clone) -> None:  # noqa: ARG001
    steps = transcript()
    assert [each.command.split()[0] for each in steps].count("helm") == 2
    environment = ""
    homes = {f"HELM_{each}_HOME": f"{helm.env['HOME']}/{each}" for each in ("CACHE", "CONFIG", "DATA")}
    env = {"HOME": str(here.home), "PATH": os.defpath, **passed_on(), **homes}
    for step in steps:
        command = ours(step.command)
        if command.startswith("export "):
            environment = f"{command}\n"
        if command.startswith(("export ", "./do run-cluster")):
            continue
        end = time.monotonic() + 120
        while True:
            done = subprocess.run(
                ["bash", "-c", f"{environment}{command}"],
                env=env,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=240,
            )
            right = done.returncode == 0 and shape(step.said) <= shape(done.stdout)
            if right or not command.startswith(AGAIN) or time.monotonic() > end:
                break
            time.sleep(1)
        assert right, f"$ {command}\n{done.stdout}{done.stderr}\nand the page says\n{step.said}"
