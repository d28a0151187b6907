"""A bound on CPU time for what a test or a measurement starts, by a cgroup of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sandkube.cluster import cgroups
from sandkube.errors import UserError

PERIOD = 100_000  # microseconds, the kernel's default


@dataclass(frozen=True)
class Quota:
    """A cgroup whose processes have so many cores together."""

    folder: Path

    def argv(self, *words: str) -> list[str]:
        """A command line whose process and all that come of it are in it."""
        return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self.folder), *words]

    def waits(self) -> int:
        """How often they were out of time."""
        words = (self.folder / "cpu.stat").read_text().split()
        return int(words[words.index("nr_throttled") + 1])


def _above() -> tuple[Path, bool]:
    """The cgroup to make one in, and whether it is of version 2. Raises UserError where CPU time cannot be bounded."""
    for each in cgroups.hierarchies():
        if "cpu" in each.controllers.split(",") and os.access(each.own, os.W_OK):
            return each.own, False
        if each.controllers == cgroups.UNIFIED:
            with suppress(UserError):
                return cgroups.places()[cgroups.UNIFIED], True
    raise UserError("no cgroup here bounds CPU time and may be written", hint="as root there mostly is one")


@contextmanager
def quota(cores: float) -> Iterator[Quota]:
    """Such a cgroup, removed at the end: its processes have ended then. Raises UserError."""
    above, second = _above()
    folder = Path(tempfile.mkdtemp(prefix="sandkube-quota-", dir=above))
    try:
        time = str(int(cores * PERIOD))
        if second:
            (folder / "cpu.max").write_text(f"{time} {PERIOD}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD))
            (folder / "cpu.cfs_quota_us").write_text(time)
        yield Quota(folder)
    finally:
        cgroups.remove([folder])
