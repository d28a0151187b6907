"""Builder `tree`: the unpacked source as it is, with names and executable bits put right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sandkube import tree
from sandkube.build.builders.kind import BuilderKind, Job, Patch, PatchName
from sandkube.shapes import Distinct, FileName, Pattern


@dataclass(frozen=True, slots=True)
class Tree:
    """Builder `tree`: the unpacked source as it is; `rename` gives every file of one name another one."""

    patches: Distinct[PatchName | Patch] = ()
    executable: Distinct[Pattern] = ()
    rename: Mapping[FileName, FileName] = field(default_factory=dict)


def _check(job: Job, options: Tree) -> None:
    """What can be seen before any work."""
    for old, new in options.rename.items():
        for each in (old, new):
            with job.at(f"build.rename.{old}"):
                tree.check_name(each)
    for at, pattern in enumerate(options.executable):
        with job.at(f"build.executable[{at}]"):
            tree.parts_of(pattern)


def build(job: Job, options: Tree) -> None:
    """Move the source to the output; rename, then mark programs as executable."""
    _check(job, options)
    for each in sorted(job.src.iterdir()):
        each.rename(job.out / each.name)
    for old, new in options.rename.items():
        renamed = [name for name, _ in tree.walk(job.out) if name.rpartition("/")[2] == old]
        if not renamed:
            raise job.fault("build.rename", f"no file of the source is called {old}")
        for name in reversed(renamed):  # what is in a folder before the folder
            with job.at(f"build.rename.{old}"):
                tree.rename(job.out, name, new)
    for at, pattern in enumerate(options.executable):
        found = tree.glob(job.out, pattern)
        if not found:
            raise job.fault(f"build.executable[{at}]", f"{pattern!r} matches nothing")
        for name in found:
            tree.chmod(job.out, name, 0o755)


KIND = BuilderKind(Tree, build, code=("build/builders/tree",), boxed=False)
