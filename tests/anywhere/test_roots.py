"""Other distributions: what is built from Debian's packages comes out the same where Debian 12's apt is not."""

from __future__ import annotations

import functools
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandkube.build import plan
from sandkube.build.sources import blobs, deb, deb_places
from sandkube.tree import remove_tree
from tests.anywhere.roots import ELSEWHERE, HOME, Root, compare, repository_in
from tests.clones import ROOT, Clone, clone
from tests.servers import Served, file_server

NAMES = ("busybox", "libseccomp")
FOLDER = f"{HOME}/a clone"
"""A folder with a blank, as the user sees it."""


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - start:.1f} s")


def clone_into(root: Root) -> Clone:
    """A clone of this checkout in the home of a root's user."""
    made = clone(root.home, Path(FOLDER).name, home=root.home)
    root.own(made.folder)
    return made


def hashes(made: Mapping[str, str]) -> dict[str, str]:
    return {name: made[name] for name in NAMES}


@pytest.fixture(scope="module")
def pool(here: Clone) -> Iterator[Served]:
    """A mirror on loopback with the pinned files and nothing else."""
    loaded, cache = plan.load(ROOT), here.home / ".cache/sandkube"
    with file_server() as served:
        for name in NAMES:
            source, files = loaded.recipes[name].source, loaded.pin(name).files
            assert source is not None
            deb.fetch(name, source, files, cache)
            for file in files:
                served.files[f"/debian/{file.pool}"] = blobs.path_of(cache, file.sha256).read_bytes()
        yield served


def test_in_debian_13_with_nothing_set(trixie: Root, ours: Mapping[str, str]) -> None:
    made = clone_into(trixie)
    with timed("busybox and libseccomp in Debian 13, nothing cached"):
        said = trixie.run("./do", "build", *NAMES, cwd=FOLDER)
    assert hashes(made.outputs()) == hashes(ours)
    assert "busybox: fetching busybox-static_1.37.0-6+b9_amd64.deb by apt from " in said
    assert "libseccomp: fetching libseccomp_2.5.4.orig.tar.gz by apt from " in said


@pytest.mark.parametrize("setting", [deb_places.MIRROR, deb_places.DEFAULT_MIRROR])
def test_without_apt(setting: str, without_apt: Root, pool: Served, ours: Mapping[str, str]) -> None:
    assert not (without_apt.folder / "usr/bin/apt-get").exists()
    assert not (without_apt.folder / "usr/bin/dpkg").exists()
    folder = without_apt.home / Path(FOLDER).name
    made = Clone(folder, without_apt.home) if folder.exists() else clone_into(without_apt)
    forget(made)
    pool.seen.clear()
    with timed(f"busybox and libseccomp without apt, {setting}"):
        without_apt.run("./do", "build", *NAMES, cwd=FOLDER, env={setting: f"{pool.address}/debian"})
    assert hashes(made.outputs()) == hashes(ours)
    assert {path for path, _ in pool.seen} == set(pool.files), "from there and nowhere else"


@pytest.fixture
def repository(trixie: Root) -> Iterator[str]:
    """This checkout as a repository in the root; its path there."""
    yield repository_in(trixie)
    shutil.rmtree(trixie.folder / "source")


SMALL = ("busybox", "interceptor", "podnet")
"""What is built in a minute or two; `./do bench elsewhere` builds the rest too."""


def test_a_newcomer_in_debian_13(
    trixie: Root, repository: str, ours: Mapping[str, str], pushed: tuple[Path, str]
) -> None:
    """Another user, folder, Python, zone, language and umask, nothing built or fetched before: the same bytes. What is
    compiled for long comes from a team's cache then.
    """
    trixie.empty_home()
    folder, cache = f"{HOME}/sandkube", "/cache"
    run = functools.partial(trixie.run, env=ELSEWHERE, umask=0o077)
    run("git", "clone", "--quiet", repository, folder)
    with timed(f"{', '.join(SMALL)} in Debian 13, nothing cached"):
        run("./do", "build", *SMALL, cwd=folder)
    theirs = Clone(trixie.home / "sandkube", trixie.home)
    compare(ours, theirs.outputs(), SMALL)
    env = ELSEWHERE | {"SANDKUBE_CACHE": f"file://{cache}"}
    run = functools.partial(run, env=env, cwd=folder, binds=[f"{pushed[0]}={cache}:ro"])
    run("./do", "key", "trust", pushed[1])
    with timed("run-cluster in Debian 13, from a cache"):
        said = run("./do", "run-cluster")
    try:
        assert re.search(r"^test-100-final +1/1 +Running ", said, re.MULTILINE)
        nodes = run("./do", "kubectl", "--", "get", "nodes", "--no-headers")
        assert re.search(r"^runsc +Ready ", nodes, re.MULTILINE)
    finally:
        run("./do", "stop-cluster")
    compare(ours, theirs.outputs(), ("bundle", "gvisor", "kubectl"))


def forget(made: Clone) -> None:
    """Make the two products and their sources missing, if they are there; compilers stay."""
    for name in NAMES:
        tree = (made.folder / "outputs/result" / name).resolve()
        if tree.exists():
            remove_tree(tree)
            for file in plan.load(made.folder).pin(name).files:
                blobs.path_of(made.home / ".cache/sandkube", file.sha256).unlink()
