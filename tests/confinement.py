"""Confinements made by hand: what container engines do to the root of a container, one measure at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace

CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
    *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)
"""The capabilities that container engines give: the right to mount, CAP_SYS_ADMIN, is not among them."""

_NUMBERS = {
    **dict(CHOWN=0, DAC_OVERRIDE=1, FOWNER=3, FSETID=4, KILL=5, SETGID=6, SETUID=7, SETPCAP=8, NET_BIND_SERVICE=10),
    **dict(NET_ADMIN=12, NET_RAW=13, SYS_CHROOT=18, SYS_ADMIN=21, MKNOD=27, AUDIT_WRITE=29, SETFCAP=31),
}
_CALLS = {"pivot_root": 155, "mount": 165, "umount2": 166, "sethostname": 170, "unshare": 272, "setns": 308}
"""linux/capability.h; asm/unistd_64.h"""


@dataclass(frozen=True)
class Confinement:
    """What is taken away.

    `users`: root of a user namespace is confined, not the machine's own; `foreign`: its network is not its own.
    """

    capabilities: tuple[str, ...] | None = None
    refused: tuple[str, ...] = ()
    covered: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    users: bool = False
    foreign: bool = False
    no_more_users: bool = False

    def run(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command in mount, network and IPC namespaces that are confined so."""
        return subprocess.run(self.words(*words), capture_output=True, text=True, timeout=timeout, check=False)

    def words(self, *words: str) -> list[str]:
        """The command line of such a run."""
        assert self.users or not self.no_more_users, "the limit would be this machine's"
        plan = asdict(self)
        plan["refused"] = [_CALLS[each] for each in self.refused]
        if self.capabilities is not None:
            plan["capabilities"] = [_NUMBERS[each] for each in self.capabilities]
        return [sys.executable, "-I", "-S", "-c", _PROGRAM, json.dumps(plan), *words]


_MASKS = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
DOCKER = Confinement(
    CAPABILITIES,
    refused=tuple(_CALLS),
    covered=_MASKS,
    read_only=("/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger", "/sys"),
)
"""`docker run`, as root."""
UNFILTERED = replace(DOCKER, refused=())
"""With `--security-opt seccomp=unconfined`."""
OPEN = replace(UNFILTERED, covered=(), read_only=("/sys",))
"""With `systempaths=unconfined` too."""
ADMIN = replace(DOCKER, capabilities=(*CAPABILITIES, "SYS_ADMIN"), refused=("pivot_root",))
"""With `--cap-add SYS_ADMIN`: the filter lets more through then, but for pivot_root."""
PRIVILEGED = Confinement(read_only=("/sys",))
"""With every capability, no filter, no masks."""
ROOTLESS = replace(DOCKER, refused=("sethostname",), users=True)
"""`podman run` of an ordinary user: its filter lets unshare and mount through."""

_PROGRAM = r"""
import ctypes, fcntl, json, os, socket, struct, sys
plan = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def write(path, text):
    with open(path, "w") as file:
        file.write(text)
def mount(source, target, flags):
    check(libc.mount(source and source.encode(), target.encode(), None, flags, None))
NEW_MOUNTS, NEW_IPC, NEW_USERS, NEW_NETWORK = 0x20000, 0x8000000, 0x10000000, 0x40000000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 32, 4096, 16384, 1 << 18
check(libc.unshare(NEW_NETWORK))
write("/proc/sys/net/ipv4/ip_forward", "0")
if plan["users"]:
    check(libc.unshare(NEW_USERS))
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", "0 0 1")
    write("/proc/self/gid_map", "0 0 1")
check(libc.unshare(NEW_MOUNTS | NEW_IPC | (0 if plan["foreign"] else NEW_NETWORK)))
mount(None, "/", RECURSIVE | PRIVATE)
if not plan["foreign"]:
    write("/proc/sys/net/ipv4/ip_forward", "0")
    with socket.socket() as any:
        fcntl.ioctl(any, 0x8914, struct.pack("16sH14x", b"lo", 1 | 64))  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING
if plan["no_more_users"]:
    write("/proc/sys/user/max_user_namespaces", "0")
for path in plan["covered"]:
    if os.path.isdir(path):
        check(libc.mount(b"tmpfs", path.encode(), b"tmpfs", READ_ONLY, None))
    elif os.path.exists(path):
        mount("/dev/null", path, BIND)
for path in plan["read_only"]:
    if path == "/sys":  # and the cgroups below it
        below = [line.split()[4] for line in open("/proc/self/mountinfo")]
        for each in below:
            if each.startswith("/sys/fs/cgroup"):
                mount(None, each, BIND | REMOUNT | READ_ONLY)
    elif os.path.exists(path):
        mount(path, path, BIND | RECURSIVE)
        mount(None, path, BIND | REMOUNT | READ_ONLY)
if plan["refused"]:
    # seccomp(2): load the number; EPERM for each of them, else allow.
    code = [struct.pack("HBBI", 0x20, 0, 0, 0)]
    for number in plan["refused"]:
        code += [struct.pack("HBBI", 0x15, 0, 1, number), struct.pack("HBBI", 0x06, 0, 0, 0x50000 | 1)]
    code = b"".join([*code, struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)])
    text = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(text))
    check(libc.prctl(22, 2, program, 0, 0))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
if plan["capabilities"] is not None:
    for each in range(41):
        if each not in plan["capabilities"]:
            libc.prctl(24, each, 0, 0, 0)  # PR_CAPBSET_DROP
    mask = sum(1 << each for each in plan["capabilities"])
    sets = [mask & 0xFFFFFFFF] * 2 + [0, mask >> 32, mask >> 32, 0]
    check(libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *sets)))
os.execv(sys.argv[2], sys.argv[2:])
"""
