"""Make: from a derivation to a tree. Copy what the step is made of, hash the copies, patch, build; no store here."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sandkube.build import code
from sandkube.build.box import OUT, SRC, Box, Call, Mount, input_mounts
from sandkube.build.builders.kind import Job
from sandkube.build.derivation import Derivation
from sandkube.build.failed import Recorder
from sandkube.build.patching import apply_patches
from sandkube.build.plan import Plan
from sandkube.build.sources.kind import Ask, source_told
from sandkube.digest import sha256_file
from sandkube.errors import UserError


class Moved(Exception):
    """What a step is made of changed between hashing and copying; the text says what."""


@dataclass(frozen=True, slots=True)
class Making:
    """One step that is being made, in a folder of its own."""

    plan: Plan
    name: str
    derivation: Derivation
    inputs: Mapping[str, Path]
    """Outputs of the recipes that it is built from."""
    ask: Ask | None
    """What its source kind is asked for; None for a composition."""
    cache: Path
    folder: Path
    """Staging: `src`, `out`, `work` and `patches` are made in it."""
    box: Recorder

    @classmethod
    def of(
        cls,
        one: Plan,
        name: str,
        derivation: Derivation,
        inputs: Mapping[str, Path],
        ask: Ask | None,
        cache: Path,
        folder: Path,
        box: Box,
    ) -> Making:
        """Make its folders."""
        for each in ("src", "out", "work"):
            (folder / each).mkdir()
        mounts = [
            *input_mounts(inputs),
            Mount(folder / "src", SRC, writable=True),
            Mount(folder / "out", OUT, writable=True),
        ]
        recorder = Recorder(box, Call((), mounts, cwd=SRC))
        return cls(one, name, derivation, inputs, ask, cache, folder, recorder)

    def snapshot(self) -> list[tuple[str, Path]]:
        """Copy source and patches, then hash the copies; the patches, with the module of each.

        Raises Moved where a copy is not what the key was made of.
        """
        one = self.plan.recipes[self.name]
        if one.origin and self.ask:
            with source_told(self.name, self.ask.source):
                got = one.origin.snapshot(self.ask, self.folder / "src")
            if got != self.derivation.source:
                raise Moved(f"{one.source} changed")
        copies = list(self._patches())
        if code.digest(self.plan.code(self.name)) != self.derivation.builder:
            raise UserError(f"{self.name}: the engine's own code changed while it ran", hint="run it again")
        return copies

    def _patches(self) -> Iterator[tuple[str, Path]]:
        one = self.plan.recipes[self.name]
        for at, (each, (_, pinned)) in enumerate(zip(one.patches, self.derivation.patches, strict=True)):
            path = self.folder / "patches" / str(at) / self.name / each.file
            path.parent.mkdir(parents=True)
            shutil.copyfile(one.patch_path(self.plan.root, each), path)
            if sha256_file(path) != pinned:
                raise Moved(f"{each.file} changed")
            yield each.module, path

    def build(self, log: BinaryIO) -> Path:
        """Snapshot, patch, and run the builder; the finished tree. Raises Moved, UserError, CommandFailed."""
        patches = self.snapshot()
        apply_patches(self.folder / "src", [path for module, path in patches if not module])
        one = self.plan.recipes[self.name]
        job = Job(
            name=self.name,
            src=self.folder / "src",
            out=self.folder / "out",
            work=self.folder / "work",
            inputs=self.inputs,
            modules=self.plan.pin(self.name).modules,
            module_patches=tuple(each for each in patches if each[0]),
            cache=self.cache,
            box=self.box,
            log=log,
        )
        one.builder.build(job, one.build)
        return job.out
