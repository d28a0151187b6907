"""A cluster that works for ten minutes and is harmed: one test begins it, the last one looks."""

from __future__ import annotations

import time

from tests.conftest import Soaking


def test_soak_begins(soaking: Soaking) -> None:
    """Its first round goes well; what follows goes on beside the next tests."""
    end = time.monotonic() + 600
    while not soaking.rounds():
        assert soaking.process.poll() is None, soaking.log.read_text()
        assert time.monotonic() < end, soaking.log.read_text()
        time.sleep(0.5)


def test_soak_finds_nothing(soaking: Soaking) -> None:
    """Ten minutes of pods that come and go, sessions cut off, containerd and traffic killed: nothing breaks."""
    status = soaking.process.wait(1800)
    said = soaking.log.read_text()
    print(said)
    assert (status, said.splitlines()[-1:]) == (0, ["nothing is wrong"]), said
    assert soaking.rounds() > 2, said
