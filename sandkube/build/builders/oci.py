"""OCI image layouts: one layer, one manifest, one index, all bytes determined by their content.

Shapes: opencontainers/image-spec v1.1, media types `application/vnd.oci.image.*`. The layer is an uncompressed tar,
so that no compressor's version gets into a digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube.digest import Json, canonical_json, sha256_bytes, sha256_file

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What a container of the image runs by default."""

    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    env: Sequence[str] = ()
    user: str = ""
    workdir: str = ""

    def json(self) -> Mapping[str, Json]:
        """The `config` object of an image configuration; empty members are left out."""
        members: dict[str, Json] = {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.command),
            "Env": list(self.env),
            "User": self.user,
            "WorkingDir": self.workdir,
        }
        return {name: value for name, value in members.items() if value}


def _put(layout: Path, data: bytes) -> tuple[str, int]:
    digest = sha256_bytes(data)
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return f"sha256:{digest}", len(data)


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Json]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def write_layout(layout: Path, reference: str, layer: Path, config: ImageConfig, created: str) -> str:
    """Write an image layout into the folder `layout`; takes the file `layer` away. Returns the manifest's digest."""
    (layout / "blobs/sha256").mkdir(parents=True)
    layer_hash = sha256_file(layer)
    layer_size = layer.stat().st_size
    layer.rename(layout / "blobs/sha256" / layer_hash)
    image: Mapping[str, Json] = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": config.json(),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_hash}"]},
        "history": [{"created": created, "created_by": "sandkube"}],
    }
    config_digest, config_size = _put(layout, canonical_json(image))
    manifest: Mapping[str, Json] = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _descriptor(_CONFIG, config_digest, config_size),
        "layers": [_descriptor(_LAYER, f"sha256:{layer_hash}", layer_size)],
    }
    manifest_digest, manifest_size = _put(layout, canonical_json(manifest))
    entry = _descriptor(_MANIFEST, manifest_digest, manifest_size)
    entry["annotations"] = {"org.opencontainers.image.ref.name": reference}
    entry["platform"] = {"architecture": "amd64", "os": "linux"}
    index: Mapping[str, Json] = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry]}
    (layout / "index.json").write_bytes(canonical_json(index))
    (layout / "oci-layout").write_bytes(canonical_json({"imageLayoutVersion": "1.0.0"}))
    return manifest_digest
