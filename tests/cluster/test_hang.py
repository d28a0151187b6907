"""A node whose sandbox is stopped while it boots: run-cluster ends it in time, and says what is missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest

from sandkube.cluster import stop
from sandkube.cluster.place import Place
from sandkube.cluster.processes import with_words
from sandkube.cluster.status import row
from tests.cluster.conftest import ROOT
from tests.cluster.test_command_line import do
from tests.cluster.test_component_death import NAME, mine

__all__ = ["mine"]
TIMEOUT = 15


@pytest.mark.usefixtures("programs")
def test_while_it_starts(mine: Place) -> None:  # noqa: F811
    with subprocess.Popen(
        ["./do", "run-cluster", "--name", NAME, "--timeout", str(TIMEOUT)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line.rstrip("\n"))
            if line.split()[1:2] == ["images"]:
                for pid in with_words(f"--root={mine.runsc}"):
                    os.kill(pid, signal.SIGSTOP)
        assert process.wait(60) == 1, said
    (error,) = [line for line in said if line.startswith("error: ")]
    found = re.fullmatch(
        rf"error: cluster {NAME} is not up within {TIMEOUT} s: the last stage was (\S+), missing are (\S+), .*; "
        r"(\S+) owes (\S+)",
        error,
    )
    assert found, said
    assert found[2] == found[4]
    assert f" {found[1]} " in said[said.index(error) - 1]
    assert said[-1].startswith("  hint: --timeout gives it longer; ./do logs --name ")
    assert [*with_words(stop.SUPERVISOR, str(mine.folder)), *with_words(f"--root={mine.runsc}")] == []
    assert row(mine).state == "failed"
    assert do("stop-cluster", "--name", NAME).err == f"cluster {NAME} is stopped and gone\n"
