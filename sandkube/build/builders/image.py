"""Builder `image`: an OCI image layout of one layer, composed from other outputs."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from sandkube import pack
from sandkube.build.builders.compose import Directory, Install, clashes, compose, inputs
from sandkube.build.builders.kind import BuilderKind, Job
from sandkube.build.builders.oci import ImageConfig, write_layout
from sandkube.build.derivation import EPOCH
from sandkube.decode import Fault
from sandkube.shapes import Absolute, Below, Distinct, Inside, Setting, Text, Word, matching

Reference = Annotated[str, matching("an image's name, such as example.org/name:1", r"[a-z0-9]+([._/:-]+\w+)*")]


@dataclass(frozen=True, slots=True)
class Image:
    """Builder `image`: an OCI image layout of one layer."""

    name: Reference
    install: tuple[Install, ...]
    directories: tuple[Directory, ...] = ()
    links: Mapping[Below, Text] = field(default_factory=dict)
    applets: Inside = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Distinct[Setting] = ()
    user: Word = ""
    workdir: Absolute = ""

    def faults(self) -> Iterator[Fault]:
        """Links in the way of something."""
        return clashes(self)


def build(job: Job, options: Image) -> None:
    """Compose the layer's tree, write it as a tar, describe it."""
    root = job.work / "layer"
    root.mkdir()
    modes = compose(job, options, root)
    layer = job.work / "layer.tar"
    pack.write_tar({".": root}, layer, modes=modes, mtime=EPOCH)
    config = ImageConfig(options.entrypoint, options.command, options.env, options.user, options.workdir)
    created = datetime.datetime.fromtimestamp(EPOCH, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    write_layout(job.out, options.name, layer, config, created)


KIND = BuilderKind(
    Image,
    build,
    code=("build/builders/image", "build/builders/compose", "build/builders/oci", "pack"),
    inputs=inputs,
    sourced=False,
    tools=("bubblewrap",),
)
