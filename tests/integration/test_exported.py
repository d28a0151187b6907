"""What a cluster needs as one file, for an empty clone of somebody who has no network."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from tests.clones import Clone, clone
from tests.integration.test_cached import NEEDED


def test_who_imports_runs_no_step(here: Clone, tmp_path: Path) -> None:
    one = dataclasses.replace(here, env={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    public = one.result("key", "new", "ci").strip()
    names = ("bundle", "gvisor", "kubectl")
    one.do("export", *names, str(tmp_path / "node.tar"))
    other = clone(tmp_path, "other")
    other.do("key", "trust", public)
    said = other.result("import", str(tmp_path / "node.tar"))
    assert re.search(rf"records, signed by ci; trees: {', '.join(sorted(NEEDED))}$", said, re.MULTILINE)
    assert other.steps(*names) == {}
    expected = here.outputs()
    assert other.outputs() == {name: expected[name] for name in NEEDED}
