"""Builder `bundle`: a rootfs and the OCI runtime configuration that boots it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sandkube.build.builders import oci_runtime
from sandkube.build.builders.kind import BuilderKind, Job
from sandkube.shapes import RecipeName


@dataclass(frozen=True, slots=True)
class Bundle:
    """Builder `bundle`: a rootfs with its OCI runtime configuration."""

    rootfs: RecipeName


def build(job: Job, options: Bundle) -> None:
    """`config.json`, and `rootfs`, a link to the root file system's own output beside this one in the store."""
    (job.out / "rootfs").symlink_to(f"../{job.inputs[options.rootfs].name}")
    text = json.dumps(oci_runtime.spec(), indent=2, sort_keys=True)
    (job.out / "config.json").write_text(text + "\n")


KIND = BuilderKind(
    Bundle,
    build,
    code=("build/builders/bundle", "build/builders/oci_runtime"),
    inputs=lambda options: {options.rootfs: "build.rootfs"},
    sourced=False,
    boxed=False,
    refers=True,
)
