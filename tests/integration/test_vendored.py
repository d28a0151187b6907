"""All sources in a folder; another user's empty clone, in a place without a network, builds from it."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
from pathlib import Path

import pytest

from tests.clones import Clone, clone


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="root makes a place without a network")
def test_a_build_without_a_network(here: Clone, tmp_path: Path) -> None:
    shown = here.result("vendor", str(tmp_path / "vendored")).split()
    assert shown[-3:] == ["./do", "build", "--offline"]
    env = dict(word.split("=", 1) for word in shlex.split(" ".join(shown[:-3])))
    assert {*env} == {"PIP_FIND_LINKS", "SANDKUBE_CACHE"}
    other = dataclasses.replace(clone(tmp_path, "other", env=env), before=("unshare", "--net"))
    assert {"busybox", "podnet", "go", "go-client"} <= {*other.steps("--offline", "busybox", "podnet")}
    expected = here.outputs()
    made = other.outputs()
    assert made == {name: expected[name] for name in made}
    assert "podnet" in made
