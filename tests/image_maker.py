"""Container images made by hand, in the forms in which people have them; small, and as wrong as a test wants them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

OCI = "application/vnd.oci.image."
LAYER = f"{OCI}layer.v1.tar"
PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "+gzip": lambda data: gzip.compress(data, mtime=0),
    "+zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A layer: programs, and symbolic links to them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
        for name, aim in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, aim
            archive.addfile(member)
    return out.getvalue()


@dataclass
class Made:
    """An image: its layers as they are unpacked, its names, its platform, how its layers are packed."""

    layers: Sequence[bytes]
    names: Sequence[str] = ()
    platform: str = "linux/amd64"
    packer: str = ""
    command: Sequence[str] = ("/bin/busybox", "sh")
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def blobs(self) -> list[bytes]:
        """The layers as they are stored."""
        return [PACKERS[self.packer](each) for each in self.layers]

    @property
    def config(self) -> bytes:
        system, architecture = self.platform.split("/")
        document = {
            "os": system,
            "architecture": architecture,
            "config": {"Cmd": [*self.command], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(each) for each in self.layers]},
        }
        return json.dumps(document).encode()

    @property
    def manifest(self) -> bytes:
        document = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}manifest.v1+json",
            "config": described(self.config, f"{OCI}config.v1+json"),
            "layers": [described(each, LAYER + self.packer) for each in self.blobs],
        }
        return json.dumps(document).encode()


def described(data: bytes, kind: str, **more: Any) -> dict[str, Any]:
    """A descriptor."""
    return {"mediaType": kind, "digest": digest(data), "size": len(data), **more}


def index(entries: Sequence[dict[str, Any]]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": f"{OCI}index.v1+json", "manifests": entries}).encode()


def blob_name(data: bytes) -> str:
    return f"blobs/sha256/{digest(data).removeprefix('sha256:')}"


def layout(images: Sequence[Made], *, nested: bool = False) -> dict[str, bytes]:
    """The files of an OCI layout; `nested`: the images are one for several platforms, by the names of the first."""
    blobs = [each for one in images for each in (*one.blobs, one.config, one.manifest)]
    entries = []
    for one in images:
        system, architecture = one.platform.split("/")
        platform = {"os": system, "architecture": architecture}
        entry = described(one.manifest, f"{OCI}manifest.v1+json", platform=platform)
        for name in (None,) if nested else one.names or (None,):
            notes = {"org.opencontainers.image.ref.name": name} if name else {}
            entries.append(entry | {"annotations": notes | dict(one.notes)})
    if nested:
        blobs.append(index(entries))
        notes = {"io.containerd.image.name": images[0].names[0]}
        entries = [described(blobs[-1], f"{OCI}index.v1+json", annotations=notes)]
    files = {blob_name(each): each for each in blobs}
    return {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index(entries), **files}


def docker(images: Sequence[Made]) -> dict[str, bytes]:
    """The files of an archive as `docker save` made it until version 25, and podman makes it."""
    files: dict[str, bytes] = {}
    entries = []
    for one in images:
        layers = {f"{digest(each).removeprefix('sha256:')}/layer.tar": each for each in one.blobs}
        config = f"{digest(one.config).removeprefix('sha256:')}.json"
        entries.append({"Config": config, "RepoTags": [*one.names], "Layers": [*layers]})
        files |= {**layers, config: one.config}
    return files | {"manifest.json": json.dumps(entries).encode()}


def packed(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Files as an archive."""
    return layer(files, links)


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Files as a folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
