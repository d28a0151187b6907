"""runsc's command lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube.cluster import enter

_FLAGS = (
    "--ignore-cgroups",
    "--network=none",
    "--platform=systrap",  # works everywhere; kvm hangs where /dev/kvm is there without virtualisation
    "--net-raw",
)
_OVERLAY = "--overlay2=root:memory"  # `self` would leave a file in the root file system after a kill


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of sandbox to boot in: the product that has its runsc, its flags, what it is like."""

    product: str
    flags: tuple[str, ...]
    text: str
    copied: bool = False
    """The node writes into its root file system itself, so each cluster has a copy of it."""


KINDS = {
    "modern": Kind("gvisor", (*_FLAGS, "--in-sandbox-cgroup=v2", _OVERLAY), "gVisor as it is today"),
    "legacy": Kind("gvisor-legacy", (*_FLAGS, _OVERLAY), "like a hosted sandbox of 2025"),
    "legacy-9p": Kind("gvisor-legacy", (*_FLAGS, "--overlay2=none"), "the same, on a 9p root", copied=True),
}
DEFAULT = "modern"
NO_SANDBOX = "cannot create sandbox"
"""What runsc says where it cannot be used: inside another sandbox, for one."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One container of runsc: its program, its state folder, its id.

    The state folder's path may be longer than a socket's: runsc binds and connects through /proc/self/fd then.
    """

    runsc: Path
    root: Path
    container: str
    kind: str = DEFAULT

    def _runsc(self, parent: int, *words: str) -> list[str]:
        launcher = [sys.executable, "-I", "-S", enter.__file__, str(parent)]
        return [*launcher, str(self.runsc), f"--root={self.root}", *KINDS[self.kind].flags, *words]

    def run(self, bundle: Path, parent: int) -> list[str]:
        """Boot the bundle; ends when the sandbox ends, and with the thread of `parent` that starts it."""
        return self._runsc(parent, "run", f"--bundle={bundle}", self.container)

    def port_forward(self, local: int, remote: int, parent: int) -> list[str]:
        """Forward a port of this machine's loopback (0: a free one) into the sandbox."""
        return self._runsc(parent, "port-forward", self.container, f"{local}:{remote}")

    def execute(self, command: Sequence[str]) -> list[str]:
        """Run a command in the sandbox, on this terminal."""
        return self._runsc(0, "exec", self.container, *command)
