"""What a builder kind is: a record of its options and of the functions that know them; and the job that one gets."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from sandkube.build.box import Box
from sandkube.build.lock import Module
from sandkube.build.sources.kind import Source
from sandkube.decode import looks_like
from sandkube.digest import Json
from sandkube.errors import UserError
from sandkube.shapes import GoPath
from sandkube.tree import Refused, parts_of

PatchName = Annotated[str, looks_like("the name of a .patch file", lambda v: v.endswith(".patch") and "/" not in v)]


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch file of `patches/<recipe>/`; `module`: the module of the closure it is for, if not the main one.

    A module is named by its path, and by `path@version` where the closure holds files of several versions.
    """

    file: PatchName
    module: GoPath = ""


@dataclass(frozen=True, slots=True)
class Job:
    """What a builder gets: `src` is the unpacked, patched source; `out` an empty folder to fill; `work` scratch."""

    name: str
    src: Path
    out: Path
    work: Path
    inputs: Mapping[str, Path]
    modules: tuple[Module, ...]
    module_patches: tuple[tuple[str, Path], ...]
    """Patches of modules, each with the `module` that the recipe says, in order."""
    cache: Path
    box: Box
    log: BinaryIO

    def fault(self, key: str, text: str) -> UserError:
        """The sentence for what a key of this step's recipe asks for in vain."""
        return UserError(f"recipes/{self.name}.toml: {key}: {text}")

    def check_inside(self, key: str, path: str) -> None:
        """Raises UserError for a path that leaves the output."""
        try:
            parts_of(path)
        except Refused:
            raise self.fault(key, f"expected a path inside the output, got {path!r}") from None

    @contextlib.contextmanager
    def at(self, key: str) -> Iterator[None]:
        """What a tree refuses, with the key of the recipe that asked for it in front."""
        try:
            yield
        except Refused as refusal:
            raise self.fault(key, refusal.message) from None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a builder's pins are made from: a recipe's options and source, and its patches of the main source."""

    options: Any
    source: Source
    patches: tuple[Path, ...]
    root: Path
    """The checkout."""


@dataclass(frozen=True, slots=True)
class Modules:
    """A builder whose source brings a closure of modules, which is pinned one by one."""

    spec: Callable[[Asked], Mapping[str, Json]]
    """What chooses the closure, beside the source."""
    resolve: Callable[[Asked, Path, Path, Path], tuple[Module, ...]]
    """The closure: (asked, unpacked source, the go command, this user's cache)."""
    patches: Callable[[Sequence[Path]], tuple[Path, ...]]
    """Those patches that take part in choosing."""


@dataclass(frozen=True, slots=True)
class BuilderKind:
    """One kind of builder. `build` is pure: the tree it writes depends on what is in the key and on nothing else."""

    options: type[Any]
    """A frozen dataclass of what a recipe may say below `[build]`; `patches` in it are patches of the source.

    Its fields say what they must look like (`sandkube.shapes`); a method `faults` gives a `Fault` for what does
    not go together."""
    build: Callable[[Job, Any], None]
    """Fills `job.out`. Raises UserError for what the recipe or the source is to blame for."""
    code: tuple[str, ...]
    """Modules, below `sandkube/` and without `.py`, that write bytes: their meaning enters keys."""
    inputs: Callable[[Any], Mapping[str, str]] = lambda options: {}  # noqa: ARG005
    """Recipes whose outputs it is built from, each with the key that names it; empty for what all such recipes need."""
    sourced: bool = True
    """Whether a recipe names a source; else it composes outputs."""
    tools: tuple[str, ...] = ()
    """Recipes whose outputs run or fetch its steps; they write no byte, so they are not in the key."""
    boxed: bool = True
    """Whether its steps run commands, and so need a build sandbox."""
    heavy: bool = False
    """Whether a step uses every core by itself."""
    links: bool = False
    """Whether its outputs have hard links to files of its inputs."""
    refers: bool = False
    """Whether its outputs point at those of its inputs, beside them in the store: whoever has one needs both."""
    modules: Modules | None = None
