"""Builder `content`: a containerd root folder with images pre-imported in the namespace `k8s.io`.

The work is done by our own program `imagestore`, in the build sandbox, from OCI image layouts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sandkube import tree
from sandkube.build.box import IN, OUT, Call, Mount, input_mounts
from sandkube.build.builders.kind import BuilderKind, Job
from sandkube.shapes import RecipeName, Some


@dataclass(frozen=True, slots=True)
class Content:
    """Builder `content`: a containerd root with the images pre-imported."""

    images: Some[RecipeName]


def _reference(job: Job, at: int, name: str) -> str:
    """The name that an image layout carries."""
    key = f"build.images[{at}]"
    with job.at(key):
        text = tree.read(job.inputs[name], "index.json")
    try:
        return str(json.loads(text)["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"])
    except (ValueError, LookupError, TypeError):
        raise job.fault(key, f"{name} is no image: its index.json names none") from None


def build(job: Job, options: Content) -> None:
    """Import every image under the name that its layout carries."""
    words = [f"{_reference(job, at, name)}={IN}/{name}" for at, name in enumerate(options.images)]
    mounts = [*input_mounts(job.inputs), Mount(job.out, OUT, writable=True)]
    command = [f"{IN}/imagestore/bin/imagestore", "--out", OUT, "--namespace", "k8s.io", *words]
    job.box.run(Call(command, mounts), log=job.log)


def _inputs(options: Content) -> Mapping[str, str]:
    return {"imagestore": ""} | {name: f"build.images[{at}]" for at, name in enumerate(options.images)}


KIND = BuilderKind(
    Content, build, code=("build/builders/content",), inputs=_inputs, sourced=False, tools=("bubblewrap",)
)
