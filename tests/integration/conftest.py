"""Real builds: what the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clones import ROOT, Clone, clone
from tests.interceptors import Here, Runs, fill, inside


@pytest.fixture
def twin(here: Clone, tmp_path: Path) -> Clone:
    """A clone elsewhere that shares this checkout's store and cache."""
    one = clone(tmp_path, "twin", home=here.home)
    (one.folder / "outputs").mkdir()
    (one.folder / "outputs/store").symlink_to(ROOT / "outputs/store")
    return one


@pytest.fixture(scope="module", params=["here", "in gVisor"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Where the interceptor runs, with its files."""
    base = tmp_path_factory.mktemp("i")
    if request.param == "here":
        fill(base / "t", base / "t")
        yield Here(base / "t")
    else:
        with inside(base) as made:
            yield made
