"""Builder `bundle`: a rootfs and the OCI runtime configuration that boots it."""

from __future__ import annotations

import json
import shutil

from sandkube import oci_runtime
from sandkube.builders import Job
from sandkube.recipe import Bundle


def build(job: Job, options: Bundle) -> None:
    """`config.json` beside `rootfs/`."""
    shutil.copytree(job.inputs[options.rootfs], job.out / "rootfs", symlinks=True)
    for folder in (job.out / "rootfs").rglob("*"):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o755)
    text = json.dumps(oci_runtime.spec(), indent=2, sort_keys=True)
    (job.out / "config.json").write_text(text + "\n")
