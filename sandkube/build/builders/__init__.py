"""Builders: one module a step kind, each with its options and its `KIND`."""

from __future__ import annotations

from collections.abc import Mapping

from sandkube.build.builders import bundle, c, content, go, image, layout, packed, rootfs, run, tar, tree, wheel
from sandkube.build.builders.kind import BuilderKind, Job, Patch

__all__ = ("KINDS", "BuilderKind", "Job", "Patch")

KINDS: Mapping[str, BuilderKind] = {
    "tree": tree.KIND,
    "go": go.KIND,
    "c": c.KIND,
    "image": image.KIND,
    "layout": layout.KIND,
    "content": content.KIND,
    "rootfs": rootfs.KIND,
    "bundle": bundle.KIND,
    "packed": packed.KIND,
    "wheel": wheel.KIND,
    "tar": tar.KIND,
    "run": run.KIND,
}
