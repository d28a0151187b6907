"""Builder `content`: a containerd root folder with images pre-imported in the namespace `k8s.io`.

The work is done by our own program `imagestore`, in the build sandbox, from OCI image layouts.
"""

from __future__ import annotations

import json

from sandkube.buildbox import IN, OUT, Mount
from sandkube.builders import Job
from sandkube.recipe import Content


def build(job: Job, options: Content) -> None:
    """Import every image under the name that its layout carries."""
    words = []
    for name in options.images:
        index = json.loads((job.inputs[name] / "index.json").read_bytes())
        reference = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        words.append(f"{reference}={IN}/{name}")
    mounts = [Mount(path, f"{IN}/{name}") for name, path in sorted(job.inputs.items())]
    mounts.append(Mount(job.out, OUT, writable=True))
    command = [f"{IN}/imagestore/bin/imagestore", "--out", OUT, "--namespace", "k8s.io", *words]
    job.box.run(command, mounts=mounts, log=job.log)
