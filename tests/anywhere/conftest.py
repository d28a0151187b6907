"""Places that are not this machine: what the tests of this folder share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.anywhere import packages, roots
from tests.anywhere import yard as yards
from tests.anywhere.roots import Root
from tests.anywhere.yard import Yard
from tests.clones import Clone


@pytest.fixture(scope="session", autouse=True)
def root_of_a_debian() -> None:
    """Containers and other roots are made by root, with programs that apt-get installs."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("left out: only root of a Debian can make containers and roots of other releases")


@pytest.fixture(scope="session")
def yard() -> Iterator[Yard]:
    """An image, a checkout, engines; those that are missing are installed by apt-get where that may be done."""
    packages.install()
    with yards.yard() as made:
        yield made


@pytest.fixture(scope="session")
def ours(here: Clone) -> Mapping[str, str]:
    """Output hashes of what is built on this machine."""
    return here.outputs()


@pytest.fixture(scope="session")
def trixie() -> Iterator[Root]:
    """A root of Debian 13."""
    base = Path(tempfile.mkdtemp(prefix="sandkube-trixie-"))
    yield roots.make(base / "root", "trixie")
    shutil.rmtree(base)


@pytest.fixture(scope="session")
def without_apt(trixie: Root) -> Iterator[Root]:
    """The same programs, without apt and dpkg, as another distribution."""
    base = Path(tempfile.mkdtemp(prefix="sandkube-elsewhere-"))
    yield roots.copy_without_apt(trixie, base / "root")
    shutil.rmtree(base)
