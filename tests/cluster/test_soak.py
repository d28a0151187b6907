"""Ten minutes of work and of harm: what `./do bench soak` does for an hour, with an order of harm that does not change.

SANDKUBE_SOAK_SECONDS is another time.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.cluster.conftest import ROOT

SECONDS = os.environ.get("SANDKUBE_SOAK_SECONDS", "600")


def test_a_cluster_bears_it_and_nothing_grows() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "soak", SECONDS, "1"], cwd=ROOT, check=False)
    assert done.returncode == 0, "what it did not bear is printed above"
