"""A cluster that works for ten minutes and is harmed: begun here, looked at by tests/cluster/test_soaked.py."""

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
