"""Builder `layout`: the image for our platform that an OCI layout holds, under a name of the recipe's.

Its manifest, configuration and layers stay as they are, so its digest does; each is hashed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandkube import images
from sandkube.build.builders.image import Reference
from sandkube.build.builders.kind import BuilderKind, Job
from sandkube.digest import canonical_json, sha256_file
from sandkube.documents import parse_json
from sandkube.image_files import FolderFiles


@dataclass(frozen=True, slots=True)
class Layout:
    """Builder `layout`: the image of an OCI layout, under a name."""

    name: Reference


def _entry(digest: str, manifest: bytes, name: str) -> Mapping[str, Any]:
    return {
        "mediaType": parse_json(manifest).get("mediaType") or images.MANIFESTS[0],
        "digest": digest,
        "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": name},
    }


def build(job: Job, options: Layout) -> None:
    """Find the image, move its blobs, write an index of it alone. Raises UserError for what is no image."""
    held = images.held(FolderFiles(job.src, f"recipes/{job.name}.toml: source"), options.name)
    if not (blobs := held.images[0].blobs):
        raise job.fault("source", "is an archive of docker save, no OCI layout; skopeo copy makes one of it")
    (job.out / "blobs/sha256").mkdir(parents=True)
    manifest, *_ = blobs  # before its parts, and the index that it may be of
    for digest, path in blobs.items():
        if f"sha256:{sha256_file(job.src / path)}" != digest:
            raise job.fault("source", f"{path} has other bytes than its name says")
    data = (job.src / blobs[manifest]).read_bytes()
    found = parse_json(data)
    for digest in dict.fromkeys([manifest, *(each["digest"] for each in (found["config"], *found["layers"]))]):
        (job.src / blobs[digest]).rename(job.out / "blobs/sha256" / digest.removeprefix("sha256:"))
    entries = [_entry(manifest, data, options.name)]
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": images.INDEXES[0], "manifests": entries}
    (job.out / "index.json").write_bytes(canonical_json(index))
    (job.out / "oci-layout").write_bytes(canonical_json({"imageLayoutVersion": "1.0.0"}))


KIND = BuilderKind(
    Layout,
    build,
    code=(
        *("build/builders/layout", "build/builders/image", "build/builders/compose", "build/builders/oci"),
        *("images", "image_files", "pack", "plain_tar"),
    ),
    boxed=False,
)
