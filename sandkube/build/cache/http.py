"""An HTTP server as a cache: GET, HEAD and PUT of `/ac/<key>` and `/cas/<sha256>`, as bazel-remote and nginx do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from sandkube.build.cache.kind import RECORD_LIMIT, Blob
from sandkube.build.cache.web import Web


class Http:
    """The cache below one address."""

    def __init__(self, address: str, web: Web) -> None:
        self._address = address.rstrip("/")
        self._web = web

    def record(self, key: str) -> bytes | None:
        """GET /ac/<key>."""
        return self._web.get(f"{self._address}/ac/{key}", RECORD_LIMIT)

    def blob(self, one: Blob) -> bytes | None:
        """GET /cas/<sha256>."""
        return self._web.get(f"{self._address}/cas/{one.sha256}", one.size)

    def missing(self, blobs: Sequence[Blob]) -> list[Blob]:
        """HEAD /cas/<sha256>, one after another: a server may tell no length."""
        return [each for each in blobs if not self._web.has(f"{self._address}/cas/{each.sha256}", each.size)]

    def put(self, one: Blob, data: bytes) -> None:
        """PUT /cas/<sha256>."""
        self._web.put(f"{self._address}/cas/{one.sha256}", data)

    def publish(self, key: str, record: bytes, _blobs: Sequence[Blob]) -> None:
        """PUT /ac/<key>."""
        self._web.put(f"{self._address}/ac/{key}", record)

    def source(self, name: str, sink: BinaryIO, limit: int) -> bool:
        """GET /sources/<name>."""
        return self._web.receive(f"{self._address}/sources/{name}", sink, limit)

    def has_source(self, name: str) -> bool:
        """HEAD /sources/<name>."""
        return self._web.has(f"{self._address}/sources/{name}")

    def put_source(self, name: str, path: Path) -> None:
        """PUT /sources/<name>."""
        self._web.send(f"{self._address}/sources/{name}", path)
