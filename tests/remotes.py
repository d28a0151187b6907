"""A remote engine in this process, on loopback, with the ways in which real ones differ and fail. It runs nothing:
what became of a command is what the test says."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc

from sandkube.build.remote.merkle import Digest, Folder
from sandkube.build.remote.stubs.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from sandkube.build.remote.stubs.build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as services
from sandkube.build.remote.stubs.google.bytestream import bytestream_pb2, bytestream_pb2_grpc
from sandkube.build.remote.stubs.google.longrunning import operations_pb2, operations_pb2_grpc

Context = grpc.ServicerContext
Run = Callable[[api.Command, str], api.ActionResult]
"""What a command with an input root of some hash comes to."""


@dataclass
class Engine:
    """What an engine has and how it behaves."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    run: Run = lambda command, root: api.ActionResult()  # noqa: ARG005
    results: dict[str, api.ActionResult] = field(default_factory=dict)
    """Its action cache."""
    batch: int = 0
    absolute_links: bool = True
    executes: bool = True
    tree_form: bool = True
    """Whether output folders are told by `Tree` messages; else by the digests of their roots."""
    faults: dict[str, list[grpc.StatusCode]] = field(default_factory=dict)
    """Statuses that are answered instead, by the name of the method."""
    ends: list[api.ExecuteResponse] = field(default_factory=list)
    """Ends of executions that come instead of those of `run`."""
    stages: list[Any] = field(default_factory=list)
    cuts: int = 0
    """Streams that end before their execution does."""
    silent: bool = False
    """Whether executions never end."""
    twist: Callable[[bytes], bytes] = lambda data: data
    """What becomes of blobs on their way out."""
    asked: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    """Values of the header `authorization`."""
    cancelled: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def put(self, data: bytes) -> api.Digest:
        digest = Digest.of(data)
        self.blobs[digest.hash] = data
        return digest.message()

    def folder(self, path: str, folder: Folder) -> api.OutputDirectory:
        """An output folder, with all that is in it."""
        for digest, blob in folder.blobs():
            assert isinstance(blob, bytes)
            self.blobs[digest.hash] = blob
        if not self.tree_form:
            return api.OutputDirectory(path=path, root_directory_digest=folder.digest.message())
        tree = api.Tree(root=api.Directory.FromString(folder.data))
        tree.children.extend(
            api.Directory.FromString(node.data) for _, node in folder.walk() if isinstance(node, Folder)
        )
        return api.OutputDirectory(path=path, tree_digest=self.put(tree.SerializeToString()))

    def meet(self, method: str, context: Context) -> None:
        """Note what is asked; answer with a fault if one is due."""
        self.asked.append(method)
        self.shown += [str(value) for name, value in context.invocation_metadata() if name == "authorization"]
        if self.faults.get(method):
            context.abort(self.faults[method].pop(0), f"{method} has\na fault")


class _Capabilities(services.CapabilitiesServicer):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def GetCapabilities(self, request: Any, context: Context) -> api.ServerCapabilities:  # noqa: N802, ARG002
        self.engine.meet("GetCapabilities", context)
        said = api.ServerCapabilities()
        said.cache_capabilities.digest_functions.append(api.DigestFunction.SHA256)
        said.cache_capabilities.max_batch_total_size_bytes = self.engine.batch
        strategy = api.SymlinkAbsolutePathStrategy
        allowed = strategy.ALLOWED if self.engine.absolute_links else strategy.DISALLOWED
        said.cache_capabilities.symlink_absolute_path_strategy = allowed
        said.execution_capabilities.exec_enabled = self.engine.executes
        said.low_api_version.major = said.high_api_version.major = 2
        return said


class _Store(services.ContentAddressableStorageServicer, bytestream_pb2_grpc.ByteStreamServicer):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def FindMissingBlobs(self, request: Any, context: Context) -> api.FindMissingBlobsResponse:  # noqa: N802
        self.engine.meet("FindMissingBlobs", context)
        missing = [each for each in request.blob_digests if each.hash not in self.engine.blobs]
        return api.FindMissingBlobsResponse(missing_blob_digests=missing)

    def BatchUpdateBlobs(self, request: Any, context: Context) -> api.BatchUpdateBlobsResponse:  # noqa: N802
        self.engine.meet("BatchUpdateBlobs", context)
        said = api.BatchUpdateBlobsResponse()
        for each in request.requests:
            assert Digest.of(each.data) == Digest.said(each.digest)
            self.engine.blobs[each.digest.hash] = each.data
            said.responses.add(digest=each.digest)
        return said

    def BatchReadBlobs(self, request: Any, context: Context) -> api.BatchReadBlobsResponse:  # noqa: N802
        self.engine.meet("BatchReadBlobs", context)
        said = api.BatchReadBlobsResponse()
        for each in request.digests:
            one = said.responses.add(digest=each)
            if each.hash in self.engine.blobs:
                one.data = self.engine.twist(self.engine.blobs[each.hash])
            else:
                one.status.code, one.status.message = 5, "not found"
        return said

    def Read(self, request: Any, context: Context) -> Iterator[bytestream_pb2.ReadResponse]:  # noqa: N802
        self.engine.meet("Read", context)
        data = self.engine.twist(self.engine.blobs[request.resource_name.split("/")[-2]])
        for at in range(0, len(data), 1000):
            yield bytestream_pb2.ReadResponse(data=data[at : at + 1000])
            self.engine.meet("Read in the middle", context)

    def Write(self, requests: Any, context: Context) -> bytestream_pb2.WriteResponse:  # noqa: N802
        self.engine.meet("Write", context)
        data, name = b"", ""
        for each in requests:
            assert each.write_offset == len(data)
            name = name or each.resource_name
            data += each.data
        assert each.finish_write
        assert name.split("/")[-2] == hashlib.sha256(data).hexdigest()
        self.engine.blobs[name.split("/")[-2]] = data
        return bytestream_pb2.WriteResponse(committed_size=len(data))


class _Execution(services.ExecutionServicer, operations_pb2_grpc.OperationsServicer):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ends: dict[str, api.ExecuteResponse] = {}

    def Execute(self, request: Any, context: Context) -> Iterator[operations_pb2.Operation]:  # noqa: N802
        self.engine.meet("Execute", context)
        name = f"operations/{len(self.ends)}"
        self.ends[name] = self._end(request)
        yield from self._said(name, context)

    def WaitExecution(self, request: Any, context: Context) -> Iterator[operations_pb2.Operation]:  # noqa: N802
        self.engine.meet("WaitExecution", context)
        yield from self._said(request.name, context)

    def CancelOperation(self, request: Any, context: Context) -> Any:  # noqa: N802
        self.engine.cancelled.append(request.name)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")

    def _end(self, request: Any) -> api.ExecuteResponse:
        if self.engine.ends:
            return self.engine.ends.pop(0)
        known = self.engine.results.get(request.action_digest.hash)
        if known is not None and not request.skip_cache_lookup:
            return api.ExecuteResponse(result=known, cached_result=True)
        action = api.Action.FromString(self.engine.blobs[request.action_digest.hash])
        command = api.Command.FromString(self.engine.blobs[action.command_digest.hash])
        result = self.engine.run(command, action.input_root_digest.hash)
        self.engine.results[request.action_digest.hash] = result
        return api.ExecuteResponse(result=result)

    def _said(self, name: str, context: Context) -> Iterator[operations_pb2.Operation]:
        for stage in self.engine.stages:
            operation = operations_pb2.Operation(name=name)
            operation.metadata.Pack(api.ExecuteOperationMetadata(stage=stage))
            yield operation
        if self.engine.silent:
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait()
        if self.engine.cuts:
            self.engine.cuts -= 1
            yield operations_pb2.Operation(name=name)
            return
        operation = operations_pb2.Operation(name=name, done=True)
        operation.response.Pack(self.ends[name])
        yield operation


@contextlib.contextmanager
def serving(engine: Engine, port: int = 0) -> Iterator[Engine]:
    """Have it listen on a port of loopback."""
    with futures.ThreadPoolExecutor(16) as pool:
        server = grpc.server(pool)
        services.add_CapabilitiesServicer_to_server(_Capabilities(engine), server)
        store, execution = _Store(engine), _Execution(engine)
        services.add_ContentAddressableStorageServicer_to_server(store, server)
        bytestream_pb2_grpc.add_ByteStreamServicer_to_server(store, server)
        services.add_ExecutionServicer_to_server(execution, server)
        operations_pb2_grpc.add_OperationsServicer_to_server(execution, server)
        engine.port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield engine
        finally:
            server.stop(0).wait()
