"""Whole trees: walked, copied, checked, sealed, normalised, removed; never through a link.

Where the user asks to stop, all but a removal is left with Interrupted at the next file."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from sandkube.digest import sha256_bytes
from sandkube.run import go_on
from sandkube.tree.names import (
    DEPTH,
    Refused,
    about,
    aim_of,
    create_in,
    enter,
    folder_at,
    kind_of,
    lstat,
    make_folder,
    make_in,
    parts_of,
    split,
    status,
)

TIME = 1  # seconds after 1970, the time of every file of the store, as in Nix
PIECE = 1 << 20  # bytes that are held in memory while a file is copied
_ROUNDS = 100  # of a removal
_HOPS = 40  # links that Linux follows on one way, path_resolution(7)


def _walk(folder: int, above: str) -> Iterator[tuple[str, os.stat_result]]:
    for name in sorted(os.listdir(folder)):
        go_on()
        shown = above + name
        found = lstat(folder, name)
        yield shown, found
        if stat.S_ISDIR(found.st_mode):
            parts_of(shown)
            below = enter(folder, name, shown)
            try:
                yield from _walk(below, f"{shown}/")
            finally:
                os.close(below)


def walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Name and lstat of all below a root, sorted, a folder before what is in it."""
    with folder_at(root, ()) as folder:
        yield from _walk(folder, "")


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[at:], pattern[1:]) for at in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def glob(root: Path, pattern: str, *, links: bool = False) -> list[str]:
    """Files (and `links`) that a pattern fits, sorted: `*`, `?`, `[…]` in a part, `**` for any number of folders."""
    kinds = (stat.S_IFREG, stat.S_IFLNK) if links else (stat.S_IFREG,)
    wanted = parts_of(pattern)
    return sorted(
        name for name, found in walk(root) if stat.S_IFMT(found.st_mode) in kinds and _fits(name.split("/"), wanted)
    )


def _link_file(source: int, name: str, target: int, to: str) -> bool:
    """A hard link to a file that is in its final form; False for another one, and where there can be none."""
    found = lstat(source, name)
    if found.st_mtime != TIME or stat.S_IMODE(found.st_mode) not in (0o444, 0o555):
        return False
    try:
        os.link(name, to, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:  # another file system, too many links, a file of another user
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP):
            raise
        return False
    return True


def _copy_file(source: int, name: str, target: int, to: str, origin: Path, *, linked: bool) -> None:
    if linked and _link_file(source, name, target, to):
        return
    with about(origin.parent, name):
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    with os.fdopen(descriptor, "rb") as stream:
        executable = os.fstat(stream.fileno()).st_mode & stat.S_IXUSR
        with create_in(target, to, 0o755 if executable else 0o644) as sink:
            shutil.copyfileobj(stream, sink, PIECE)


@dataclass(frozen=True, slots=True)
class _Copying:
    """What holds for all of a copy: from where to where, what is left out, the folder that is filled."""

    origin: Path
    root: Path
    skip: Sequence[str]
    linked: bool
    filled: os.stat_result

    def names(self, folder: int) -> list[str]:
        """What of a folder is copied."""
        return [name for name in sorted(os.listdir(folder)) if not any(fnmatchcase(name, each) for each in self.skip)]


def _copy_folder(source: int, target: int, above: str, copying: _Copying) -> None:
    for name in copying.names(source):
        go_on()
        shown = above + name
        with about(copying.root, shown):
            found = lstat(source, name)
            if stat.S_ISREG(found.st_mode):
                _copy_file(source, name, target, name, copying.origin / shown, linked=copying.linked)
            elif stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        if stat.S_ISDIR(found.st_mode):
            if os.path.samestat(copying.filled, found):
                raise Refused(f"{shown!r} is where the copy goes: a folder cannot be copied into itself")
            _copy_below(source, target, shown, copying)
        elif not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            raise Refused(f"{shown!r} is {kind_of(found)}")


def _copy_below(source: int, target: int, shown: str, copying: _Copying) -> None:
    """Copy the folder that both sides call by the last part of `shown`."""
    name = parts_of(shown)[-1]
    with contextlib.ExitStack() as opened:
        with about(copying.root, shown):
            make_in(target, name)
            below = [enter(side, name, shown) for side in (source, target)]
        for each in below:
            opened.callback(os.close, each)
        _copy_folder(below[0], below[1], f"{shown}/", copying)


def copy(origin: Path, name: str, root: Path, to: str = ".", *, skip: Sequence[str] = (), linked: bool = False) -> None:
    """Copy a file, or all that is in a folder, from one root to another; modes 0644 and 0755 by the owner's right to
    execute, links as they are.

    Folders are merged; anything else that is there already is refused, as is a `name` that is a link. `skip`: patterns
    of names that are left out. `linked`: files of the store become hard links, which nobody may write to.
    """
    found = status(origin, name)
    if found is None:
        raise Refused(f"there is no file {name!r}")
    if stat.S_ISDIR(found.st_mode):
        above = "".join(f"{part}/" for part in parts_of(name))
        make_folder(root, to)
        with folder_at(origin, parts_of(name)) as source, folder_at(root, parts_of(to)) as target:
            _copy_folder(source, target, above, _Copying(origin, root, skip, linked, os.fstat(target)))
        return
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{name!r} is {kind_of(found)}, not a file or folder")
    (way, last), (below, new) = split(name), split(to)
    with folder_at(origin, way) as source, about(root, to), folder_at(root, below, make=True) as target:
        _copy_file(source, last, target, new, origin / name, linked=linked)


def drop_empty_folders(root: Path) -> None:
    """Remove every folder below a root that holds no file, however deep."""
    for name, found in reversed(list(walk(root))):
        if stat.S_ISDIR(found.st_mode):
            above, last = split(name)
            with folder_at(root, above) as folder, contextlib.suppress(OSError):
                os.rmdir(last, dir_fd=folder)


def _leads_out(links: Mapping[tuple[str, ...], str], name: tuple[str, ...]) -> bool:
    """Whether a link leaves its tree, resolved as the kernel does, through the other links."""
    at, todo, hops = list(name[:-1]), [name[-1]], 0
    while todo:
        part = todo.pop()
        if part == "..":
            if not at:
                return True
            at.pop()
            continue
        at.append(part)
        aim = links.get(tuple(at))
        if aim is None:
            continue
        hops += 1
        if aim.startswith("/") or hops > _HOPS:
            return hops <= _HOPS
        at.pop()
        todo += reversed(PurePosixPath(aim).parts)
    return False


def check_links(root: Path) -> None:
    """Raises Refused for a link that leads out of the tree, be it by a chain of others. One may lead nowhere."""
    links = {parts_of(name): aim_of(root, name) for name, found in walk(root) if stat.S_ISLNK(found.st_mode)}
    for name, aim in links.items():
        if _leads_out(links, name):
            raise Refused(f"the link {'/'.join(name)!r} -> {aim!r} leads out of its folder")


def seal_of(tree: Path, *, links: bool = True) -> str:
    """A digest of the tree's names, inode numbers, sizes, modes and times; changes whenever a byte is written.

    Cheap (no file is opened). ctime cannot be set back by an ordinary program, so restoring mtime does not hide
    a write; but a hard link changes it too. `links` off: without it.
    """
    lines: list[str] = []
    pending = [str(tree)]
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                lines.append(
                    f"{entry.path[len(str(tree)) :]}\0{status.st_mode}\0{status.st_size}\0{status.st_ino}\0"
                    f"{status.st_mtime_ns}\0{status.st_ctime_ns if links else 0}"
                )
                if stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
    lines.sort()
    return sha256_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))


def _open_up(folder: int, name: str, shown: str) -> int:
    """Enter a folder of ours whatever its mode, which is 0700 then."""
    try:
        descriptor = enter(folder, name, shown)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=folder)
        descriptor = enter(folder, name, shown)
    os.fchmod(descriptor, 0o700)
    return descriptor


def _normalise(folder: int, above: str) -> None:
    for name in os.listdir(folder):
        go_on()
        shown = above + name
        found = lstat(folder, name)
        if stat.S_ISREG(found.st_mode):
            if found.st_mtime == TIME and stat.S_IMODE(found.st_mode) in (0o444, 0o555):
                continue  # maybe a link to a file of the store, which must stay as it is
            os.chmod(name, 0o555 if found.st_mode & stat.S_IXUSR else 0o444, dir_fd=folder)
        elif stat.S_ISDIR(found.st_mode):
            parts_of(shown)
            below = _open_up(folder, name, shown)
            try:
                _normalise(below, f"{shown}/")
                os.fchmod(below, 0o555)
            finally:
                os.close(below)
        elif not stat.S_ISLNK(found.st_mode):
            raise Refused(f"{shown!r} is {kind_of(found)}: it cannot be part of an output")
        os.utime(name, (TIME, TIME), dir_fd=folder, follow_symlinks=False)


def normalise(tree: Path) -> None:
    """Modes 0444 and 0555, one time for all. Raises Refused for what is neither file, folder nor link."""
    with folder_at(tree, ()) as folder:
        _normalise(folder, "")
        os.fchmod(folder, 0o555)
        os.utime(folder, (TIME, TIME))


def _remove(folder: int, name: str, top: int | None = None, depth: int = 0) -> None:
    """Remove what stands at a name. What lies very deep is lifted to `top`, which is not empty then."""
    try:
        if not stat.S_ISDIR(lstat(folder, name).st_mode):
            os.unlink(name, dir_fd=folder)
            return
        below = _open_up(folder, name, name)
    except FileNotFoundError:
        return
    try:
        if top is not None and depth > DEPTH:
            os.rename(name, f"deep-{os.fstat(below).st_ino}", src_dir_fd=folder, dst_dir_fd=top)
            return
        for each in os.listdir(below):  # noqa: PTH208
            _remove(below, each, below if top is None else top, depth + 1)
    finally:
        os.close(below)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=folder)


def remove_tree(path: Path) -> None:
    """Remove a tree, file or link whatever its modes; absent is fine. Of all modes only those of its folders change."""
    with contextlib.suppress(FileNotFoundError), about(path.parent, path.name), folder_at(path.parent, ()) as parent:
        for left in reversed(range(_ROUNDS)):
            try:
                _remove(parent, path.name)
                break
            except OSError as error:
                if error.errno != errno.ENOTEMPTY or not left:  # it fills again, or was too deep
                    raise
