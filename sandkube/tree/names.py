"""One name of a tree: looked at, read, made, changed, taken away; never through a link."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sandkube.errors import UserError

DEPTH = 200  # folders in each other: more is an attack or a mistake, and costs a descriptor a level
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BAD_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


class Refused(UserError):
    """A name that leaves its root or goes through a link, or something in a tree that may not be there."""


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a relative name, none for the root itself. Raises Refused for a name that leaves its root."""
    if "\0" in name:
        raise Refused(f"{name!r} holds a NUL")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts:
        raise Refused(f"{name!r} leaves its folder")
    if len(parts) > DEPTH:
        raise Refused(f"{name[:80]!r}… is more than {DEPTH} folders deep")
    return parts


def check_name(name: str) -> None:
    """Raises Refused for what is not the name of one file, without a folder."""
    if "/" in name or len(parts_of(name)) != 1:
        raise Refused(f"{name!r} is no name for a file")


def split(name: str) -> tuple[tuple[str, ...], str]:
    parts = parts_of(name)
    if not parts:
        raise Refused(f"{name!r} names no file")
    return parts[:-1], parts[-1]


def kind_of(status: os.stat_result) -> str:
    """What something is, as words for a sentence."""
    known = {stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFLNK: "a symbolic link"}
    return known.get(stat.S_IFMT(status.st_mode), "neither file, folder nor symbolic link")


def lstat(folder: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


@contextlib.contextmanager
def about(root: Path, name: str) -> Iterator[None]:
    """Errors of system calls as sentences about a name; others get the whole path."""
    try:
        yield
    except FileExistsError:
        raise Refused(f"{name!r} is there already") from None
    except UnicodeEncodeError:
        raise Refused(f"{name!r} is no name for a file") from None
    except OSError as error:
        if error.errno in _BAD_NAME:
            raise Refused(f"{name[:80]!r} is no name for a file: {error.strerror}") from None
        if "/" in str(error.filename):  # a whole path already: in a folder that is open, names have one part
            raise
        raise OSError(error.errno, error.strerror, str(root / name)) from None


def enter(folder: int, name: str, shown: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
    raise Refused(f"{shown!r} is {kind_of(lstat(folder, name))}, not a folder")


def make_in(folder: int, name: str) -> None:
    """Make a folder in an open one, mode 0755 whatever the umask; one that is there already is fine."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=folder)
        os.chmod(name, 0o755, dir_fd=folder)


@contextlib.contextmanager
def folder_at(root: Path, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """The open folder at the end of `parts`; with `make`, what is missing on the way is made."""
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for count, part in enumerate(parts, 1):
            if make:
                make_in(at, part)
            below = enter(at, part, "/".join(parts[:count]))
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def status(root: Path, name: str) -> os.stat_result | None:
    """What stands at a name, a link as itself; None for nothing. Raises Refused for a way through a link or a file."""
    parts = parts_of(name)
    if not parts:
        return root.stat()
    try:
        with about(root, name), folder_at(root, parts[:-1]) as folder:
            return lstat(folder, parts[-1])
    except FileNotFoundError:
        return None


def open_file(root: Path, name: str) -> BinaryIO:
    """A regular file, for reading. Raises Refused for anything else."""
    above, last = split(name)
    found = status(root, name)
    if found is None:
        raise Refused(f"there is no file {name!r}")
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{name!r} is {kind_of(found)}, not a file")
    with about(root, name), folder_at(root, above) as folder:
        return os.fdopen(os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb")


def read(root: Path, name: str) -> bytes:
    """The bytes of a regular file."""
    with open_file(root, name) as stream:
        return stream.read()


def create_in(folder: int, name: str, mode: int) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    os.fchmod(descriptor, mode)
    return os.fdopen(descriptor, "wb")


def create(root: Path, name: str, *, executable: bool = False) -> BinaryIO:
    """A new file, for writing, mode 0644 or 0755; folders on the way are made. Raises Refused for what is there."""
    above, last = split(name)
    with about(root, name), folder_at(root, above, make=True) as folder:
        return create_in(folder, last, 0o755 if executable else 0o644)


def write(root: Path, name: str, data: bytes, *, executable: bool = False) -> None:
    """A new file with these bytes."""
    with create(root, name, executable=executable) as stream:
        stream.write(data)


def make_folder(root: Path, name: str) -> None:
    """A folder and those on the way to it; one that is there already is fine."""
    with about(root, name), folder_at(root, parts_of(name), make=True):
        pass


def link(root: Path, name: str, aim: str) -> None:
    """A new symbolic link; its aim is text that nothing here resolves."""
    above, last = split(name)
    if not aim or "\0" in aim:
        raise Refused(f"the link {name!r} cannot point to {aim!r}")
    with about(root, name), folder_at(root, above, make=True) as folder:
        os.symlink(aim, last, dir_fd=folder)


def aim_of(root: Path, name: str) -> str:
    """The text of a symbolic link."""
    above, last = split(name)
    with about(root, name), folder_at(root, above) as folder:
        return os.readlink(last, dir_fd=folder)


def chmod(root: Path, name: str, mode: int) -> None:
    """Set the mode of a file or folder. Raises Refused for a link, whose aim may be anywhere."""
    above, last = split(name)
    with about(root, name), folder_at(root, above) as folder:
        found = lstat(folder, last)
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise Refused(f"{name!r} is {kind_of(found)}: its mode cannot be set")
        os.chmod(last, mode, dir_fd=folder)


def rename(root: Path, name: str, new: str) -> None:
    """Give something another name in its folder. Raises Refused for a name with a `/`, or one that is there already."""
    above, last = split(name)
    check_name(new)
    with about(root, name), folder_at(root, above) as folder:
        with contextlib.suppress(FileNotFoundError):
            lstat(folder, new)
            raise Refused(f"{'/'.join((*above, new))!r} is there already")
        os.rename(last, new, src_dir_fd=folder, dst_dir_fd=folder)


def discard(root: Path, name: str) -> None:
    """Remove a file or link, if there is one. Raises Refused for a folder."""
    found = status(root, name)
    if found is None:
        return
    if stat.S_ISDIR(found.st_mode):
        raise Refused(f"{name!r} is a folder already")
    above, last = split(name)
    with folder_at(root, above) as folder:
        os.unlink(last, dir_fd=folder)
