"""Tries what sandboxes are made of, each in a child of its own; prints JSON. Run as a script, by path.

    python -I -S attempts.py FOLDER

prints {what: errno, 0 where it went well}. FOLDER is any folder; it is mounted over in a child's own mount namespace.
The build sandbox needs all but tracing; the sandbox of a cluster needs tracing, and the rest unless it is confined.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable

NEW_MOUNTS, NEW_USERS, NEW_PROCESSES, NEW_NETWORK = 0x00020000, 0x10000000, 0x20000000, 0x40000000  # sched.h
NEW_IPC, NEW_NAMES = 0x08000000, 0x04000000
MAKE_PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE of sys/mount.h
PIVOT_ROOT = 155  # asm/unistd_64.h
TRACE_ME, CONTINUE = 0, 7  # PTRACE_TRACEME, PTRACE_CONT of sys/ptrace.h

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "")


def _enter(flags: int) -> None:
    """New namespaces, with a user namespace where the powers for others lack."""
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(flags) == 0:
        return
    _check(_libc.unshare(flags | NEW_USERS))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
            file.write(text)


def _mount(folder: bytes) -> None:
    _enter(NEW_MOUNTS)
    # Ubuntu's AppArmor lets a user namespace be made and takes the powers in it away: this is the first use of one.
    _check(_libc.mount(b"none", b"/", None, MAKE_PRIVATE, None))
    _check(_libc.mount(b"none", folder, b"tmpfs", 0, None))


def _pivot(folder: bytes) -> None:
    _mount(folder)
    os.chdir(folder)
    _check(_libc.syscall(PIVOT_ROOT, b".", b"."))


def _trace() -> None:
    """Trace a child through one stop. Yama and some filters of system calls forbid it."""
    child = os.fork()
    if child == 0:
        if _libc.ptrace(TRACE_ME, 0, None, None) != 0:
            os._exit(ctypes.get_errno())
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    status = os.waitpid(child, os.WUNTRACED)[1]
    if os.WIFSTOPPED(status):
        _check(_libc.ptrace(CONTINUE, child, None, None))
        status = os.waitpid(child, 0)[1]
    if status != 0:
        raise OSError(os.waitstatus_to_exitcode(status), "")


def attempts(folder: bytes) -> dict[str, Callable[[], None]]:
    """What is tried, in the order in which it is needed."""
    return {
        "tracing": _trace,
        "user namespaces": lambda: _check(_libc.unshare(NEW_USERS)),
        "process namespaces": lambda: _enter(NEW_PROCESSES),
        "network namespaces": lambda: _enter(NEW_NETWORK),
        "IPC and host name namespaces": lambda: _enter(NEW_IPC | NEW_NAMES),
        "mounts": lambda: _mount(folder),
        "pivot_root": lambda: _pivot(folder),
    }


def outcome(attempt: Callable[[], None]) -> int:
    """The errno of an attempt, made in a child."""
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    found = {what: outcome(attempt) for what, attempt in attempts(os.fsencode(sys.argv[1])).items()}
    print(json.dumps(found))  # noqa: T201
