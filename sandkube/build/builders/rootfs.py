"""Builder `rootfs`: the node's file system. Modes are those of the store; the node mounts what must be writable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sandkube.build.builders.compose import Directory, Install, clashes, compose, inputs
from sandkube.build.builders.kind import BuilderKind, Job
from sandkube.decode import Fault
from sandkube.shapes import Below, Inside, Text


@dataclass(frozen=True, slots=True)
class Rootfs:
    """Builder `rootfs`: the node's file system, composed from other outputs."""

    install: tuple[Install, ...]
    directories: tuple[Directory, ...] = ()
    links: Mapping[Below, Text] = field(default_factory=dict)
    applets: Inside = ""

    def faults(self) -> Iterator[Fault]:
        """Modes, which are the store's, and links in the way of something."""
        moded = [("install", at, "mode") for at, each in enumerate(self.install) if each.mode]
        moded += [("directories", at, "mode") for at, each in enumerate(self.directories) if each.mode != "0755"]
        yield from (
            (key, "a mode goes with images only: a file system's modes are those of the store") for key in moded
        )
        yield from clashes(self)


def build(job: Job, options: Rootfs) -> None:
    """Compose the inputs into one tree."""
    compose(job, options, job.out, linked=True)


KIND = BuilderKind(
    Rootfs,
    build,
    code=("build/builders/rootfs", "build/builders/compose"),
    inputs=inputs,
    sourced=False,
    links=True,
    tools=("bubblewrap",),
)
