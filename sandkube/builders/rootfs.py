"""Builder `rootfs`: the node's file system. Modes are those of the store; the node mounts what must be writable."""

from __future__ import annotations

from sandkube.builders import Job
from sandkube.builders.compose import compose
from sandkube.recipe import Rootfs


def build(job: Job, options: Rootfs) -> None:
    """Compose the inputs into one tree."""
    compose(job, options, job.out)
