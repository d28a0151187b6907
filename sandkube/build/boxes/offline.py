"""Starts a program in a network namespace in which nothing is up, not even loopback. Run as a script, by path.

    python -I -S offline.py PROGRAM ARGUMENT ...

For where bubblewrap cannot make one: gVisor has not the netlink message by which it gives loopback an address.
"""

import ctypes
import os
import sys

NEW_USERS, NEW_NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER, CLONE_NEWNET of sched.h
DEATH_SIGNAL, KILL = 1, 9  # PR_SET_PDEATHSIG, SIGKILL

_libc = ctypes.CDLL(None, use_errno=True)


def main(words: list[str]) -> None:
    """Become the program; root without its powers and ordinary users get a user namespace too."""
    user, group, parent = os.geteuid(), os.getegid(), os.getppid()
    if _libc.unshare(NEW_NETWORK) != 0:
        if _libc.unshare(NEW_USERS | NEW_NETWORK) != 0:
            sys.exit(f"network namespace: {os.strerror(ctypes.get_errno())}")
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
                file.write(text)
    _libc.prctl(DEATH_SIGNAL, KILL, 0, 0, 0)  # a change of credentials cleared it
    if os.getppid() != parent:
        sys.exit(128 + KILL)
    os.execv(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
