"""The one door to other processes.

A child gets an environment that is built, never inherited; it is in a process group of its own and is
killed when this process dies. The kill-on-death is PR_SET_PDEATHSIG (prctl(2)), which is cleared on
fork and set by a launcher between fork and exec: a Python `preexec_fn` may deadlock in a process with threads.
The signal is bound to the *thread* that started the child, so a child never outlives the call that waits for it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from sandkube.errors import UserError

_LAUNCHER = (
    "import ctypes,os,sys\n"
    "ctypes.CDLL(None).prctl(1,9,0,0,0)\n"  # PR_SET_PDEATHSIG = 1, SIGKILL = 9
    "if os.getppid()!=int(sys.argv[1]): sys.exit(137)\n"
    "try: os.execvp(sys.argv[2],sys.argv[2:])\n"
    "except OSError as e: sys.exit(f'{sys.argv[2]}: {e.strerror}')\n"
)

# What a fetch may take from the user's environment: proxies, certificates and mirrors are the
# user's settings, and what they serve is checked against the lock anyway.
NETWORK_ENVIRONMENT = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "NETRC"),
    *("PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"),
    *("GOPROXY", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOSUMDB", "GOINSECURE", "GOAUTH"),
)

_children: set[int] = set()
_children_lock = threading.Lock()
_stopping = threading.Event()


@dataclass(frozen=True, slots=True)
class Finished:
    """A child that ended: its exit status (negative: killed by that signal) and captured standard output."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes


class CommandFailed(UserError):
    """A command that ended with a status other than 0."""

    def __init__(self, finished: Finished) -> None:
        how = f"exit status {finished.status}" if finished.status >= 0 else f"signal {-finished.status}"
        super().__init__(f"{Path(finished.argv[0]).name}: {how}")
        self.finished = finished


class Interrupted(UserError):
    """The user asked to stop; running steps were ended."""

    def __init__(self) -> None:
        super().__init__("interrupted", hint="run the same command again: finished steps are kept")


def base_environment(home: Path) -> dict[str, str]:
    """The environment of a child on the host side: fixed locale, zone and path, a home of our choice."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(home), "LANG": "C.UTF-8", "TZ": "UTC0"}


def network_environment(home: Path) -> dict[str, str]:
    """`base_environment` with the user's proxy, certificate and mirror settings."""
    taken = {name: os.environ[name] for name in NETWORK_ENVIRONMENT if name in os.environ}
    return base_environment(home) | taken


@contextlib.contextmanager
def _registered(process: subprocess.Popen[bytes]) -> Iterator[None]:
    with _children_lock:
        _children.add(process.pid)
    try:
        yield
    finally:
        with _children_lock:
            _children.discard(process.pid)


@contextlib.contextmanager
def _killed_with(other: int | None, pid: int) -> Iterator[None]:
    """While inside, kill a child as soon as the process behind the pidfd `other` ends."""
    if other is None:
        yield
        return
    child = os.pidfd_open(pid)
    done, finish = os.pipe()

    def watch() -> None:
        readable, _, _ = select.select([other, done], [], [])
        if other in readable:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child, signal.SIGKILL)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        os.close(finish)
        watcher.join()
        os.close(done)
        os.close(child)


def stop_children() -> None:
    """Kill every running child with its process group; later `run` calls refuse. For SIGINT and SIGTERM."""
    _stopping.set()
    with _children_lock:
        for pid in _children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def stopping() -> bool:
    """Whether the user asked to stop."""
    return _stopping.is_set()


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: BinaryIO | None = None,
    stdin: bytes | None = None,
    pass_fds: Sequence[int] = (),
    capture: bool = False,
    check: bool = True,
    no_longer_than: int | None = None,
) -> Finished:
    """Run a command to its end.

    `log` gets standard error, and standard output unless `capture` is set, which returns it instead.
    When the process behind the pidfd `no_longer_than` ends, the command is killed.
    Raises `CommandFailed` unless `check` is off, `Interrupted` when the user stopped the run.
    """
    if _stopping.is_set():
        raise Interrupted
    words = tuple(str(word) for word in argv)
    sink = log if log is not None else subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *words],
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else sink,
        stderr=sink,
        pass_fds=pass_fds,
        process_group=0,
    )
    with _registered(process), _killed_with(no_longer_than, process.pid):
        if _stopping.is_set():
            stop_children()
        stdout, _ = process.communicate(stdin)
    if _stopping.is_set():
        raise Interrupted
    finished = Finished(words, process.returncode, stdout or b"")
    if check and finished.status != 0:
        raise CommandFailed(finished)
    return finished


def _copy(source: int, target: int, close: int | None = None) -> None:
    with contextlib.suppress(BrokenPipeError):
        while block := os.read(source, 1 << 16):
            while block:
                block = block[os.write(target, block) :]
    if close is not None:
        os.close(close)


def run_attached(argv: Sequence[str | Path], env: Mapping[str, str]) -> int:
    """Run a program on this process's terminal, pipes or files; its exit status.

    A file is handed over as a pipe: gVisor reads and writes files of the host from their start, wherever we are in it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    through = [stat.S_ISREG(os.fstat(number).st_mode) for number in (0, 1, 2)]
    streams = [subprocess.PIPE if each else None for each in through]
    try:
        process = subprocess.Popen(
            [str(word) for word in argv], env=dict(env), stdin=streams[0], stdout=streams[1], stderr=streams[2]
        )
    except OSError as error:
        raise UserError(f"{argv[0]}: {error.strerror}", hint="./do build makes it") from None
    copies = []
    if process.stdin is not None:
        write_end = os.dup(process.stdin.fileno())
        process.stdin.close()
        threading.Thread(target=_copy, args=(0, write_end, write_end), daemon=True).start()
    for number, stream in ((1, process.stdout), (2, process.stderr)):
        if stream is not None:
            copies.append(threading.Thread(target=_copy, args=(stream.fileno(), number)))
            copies[-1].start()
    while True:
        with contextlib.suppress(KeyboardInterrupt):  # the program has had it too, and decides
            status = process.wait()
            break
    for each in copies:
        each.join()
    return 128 - status if status < 0 else status


def become(argv: Sequence[str | Path], env: Mapping[str, str]) -> NoReturn:
    """Go on as another program: its terminal, signals and exit status are those of this process."""
    words = [str(word) for word in argv]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(words[0], words, dict(env))
    except OSError as error:
        raise UserError(f"{words[0]}: {error.strerror}", hint="./do build makes it") from None
