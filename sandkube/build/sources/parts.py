"""The files that a pinned source is made of, as caches and vendored folders keep them: `sources/<name>`.

    <sha256>       a file of a pypi:, deb:, oci: or url: pin
    h1-<hex>       the zip, or the go.mod, that has this `h1:` sum; how go.mod is read makes a module's own sum of it
    git-<commit>   a pack of one commit with all of its tree, without its parents

A name says which bytes the file must have: each is checked before it is taken, and again where it is used.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandkube.build.lock import File, Module, Pin
from sandkube.build.sources import blobs, git, go
from sandkube.build.sources.go_zip import zip_h1
from sandkube.build.sources.kind import Ask, Source
from sandkube.build.sources.settings import client_environment, instead
from sandkube.digest import sha256_file
from sandkube.errors import UserError
from sandkube.files import write_whole
from sandkube.run import run
from sandkube.tree import remove_tree, seal_of

LIMIT = 4 << 30
"""Bytes of a file whose size no pin says, at most."""
_GO_MOD, _GO_ZIP = 16 << 20, 500 << 20
"""Bytes that go itself takes at most: MaxGoMod and MaxZipFile of golang.org/x/mod/zip."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file: its name in caches, what people call it, bytes at most."""

    name: str
    label: str
    limit: int = LIMIT


class Parts(Protocol):
    """Files of one kind that a source is made of, and this user's cache of them."""

    def all(self) -> Sequence[Part]:
        """All of them."""
        ...

    def lacking(self) -> Sequence[Part]:
        """Those that this user's cache has not, or not with their bytes."""
        ...

    def is_sound(self, name: str, path: Path) -> bool:
        """Whether a file has the bytes that its name says."""
        ...

    def take(self, got: Mapping[str, Path]) -> None:
        """Put sound files into this user's cache; those that are of no use alone are left."""
        ...

    def at_hand(self, one: Part, folder: Path) -> Path | None:
        """A file as this user's cache has it, or made of that in an empty folder; None where it has not."""
        ...


@dataclass(frozen=True, slots=True)
class Files:
    """Files by their SHA-256."""

    recipe: str
    files: Sequence[File]
    cache: Path

    def all(self) -> Sequence[Part]:
        """A part each."""
        return [Part(each.sha256, each.name, each.size) for each in self.files]

    def lacking(self) -> Sequence[Part]:
        """Those that are not sound."""
        return [Part(each.sha256, each.name, each.size) for each in self.files if not self._has(each)]

    def _has(self, file: File) -> bool:
        return blobs.sound(self.cache, file, self.recipe)

    def is_sound(self, name: str, path: Path) -> bool:
        """By its hash."""
        return sha256_file(path) == name

    def take(self, got: Mapping[str, Path]) -> None:
        """Copy them."""
        for path in got.values():
            blobs.put(self.cache, path)

    def at_hand(self, one: Part, _folder: Path) -> Path | None:
        """The blob."""
        found = next((each for each in self.files if each.sha256 == one.name and self._has(each)), None)
        return blobs.path_of(self.cache, found.sha256) if found else None


def _h1_name(h1: str) -> str:
    return f"h1-{base64.b64decode(h1.removeprefix('h1:')).hex()}"


def _mod_h1(path: Path) -> str:
    return go._hash1([("go.mod", path)])


@dataclass(frozen=True, slots=True)
class Modules:
    """Go modules, by the sums of their zips and go.mod files; modules that only a go.mod is read of have no zip.

    What `go` has as its own is used as it is: its code is in keys, and would be another with another name in it.
    """

    recipe: str
    modules: Sequence[Module]
    cache: Path
    go_client: Callable[[], Path]

    @staticmethod
    def _parts(one: Module) -> list[Part]:
        called = f"{one.path}@{one.version}"
        return [Part(_h1_name(one.mod), f"go.mod of {called}", _GO_MOD)] + (
            [Part(_h1_name(one.zip), f"Go module {called}", _GO_ZIP)] if one.zip else []
        )

    def all(self) -> Sequence[Part]:
        """Of all modules."""
        return list(dict.fromkeys(part for each in self.modules for part in self._parts(each)))

    def lacking(self) -> Sequence[Part]:
        """Both files of each module that is not there as it is pinned."""
        own = go._Cache(self.cache)
        return [part for each in self.modules if own.fault(each) is not None for part in self._parts(each)]

    def is_sound(self, name: str, path: Path) -> bool:
        """By its sum as a zip, or as a go.mod."""
        return any(found and _h1_name(found) == name for found in (_mod_h1(path), zip_h1(path)))

    def take(self, got: Mapping[str, Path]) -> None:
        """Show the go client a proxy with these files; it fetches modules from it, which are checked as ever."""
        whole = [each for each in self.modules if all(part.name in got for part in self._parts(each))]
        if not whole:
            return
        with tempfile.TemporaryDirectory() as temporary:
            proxy = Path(temporary).resolve()
            for each in whole:
                self._show(each, proxy, got)
            settings = {"GOPROXY": proxy.as_uri(), "GONOPROXY": "none", "GOPRIVATE": "", "GOFLAGS": ""}
            with instead(settings):
                go.fetch_modules(self.go_client(), whole, cache=self.cache, name=self.recipe)

    @staticmethod
    def _show(one: Module, proxy: Path, got: Mapping[str, Path]) -> None:
        """Lay out what a proxy has of a module (go.dev/ref/mod#goproxy-protocol)."""
        folder = proxy / go.escape(one.path) / "@v"
        folder.mkdir(parents=True, exist_ok=True)
        version = go.escape(one.version)
        (folder / f"{version}.info").write_text(json.dumps({"Version": one.version}))
        for suffix, h1 in (("mod", one.mod), ("zip", one.zip)):
            if h1:
                (folder / f"{version}.{suffix}").symlink_to(got[_h1_name(h1)].resolve())

    def at_hand(self, one: Part, _folder: Path) -> Path | None:
        """As the go client has downloaded it."""
        own = go._Cache(self.cache)
        for each in self.modules:
            for suffix, h1 in (("mod", each.mod), ("zip", each.zip)):
                if h1 and _h1_name(h1) == one.name:
                    path = go._downloaded(own.modcache, each, suffix)
                    if path.is_file() and self.is_sound(one.name, path):
                        return path
        return None


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of a git repository."""

    recipe: str
    source: Source
    pin: Pin
    cache: Path

    def all(self) -> Sequence[Part]:
        """Its pack."""
        return [Part(f"git-{self.pin.commit}", f"commit {self.pin.commit[:12]} of {self.source.name}")]

    def lacking(self) -> Sequence[Part]:
        """Its pack, unless all of its tree has been read."""
        return [] if git._was_read(self.source, self.pin.tree, self.cache) or self._reads() else self.all()

    def _reads(self) -> bool:
        """Whether all of it is there, though the repository has changed since it was read; that is noted then."""
        if not git._folder(self.source, self.cache).is_dir():
            return False
        try:
            with git._locked(self.source, self.cache) as folder:
                if git._tree(folder, self.pin.commit) != self.pin.tree:
                    return False
                git._read_all(folder, self.source, self.pin.tree)
                self._note(folder)
        except (git._Failed, git._Damaged):
            return False
        return True

    def is_sound(self, _name: str, path: Path) -> bool:
        """Whether the pack has all of the pinned tree, seen from a repository that has nothing else.

        git makes the names of objects from their bytes, so a pack cannot hold others.
        """
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "git"
            try:
                git._make(folder)
                self._add(folder, path)
                git._git(folder, "rev-list", "--objects", "--no-walk", "--quiet", self.pin.commit)
            except (git._Failed, OSError):
                return False
            return git._tree(folder, self.pin.commit) == self.pin.tree

    def _add(self, folder: Path, pack: Path) -> None:
        """Put a pack into a repository, and say that its commit's parents are not there."""
        target = folder / "objects/pack" / f"pack-{self.pin.commit}.pack"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(pack, target)
            git._git(folder, "index-pack", "--fsck-objects", str(target))
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        if not self._has_parents(folder):
            shallow = folder / "shallow"
            known = set(shallow.read_text().split()) if shallow.is_file() else set()
            write_whole(shallow, "".join(f"{each}\n" for each in sorted({*known, self.pin.commit})))
        git._git(folder, "update-ref", f"refs/sandkube/pins/{self.pin.commit}", self.pin.commit)

    def _has_parents(self, folder: Path) -> bool:
        try:
            git._git(folder, "rev-list", "--quiet", self.pin.commit)
        except git._Failed:
            return False
        return True

    def take(self, got: Mapping[str, Path]) -> None:
        """Add it to the repository, which is made anew if it was damaged; what is noted then has all been read."""
        for path in got.values():
            with git._locked(self.source, self.cache) as folder:
                try:
                    self._put_in(folder, path)
                except (git._Failed, git._Damaged):
                    self._put_in_anew(folder, path)
                self._note(folder)

    def _put_in(self, folder: Path, pack: Path) -> None:
        self._add(folder, pack)
        git._read_all(folder, self.source, self.pin.tree)

    def _put_in_anew(self, folder: Path, pack: Path) -> None:
        """Replace the repository by one with this commit. It is damaged only if that can be made: a full disk, too,
        makes git fail, and the repository may hold all that other recipes need.
        """
        anew = folder.with_name(f"{folder.name}.anew")
        remove_tree(anew)
        try:
            git._make(anew)
            self._put_in(anew, pack)
            remove_tree(folder)
            anew.rename(folder)
        except (git._Failed, git._Damaged) as failure:
            raise UserError(
                f"{self.recipe}: git could not take in commit {self.pin.commit[:12]}: {failure}",
                hint=f"is there room in {self.cache}?",
            ) from None
        finally:
            remove_tree(anew)

    def _note(self, folder: Path) -> None:
        write_whole(git._note(folder, self.pin.tree), f"{self.pin.commit} {seal_of(folder)}", sync=False)

    def at_hand(self, one: Part, folder: Path) -> Path | None:
        """Pack it: all objects of the commit's own tree."""
        if self.lacking():
            return None
        try:
            return self._packed(one, folder)
        except git._Failed as failure:
            raise UserError(f"{self.recipe}: git could not pack {one.label}: {failure}") from None

    def _packed(self, one: Part, folder: Path) -> Path:
        with git._locked(self.source, self.cache) as repository:
            listed = git._git(repository, "rev-list", "--objects", "--no-walk", self.pin.commit)
            names = "".join(f"{line.split()[0]}\n" for line in listed.splitlines())
            # By a stream: else the pack is begun in the repository, whose seal would be another then.
            words = ["git", "--git-dir", str(repository), "pack-objects", "--quiet", "--threads=1", "--stdout"]
            with (pack := folder / one.name).open("wb") as sink:
                run(words, env=client_environment(folder), cwd=folder, stdin=names.encode(), log=sink)
        return pack


def parts_of(ask: Ask) -> Sequence[Parts]:
    """What a recipe's source is made of, and the modules of its closure."""
    pin, found = ask.pin, list[Parts]()
    if pin.files:
        found.append(Files(ask.recipe, pin.files, ask.cache))
    if pin.commit:
        found.append(Commit(ask.recipe, ask.source, pin, ask.cache))
    own = [Module(ask.source.name, ask.source.version, pin.h1, pin.mod)] if pin.h1 else []
    if own or pin.modules:
        found.append(Modules(ask.recipe, [*own, *pin.modules], ask.cache, ask.go_client))
    return found
