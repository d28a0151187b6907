"""Single files that others may read or make at the same time: replaced whole, linked, locked."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from sandkube.errors import UserError, one_line
from sandkube.run import Interrupted, go_on, stops_within

_AGAIN = 0.2  # seconds
_DAY = 86400.0
_NO_LOCK = (errno.EISDIR, errno.ELOOP, errno.ENXIO)
"""What opening a folder, a link or a socket as a lock file ends with."""
_ASIDE = "move it away, or remove it"


def check_folder(path: Path) -> None:
    """Raises UserError where something stands at a path that is neither a folder nor a link to one."""
    if os.path.lexists(path) and not path.is_dir():
        raise UserError(f"{one_line(path)}: is no folder, where one belongs", hint=_ASIDE)


def make_folder(path: Path) -> None:
    """Make a folder and those on the way to it. Raises UserError where something else stands in the place of one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        for each in (*reversed(path.parents), path):
            check_folder(each)
        raise


def open_regular(path: Path) -> BinaryIO:
    """A regular file, to be read. Anything else is an OSError at once: a FIFO would wait for somebody who writes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_whole(path: Path) -> bytes:
    """The bytes of a regular file, opened by `open_regular`."""
    with open_regular(path) as stream:
        return stream.read()


def write_whole(path: Path, data: bytes | str, *, sync: bool = True, mode: int = 0o644) -> None:
    """Replace a file's bytes by a rename, so that whoever reads it, and a crash, finds the old ones or the new ones."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if sync:
                os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def copy_some(source: BinaryIO, sink: BinaryIO, most: int) -> int:
    """Copy the next bytes of a stream, `most` of them; how many there were."""
    left = most
    while left and (piece := source.read(min(left, 1 << 20))):
        go_on()
        sink.write(piece)
        left -= len(piece)
    return most - left


def copy_whole(path: Path, target: Path) -> None:
    """Replace a file by a copy of another one, by a rename when that is whole."""
    descriptor, temporary = tempfile.mkstemp(prefix="tmp", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as sink, path.open("rb") as source:
            while copy_some(source, sink, 1 << 30):
                pass
            os.fchmod(sink.fileno(), 0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def relink(link: Path, aim: Path) -> None:
    """Make `link` a symbolic link to `aim`, by a relative path; its folder is made, nothing is done if it is so.

    Raises UserError where a folder stands at its place, as copies have them that were made with links followed.
    """
    target = os.path.relpath(aim.parent.resolve() / aim.name, link.parent.resolve())
    with contextlib.suppress(OSError):
        if str(link.readlink()) == target:
            return
    make_folder(link.parent)
    temporary = link.with_name(f".{link.name}.{os.getpid()}.{threading.get_ident()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    try:
        temporary.replace(link)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if not isinstance(error, IsADirectoryError):
            raise
        raise UserError(f"{one_line(link)}: is a folder, where a link belongs", hint=_ASIDE) from None


def _lock_or_stop(descriptor: int, how: int, waits: Callable[[], None]) -> None:
    """A signal ends flock(2) in the main thread only, so a wait that Ctrl-C is to end has to try again and again."""
    with contextlib.suppress(BlockingIOError):
        return fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    waits()
    while not stops_within(_AGAIN):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    raise Interrupted


def _open_lock(path: Path, *, passing: bool) -> int:
    is_folder = path.is_dir() and not passing
    flags = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_LOCK:
            raise
    raise UserError(f"{one_line(path)}: is no regular file, where a lock belongs", hint=_ASIDE)


def _open_locked(path: Path, how: int, waits: Callable[[], None] | None, *, passing: bool) -> int:
    descriptor = _open_lock(path, passing=passing)
    try:
        if waits is None:
            fcntl.flock(descriptor, how)
        else:
            _lock_or_stop(descriptor, how, waits)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _stands_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


@contextlib.contextmanager
def locked(
    path: Path, how: int = fcntl.LOCK_EX, waits: Callable[[], None] | None = None, *, passing: bool = False
) -> Iterator[int]:
    """Hold the flock(2) of a file, which is made, or of a folder; gives its descriptor. Ends with the process.

    `waits` is called where another process has it; the wait then ends with Interrupted when the user asks to stop.
    With `passing` the file goes when the lock does: whoever waited for it then makes it anew. All that lock such a file
    must say so. Raises UserError for what is neither a file nor a folder, and with `passing` for a folder.
    """
    descriptor = _open_locked(path, how, waits, passing=passing)
    while passing and not _stands_at(descriptor, path):
        os.close(descriptor)
        descriptor = _open_locked(path, how, waits, passing=passing)
    try:
        yield descriptor
    finally:
        if passing:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def sweep_locks(folder: Path, pattern: str = "*") -> None:
    """Remove passing lock files that nobody holds: those of processes that were killed."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError, UserError), locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB, passing=True):
            pass


def sweep_old(folder: Path, pattern: str) -> None:
    """Remove files that nobody has written to for a day: what a killed process had not yet renamed into place."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _DAY:
                path.unlink()
