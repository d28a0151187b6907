"""An installed package: what clusters are made from comes with it, packed, and is unpacked once into this user's cache.

payload/trees.json, payload/*.nar.zst, payload/zstd     what the build step `packed` made
$XDG_CACHE_HOME/sandkube/trees/<output hash>/           the trees, as they are in a store
$XDG_CACHE_HOME/sandkube/trees/<output hash>.seal       digest of a tree's names, sizes and times when it was unpacked
$XDG_STATE_HOME/sandkube/                               clusters
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandkube import log
from sandkube.app.options import Option
from sandkube.decode import decoded
from sandkube.documents import parse_json, read_file
from sandkube.errors import UserError
from sandkube.files import locked, make_folder, write_whole
from sandkube.restore import BadNar, restore
from sandkube.run import CommandFailed, base_environment, run
from sandkube.shapes import RecipeName, Sha256
from sandkube.tree import TIME, remove_tree, seal_of

PAYLOAD = Path(__file__).resolve().parents[1] / "payload"
_PIECE = 1 << 20
_ANEW = "install the package anew"
_ROOM = "XDG_CACHE_HOME moves the cache: it takes 700 MB, on a file system whose programs may be run"


def _folder(environment: Mapping[str, str], name: str, usual: str) -> Path:
    """A folder of the XDG base directory specification, which has a relative one ignored."""
    named = environment.get(name, "")
    if named.startswith("/"):
        return Path(named, "sandkube")
    home = environment.get("HOME", "")
    if not home.startswith("/"):
        raise UserError(f"HOME names no folder, and {name} neither", hint=f"set {name} to a folder of your own")
    return Path(home, usual, "sandkube")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The trees of a payload, in a folder where they are unpacked once and looked at at each use."""

    payload: Path
    cache: Path

    def listed(self) -> Mapping[str, str]:
        """Output hashes by recipe. Raises UserError where the package is damaged."""
        path = self.payload / "trees.json"
        try:
            return decoded(Mapping[RecipeName, Sha256], parse_json(read_file(path, str(path))), path.name)  # type: ignore[type-abstract]
        except (UserError, ValueError):
            raise UserError(f"{path} is damaged", hint=_ANEW) from None

    def tree(self, name: str) -> Path:
        """Where a tree is when it is unpacked."""
        return self.cache / "trees" / self.listed()[name]

    def sound(self, name: str) -> bool:
        """Whether a tree is there as it was unpacked."""
        at = self.tree(name)
        with contextlib.suppress(OSError):
            return at.with_suffix(".seal").read_text() == seal_of(at)
        return False

    def have(self, names: Sequence[str]) -> None:
        """Unpack what is not there. Raises UserError."""
        if all(map(self.sound, names)):
            return
        make_folder(self.cache / "trees")
        waiting = "waiting for another command that unpacks the node"
        with locked(self.cache / "trees.lock", waits=lambda: log.say(waiting)):
            for left in (self.cache / "trees").glob("tmp*"):  # of a command that was killed
                remove_tree(left)
            missing = [name for name in names if not self.sound(name)]
            if missing:
                log.say(f"unpacking the node into {self.cache} (once)")
            with ThreadPoolExecutor(len(missing) or 1) as threads:
                list(threads.map(self._unpack, missing))

    def _unpack(self, name: str) -> None:
        at = self.tree(name)
        remove_tree(at)
        packed = self.payload / f"{at.name}.nar.zst"
        with tempfile.TemporaryDirectory(dir=at.parent, ignore_cleanup_errors=True) as staging:
            made, whole, said = Path(staging, "tree"), Path(staging, "nar"), Path(staging, "log")
            try:
                with said.open("wb") as sink:
                    run(
                        [self._program(), "decompress", packed, whole],
                        env=base_environment(at),
                        cwd=at.parent,
                        log=sink,
                    )
                found = restore(_pieces(whole), made)
            except BadNar as fault:
                raise UserError(f"{packed} is damaged: {fault.message}", hint=_ANEW) from None
            except CommandFailed as fault:
                text = said.read_text(errors="replace").strip() or fault.message
                raise UserError(f"{packed} cannot be unpacked: {text}", hint=_ROOM) from None
            if found != at.name:
                raise UserError(f"{packed} is damaged: it holds {found}", hint=_ANEW)
            made.chmod(0o755)  # renaming a folder writes its ".." entry
            made.rename(at)
        at.chmod(0o555)
        os.utime(at, (TIME, TIME))
        write_whole(at.with_suffix(".seal"), seal_of(at))

    def _program(self) -> Path:
        """The unpacker, which an installer may have left without the right to execute it."""
        program = self.payload / "zstd"
        if os.access(program, os.X_OK):
            return program
        copy = self.cache / "zstd"
        write_whole(copy, program.read_bytes(), mode=0o755)
        return copy


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece


@dataclass(frozen=True)
class Installed:
    """This package, as commands know it."""

    environment: Mapping[str, str]
    payload: Path = PAYLOAD
    program: str = "sandkube"
    options: Sequence[Option] = ()

    @functools.cached_property
    def _unpacked(self) -> Unpacked:
        return Unpacked(self.payload, _folder(self.environment, "XDG_CACHE_HOME", ".cache"))

    @property
    def outputs(self) -> Path:
        """Where clusters are."""
        found = _folder(self.environment, "XDG_STATE_HOME", ".local/state")
        make_folder(found)
        return found

    def begin(self, _params: Any) -> None:
        """There is no option."""

    def make(self, _params: Any, names: Sequence[str]) -> int:
        """Unpack these products, and what they refer to."""
        if wrong := [name for name in names if not self.has(name)]:
            raise UserError(f"{wrong[0]} does not come with this package", hint="choose another kind of sandbox")
        self._unpacked.have(sorted({*names, "rootfs"} - {"kubectl"}))
        return 0

    def has(self, name: str) -> bool:
        """Whether it came with the package."""
        return name == "kubectl" or name in self._unpacked.listed()

    def output(self, name: str) -> Path:
        """The tree of a product."""
        if name == "kubectl":
            return self._unpacked.tree("rootfs") / "usr"
        return self._unpacked.tree(name)

    def told(self, path: Path) -> str:
        """Whole: it is typed anywhere."""
        return str(path)

    def kubectl(self) -> Path:
        """The node's own copy; unpacked anew where that was removed, or is of another version of this package."""
        self._unpacked.have(["rootfs"])
        return self.output("kubectl") / "bin/kubectl"

    def build_sandbox(self, _params: Any) -> None:
        """Nothing is ever built."""
        return
