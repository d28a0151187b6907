"""One execution at an engine, followed from its request to its end: a stream of operations (Execution of REAPI v2)."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from sandkube.build.remote.stubs.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from sandkube.build.remote.stubs.google.longrunning import operations_pb2
from sandkube.build.remote.wire import PASSING, PAUSES, Wire
from sandkube.run import go_on, wait

PULSE = 20.0
"""Seconds without a word after which the engine is asked whether it is there."""
_LOOK = 0.1  # seconds between looks at whether the user asked to stop
WAITING, RUNNING = "waiting for a worker", "running"
_STAGES = {api.ExecutionStage.CACHE_CHECK: WAITING, api.ExecutionStage.QUEUED: WAITING}


class _Broken(Exception):
    """A stream ended before its execution did."""


@dataclass(slots=True)
class Execution:
    """One execution. `tell` hears how far it is; `until`, of time.monotonic(), is when it must have ended."""

    wire: Wire
    request: api.ExecuteRequest
    tell: Callable[[str], None]
    until: float
    _name: str = ""
    """By which the engine knows it, once it has said so."""
    _pauses: Iterator[float] = field(default_factory=lambda: iter(PAUSES))

    def follow(self) -> api.ExecuteResponse:
        """Its end. A stream that breaks is taken up where it was (WaitExecution). Raises RunRefused, Interrupted."""
        while True:
            stream = self._stream()
            try:
                for operation in self._heard(stream):
                    self._name = operation.name or self._name
                    self._pauses = iter(PAUSES)
                    if operation.done:
                        return self._response(operation)
                    self.tell(_stage(operation))
                raise _Broken
            except (_Broken, grpc.RpcError) as error:
                self._go_on_after(error)
            except BaseException:
                stream.cancel()
                self._cancel()
                raise

    def _go_on_after(self, error: _Broken | grpc.RpcError) -> None:
        """Wait for another attempt. Raises RunRefused where there is none, Interrupted."""
        code = error.code() if isinstance(error, grpc.RpcError) else grpc.StatusCode.UNAVAILABLE
        forgotten = bool(self._name) and code == grpc.StatusCode.NOT_FOUND
        pause = next(self._pauses, None) if forgotten or code in PASSING else None
        if pause is None:
            if isinstance(error, grpc.RpcError):
                raise self.wire.refused(error) from None
            raise self.wire.fault("does not say how a command ended") from None
        if forgotten:
            self._name = ""
        wait(pause)

    def _stream(self) -> Any:
        execution, metadata = self.wire.execution, self.wire.metadata
        if self._name:
            return execution.WaitExecution(api.WaitExecutionRequest(name=self._name), metadata=metadata)
        return execution.Execute(self.request, metadata=metadata)

    def _heard(self, stream: Any) -> Iterator[operations_pb2.Operation]:
        """What a stream says. Raises what it ends with, Interrupted, and RunRefused for a silence that is too long."""
        said: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def listen() -> None:
            try:
                for operation in stream:
                    said.put(operation)
                said.put(None)
            except grpc.RpcError as error:
                said.put(error)

        threading.Thread(target=listen, name="remote", daemon=True).start()
        quiet = time.monotonic()
        while True:
            try:
                one = said.get(timeout=_LOOK)
            except queue.Empty:
                quiet = self._check_silence(quiet)
                continue
            if one is None:
                return
            if isinstance(one, grpc.RpcError):
                raise one
            yield one
            quiet = time.monotonic()

    def _check_silence(self, quiet: float) -> float:
        """The time since which nothing is known of the engine, given the one so far. Raises RunRefused, Interrupted."""
        go_on()
        now = time.monotonic()
        if now > self.until:
            hint = "SANDKUBE_REMOTE_TIMEOUT=SECONDS gives it more; are there workers that are free?"
            raise self.wire.fault("did not end a command in time", hint)
        if now - quiet < PULSE:
            return quiet
        if not self.wire.answers():
            raise self.wire.fault("does not answer any more")
        return time.monotonic()

    def _response(self, operation: operations_pb2.Operation) -> api.ExecuteResponse:
        if operation.HasField("error"):
            raise self.wire.fault(f"could not run a command: {operation.error.message}")
        response = api.ExecuteResponse()
        if not operation.response.Unpack(response):
            raise self.wire.fault("answers with something else than the result of a command")
        return response

    def _cancel(self) -> None:
        """Have the engine end what nobody waits for any more; one that cannot goes on alone."""
        if self._name:
            with contextlib.suppress(grpc.RpcError):
                request = operations_pb2.CancelOperationRequest(name=self._name)
                self.wire.operations.CancelOperation(request, timeout=2.0, metadata=self.wire.metadata)


def _stage(operation: operations_pb2.Operation) -> str:
    metadata = api.ExecuteOperationMetadata()
    return _STAGES.get(metadata.stage, RUNNING) if operation.metadata.Unpack(metadata) else WAITING
