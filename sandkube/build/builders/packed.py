"""Builder `packed`: outputs as compressed NARs, for a place that has no store.

trees.json             {recipe: output hash}
<output hash>.nar.zst  its NAR, compressed by the recipe `zstd`
zstd                   the program that unpacks them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sandkube import nar, tree
from sandkube.build.box import IN, OUT, Call, Mount, input_mounts
from sandkube.build.builders.kind import BuilderKind, Job
from sandkube.shapes import Distinct, RecipeName

_PROGRAM = "bin/zstd"
_NAR = "/sandkube/nar"


@dataclass(frozen=True, slots=True)
class Packed:
    """Builder `packed`: outputs as compressed NARs."""

    trees: Distinct[RecipeName]


def build(job: Job, options: Packed) -> None:
    """Write each NAR, compress it."""
    tree.copy(job.inputs["zstd"], _PROGRAM, job.out, "zstd")
    for name in options.trees:
        path = job.work / f"{name}.nar"
        with path.open("wb") as sink:
            nar.dump(job.inputs[name], sink.write)
        mounts = [*input_mounts({"zstd": job.inputs["zstd"]}), Mount(path, _NAR), Mount(job.out, OUT, writable=True)]
        command = [f"{IN}/zstd/{_PROGRAM}", "compress", _NAR, f"{OUT}/{job.inputs[name].name}.nar.zst"]
        job.box.run(Call(command, mounts), log=job.log)
        path.unlink()
    listed = {name: job.inputs[name].name for name in options.trees}
    tree.write(job.out, "trees.json", (json.dumps(listed, indent=2, sort_keys=True) + "\n").encode())


def _inputs(options: Packed) -> Mapping[str, str]:
    return {"zstd": ""} | {name: f"build.trees[{at}]" for at, name in enumerate(options.trees)}


KIND = BuilderKind(
    Packed, build, code=("build/builders/packed", "nar"), inputs=_inputs, sourced=False, tools=("bubblewrap",)
)
