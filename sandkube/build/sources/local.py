"""`local:` sources: a folder of this repository, as another clone would have it.

In a git repository these are the files that git tracks and those that it would: neither ignored by a .gitignore of the
repository nor left behind by an editor or an interpreter. What this user alone ignores (core.excludesFile,
.git/info/exclude) is not left out. Where there is no repository, every file counts but for those leftovers.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandkube import nar, tree
from sandkube.build.lock import Pin
from sandkube.build.sources.kind import Ask, Source, SourceKind
from sandkube.errors import UserError
from sandkube.run import CommandFailed, base_environment, go_on, run

_LEFTOVERS = (
    *("__pycache__", "*.pyc", ".pytest_cache", ".mypy_cache", ".ruff_cache"),
    *(".*.sw?", "*~", ".#*", "#*#", ".DS_Store", ".git"),
)
_LEFT_BEHIND = re.compile("|".join(map(fnmatch.translate, _LEFTOVERS))).match
_OURS = ("outputs", ".venv")
"""Folders of the checkout that Sandkube itself makes."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What is met where a copy is written: nothing of the source is to be mended."""
_FRESH = 5.0
"""Seconds that a list of git's serves all recipes; a snapshot asks anew."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What git tracks or would track, by path below the checkout, and the folders that hold it."""

    files: frozenset[str]
    folders: frozenset[str]
    asked: float


_lists: dict[Path, _Known] = {}


def _ask_git(root: Path) -> _Known:
    env = base_environment(Path("/nonexistent")) | {
        "GIT_DIR": str(root / ".git"),
        "GIT_WORK_TREE": str(root),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",
    }
    words = [
        "-c",
        "core.fsmonitor=false",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-per-directory=.gitignore",
    ]
    words += [f"--exclude=/{each}/" for each in _OURS]
    with tempfile.TemporaryFile() as log:
        try:
            said = run(["git", *words], env=env, cwd=root, log=log, capture=True).stdout
        except CommandFailed as failure:
            log.seek(0)
            last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise UserError(f"git does not list the files of {root}: {last or failure.message}") from None
    files = frozenset(os.fsdecode(each).rstrip("/") for each in said.split(b"\0") if each)
    folders = {str(above) for each in files for above in Path(each).parents}
    return _Known(files, frozenset(folders), time.monotonic())


def _known(root: Path, *, anew: bool) -> _Known | None:
    """None where the checkout is no git repository of its own."""
    if not (root / ".git").exists():
        return None
    if anew or root not in _lists or time.monotonic() - _lists[root].asked > _FRESH:
        _lists[root] = _ask_git(root)
    return _lists[root]


def _walk(folder: Path, shown: str, known: _Known | None) -> Iterator[str]:
    """Files and links below a folder that is `shown` in the checkout, as paths there. Raises UserError."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = f"{shown}/{entry.name}".removeprefix("./")
        if _LEFT_BEHIND(entry.name) or path in _OURS:
            continue
        if entry.is_dir(follow_symlinks=False):
            if known is None or path in known.folders:
                yield from _walk(Path(entry.path), path, known)
            elif path in known.files:  # a repository inside of this one
                yield from _walk(Path(entry.path), path, None)
        elif not (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
            raise UserError(f"{path}: neither file, folder nor symbolic link: it cannot be part of a source")
        elif known is None or path in known.files:
            yield path


@dataclass(frozen=True, slots=True)
class Tree:
    """What a `local:` source is at this moment: paths of files and links below its folder, sorted."""

    folder: Path
    paths: tuple[str, ...]

    @classmethod
    def of(cls, root: Path, name: str, *, anew: bool = False) -> Tree:
        """The folder `name` of a checkout; with `anew`, git is asked even if it was just now. Raises UserError."""
        real = root.resolve()
        folder = (real / name).resolve()
        if not folder.is_dir():
            raise UserError(f"no such folder {name}")
        if not folder.is_relative_to(real):
            raise UserError(f"{name} leaves the repository through a symbolic link")
        shown = str(folder.relative_to(real))
        below = "" if shown == "." else f"{shown}/"
        paths = (path.removeprefix(below) for path in _walk(folder, shown, _known(real, anew=anew)))
        return cls(folder, tuple(paths))

    def hash(self) -> str:
        """The NAR hash of its copy. Raises Interrupted."""
        names: dict[str, set[str]] = {str(self.folder): set()}
        for path in self.paths:
            at = str(self.folder)
            for part in path.split("/"):
                names.setdefault(at, set()).add(part)
                at = f"{at}/{part}"
        state = hashlib.sha256()

        def sink(piece: bytes) -> None:
            go_on()
            state.update(piece)

        nar.dump(self.folder, sink, names.__getitem__)
        return state.hexdigest()

    def copy(self, into: Path) -> None:
        """Copy to an empty folder; modes 0644 and 0755 by the executable bit of the owner. Raises Interrupted."""
        for path in self.paths:
            go_on()
            found = tree.status(self.folder, path)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder / path))
            if stat.S_ISLNK(found.st_mode):
                tree.link(into, path, tree.aim_of(self.folder, path))
                continue
            executable = bool(found.st_mode & stat.S_IXUSR)
            with tree.open_file(self.folder, path) as source, tree.create(into, path, executable=executable) as sink:
                while piece := source.read(tree.PIECE):
                    go_on()
                    sink.write(piece)


@contextlib.contextmanager
def _told(ask: Ask) -> Iterator[None]:
    """What cannot be read, as a sentence about the recipe's source. Raises OSError where its copy cannot be written."""
    place = f"recipes/{ask.recipe}.toml: source"
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error.message}", hint=error.hint) from None
    except FileNotFoundError as error:
        raise UserError(f"{place}: {error.filename}: went away while it was read", hint="run it again") from None
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        raise UserError(f"{place}: {error.filename}: {error.strerror}") from None


def _identity(ask: Ask) -> str:
    with _told(ask):
        return Tree.of(ask.root, ask.source.name).hash()


def _snapshot(ask: Ask, into: Path) -> str:
    with _told(ask):
        Tree.of(ask.root, ask.source.name, anew=True).copy(into)
    return nar.nar_hash(into)


def _check(source: Source) -> str:
    parts = source.name.split("/")
    if not source.name.isprintable() or any(part in ("", ".", "..") for part in parts):
        return f"a local source is a folder of this repository, got {source.name!r}"
    return f"{source.name} is in what Sandkube itself makes" if parts[0] in (*_OURS, ".git") else ""


KIND = SourceKind(
    identity=_identity,
    resolve=lambda _: Pin(""),
    fetch=lambda _: None,
    snapshot=_snapshot,
    code=("build/sources/local",),
    pinned=(),
    check=_check,
    versioned=False,
)
