"""Starts a program of the sandbox behind a wall, dying with its parent. Run as a script, by path.

    python -I -S enter.py namespaces PARENT PROGRAM ARGUMENT ...
    python -I -S enter.py confined PARENT [--execute PATH | --read PATH | --write PATH] ... PROGRAM ARGUMENT ...

PARENT is the process id to die with, 0 for none.

`namespaces`: the mount namespace keeps runsc's mounts (it pins a network namespace with one) away from the machine;
they vanish with the last process. An ordinary user, and a root without its powers, gets a user namespace too, in
which it is root: runsc's own `--rootless` cannot restore.

`confined`: where no namespaces are to be had. The program can gain no privilege; given paths, it and all that comes
of it reach these files only, no other process of this user, and no TCP port, as far as this kernel has Landlock.
"""

import ctypes
import os
import struct
import sys

NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER of sched.h
MAKE_PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE of sys/mount.h
DEATH_SIGNAL, NO_NEW_PRIVILEGES, KILL = 1, 38, 9  # PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, SIGKILL
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls of x86-64
REFUSED = 125
"""Exit status: the machine gives no namespaces. The message on standard error starts with `NO_NAMESPACES`."""
NO_NAMESPACES = "no namespaces for the sandbox: "

# Rights of files by the Landlock version that brought them, linux/landlock.h: 13 of version 1, then LINK or RENAME
# into another folder, TRUNCATE, and IOCTL_DEV.
FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
EXECUTE, READ = 1 << 0, 1 << 2 | 1 << 3  # ACCESS_FS_EXECUTE, ACCESS_FS_READ_FILE | ACCESS_FS_READ_DIR
OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # rights that a rule for a file, not a folder, may have
TCP, SCOPES = 0b11, 0b11  # bind and connect, version 4; abstract sockets and signals, version 6

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


def landlock() -> int:
    """The version of Landlock that this process may use; 0 for none: not in this kernel, off, or forbidden."""
    version: int = _libc.syscall(CREATE_RULESET, None, 0, 1)
    return max(version, 0)


def _permit(ruleset: int, path: str, rights: int) -> None:
    """Add a path to what may be reached; one that is not there is nothing to reach."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):  # noqa: PTH112
        rights &= OF_FILES
    if _libc.syscall(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, place), 0) != 0:
        sys.exit(f"landlock: {path}: {os.strerror(ctypes.get_errno())}")
    os.close(place)


def confine(permitted: list[tuple[str, int]]) -> None:
    """Keep this process and its descendants from all files but those permitted, with these rights, and from others'
    processes: Landlock forbids to trace, and to signal, who is not confined likewise.
    """
    version = landlock()
    if version == 0:
        return
    known = sum(rights for since, rights in FILE_RIGHTS.items() if since <= version)
    attributes = struct.pack("=QQQ", known, TCP, SCOPES)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _libc.syscall(CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        sys.exit(f"landlock: {os.strerror(ctypes.get_errno())}")
    for path, rights in permitted:
        _permit(ruleset, path, rights & known)
    if _libc.syscall(RESTRICT_SELF, ruleset, 0) != 0:
        sys.exit(f"landlock: {os.strerror(ctypes.get_errno())}")
    os.close(ruleset)


def main(arguments: list[str]) -> None:
    """Become the program."""
    wall, parent, words = arguments[0], int(arguments[1]), arguments[2:]
    if wall == "namespaces":
        enter_namespaces()
    else:
        rights = {"--execute": EXECUTE | READ, "--read": READ, "--write": sum(FILE_RIGHTS.values())}
        permitted = []
        while words[0] in rights:
            permitted.append((words[1], rights[words[0]]))
            words = words[2:]
        _libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        if permitted:
            confine(permitted)
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
