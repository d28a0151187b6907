"""An engine's store of blobs (ContentAddressableStorage and ByteStream of REAPI v2): what it lacks, send, fetch.

Nothing that is fetched is believed: each blob is hashed before anybody sees it.
"""

from __future__ import annotations

import hashlib
import io
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sandkube.build.remote.merkle import Digest
from sandkube.build.remote.stubs.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from sandkube.build.remote.stubs.google.bytestream import bytestream_pb2
from sandkube.build.remote.wire import Wire, patience
from sandkube.errors import RunRefused
from sandkube.run import go_on

BATCH = 2 << 20
"""Bytes of blobs in one message, at most: gRPC takes 4 MiB unless both ends say more."""
ASKED = 20_000  # digests in one question
_PIECE = 1 << 20
_ENTRY = 200  # bytes that a blob costs in a message beside its own
_OK = 0  # google.rpc.Code

Blob = bytes | Path


def read(blob: Blob) -> bytes:
    """All of it."""
    return blob if isinstance(blob, bytes) else blob.read_bytes()


def batches(digests: Iterable[Digest], most: int) -> Iterator[list[Digest]]:
    """Those that fit a message, as many together as fit."""
    batch: list[Digest] = []
    size = 0
    for each in digests:
        if batch and size + each.size + _ENTRY > most:
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each.size + _ENTRY
    if batch:
        yield batch


@dataclass(slots=True)
class Blobs:
    """The store of one engine. Thread-safe."""

    wire: Wire
    batch: int = BATCH
    sent: int = 0
    """Bytes that went."""
    received: int = 0
    """Bytes that came."""
    _there: set[Digest] = field(default_factory=set)
    """Blobs that it has, as it said in this run."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        """It may have dropped what it had."""
        with self._lock:
            self._there.clear()

    def missing(self, digests: Sequence[Digest]) -> list[Digest]:
        """Those that it has not. Raises RunRefused."""
        asked = list(dict.fromkeys(each for each in digests if each not in self._there))
        found: set[Digest] = set()
        for at in range(0, len(asked), ASKED):
            request = api.FindMissingBlobsRequest(instance_name=self.wire.instance)
            request.blob_digests.extend(each.message() for each in asked[at : at + ASKED])
            answer = self.wire.ask(self.wire.cas.FindMissingBlobs, request, seconds=patience(0) * 2)
            found.update(map(Digest.said, answer.missing_blob_digests))
        with self._lock:
            self._there.update(each for each in asked if each not in found)
        return [each for each in asked if each in found]

    def send(self, blobs: Mapping[Digest, Blob]) -> None:
        """Have it hold these. Raises RunRefused."""
        lacking = self.missing(list(blobs))
        small = [each for each in lacking if each.size + _ENTRY <= self.batch]
        for batch in batches(small, self.batch):
            go_on()
            self._send_batch(batch, blobs)
        for each in lacking:
            if each.size + _ENTRY > self.batch:
                self._send_stream(each, blobs[each])
        with self._lock:
            self._there.update(lacking)
            self.sent += sum(each.size for each in lacking)

    def _send_batch(self, batch: Sequence[Digest], blobs: Mapping[Digest, Blob]) -> None:
        request = api.BatchUpdateBlobsRequest(instance_name=self.wire.instance)
        for each in batch:
            request.requests.add(digest=each.message(), data=read(blobs[each]))
        seconds = patience(request.ByteSize())
        answer = self.wire.ask(self.wire.cas.BatchUpdateBlobs, request, seconds=seconds)
        for said in answer.responses:
            if said.status.code != _OK:
                raise self._refuses(f"takes no blob: {said.status.message}")

    def _send_stream(self, digest: Digest, blob: Blob) -> None:
        def once() -> None:
            name = f"uploads/{uuid.uuid4()}/blobs/{digest.hash}/{digest.size}"
            requests = self._writes(self._name(name), digest.size, blob)
            said = self.wire.bytes.Write(requests, timeout=patience(digest.size), metadata=self.wire.metadata)
            if said.committed_size not in (digest.size, -1):
                raise self._refuses(f"took {said.committed_size} bytes of {digest.size}")

        self.wire.tried(once)

    def _writes(self, name: str, size: int, blob: Blob) -> Iterator[bytestream_pb2.WriteRequest]:
        at = 0
        with io.BytesIO(blob) if isinstance(blob, bytes) else blob.open("rb") as stream:
            ends = False
            while not ends:  # no bytes are a message, too
                go_on()
                piece = stream.read(_PIECE)
                ends = at + len(piece) >= size or not piece
                yield bytestream_pb2.WriteRequest(resource_name=name, write_offset=at, data=piece, finish_write=ends)
                at += len(piece)

    def fetch(self, digests: Iterable[Digest]) -> Iterator[tuple[Digest, bytes]]:
        """Blobs that fit a message, each once. Raises RunRefused for one that is gone or has other bytes."""
        for batch in batches(dict.fromkeys(digests), self.batch):
            go_on()
            request = api.BatchReadBlobsRequest(instance_name=self.wire.instance)
            request.digests.extend(each.message() for each in batch)
            seconds = patience(sum(each.size for each in batch))
            answer = self.wire.ask(self.wire.cas.BatchReadBlobs, request, seconds=seconds)
            found = {Digest.said(said.digest): said for said in answer.responses}
            for each in batch:
                said = found.get(each)
                if said is None or said.status.code != _OK:
                    why = said.status.message if said else "it says nothing about it"
                    raise self._refuses(f"does not have {each.hash}, which it names as a result: {why}")
                yield each, self._checked(each, said.data)

    def is_small(self, digest: Digest) -> bool:
        """Whether a blob goes with others in a message."""
        return digest.size + _ENTRY <= self.batch

    def whole(self, digest: Digest) -> bytes:
        """A blob of any size, in memory. Raises RunRefused."""
        if self.is_small(digest):
            return next(data for _, data in self.fetch([digest]))
        sink = io.BytesIO()
        self.save(digest, sink)
        return sink.getvalue()

    def save(self, digest: Digest, sink: BinaryIO) -> None:
        """A blob of any size, into a file, whose bytes count only once this returns. Raises RunRefused."""
        start = sink.tell()

        def once() -> None:
            sink.seek(start)
            sink.truncate()
            for piece in self.pieces(digest):
                sink.write(piece)

        self.wire.tried(once)

    def pieces(self, digest: Digest) -> Iterator[bytes]:
        """A blob as it comes, hashed at its end. Raises RunRefused, and RpcError for what may be tried again."""
        request = bytestream_pb2.ReadRequest(resource_name=self._name(f"blobs/{digest.hash}/{digest.size}"))
        state, size = hashlib.sha256(), 0
        stream = self.wire.bytes.Read(request, timeout=patience(digest.size), metadata=self.wire.metadata)
        for answer in stream:
            size += len(answer.data)
            if size > digest.size:
                stream.cancel()
                break
            go_on()
            state.update(answer.data)
            yield answer.data
        self._check(digest, Digest(state.hexdigest(), size))

    def _checked(self, digest: Digest, data: bytes) -> bytes:
        self._check(digest, Digest.of(data))
        return data

    def _check(self, digest: Digest, got: Digest) -> None:
        if got != digest:
            raise self._refuses(
                f"sent other bytes than it named: expected {digest.hash} ({digest.size} bytes), "
                f"got {got.hash} ({got.size} bytes)"
            )
        with self._lock:
            self.received += digest.size
            self._there.add(digest)

    def _name(self, name: str) -> str:
        return f"{self.wire.instance}/{name}" if self.wire.instance else name

    def _refuses(self, what: str) -> RunRefused:
        return RunRefused(
            f"the remote engine {self.wire.address.text} {what}",
            hint="nothing of it was used; run again, or without --remote",
        )
