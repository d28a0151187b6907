"""Container engines and readers of images from Debian, for machines that have none."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.anywhere.yard import say

PROGRAMS = {
    "dockerd": "docker.io",
    "podman": "podman",
    "crun": "crun",
    "newuidmap": "uidmap",
    "fsck.erofs": "erofs-utils",
    "/usr/share/containers/seccomp.json": "golang-github-containers-common",
}
"""What is used, and the package that has it."""
_POLICY = Path("/usr/sbin/policy-rc.d")


@contextmanager
def _without_services() -> Iterator[None]:
    """Packages start no daemon: invoke-rc.d(8) asks this program, and 101 forbids."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _missing(programs: Mapping[str, str]) -> list[str]:
    found = {name for name in programs if shutil.which(name) or Path(name).is_absolute() and Path(name).exists()}
    return [package for name, package in programs.items() if name not in found]


def install(programs: Mapping[str, str] = PROGRAMS) -> None:
    """Install what is missing; where it cannot be, a line says so, and what needs it is made by hand or fails."""
    with Path(tempfile.gettempdir(), "sandkube-packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another lane of tests may install as well
        if missing := _missing(programs):
            _install(missing)


def _install(missing: list[str]) -> None:
    words = " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"not installed here, and only root of a Debian can install it: {words}")
        return
    say(f"apt-get install {words}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _without_services():
        for each in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            done = subprocess.run(["apt-get", "--quiet=2", *each], env=env, check=False)
            if done.returncode != 0:
                say(f"apt-get {each[0]} failed with exit status {done.returncode}")
