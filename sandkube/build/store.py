"""The store: read-only trees by output hash, and records key -> output hash.

    outputs/store/
      trees/<output hash>/          an output, modes 0444 and 0555, times fixed; the name is the SHA-256 of its NAR
      records/<key>.json            {"preimage", "output", "name", "sum"}, "unboxed" and "adopted" if so; guarded by
                                    locks/<key>
      signed/<key>.json             what others signed of an adopted record, as caches keep it; may be lost
      seals/<output hash>.json      digest of the tree's inode numbers, sizes and times when its bytes were last hashed
      last/<recipe name>            the key that this recipe had last, to tell why a step runs
      staging/<random>/             trees being made; what a dead process left here is removed by the next one
      locks/<key>, <output hash>    flock(2): one builder a key; one that places or removes an output

Looking changes nothing: only what builds seals a tree that it hashed, and takes out what is damaged, under the lock of
its output, so that nobody takes out what another one has just made again. A crash at any point leaves at most a staging
folder: a tree is renamed into place when it is whole and synced, a record is written (to a temporary name, synced,
renamed) after its tree is there.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sandkube.build.derivation import key_of
from sandkube.decode import decoded
from sandkube.digest import Json, canonical_json, sha256_bytes
from sandkube.documents import parse_json
from sandkube.errors import Problems, UserError, refused
from sandkube.files import locked, make_folder, read_whole, sweep_locks, sweep_old, write_whole
from sandkube.nar import nar_hash
from sandkube.shapes import Sha256
from sandkube.tree import TIME, normalise, remove_tree, seal_of


@dataclass(frozen=True, slots=True)
class Record:
    """What a key produced."""

    key: str
    output: str
    name: str
    preimage: Mapping[str, Json]
    unboxed: bool = False
    """Made without the build sandbox, so nothing kept the step from reading what its key does not hold."""
    adopted: bool = False
    """Believed, and not made here: it is handed on with the signatures that it came with, never with one of ours."""

    @property
    def shareable(self) -> bool:
        """Whether others may be given this record: what it says holds for everybody."""
        return not self.unboxed


@dataclass(frozen=True, slots=True)
class _Written:
    """A record as it stands in its file."""

    preimage: Mapping[str, Any]
    output: Sha256
    name: str
    sum: Sha256
    unboxed: bool = False
    adopted: bool = False


def _remove_unlocked(folder: Path) -> None:
    """Remove a staging folder unless a living process holds its lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(folder)
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes | str) -> None:
    """Write a file of the store; a folder in its place, which a rename does not replace, goes."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    write_whole(path, data)


def _move_aside(tree: Path, to: Path) -> None:
    """Move what stands in a tree's place, whatever it is. Renaming a folder writes its ".." entry."""
    if not tree.is_symlink():
        tree.chmod(0o755)
    tree.rename(to)


class DamagedRecord(UserError):
    """A record that is not what was stored."""


class Condition(enum.Enum):
    """What an output is found to be."""

    SOUND = "sound"
    ABSENT = "absent"
    DAMAGED = "damaged"


def _sync_tree(tree: Path) -> None:
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _libc_syncfs(descriptor)
    finally:
        os.close(descriptor)


def _libc_syncfs(descriptor: int) -> None:
    """syncfs(2) by ctypes: one call instead of an fsync a file."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
        raise OSError(ctypes.get_errno(), "syncfs")


class Store:
    """One store folder; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._vouched: set[str] = set()
        """Outputs whose seal was right when they were last looked at."""

    def prepare(self) -> None:
        """Make its folders: before the first write."""
        for name in ("trees", "records", "signed", "seals", "last", "staging", "locks"):
            make_folder(self.root / name)

    def tree(self, output: str) -> Path:
        """Where an output stands, whether or not it is there."""
        return self.root / "trees" / output

    @contextlib.contextmanager
    def lock(self, key: str, waits: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock of a key or an output, as `locked`; waits for another process that has it."""
        with locked(self.root / "locks" / key, waits=waits, passing=True):
            yield

    def record(self, key: str) -> Record | None:
        """The record of a key. Raises DamagedRecord when the file is not what was written."""
        path = self.root / "records" / f"{key}.json"
        try:
            data = read_whole(path)
        except OSError as error:
            if refused(error) is not None:
                raise
            if isinstance(error, FileNotFoundError | NotADirectoryError) and not path.is_symlink():
                return None
            data = b""
        with contextlib.suppress(ValueError, Problems):
            value = parse_json(data)
            one = decoded(_Written, value, path.name)
            del value["sum"]
            if one.sum == sha256_bytes(canonical_json(value)) and key_of(one.preimage) == key:
                return Record(key, one.output, one.name, one.preimage, one.unboxed, one.adopted)
        raise DamagedRecord(f"store: record {path.name} is damaged")

    def forget(self, key: str) -> None:
        """Drop a record, or whatever stands in its place; its step runs again."""
        remove_tree(self.root / "records" / f"{key}.json")
        remove_tree(self._signed(key))

    def _signed(self, key: str) -> Path:
        return self.root / "signed" / f"{key}.json"

    def signed(self, key: str) -> bytes | None:
        """What others signed of an adopted record, as it was kept; nothing of it is checked here."""
        try:
            return read_whole(self._signed(key))
        except OSError:
            return None

    def _seal(self, output: str) -> Path:
        return self.root / "seals" / f"{output}.json"

    def _sealed(self, output: str, now: str) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(parse_json(read_whole(self._seal(output))) == now)
        return False

    def _look(self, output: str) -> tuple[Condition, str]:
        """An output's condition, and the seal that it would get; hashes only where the seal does not match."""
        tree = self.tree(output)
        try:
            now = seal_of(tree)
            if self._sealed(output, now):
                self._vouched.add(output)
                return Condition.SOUND, now
            self._vouched.discard(output)
            if nar_hash(tree) == output:
                return Condition.SOUND, now
        except (UserError, RecursionError):  # something in it that no output has, as folders without an end
            pass
        except OSError as error:  # never there, no folder, or another process takes it out
            if refused(error) is not None:
                raise
        return (Condition.DAMAGED if os.path.lexists(tree) else Condition.ABSENT), ""

    def inspect(self, output: str) -> Condition:
        """What an output is, without changing anything."""
        return self._look(output)[0]

    def vouch(self, output: str) -> None:
        """Seal a sound output, so that its bytes need not be hashed again; one whose seal was right needs nothing."""
        if output in self._vouched:
            return
        condition, now = self._look(output)
        if condition is Condition.SOUND and output not in self._vouched:
            _replace(self._seal(output), json.dumps(now))

    @contextlib.contextmanager
    def lend(self, outputs: Iterable[str]) -> Iterator[None]:
        """While inside, files of sound outputs may get hard links; their seals, which hold times of links, follow."""
        with contextlib.ExitStack() as stack:
            shapes = {}
            for output in sorted(set(outputs)):
                stack.enter_context(self.lock(output))
                if self.inspect(output) is Condition.SOUND:
                    shapes[output] = seal_of(self.tree(output), links=False)
            yield
            for output, shape in shapes.items():
                if seal_of(self.tree(output), links=False) == shape:
                    _replace(self._seal(output), json.dumps(seal_of(self.tree(output))))

    def quarantine(self, output: str) -> bool:
        """Take an output out of the store if it is damaged still; whether it was."""
        with self.lock(output):
            if self.inspect(output) is not Condition.DAMAGED:
                return False
            with self.staging() as folder:
                _move_aside(self.tree(output), folder / "damaged")
            return True

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder for one step's work and output, removed afterwards; locked, so that leftovers can be told."""
        with locked(self.root / "staging", fcntl.LOCK_SH):  # a sweep must not see the folder before its lock
            folder = Path(tempfile.mkdtemp(dir=self.root / "staging"))
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            remove_tree(folder)
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove what processes that died left: staging folders, locks, files that were not yet renamed into place."""
        sweep_locks(self.root / "locks")
        for name in ("records", "signed", "seals", "last"):
            sweep_old(self.root / name, ".*")
        with locked(self.root / "staging"):
            for folder in (self.root / "staging").iterdir():
                with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
                    _remove_unlocked(folder)

    def adopt(self, record: Record, signed: bytes | None) -> Record:
        """Keep a record that somebody else made, whether or not its tree is here, and what they signed of it, None for
        what nobody is to be handed on; the record as it is kept.
        """
        if signed is None:
            remove_tree(self._signed(record.key))
        else:
            _replace(self._signed(record.key), signed)
        adopted = replace(record, adopted=True)
        self._write_record(adopted)
        return adopted

    def take(self, record: Record, made: Path) -> None:
        """Take in the tree of a record, made in its final form, the hash of its bytes being the record's output."""
        self._place(made, record.output)

    def _write_record(self, record: Record) -> None:
        value: dict[str, Any] = {"preimage": record.preimage, "output": record.output, "name": record.name}
        if record.unboxed:
            value["unboxed"] = True
        if record.adopted:
            value["adopted"] = True
        value["sum"] = sha256_bytes(canonical_json(value))
        _replace(self.root / "records" / f"{record.key}.json", canonical_json(value))

    def commit(self, name: str, key: str, preimage: Mapping[str, Json], made: Path, *, unboxed: bool = False) -> Record:
        """Take a finished tree into the store: normalise, hash, sync, rename, then record. Losing a race is success."""
        normalise(made)
        output = nar_hash(made)
        self._place(made, output)
        record = Record(key, output, name, preimage, unboxed)
        self._write_record(record)
        remove_tree(self._signed(key))
        self.remember(name, key)
        return record

    def _place(self, made: Path, output: str) -> None:
        """Rename a synced tree to its place, or find that a sound one is there already."""
        tree = self.tree(output)
        made.chmod(0o755)  # renaming a folder writes its ".." entry: it must be writable for an ordinary user
        _sync_tree(made)
        with self.lock(output):
            condition = self.inspect(output)
            if condition is Condition.DAMAGED:
                _move_aside(tree, made.with_name("damaged"))
            if condition is not Condition.SOUND:
                self._move(made, tree)
                tree.chmod(0o555)
                os.utime(tree, (TIME, TIME))
            _replace(self._seal(output), json.dumps(seal_of(tree)))

    def _move(self, made: Path, tree: Path) -> None:
        try:
            made.rename(tree)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise UserError(
                f"store: {tree.parent} and {self.root / 'staging'} are on two file systems",
                hint=f"a store is moved as a whole: make {self.root} itself a link or a mount",
            ) from None

    def remember(self, name: str, key: str) -> None:
        """Note the key that a recipe has now."""
        path = self.root / "last" / name
        with contextlib.suppress(OSError):
            if read_whole(path) == key.encode():
                return
        _replace(path, key)

    def previous(self, name: str) -> Record | None:
        """The record that this recipe had last, if it is still there and sound."""
        try:
            return self.record(read_whole(self.root / "last" / name).decode())
        except (OSError, ValueError, DamagedRecord):
            return None
