"""Why there is no build sandbox here, and what to do: one sentence with its ways out.

Causes are told apart by what was tried and by settings of the kernel, never by what bubblewrap said.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandkube import attempts
from sandkube.errors import RunRefused
from sandkube.run import base_environment, run

_SYSCTLS = (
    "user/max_user_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
)
OTHER_WAYS = (
    "or bring outputs/store and outputs/result of a clone that is built (./do export-node packs a node there); "
    "or add --no-build-sandbox, which builds without one and marks what it makes"
)


@dataclass(frozen=True, slots=True)
class Facts:
    """`refused`: errno of what the kernel refused. `sysctls`: those of `_SYSCTLS` that are there, by path."""

    refused: Mapping[str, int]
    sysctls: Mapping[str, str]
    filtered: bool = False
    """Whether a filter of system calls (seccomp) is on, as in containers."""
    profile: str = ""
    """The AppArmor profile that confines this process."""
    chroot: bool = False
    """Whether the first process has another root folder; Linux gives no user namespace then."""

    def hopeless(self, *, root: bool) -> bool:
        """Whether no form of the build sandbox is possible: only root can do without a user namespace."""
        dispensable = {"user namespaces"} if root else set()
        return bool(self.refused.keys() - dispensable)


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(errors="replace").strip("\n\0 ")
    return ""


def _in_chroot() -> bool:
    with contextlib.suppress(OSError):  # to an ordinary user the first process's root is closed
        return not Path("/").samefile("/proc/1/root")
    return False


def find(folder: Path) -> Facts:
    """Try and read; `folder` is any folder."""
    argv = [sys.executable, "-I", "-S", attempts.__file__, str(folder)]
    done = run(argv, env=base_environment(Path("/")), cwd=Path("/"), capture=True)
    refused = {what: number for what, number in json.loads(done.stdout).items() if number and what != "tracing"}
    sysctls = {name: text for name in _SYSCTLS if (text := _read(f"/proc/sys/{name}"))}
    filtered = any(line.split() == ["Seccomp:", "2"] for line in _read("/proc/self/status").splitlines())
    profile = _read("/proc/self/attr/apparmor/current") or _read("/proc/self/attr/current")
    return Facts(refused, sysctls, filtered, "" if profile == "unconfined" else profile, _in_chroot())


def _setting(facts: Facts) -> tuple[str, str] | None:
    """The setting of the machine that forbids user namespaces, and the command that allows them."""
    limit = facts.sysctls.get("user/max_user_namespaces")
    number = facts.refused.get("user namespaces")
    if number and (limit == "0" or number == errno.ENOSPC):
        why = "user.max_user_namespaces is 0" if limit == "0" else "the limit user.max_user_namespaces is reached"
        return f"this machine allows no more user namespaces: {why}", "sysctl -w user.max_user_namespaces=10000"
    if number and facts.sysctls.get("kernel/unprivileged_userns_clone") == "0":
        return (
            "this machine allows user namespaces to root only: kernel.unprivileged_userns_clone is 0",
            "sysctl -w kernel.unprivileged_userns_clone=1",
        )
    restricted = facts.sysctls.get("kernel/apparmor_restrict_unprivileged_userns", "0") != "0"
    if restricted and facts.refused and not facts.filtered and not facts.profile.startswith("docker"):
        return (
            "this machine's AppArmor takes the powers in user namespaces away: "
            "kernel.apparmor_restrict_unprivileged_userns is 1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    return None


def sentence(facts: Facts, said: str) -> RunRefused:
    """The refusal; `said` is what bubblewrap said last, for a cause that nothing else shows."""
    if found := _setting(facts):
        cause, command = found
        return RunRefused(
            f"no build sandbox can be made: {cause}", hint=f"as root of the machine: {command}; {OTHER_WAYS}"
        )
    if not facts.refused:
        return RunRefused(
            f"no build sandbox can be made: bubblewrap fails here, and nothing that it needs is refused: {said}",
            hint=OTHER_WAYS.removeprefix("or "),
        )
    if facts.chroot:
        return RunRefused(
            "no build sandbox can be made: this is a chroot, and Linux gives no user namespaces in one",
            hint=f"enter it with systemd-nspawn or as the root of a container; {OTHER_WAYS}",
        )
    names = ", ".join(f"{what} ({os.strerror(number)})" for what, number in facts.refused.items())
    profile = " --security-opt apparmor=unconfined" if facts.profile else ""
    return RunRefused(
        f"no build sandbox can be made: this {'container' if facts.filtered else 'place'} refuses {names}",
        hint="give the container --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
        f"{profile} (docker), or start it with podman; {OTHER_WAYS}",
    )
