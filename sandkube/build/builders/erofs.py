"""Builder `erofs`: an output as an EROFS image (https://erofs.docs.kernel.org), which Linux and gVisor mount as it is.

The recipe `erofs` writes it: owner 0:0, one time, modes 0644 and 0755, no UUID, not compressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sandkube.build.box import IN, OUT, Call, Mount, input_mounts
from sandkube.build.builders.kind import BuilderKind, Job
from sandkube.shapes import FileName, RecipeName

_WRITER = "erofs"


@dataclass(frozen=True, slots=True)
class Erofs:
    """Builder `erofs`: an output as an EROFS image."""

    tree: RecipeName
    name: FileName
    """Of the file."""


def build(job: Job, options: Erofs) -> None:
    """Write it in the build sandbox."""
    inputs = {name: job.inputs[name] for name in (_WRITER, options.tree)}
    mounts = [*input_mounts(inputs), Mount(job.out, OUT, writable=True)]
    command = [f"{IN}/{_WRITER}/bin/erofs", f"{IN}/{options.tree}", f"{OUT}/{options.name}"]
    job.box.run(Call(command, mounts), log=job.log)


def _inputs(options: Erofs) -> Mapping[str, str]:
    return {_WRITER: "", options.tree: "build.tree"}


KIND = BuilderKind(Erofs, build, code=("build/builders/erofs",), inputs=_inputs, sourced=False, tools=("bubblewrap",))
