"""Places that refuse a part of what the build sandbox is made of, made by hand in namespaces of a process."""

from __future__ import annotations

import sys

_ROOT = """\
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result != 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def root_of_new(flags):
    user, group = os.geteuid(), os.getegid()
    check(libc.unshare(0x10000000 | flags))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        open(f"/proc/self/{name}", "w").write(text)
"""

_POWERLESS = """\
for each in range(41):
    libc.prctl(24, each, 0, 0, 0)  # PR_CAPBSET_DROP
check(libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)))
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS: exec gives the powers of root back otherwise
"""

DOCKER = f"""{_ROOT}{_POWERLESS}
EPERM, ENOSYS = 0x50001, 0x50026  # SECCOMP_RET_ERRNO of linux/seccomp.h; numbers of calls: asm/unistd_64.h
def op(code, value, yes=0, no=0): return struct.pack("HBBI", code, yes, no, value)
calls = {{272: EPERM, 165: EPERM, 155: EPERM, 308: EPERM, 435: ENOSYS}}  # unshare mount pivot_root setns clone3
text = op(0x20, 0)
for number, answer in calls.items():
    text += op(0x15, number, 0, 1) + op(0x06, answer)
text += op(0x15, 56, 0, 3) + op(0x20, 16) + op(0x45, 0x7E020000, 0, 1) + op(0x06, EPERM)  # clone with CLONE_NEW*
text += op(0x06, 0x7FFF0000)
code = ctypes.create_string_buffer(text, len(text))
check(libc.prctl(22, 2, struct.pack("HxxxxxxQ", len(text) // 8, ctypes.addressof(code)), 0, 0))  # PR_SET_SECCOMP
os.execv(sys.argv[1], sys.argv[1:])
"""
"""As in Docker's defaults, with no capability at all: a filter of system calls refuses every namespace and mount."""

NO_NAMESPACES = f"""{_ROOT}
root_of_new(0)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
{_POWERLESS}
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Without powers, and no user namespace to be had."""

NO_USER_NAMESPACES = f"""{_ROOT}
root_of_new(0)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Root with all its powers where `user.max_user_namespaces` is 0."""

MASKED_PROC = f"""{_ROOT}
root_of_new(0x00020000 | 0x04000000)  # CLONE_NEWNS, CLONE_NEWUTS
check(libc.sethostname(b"elsewhere", 9))
check(libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None))  # MS_REC | MS_PRIVATE
check(libc.mount(b"/dev/null", b"/proc/version", None, 0x1000, None))  # MS_BIND; mount_too_revealing() of Linux
root_of_new(0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""As in podman: parts of /proc are mounted over, so that the kernel refuses a new one; and another host name."""


def words(place: str) -> tuple[str, ...]:
    """What comes before a command's words."""
    return (sys.executable, "-c", place)
