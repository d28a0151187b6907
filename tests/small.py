"""A small checkout with this engine and recipes of its own that need no toolchain, run as a user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from sandkube.build import lock, plan, spec
from sandkube.build.lock import Pin

ROOT = Path(__file__).resolve().parents[1]
ROOTFS = (
    'description = "Takes from %s."\n[build]\nkind = "rootfs"\n[[build.install]]\nfrom = "%s"\npath = "%s"\nto = "%s"\n'
)
RECIPES = {
    "base": 'description = "A folder of this repository."\nsource = "local:native/base"\n[build]\nkind = "tree"\n',
    "middle": ROOTFS % ("base", "base", "used", "etc/used"),
    "top": ROOTFS % ("middle", "middle", ".", "all"),
}
FAILS = ROOTFS % ("base", "base", "missing", "x")
"""A recipe that fails as it is built: what it takes is not there."""


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said: results, and what people read meanwhile."""

    status: int
    out: str
    err: str

    def steps(self) -> dict[str, str]:
        """The steps that ran, each with its reason."""
        heads = (line.partition(": building, because: ") for line in self.err.splitlines())
        return {head.split()[-1]: reason for head, found, reason in heads if found}


@dataclass(frozen=True)
class Small:
    """The checkout, and the environment that its commands get beside PATH."""

    folder: Path
    env: Mapping[str, str]
    before: Sequence[str] = ()
    """Words that a command is started with."""

    def argv(self, *words: str) -> list[str]:
        """The words of `./do WORDS`, without the launcher's .venv."""
        return [*self.before, sys.executable, "-m", "sandkube", *words]

    def environment(self) -> dict[str, str]:
        """What `env -i` would leave, with the settings of this checkout."""
        return {"PATH": os.environ["PATH"], **self.env}

    def do(self, *words: str) -> Said:
        """Run `./do WORDS`."""
        done = subprocess.run(
            self.argv(*words), cwd=self.folder, env=self.environment(), capture_output=True, text=True, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """Start `./do WORDS`; both of its streams are pipes."""
        return subprocess.Popen(
            self.argv(*words),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def let_in(folder: Path) -> None:
    """Let every user get as far as a folder: those of pytest are their owner's, however many there are."""
    for each in (folder, *folder.parents):
        mode = each.stat().st_mode
        if each.is_relative_to(tempfile.gettempdir()) and mode & 0o111 != 0o111:
            each.chmod(mode | 0o111)


def small(folder: Path, recipes: Mapping[str, str] = RECIPES, pins: Mapping[str, Pin] = MappingProxyType({})) -> Small:
    """Make one; its lock is sound if `pins` has what recipes are pinned to, its home empty."""
    # What this checkout has compiled comes along: its sources are known by time and size, which stay.
    shutil.copytree(ROOT / "sandkube", folder / "sandkube", ignore=shutil.ignore_patterns("*.pyc.*"))
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "native/base").mkdir(parents=True)
    (folder / "native/base/used").write_text("used\n")
    (folder / "recipes").mkdir()
    for name, text in recipes.items():
        (folder / "recipes" / f"{name}.toml").write_text(text)
        if (patches := ROOT / "patches" / name).is_dir():  # the recipe may be one of this checkout
            shutil.copytree(patches, folder / "patches" / name)
    home = folder.with_name(f"{folder.name}-home")
    home.mkdir()
    made = {
        one.name: replace(pins.get(one.name, Pin("")), spec=spec.spec_digest(one, folder))
        for one in spec.pinned(plan.load(folder).recipes)
    }
    (folder / "lock.json").write_text(lock.encode(made))
    return Small(folder, {"HOME": str(home)})
