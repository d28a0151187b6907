"""Builders: one module a step kind, each with `build(job, options)` that fills `job.out`.

A builder is pure: the tree it writes depends on its options, source, patches, inputs and its own code, all of which
are in the key. `SOURCES` names the modules whose text counts as a builder's own code.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sandkube.buildbox import Box
from sandkube.digest import sha256_bytes
from sandkube.lock import Module


@dataclass(frozen=True, slots=True)
class Job:
    """What a builder gets: `src` is the unpacked, patched source; `out` an empty folder to fill; `work` scratch."""

    name: str
    src: Path
    out: Path
    work: Path
    inputs: Mapping[str, Path]
    modules: tuple[Module, ...]
    module_patches: Mapping[str, tuple[Path, ...]]
    cache: Path
    box: Box
    log: BinaryIO


_SHARED = ("builders/__init__", "buildbox", "derivation", "archive", "patching", "fetch/__init__")
_UNPACKING = ("fetch/go", "fetch/git", "fetch/local", "fetch/url")  # pypi and deb: archive
SOURCES: Mapping[str, tuple[str, ...]] = {
    "tree": ("builders/tree", *_UNPACKING),
    "go": ("builders/go", "builders/elf", *_UNPACKING),
    "c": ("builders/c", "builders/elf", *_UNPACKING),
    "image": ("builders/image", "builders/compose", "oci"),
    "content": ("builders/content",),
    "rootfs": ("builders/rootfs", "builders/compose"),
    "bundle": ("builders/bundle", "oci_runtime"),
}
HEAVY = frozenset({"go"})  # steps that use every core by themselves


@functools.cache
def source_digest(kind: str) -> str:
    """Digest of the code that a builder runs, so that a changed builder changes its keys."""
    package = Path(__file__).resolve().parents[1]
    texts = [(package / f"{name}.py").read_bytes() for name in (*_SHARED, *SOURCES[kind])]
    return sha256_bytes(b"\0".join(texts))


def builder(kind: str) -> Callable[[Job, Any], None]:
    """The `build` function of a kind; imported when first needed."""
    build: Callable[[Job, Any], None] = importlib.import_module(f"sandkube.builders.{kind}").build
    return build
