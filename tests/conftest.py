"""How hypothesis looks for examples, wherever it does."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, configuration, settings

# The same examples at each run, none by the clock, nothing kept in the checkout.
configuration.set_hypothesis_home_dir(Path(tempfile.gettempdir(), "sandkube-hypothesis"))
settings.register_profile(
    "sandkube",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("sandkube")
