"""The store: read-only trees by output hash, and records key -> output hash.

    outputs/store/
      trees/<output hash>/          an output, modes 0444 and 0555, times fixed; the name is the SHA-256 of its NAR
      records/<key>.json            {"preimage", "output", "name", "sum"}; guarded by locks/<key>
      seals/<output hash>.json      digest of the tree's inode numbers, sizes and times when its bytes were last hashed
      last/<recipe name>            the key that this recipe had last, to tell why a step runs
      staging/<random>/             trees being made; what a dead process left here is removed by the next one
      locks/<key>                   flock(2): one builder a key

A crash at any point leaves at most a staging folder: a tree is renamed into place when it is whole and synced, a
record is written (to a temporary name, synced, renamed) after its tree is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandkube.derivation import key_of
from sandkube.digest import Json, canonical_json, sha256_bytes
from sandkube.errors import UserError
from sandkube.nar import nar_hash

_TIME = 1  # seconds after 1970, the time of every file of the store, as in Nix


@dataclass(frozen=True, slots=True)
class Record:
    """What a key produced."""

    key: str
    output: str
    name: str
    preimage: Mapping[str, Json]


def _remove_unlocked(folder: Path) -> None:
    """Remove a staging folder unless a living process holds its lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(folder)
    finally:
        os.close(descriptor)


class Damaged(UserError):
    """A record or an output that is not what was stored."""


def seal_of(tree: Path) -> str:
    """A digest of the tree's names, inode numbers, sizes, modes and times; changes whenever a byte is written.

    Cheap (no file is opened). ctime cannot be set back by an ordinary program, so restoring mtime does not hide
    a write.
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
                    f"{status.st_mtime_ns}\0{status.st_ctime_ns}"
                )
                if stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
    lines.sort()
    return sha256_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))


def normalise(tree: Path) -> None:
    """Modes 0444 and 0555, one time for all, nothing but files, folders and links."""
    for folder, folders, files in os.walk(tree, topdown=False):
        for name in files + folders:
            path = os.path.join(folder, name)  # noqa: PTH118
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                os.chmod(path, 0o555 if status.st_mode & stat.S_IXUSR else 0o444)  # noqa: PTH101
            elif stat.S_ISDIR(status.st_mode):
                os.chmod(path, 0o555)  # noqa: PTH101
            os.utime(path, (_TIME, _TIME), follow_symlinks=False)
    tree.chmod(0o555)
    os.utime(tree, (_TIME, _TIME))


def remove_tree(path: Path) -> None:
    """Remove a tree whatever its modes; absent is fine."""

    def make_writable(function: Any, name: str, error: Any) -> None:
        if isinstance(error[1], FileNotFoundError):
            return
        with contextlib.suppress(OSError):
            Path(name).parent.chmod(0o700)
            Path(name).chmod(0o700)
        function(name)

    for _ in range(2):
        for folder, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                os.chmod(folder, 0o700)  # noqa: PTH101
        if not os.path.lexists(path):
            return
        shutil.rmtree(path, onerror=make_writable)


def _write_synced(path: Path, data: bytes) -> None:
    """Write by rename, synced before and after, so that a crash leaves the old file or the new one."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
        for name in ("trees", "records", "seals", "last", "staging", "locks"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def tree(self, output: str) -> Path:
        """Where an output stands, whether or not it is there."""
        return self.root / "trees" / output

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the lock of a key; waits for another process that builds the same. Ends with the process."""
        descriptor = os.open(self.root / "locks" / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def record(self, key: str) -> Record | None:
        """The record of a key. Raises `Damaged` when the file is not what was written."""
        path = self.root / "records" / f"{key}.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            value = json.loads(data)
            claimed = value.pop("sum")
            sound = claimed == sha256_bytes(canonical_json(value)) and key_of(value["preimage"]) == key
            if sound:
                return Record(key, value["output"], value["name"], value["preimage"])
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise Damaged(f"store: record {path.name} is damaged")

    def forget(self, key: str) -> None:
        """Drop a record; its step runs again."""
        (self.root / "records" / f"{key}.json").unlink(missing_ok=True)

    def intact(self, output: str) -> bool:
        """Whether an output is there with its bytes. Hashes only when the seal does not match; removes what is damaged.

        Raises `Damaged` after removing a tree whose bytes are wrong, False when it is not there.
        """
        tree = self.tree(output)
        if not tree.is_dir():
            return False
        seal = self.root / "seals" / f"{output}.json"
        now = seal_of(tree)
        with contextlib.suppress(OSError, ValueError):
            if json.loads(seal.read_bytes()) == now:
                return True
        got = nar_hash(tree)
        if got != output:
            remove_tree(tree)
            raise Damaged(f"store: output {output} was damaged (its bytes hash to {got}); removed")
        _write_synced(seal, json.dumps(now).encode())
        return True

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder for one step's work and output, removed afterwards; locked, so that leftovers can be told."""
        with self._staging_lock(fcntl.LOCK_SH):  # a sweep must not see the folder before its lock
            folder = Path(tempfile.mkdtemp(dir=self.root / "staging"))
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            remove_tree(folder)
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove the staging folders of processes that died."""
        with self._staging_lock(fcntl.LOCK_EX):
            for folder in (self.root / "staging").iterdir():
                with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
                    _remove_unlocked(folder)

    @contextlib.contextmanager
    def _staging_lock(self, how: int) -> Iterator[None]:
        descriptor = os.open(self.root / "staging", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def commit(self, name: str, key: str, preimage: Mapping[str, Json], made: Path) -> Record:
        """Take a finished tree into the store: normalise, hash, sync, rename, then record. Losing a race is success."""
        normalise(made)
        output = nar_hash(made)
        self._place(made, output)
        _write_synced(self.root / "seals" / f"{output}.json", json.dumps(seal_of(self.tree(output))).encode())
        value: dict[str, Any] = {"preimage": preimage, "output": output, "name": name}
        value["sum"] = sha256_bytes(canonical_json(value))
        _write_synced(self.root / "records" / f"{key}.json", canonical_json(value))
        self.remember(name, key)
        return Record(key, output, name, preimage)

    def _place(self, made: Path, output: str) -> None:
        """Rename a synced tree to its place, or find that a sound one is there already."""
        tree = self.tree(output)
        made.chmod(0o755)  # renaming a folder writes its ".." entry: it must be writable for an ordinary user
        _sync_tree(made)
        for _ in range(2):
            try:
                made.rename(tree)
            except OSError:
                with contextlib.suppress(Damaged):
                    if self.intact(output):
                        return
                continue
            tree.chmod(0o555)
            os.utime(tree, (_TIME, _TIME))
            return
        raise UserError(f"store: could not put output {output} in its place", hint="is outputs/store writable?")

    def remember(self, name: str, key: str) -> None:
        """Note the key that a recipe has now."""
        path = self.root / "last" / name
        try:
            if path.read_text() == key:
                return
        except OSError:
            pass
        _write_synced(path, key.encode())

    def previous(self, name: str) -> Record | None:
        """The record that this recipe had last, if it is still there and sound."""
        try:
            return self.record((self.root / "last" / name).read_text())
        except (OSError, Damaged):
            return None
