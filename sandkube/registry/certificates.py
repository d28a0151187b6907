"""Certificates of authorities for registries, where docker and podman look for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

_FOLDERS = ("/etc/docker/certs.d", "/etc/containers/certs.d")


def authorities(host: str, environment: Mapping[str, str]) -> Iterator[Path]:
    """Files of certificates for a registry (HOST or HOST:PORT)."""
    home = environment.get("HOME") or "/nonexistent"
    for folder in (*_FOLDERS, f"{home}/.config/containers/certs.d"):
        yield from sorted(Path(folder, host).glob("*.crt"))
