"""A checkout with a finished build, to be mounted into containers at `PLACE`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from sandkube.build import plan
from sandkube.build.places import Places
from tests.anywhere.containers import MACHINE, PLACE
from tests.anywhere.engines import Engine, run
from tests.clones import ROOT, clone

WHEELS = "wheels"
"""The folder of Python packages in the checkout."""
STEP = "test-target"
"""A small C step that no cluster is made of."""
PRODUCTS = ("bundle", "kubectl", "gvisor", "userns", "image-test", STEP)
SETTINGS = (f"PIP_FIND_LINKS={PLACE}/{WHEELS}", "PIP_NO_INDEX=1", "PIP_DISABLE_PIP_VERSION_CHECK=1")


@dataclass(frozen=True)
class Checkout:
    """A folder on this machine."""

    folder: Path

    def give_to(self, user: int) -> None:
        """Make a user the owner of all that a run writes; outputs in the store are only read."""
        trees = self.folder / "outputs/store/trees"
        os.chown(self.folder, user, user)
        for folder, folders, files in os.walk(self.folder):
            here = Path(folder)
            for name in (*folders, *files):
                os.chown(here / name, user, user, follow_symlinks=False)
            if here == trees:
                folders.clear()

    def forget(self, product: str) -> None:
        """Have a product made anew by the next build."""
        store = self.folder / "outputs/store"
        (store / "records" / f"{(store / 'last' / product).read_text().strip()}.json").unlink(missing_ok=True)


def _copy_while_it_changes(source: Path, target: Path) -> None:
    """Copy a folder of files that other lanes may remove meanwhile: then again, from the start."""
    for left in reversed(range(20)):
        try:
            shutil.copytree(source, target)
        except shutil.Error:
            shutil.rmtree(target)
            if not left:
                raise
        else:
            return


def _copy_tree(tree: Path, target: Path) -> None:
    """By hard links where there can be any: nobody writes to files of the store."""
    words = ["cp", "--archive", str(tree), str(target)]
    if subprocess.run([*words, "--link"], capture_output=True, check=False).returncode:
        subprocess.run([*words, "--remove-destination"], check=True)


def _copy_build(target: Path) -> None:
    """What `./do build` makes: the trees, and what tells that they are up to date."""
    store, result, loaded = ROOT / "outputs/store", ROOT / "outputs/result", plan.load(ROOT)
    for name in ("last", "locks", "records"):
        _copy_while_it_changes(store / name, target / "store" / name)
    for folder in ("store/trees", "result"):
        (target / folder).mkdir()
    for name in loaded.in_order(plan.choose(loaded, ())):
        tree = (result / name).resolve()
        if not (target / "store/trees" / tree.name).exists():
            _copy_tree(tree, target / "store/trees")
        shutil.copy2(result / name, target / "result", follow_symlinks=False)
    cache = Places.of(ROOT, os.environ).cache / "zig"
    shutil.copytree(cache, target / "home/.cache/sandkube/zig", symlinks=True)


def _fetch_wheels(folder: Path, root: Path) -> None:
    """What `./do` installs, for the Python of the containers."""
    version = max(path.name.removeprefix("python") for path in (root / "usr/bin").glob("python3.[0-9][0-9]"))
    words = ["download", "--quiet", "--only-binary=:all:", "--require-hashes", f"--python-version={version}"]
    words += [f"--dest={folder}", f"--requirement={ROOT / 'requirements.txt'}"]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)


def make(base: Path, engine: Engine, root: Path) -> Checkout:
    """A copy of this checkout, set up and up to date for whoever runs it in a container."""
    one = Checkout(clone(base, "checkout").folder)
    _copy_build(one.folder / "outputs")
    _fetch_wheels(one.folder / WHEELS, root)
    one.forget(STEP)  # a compiler's cache is warm after it
    found = run(engine, replace(MACHINE, env=SETTINGS), one.folder, [["./do", "build", *PRODUCTS]])
    assert found.done[0].status == 0, found.done[0].said
    return one
