"""The OCI runtime configuration of the node: what runsc boots, the same bytes for every cluster.

Shape: opencontainers/runtime-spec v1.2, `config.json`. Paths are relative to the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping

from sandkube.digest import Json

NODE = "/usr/bin/sandkube-node"

# capabilities(7), all of Linux 6.1; the node is root of its sandbox and nobody outside of it.
_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
_FILES = 1048576  # the kubelet and containerd keep many files open; the sandbox has no other user


def _mount(place: str, kind: str, *options: str) -> dict[str, Json]:
    return {"destination": place, "type": kind, "source": kind, "options": list(options)}


def spec() -> Mapping[str, Json]:
    """The configuration as JSON values."""
    names: list[Json] = [f"CAP_{name}" for name in _CAPABILITIES]
    namespaces: list[Json] = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]
    mounts: list[Json] = [
        _mount("/proc", "proc"),
        _mount("/dev", "tmpfs"),
        _mount("/sys", "sysfs", "nosuid", "noexec", "nodev"),
        # The kubelet and runc need it; runsc serves version 2 with --in-sandbox-cgroup=v2.
        _mount("/sys/fs/cgroup", "cgroup", "rw", "nosuid", "noexec", "nodev"),
    ]
    return {
        "ociVersion": "1.2.1",
        "hostname": "runsc",
        "root": {"path": "rootfs", "readonly": False},
        "process": {
            "args": [NODE],
            "cwd": "/",
            "env": ["PATH=/usr/bin:/bin:/opt/cni/bin", "HOME=/root", "TZ=UTC0", "LANG=C.UTF-8"],
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": False,
            "capabilities": {kind: names for kind in ("bounding", "effective", "inheritable", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": _FILES, "soft": _FILES}],
        },
        "mounts": mounts,
        "linux": {"namespaces": namespaces},
    }
