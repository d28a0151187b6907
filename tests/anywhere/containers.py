"""How the containers of these tests are confined, and how that is said to docker, podman and an OCI runtime."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PLACE = "/opt/sandkube"
"""The checkout's folder in every container."""
HOME = f"{PLACE}/outputs/home"
"""The home of root and of `USER`, with a warm cache."""
USER, STRANGER = 1000, 1234
"""Users of a container: with an account, and without."""
PROFILE = Path("/usr/share/containers/seccomp.json")
"""podman's packaged seccomp profile."""
DEFAULT_CAPABILITIES = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
"""Docker's."""
PODMAN_CAPABILITIES = tuple(each for each in DEFAULT_CAPABILITIES if each not in ("AUDIT_WRITE", "MKNOD", "NET_RAW"))
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
"""capabilities(7), by number."""


def own_capabilities() -> tuple[str, ...]:
    """What this process may give on."""
    found = re.search(r"^CapBnd:\s+(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    held = int(found.group(1), 16)
    return tuple(name for number, name in enumerate(CAPABILITIES) if held >> number & 1)


@dataclass(frozen=True, slots=True)
class Container:
    """Confinement; what is left out is as the engine has it. `shm` is in bytes, `files` the limit of descriptors.

    `forbidden` are system calls that fail with EPERM. `capabilities` are those of root in it, None: the engine's own.
    """

    user: int = 0
    capabilities: tuple[str, ...] | None = None
    seccomp: bool = True
    masks: bool = True
    privileged: bool = False
    no_new_privileges: bool = False
    read_only: bool = False
    tmpfs: tuple[str, ...] = ()
    shm: int = 64 << 20
    memory: int = 0
    files: int = 0
    forbidden: tuple[str, ...] = ()
    env: tuple[str, ...] = ()


MACHINE = Container(capabilities=own_capabilities(), seccomp=False, masks=False)
"""Not confined: a machine of its own, as root."""


def engine_words(one: Container, checkout: Path) -> list[str]:
    """Options of `docker run` and `podman run`, which are the same."""
    words = ["--rm", "--interactive", "--network=none", f"--volume={checkout}:{PLACE}", f"--workdir={PLACE}"]
    words += [f"--user={one.user}"] if one.user else []
    words += ["--privileged"] if one.privileged else []
    if one.capabilities is not None:
        words += ["--cap-drop=ALL", *(f"--cap-add={each}" for each in one.capabilities)]
    words += [] if one.seccomp else ["--security-opt=seccomp=unconfined"]
    words += [] if one.masks else ["--security-opt=systempaths=unconfined"]
    words += ["--security-opt=no-new-privileges"] if one.no_new_privileges else []
    words += ["--read-only"] if one.read_only else []
    words += [f"--tmpfs={each}" for each in one.tmpfs]
    words += [f"--shm-size={one.shm}"] if one.shm != 64 << 20 else []
    words += [f"--memory={one.memory}"] if one.memory else []
    words += [f"--ulimit=nofile={one.files}:{one.files}"] if one.files else []
    return words + [f"--env={each}" for each in one.env]


# As runc and moby have them.
_MASKED = (
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_OF_NAMESPACES = 0x7E020000  # CLONE_NEW* of sched.h
_OF_MOUNTS = ("mount", "umount2", "pivot_root", "setns", "unshare", "sethostname", "setdomainname")


def _applies(rule: dict[str, Any], held: tuple[str, ...]) -> bool:
    """Whether a rule of a profile is for this architecture and these capabilities."""
    wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
    have = {f"CAP_{each}" for each in held}
    if "arches" in wanted and "amd64" not in wanted["arches"]:
        return False
    return set(wanted.get("caps", ())) <= have and not (set(unwanted.get("caps", ())) & have)


def _rule(action: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": f"SCMP_ACT_{action}", **more}


def _forbidden(manner: Manner, held: tuple[str, ...]) -> tuple[str, ...]:
    """What Docker's profile forbids and podman's does not: pivot_root to all, the rest without CAP_SYS_ADMIN."""
    if manner.namespaces:
        return ()
    return ("pivot_root",) if "SYS_ADMIN" in held else (*_OF_MOUNTS, "clone", "clone3")


def _profile(held: tuple[str, ...], forbidden: tuple[str, ...]) -> dict[str, Any]:
    """podman's profile, for these capabilities, and without some calls."""
    packaged = json.loads(PROFILE.read_text())
    rules = []
    for rule in packaged["syscalls"]:
        names = [each for each in rule["names"] if each not in forbidden]
        if names and _applies(rule, held):
            number = {"errnoRet": rule["errnoRet"]} if rule.get("errnoRet") is not None else {}
            rules.append({"names": names, "action": rule["action"], "args": rule.get("args") or [], **number})
    if "clone" in forbidden:
        flags = {"index": 0, "value": _OF_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
        rules.append(_rule("ALLOW", "clone", args=[flags]))  # as clone3, it fails like a call that is not known
    if others := [each for each in forbidden if each not in ("clone", "clone3")]:
        rules.append(_rule("ERRNO", *others, errnoRet=errno.EPERM))
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": packaged["defaultErrnoRet"], "syscalls": rules}


def _mount(place: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": place, "type": kind, "source": kind, "options": list(options)}


def _mounts(one: Container, checkout: Path) -> list[dict[str, Any]]:
    mounts = [
        _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
        _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", *(["ro"] if one.masks else [])),
    ]
    if one.shm:
        mounts.append(_mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", f"size={one.shm}"))
    for each in one.tmpfs:
        place, _, options = each.partition(":")
        mounts.append(_mount(place, "tmpfs", "nosuid", "nodev", "mode=1777", *filter(None, options.split(","))))
    bound = {"destination": PLACE, "type": "bind", "source": str(checkout), "options": ["rbind", "rw"]}
    return [*mounts, bound]


@dataclass(frozen=True, slots=True)
class Manner:
    """What an engine does when nothing is said: capabilities, whether its profile lets namespaces be made, its users.

    `mappings` are (first number inside, first outside, how many); none: the machine's own users.
    """

    capabilities: tuple[str, ...]
    namespaces: bool
    mappings: tuple[tuple[int, int, int], ...] = ()


DOCKER = Manner(DEFAULT_CAPABILITIES, namespaces=False)
PODMAN = Manner(PODMAN_CAPABILITIES, namespaces=True)


def _linux(one: Container, manner: Manner, held: tuple[str, ...]) -> dict[str, Any]:
    kinds = ["pid", "network", "ipc", "uts", "mount", *(["user"] if manner.mappings else [])]
    linux: dict[str, Any] = {"namespaces": [{"type": each} for each in kinds]}
    if manner.mappings:
        mapped = [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in manner.mappings]
        linux |= {"uidMappings": mapped, "gidMappings": mapped}
    if one.masks:
        linux |= {"maskedPaths": list(_MASKED), "readonlyPaths": list(_READ_ONLY)}
    if one.seccomp:
        linux["seccomp"] = _profile(held, _forbidden(manner, held))
    elif one.forbidden:
        rules = [_rule("ERRNO", *one.forbidden, errnoRet=errno.EPERM)]
        linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    if "seccomp" in linux:
        linux["seccomp"]["architectures"] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    return linux


def oci(one: Container, manner: Manner, root: Path, checkout: Path, words: list[str]) -> dict[str, Any]:
    """The same confinement as a config.json of the OCI runtime specification."""
    held = manner.capabilities if one.capabilities is None else one.capabilities
    env = [f"PATH={PATH}", *one.env]
    if not any(each.startswith("HOME=") for each in one.env):  # as Docker and podman have it
        env.append(f"HOME={HOME if one.user in (0, USER) else '/'}")
    bounding = [f"CAP_{each}" for each in held]
    usable: list[str] = [] if one.user else bounding
    process: dict[str, Any] = {
        "args": words,
        "cwd": PLACE,
        "env": env,
        "user": {"uid": one.user, "gid": 0},
        "noNewPrivileges": one.no_new_privileges,
        "capabilities": {"bounding": bounding, "effective": usable, "permitted": usable},
    }
    if one.files:
        process["rlimits"] = [{"type": "RLIMIT_NOFILE", "hard": one.files, "soft": one.files}]
    return {
        "ociVersion": "1.0.2",
        "hostname": "somewhere",
        "root": {"path": str(root), "readonly": one.read_only},
        "process": process,
        "mounts": _mounts(one, checkout),
        "linux": _linux(one, manner, held),
    }
