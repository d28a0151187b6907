"""A cluster that has a quarter of a core for all of it, the command that starts it included."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from sandkube.cluster.place import Place
from sandkube.cluster.pod import NAME as POD
from sandkube.errors import UserError
from tests.cluster.conftest import ROOT
from tests.cluster.test_command_line import do
from tests.cluster.test_component_death import NAME, mine
from tests.quota import Quota, quota

__all__ = ["mine"]
CORES = 0.25


@pytest.fixture
def bound() -> Iterator[Quota]:
    """A quarter of a core."""
    try:
        with quota(CORES) as made:
            yield made
    except UserError as error:
        pytest.skip(f"{error.message}; {error.hint}")


@pytest.mark.usefixtures("programs")
def test_a_quarter_of_a_core(bound: Quota, mine: Place) -> None:  # noqa: F811
    """It boots, runs a pod and answers; and it is really bound."""
    done = subprocess.run(
        bound.argv("./do", "run-cluster", "--json", "--name", NAME), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "pod-running"
    assert f"{POD}   1/1" in do("kubectl", "--name", NAME, "--", "get", "pods").out
    state = mine.running()
    assert state is not None
    assert str(state.pid) in (bound.folder / "cgroup.procs").read_text().split()
    assert bound.waits() > 0
