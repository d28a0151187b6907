"""The build sandbox: bubblewrap namespaces that hold the toolchain, the source, the inputs, and nothing else.

Inside: uid and gid 1000, host name `sandkube`, no network, an empty /tmp, private /dev and /proc, fixed paths:

    /sandkube/src      the source, writable, patched
    /sandkube/out      the output being made
    /sandkube/in/NAME  the inputs, read-only
    /sandkube/cache    a compiler's cache, writable

Works for root and for an ordinary user alike, given user namespaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sandkube.derivation import EPOCH
from sandkube.errors import UserError
from sandkube.run import CommandFailed, Finished, base_environment, run

SRC, OUT, IN, CACHE = "/sandkube/src", "/sandkube/out", "/sandkube/in", "/sandkube/cache"

ENVIRONMENT: Mapping[str, str] = {
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC0",
    "SOURCE_DATE_EPOCH": str(EPOCH),
    "PATH": "/nonexistent",
}

_SAYS_NO_NAMESPACE = (
    b"No permissions to create new namespace",
    b"Creating new namespace failed",
    b"setting up uid map",
    b"Failed to make / slave",
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path shown inside at `inside`; read-only unless `writable`."""

    host: Path
    inside: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """How to start build sandboxes: the bubblewrap program."""

    bwrap: Path

    def argv(
        self, command: Sequence[str], mounts: Sequence[Mount], env: Mapping[str, str], cwd: str
    ) -> tuple[str, ...]:
        """The whole bubblewrap command line."""
        words = [str(self.bwrap), "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
        words += ["--uid", "1000", "--gid", "1000", "--hostname", "sandkube", "--cap-drop", "ALL"]
        words += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp"]
        for mount in mounts:
            words += ["--bind" if mount.writable else "--ro-bind", str(mount.host), mount.inside]
        for name, value in sorted((dict(ENVIRONMENT) | dict(env)).items()):
            words += ["--setenv", name, value]
        return (*words, "--chdir", cwd, "--", *command)

    def run(
        self,
        command: Sequence[str],
        *,
        mounts: Sequence[Mount],
        log: BinaryIO,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        capture: bool = False,
        check: bool = True,
    ) -> Finished:
        """Run one command inside. Raises CommandFailed unless `check` is off, UserError without user namespaces."""
        argv = self.argv(command, mounts, env or {}, cwd)
        log.write(("$ " + " ".join(command) + "\n").encode())
        log.flush()
        start = log.tell()
        try:
            return run(argv, env=base_environment(Path("/")), cwd=Path("/"), log=log, capture=capture, check=check)
        except CommandFailed:
            said = Path(log.name).read_bytes()[start:]
            if any(each in said for each in _SAYS_NO_NAMESPACE):
                raise UserError(
                    "the build sandbox needs user namespaces and this machine refuses them: "
                    + said.decode(errors="replace").strip(),
                    hint="as root: sysctl -w kernel.unprivileged_userns_clone=1 (Debian), "
                    "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_user_namespaces=10000 (RHEL)",
                ) from None
            raise
