"""A cluster that works for ten minutes and is harmed: one test begins it, the last one looks."""

from __future__ import annotations

from tests.conftest import Soaking


def test_soak_begins(soaking: Soaking) -> None:
    """It goes on beside the next tests."""
    assert soaking.process.poll() is None, soaking.log.read_text()


def test_soak_finds_nothing(soaking: Soaking) -> None:
    """Ten minutes of pods that come and go, sessions cut off, containerd and traffic killed: nothing breaks."""
    status = soaking.process.wait(1800)
    said = soaking.log.read_text()
    print(said)
    assert (status, said.splitlines()[-1:]) == (0, ["nothing is wrong"]), said
    assert soaking.rounds() > 2, said
