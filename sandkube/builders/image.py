"""Builder `image`: an OCI image layout of one layer, composed from other outputs."""

from __future__ import annotations

import datetime

from sandkube import archive
from sandkube.builders import Job
from sandkube.builders.compose import compose
from sandkube.derivation import EPOCH
from sandkube.oci import ImageConfig, write_layout
from sandkube.recipe import Image


def build(job: Job, options: Image) -> None:
    """Compose the layer's tree, write it as a tar, describe it."""
    root = job.work / "layer"
    root.mkdir()
    modes = compose(job, options, root)
    layer = job.work / "layer.tar"
    archive.write_tar(root, layer, modes=modes, mtime=EPOCH)
    config = ImageConfig(options.entrypoint, options.command, options.env, options.user, options.workdir)
    created = datetime.datetime.fromtimestamp(EPOCH, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    write_layout(job.out, options.name, layer, config, created)
