"""Goes on as a program in another root file system, in a mount namespace that ends with it. Run as a script, by root.

    python -I -S enter_root.py ROOT USER FOLDER [SOURCE=TARGET ...] -- PROGRAM ARGUMENT ...

USER is a number, FOLDER is where to be in the new root; SOURCE=TARGET binds more of the machine into it, read-only if
TARGET ends in `:ro`. A chroot would not do: in one, the kernel refuses user namespaces, which the build sandbox needs.
"""

import ctypes
import os
import signal
import sys

NEW_MOUNTS, BIND, PRIVATE = (
    0x00020000,
    0x1000 | 0x4000,
    0x4000 | 0x40000,
)  # CLONE_NEWNS; MS_BIND | MS_REC; MS_REC | MS_PRIVATE
READ_ONLY = 0x1 | 0x20 | 0x1000  # MS_RDONLY | MS_REMOUNT | MS_BIND
DETACH, PIVOT_ROOT, DEATH_SIGNAL = 2, 155, 1  # MNT_DETACH; pivot_root(2) on x86-64; PR_SET_PDEATHSIG
FOLDERS = ("/proc", "/sys", "/dev")

_libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Give up with the reason when a call failed."""
    if result != 0:
        sys.exit(f"enter_root: {what}: {os.strerror(ctypes.get_errno())}")


def bind(source: str, target: str) -> None:
    """Mount a folder or file of the machine at a place of the new root, made if it is missing."""
    read_only = target.endswith(":ro")
    target = target.removesuffix(":ro")
    if os.path.isdir(source):  # noqa: PTH112
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
    elif not os.path.exists(target):  # noqa: PTH110
        os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
        os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o644))
    check(_libc.mount(source.encode(), target.encode(), None, BIND, None), f"{source} at {target}")
    if read_only:
        check(_libc.mount(b"none", target.encode(), None, READ_ONLY, None), f"{target} read-only")


def main(arguments: list[str]) -> None:
    """Become the program."""
    at = arguments.index("--")
    root, user, folder, *binds = arguments[:at]
    words, parent, mask = arguments[at + 1 :], os.getppid(), os.umask(0o022)
    check(_libc.unshare(NEW_MOUNTS), "a mount namespace")
    check(_libc.mount(b"none", b"/", None, PRIVATE, None), "private mounts")
    bind(root, root)
    for each in FOLDERS:
        bind(each, root + each)
    for each in binds:
        source, _, target = each.partition("=")
        bind(source, root + target)
    os.chdir(root)
    check(_libc.syscall(PIVOT_ROOT, b".", b"."), "pivot_root")
    check(_libc.umount2(b".", DETACH), "leaving the old root")
    os.umask(mask)
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
    _libc.prctl(DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGKILL)
    os.chdir(folder)
    os.execv("/usr/bin/env", ["env", "--", *words])  # looks along PATH; Python's own way imports, from the old root


if __name__ == "__main__":
    main(sys.argv[1:])
