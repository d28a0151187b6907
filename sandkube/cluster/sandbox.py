"""runsc's command lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FLAGS = (
    "--ignore-cgroups",
    "--network=none",
    "--platform=systrap",  # works everywhere; kvm hangs where /dev/kvm is there without virtualisation
    "--net-raw",
    "--in-sandbox-cgroup=v2",
    "--overlay2=root:memory",  # `self` would leave a file in the root file system after a kill
)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One container of runsc: its program, its state folder, its id; `rootless` for an ordinary user."""

    runsc: Path
    root: Path
    container: str
    rootless: bool

    def _runsc(self, *words: str) -> list[str]:
        rootless = ["--rootless"] if self.rootless else []
        return [str(self.runsc), f"--root={self.root}", *_FLAGS, *rootless, *words]

    def run(self, bundle: Path) -> list[str]:
        """Boot the bundle; ends when the sandbox ends."""
        return self._runsc("run", f"--bundle={bundle}", self.container)

    def port_forward(self, local: int, remote: int) -> list[str]:
        """Forward a port of this machine's loopback (0: a free one) into the sandbox."""
        return self._runsc("port-forward", self.container, f"{local}:{remote}")

    def execute(self, command: Sequence[str]) -> list[str]:
        """Run a command in the sandbox, on this terminal."""
        return self._runsc("exec", self.container, *command)

    def delete(self) -> list[str]:
        """Forget the container, killing what is left of it."""
        return self._runsc("delete", "--force", self.container)
