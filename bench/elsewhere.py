"""`./do bench elsewhere`: a cluster built from nothing in Debian 13 by another user; all outputs beside ours.

Needs root, a finished build, Debian's archive, and some twelve minutes of two cores.
"""

from __future__ import annotations

import functools
import tempfile
import time
from pathlib import Path

from tests.anywhere import roots
from tests.clones import ROOT, Clone


def main() -> None:
    """Build and boot there, compare, print."""
    with tempfile.TemporaryDirectory(prefix="sandkube-elsewhere-") as base:
        root = roots.make(Path(base) / "root", "trixie")
        run = functools.partial(root.run, env=roots.ELSEWHERE, umask=0o077)
        run("git", "clone", "--quiet", roots.repository_in(root), "sandkube")
        began = time.monotonic()
        run("./do", "run-cluster", cwd=f"{roots.HOME}/sandkube")
        print(f"run-cluster in Debian 13, nothing built or fetched before: {time.monotonic() - began:.0f} s")
        run("./do", "stop-cluster", cwd=f"{roots.HOME}/sandkube")
        theirs = Clone(root.home / "sandkube", root.home).outputs()
        roots.compare(Clone(ROOT, Path.home()).outputs(), theirs, ("bundle", "gvisor", "kubectl"))
