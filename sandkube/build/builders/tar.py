"""Builder `tar`: an output as a tar, for tools that take one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sandkube import pack
from sandkube.build.builders.kind import BuilderKind, Job
from sandkube.build.derivation import EPOCH
from sandkube.shapes import FileName, RecipeName


@dataclass(frozen=True, slots=True)
class Tar:
    """Builder `tar`: an output as a tar."""

    tree: RecipeName
    name: FileName
    """Of the file."""


def build(job: Job, options: Tar) -> None:
    """Owner 0:0, one time, modes 0644 and 0755."""
    pack.write_tar({".": job.inputs[options.tree]}, job.out / options.name, modes={}, mtime=EPOCH)


def _inputs(options: Tar) -> Mapping[str, str]:
    return {options.tree: "build.tree"}


KIND = BuilderKind(Tar, build, code=("build/builders/tar", "pack"), inputs=_inputs, sourced=False, boxed=False)
