"""Starts a program of the sandbox: in namespaces of its own, dying with its parent. Run as a script, by path.

    python -I -S enter.py PARENT PROGRAM ARGUMENT ...

PARENT is the process id to die with, 0 for none. The mount namespace keeps runsc's mounts (it pins a network
namespace with one) away from the machine; they vanish with the last process. An ordinary user, and a root
without its powers, gets a user namespace too, in which it is root: runsc's own `--rootless` cannot restore.
"""

import ctypes
import os
import sys

NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER of sched.h
MAKE_PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE of sys/mount.h
DEATH_SIGNAL, KILL = 1, 9  # PR_SET_PDEATHSIG, SIGKILL
REFUSED = 125
"""Exit status: the machine gives no namespaces. The message on standard error starts with `NO_NAMESPACES`."""
NO_NAMESPACES = "no namespaces for the sandbox: "

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        sys.stderr.write(f"{NO_NAMESPACES}{what}: {os.strerror(ctypes.get_errno())}\n")
        sys.exit(REFUSED)


def _map(name: str, text: str) -> None:
    try:
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
            file.write(text)
    except OSError as error:
        sys.stderr.write(f"{NO_NAMESPACES}{name}: {error.strerror}\n")
        sys.exit(REFUSED)


def enter_namespaces() -> None:
    """Move this process; it must have one thread (unshare(2))."""
    user, group = os.geteuid(), os.getegid()
    if user != 0 or _libc.unshare(NEW_MOUNTS) != 0:
        _check(_libc.unshare(NEW_USERS | NEW_MOUNTS), "user namespace")
        _map("setgroups", "deny")  # user_namespaces(7): needed before gid_map may be written
        _map("uid_map", f"0 {user} 1")
        _map("gid_map", f"0 {group} 1")
    # Ubuntu's AppArmor lets a user namespace be made and takes the powers in it away: this is the first use of one.
    _check(_libc.mount(b"none", b"/", None, MAKE_PRIVATE, None), "private mounts")


def main(arguments: list[str]) -> None:
    """Become the program."""
    parent, words = int(arguments[0]), arguments[1:]
    enter_namespaces()
    if parent:  # after the namespaces: a change of credentials clears it
        _libc.prctl(DEATH_SIGNAL, KILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(128 + KILL)
    try:
        os.execv(words[0], words)
    except OSError as error:
        sys.exit(f"{words[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
