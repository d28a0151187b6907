"""runsc's command lines, in each kind of sandbox."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube import attempts
from sandkube.cluster import enter, linux
from sandkube.cluster.deadline import TRIAL
from sandkube.errors import UserError
from sandkube.run import base_environment, run

_FLAGS = (
    "--ignore-cgroups",
    "--network=none",
    "--platform=systrap",  # works everywhere; kvm hangs where /dev/kvm is there without virtualisation
    "--net-raw",
)
_OVERLAY = "--overlay2=root:memory"  # `self` would leave a file in the root file system after a kill
_CGROUP = "--in-sandbox-cgroup=v2"
_CONFINED = ("--confined", "--directfs=false")  # patches/gvisor/0006: neither namespaces nor mounts


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of sandbox to boot in: the product that has its runsc, its flags, what it is like."""

    product: str
    flags: tuple[str, ...]
    text: str
    copied: bool = False
    """The node writes into its root file system itself, so each cluster has a copy of it."""
    confined: bool = False
    """Without namespaces: for containers that permit none."""
    native: bool = False
    """No gVisor: this machine's own kernel (`linux.Linux`)."""


KINDS = {
    "modern": Kind("gvisor", (*_FLAGS, _CGROUP, _OVERLAY), "gVisor as it is today"),
    "legacy": Kind("gvisor-legacy", (*_FLAGS, _OVERLAY), "like a hosted sandbox of 2025"),
    "legacy-9p": Kind("gvisor-legacy", (*_FLAGS, "--overlay2=none"), "the same, on a 9p root", copied=True),
    "confined": Kind(
        "gvisor", (*_FLAGS, _CGROUP, _OVERLAY, *_CONFINED), "modern, where no namespaces are to be had", confined=True
    ),
    "confined-legacy": Kind(
        "gvisor-legacy", (*_FLAGS, _OVERLAY, *_CONFINED), "legacy, where no namespaces are to be had", confined=True
    ),
    "linux": Kind("bundle", (), "namespaces and cgroups of this machine's own kernel", native=True),
}
DEFAULT = "modern"
INSTEAD = {"modern": "confined", "legacy": "confined-legacy"}
"""What a kind with namespaces becomes where there are none."""
NO_SANDBOX = "cannot create sandbox"
"""What runsc says where it cannot be used: inside another sandbox, for one."""


def refused() -> str:
    """What this place refuses first of all that a sandbox with namespaces needs, by trying; "" if it gives them.

    Raises UserError where no sandbox can run at all.
    """
    words = [sys.executable, "-I", "-S", attempts.__file__, "/proc/fs"]  # where runsc makes the root of its own
    done = run(words, env=base_environment(Path("/")), cwd=Path("/"), capture=True, seconds=TRIAL)
    found = {what: os.strerror(number) for what, number in json.loads(done.stdout).items() if number}
    if "tracing" in found:
        raise UserError(
            f"no sandbox can run here: processes may not be traced ({found['tracing']})",
            hint="allow it: docker run --cap-add SYS_PTRACE, or a kernel.yama.ptrace_scope of 1 or 0",
        )
    return next((f"{what}: {why}" for what, why in found.items()), "")


def outer_wall(reason: str) -> str:
    """What a confined sandbox means, in words for the user; `reason` is what was refused, if anything was."""
    why = f"no namespaces here ({reason})" if reason else "no namespaces, as you asked"
    within = (
        "Landlock keeps it from this user's files and processes"
        if enter.landlock()
        else "without Landlock here, whoever breaks gVisor has this user's files and processes"
    )
    return f"{why}: the sandbox is confined. What surrounds it is the outer wall, gVisor the inner one; {within}"


def choose(wanted: str) -> tuple[str, str]:
    """The kind of sandbox to boot in, `wanted` or else what this place gives; and a sentence where it is confined.

    Raises UserError where `wanted` cannot be had.
    """
    if wanted and KINDS[wanted].native:
        return wanted, linux.check()
    reason = refused()
    if wanted and KINDS[wanted].confined:
        return wanted, outer_wall(reason)
    if not reason:
        return wanted or DEFAULT, ""
    if not wanted:
        return INSTEAD[DEFAULT], outer_wall(reason)
    without = [INSTEAD[wanted]] if wanted in INSTEAD else [*INSTEAD.values()]
    raise UserError(
        f"--sandbox {wanted} needs namespaces, and this place refuses them ({reason})",
        hint=f"--sandbox {' or '.join(without)} needs none",
    )


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One container of runsc: its program, its state folder, its id.

    The state folder's path may be longer than a socket's: runsc binds and connects through /proc/self/fd then.
    """

    runsc: Path
    root: Path
    container: str
    kind: str = DEFAULT

    def _runsc(self, parent: int, *words: str, reach: Sequence[str] = ()) -> list[str]:
        kind = KINDS[self.kind]
        wall = "confined" if kind.confined else "namespaces"
        launcher = [sys.executable, "-I", "-S", enter.__file__, wall, str(parent), *reach]
        return [*launcher, str(self.runsc), f"--root={self.root}", *kind.flags, *words]

    def _reach(self, bundle: Path) -> list[str]:
        """The files that a confined sandbox needs, with rights to them."""
        spec = json.loads((bundle / "config.json").read_text())
        root = spec["root"]["path"]
        bound = [each["source"] for each in spec.get("mounts", ()) if each["type"] == "bind"]
        paths = {
            "--execute": [self.runsc],
            "--read": [bundle, bundle / root, "/proc", "/sys", "/etc/localtime", "/dev/urandom"],
            "--write": [self.root, "/dev/null", *bound],
        }
        return [word for option, places in paths.items() for each in places for word in (option, str(each))]

    def run(self, bundle: Path, parent: int) -> list[str]:
        """Boot the bundle; ends when the sandbox ends, and with the thread of `parent` that starts it."""
        reach = self._reach(bundle) if KINDS[self.kind].confined else ()
        return self._runsc(parent, "run", f"--bundle={bundle}", self.container, reach=reach)

    def port_forward(self, local: int, remote: int, parent: int) -> list[str]:
        """Forward a port of this machine's loopback (0: a free one) into the sandbox."""
        return self._runsc(parent, "port-forward", self.container, f"{local}:{remote}")

    def end(self, parent: int) -> list[str]:
        """Have the node end in order (native/node/end.go)."""
        return self._runsc(parent, "kill", self.container, "PWR")

    def execute(self, command: Sequence[str]) -> list[str]:
        """Run a command in the sandbox, on this terminal."""
        return self._runsc(0, "exec", self.container, *command)
