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
import shlex
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
_children_lock = threading.RLock()  # the signal handler takes it in a thread that may hold it
_stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
"""Readable once the user asked to stop, for good. No threading.Event: a handler must not take a lock to tell."""
_asked = False
"""The same, for those who ask at every file."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A child that ended: its exit status (negative: killed by that signal) and captured standard output."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes

    @property
    def command(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(self.argv)


class CommandFailed(UserError):
    """A command that ended with a status other than 0."""

    def __init__(self, finished: Finished) -> None:
        how = f"exit status {finished.status}" if finished.status >= 0 else f"signal {-finished.status}"
        super().__init__(f"{Path(finished.argv[0]).name}: {how}")
        self.finished = finished


class TimedOut(CommandFailed):
    """A command that was killed, for it took too long."""

    def __init__(self, finished: Finished, seconds: float) -> None:
        super().__init__(finished)
        self.seconds = seconds
        self.message = f"{Path(finished.argv[0]).name}: no end after {seconds:g} s"


class Interrupted(BaseException):
    """The user asked to stop; running steps were ended. As KeyboardInterrupt, nothing takes it for a failure."""


_PATH = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")


def program_path() -> str:
    """Where programs of the host are looked for: in the usual folders, then in those of the user's PATH.

    NixOS, Guix and Homebrew have git in none of the usual ones.
    """
    named = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys((*_PATH, *(each for each in named if each.startswith("/")))))


def base_environment(home: Path) -> dict[str, str]:
    """The environment of a child on the host side: fixed locale and zone, a home of our choice."""
    return {"PATH": program_path(), "HOME": str(home), "LANG": "C.UTF-8", "TZ": "UTC0"}


def network_environment(home: Path) -> dict[str, str]:
    """`base_environment` with the user's proxy, certificate and mirror settings."""
    taken = {name: os.environ[name] for name in NETWORK_ENVIRONMENT if name in os.environ}
    return base_environment(home) | taken


def mortal(words: Sequence[str]) -> list[str]:
    """The command line of a child that is killed with the thread that starts it."""
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *words]


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


def _output(
    process: subprocess.Popen[bytes], words: tuple[str, ...], stdin: bytes | None, seconds: float | None
) -> bytes | None:
    """What a child writes until it has ended. Raises TimedOut when it goes on, for the caller to kill it."""
    try:
        return process.communicate(stdin, seconds)[0]
    except subprocess.TimeoutExpired:  # which has what was left of the seconds
        raise TimedOut(Finished(words, -signal.SIGKILL, b""), seconds or 0.0) from None


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a child that was not waited for yet, and wait for it; not for others that may have its pipes."""
    if process.returncode is None:
        with process:
            _kill(process.pid)


def stop_children() -> None:
    """Kill every running child with its process group; later `run` calls refuse. For SIGINT and SIGTERM."""
    global _asked  # noqa: PLW0603 - a signal's handler has nothing else to say it by
    _asked = True
    os.eventfd_write(_stop, 1)
    with _children_lock:
        for pid in _children:
            _kill(pid)


def stops_within(seconds: float) -> bool:
    """Wait so long, or until the user asks to stop; whether that was asked."""
    return bool(select.select([_stop], [], [], seconds)[0])


def wait(seconds: float) -> None:
    """Wait before another attempt. Raises Interrupted as soon as the user asks to stop."""
    if stops_within(seconds):
        raise Interrupted


def stopping() -> bool:
    """Whether the user asked to stop."""
    return _asked


def go_on() -> None:
    """Called in work of our own that takes long, where it may be left: raises Interrupted if the user asked to stop."""
    if _asked:
        raise Interrupted


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
    seconds: float | None = None,
) -> Finished:
    """Run a command to its end.

    `log` gets standard error, and standard output unless `capture` is set, which returns it instead.
    When the process behind the pidfd `no_longer_than` ends, or after so many `seconds`, the command is killed.
    Raises `CommandFailed` unless `check` is off, `TimedOut` then too, `Interrupted` when the user stopped the run.
    """
    go_on()
    words = tuple(str(word) for word in argv)
    sink = log if log is not None else subprocess.DEVNULL
    process = subprocess.Popen(
        mortal(words),
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE if capture else sink,
        stderr=sink,
        pass_fds=pass_fds,
        process_group=0,
    )
    try:
        with _registered(process), _killed_with(no_longer_than, process.pid):
            if stopping():
                _kill(process.pid)
            stdout = _output(process, words, stdin, seconds)
    except BaseException:  # KeyboardInterrupt, where a command has the signals that Python starts with
        _end(process)
        raise
    go_on()
    finished = Finished(words, process.returncode, stdout or b"")
    return check_finished(finished) if check else finished


def check_finished(finished: Finished) -> Finished:
    """A command that ended well, as it came. Raises CommandFailed for any other."""
    if finished.status != 0:
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
        raise UserError(f"{argv[0]}: {error.strerror}") from None
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
        raise UserError(f"{words[0]}: {error.strerror}") from None
