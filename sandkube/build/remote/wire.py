"""The wire to an engine: one channel, faults that pass are tried again, all others are sentences."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc

from sandkube.build.remote.address import Address
from sandkube.build.remote.stubs.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from sandkube.build.remote.stubs.build.bazel.remote.execution.v2 import remote_execution_pb2_grpc as services
from sandkube.build.remote.stubs.google.bytestream import bytestream_pb2_grpc
from sandkube.build.remote.stubs.google.longrunning import operations_pb2_grpc
from sandkube.errors import RunRefused, Unusable
from sandkube.registry import logins
from sandkube.run import go_on, wait

T = TypeVar("T")
PAUSES = (0.0, 0.2, 1.0, 3.0)  # seconds before each attempt
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED)
ANSWER = 30.0
"""Seconds in which an engine answers a small question."""
SLOWEST = 64 << 10  # bytes a second that blobs come and go with, at least
_CA = ("SANDKUBE_REMOTE_CA", "SSL_CERT_FILE")
_AGAIN = "run again: finished steps are kept; without --remote steps run here"
_OPTIONS = (("grpc.max_receive_message_length", 64 << 20), ("grpc.primary_user_agent", "sandkube"))


def patience(size: int) -> float:
    """Seconds in which so many bytes have to come or go."""
    return ANSWER + size / SLOWEST


def _roots(environment: Mapping[str, str]) -> bytes | None:
    """The certificates that an engine's is checked against; None for those that gRPC brings. Raises RunRefused."""
    named = next((environment[each] for each in _CA if environment.get(each)), None)
    try:
        return Path(named).read_bytes() if named else None
    except OSError as error:
        raise RunRefused(f"the certificates in {named} cannot be read: {error.strerror}") from None


def _credential(address: Address, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """What ~/.netrc has for the host; with the login `bearer` its password is a token. Raises RunRefused."""
    try:
        found = logins.from_netrc(address.host, environment)
    except Unusable as error:
        raise RunRefused(str(error)) from None
    if found is None or not address.secure:  # no password goes over a wire that all can read
        return []
    return [("authorization", f"Bearer {found.password}" if found.name == "bearer" else found.basic())]


class Wire:
    """A channel to one engine, and the services at its other end."""

    def __init__(self, address: Address, environment: Mapping[str, str] = os.environ) -> None:
        """Nothing is sent yet. Raises RunRefused for certificates or credentials that cannot be read."""
        self.address = address
        self.metadata = _credential(address, environment)
        if address.secure:
            credentials = grpc.ssl_channel_credentials(_roots(environment))
            self.channel = grpc.secure_channel(address.target, credentials, _OPTIONS)
        else:
            self.channel = grpc.insecure_channel(address.target, _OPTIONS)
        self.capabilities = services.CapabilitiesStub(self.channel)
        self.cas = services.ContentAddressableStorageStub(self.channel)
        self.execution = services.ExecutionStub(self.channel)
        self.bytes = bytestream_pb2_grpc.ByteStreamStub(self.channel)
        self.operations = operations_pb2_grpc.OperationsStub(self.channel)

    @property
    def instance(self) -> str:
        """Which of an engine's instances is asked."""
        return self.address.instance

    def ask(self, method: Callable[..., T], request: Any, *, seconds: float = ANSWER) -> T:
        """One question, one answer. Raises RunRefused, Interrupted."""
        return self.tried(lambda: method(request, timeout=seconds, metadata=self.metadata))

    def tried(self, once: Callable[[], T]) -> T:
        """Do something that an engine may be asked twice. Raises RunRefused, Interrupted."""
        for pause in PAUSES:
            wait(pause)
            try:
                return once()
            except grpc.RpcError as error:
                go_on()  # what stopped a stream of requests is told as a fault of it
                last = error
                if error.code() not in PASSING:
                    break
        raise self.refused(last)

    def answers(self) -> bool:
        """Whether the engine is still there."""
        request = api.GetCapabilitiesRequest(instance_name=self.instance)
        try:
            self.capabilities.GetCapabilities(request, timeout=ANSWER, metadata=self.metadata)
        except grpc.RpcError as error:
            return error.code() not in (*PASSING, grpc.StatusCode.DEADLINE_EXCEEDED)
        return True

    def refused(self, error: grpc.RpcError) -> RunRefused:
        """The sentence for what the engine, or the way to it, said."""
        code, details = error.code(), " ".join(str(error.details() or "").split())
        where = f"the remote engine {self.address.text}"
        if code == grpc.StatusCode.UNAVAILABLE:
            secure = (
                "; does it speak TLS (grpcs://), with a certificate that SANDKUBE_REMOTE_CA or SSL_CERT_FILE knows?"
            )
            return RunRefused(
                f"{where} cannot be reached: {details}",
                hint=f"is it up{secure} Run again: finished steps are kept; without --remote steps run here",
            )
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return RunRefused(
                f"{where} lets us not in: {details}", hint="~/.netrc holds what to show it, over grpcs://"
            )
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return RunRefused(f"{where} gave no answer in time", hint="run again: finished steps are kept")
        return RunRefused(f"{where} refuses: {code.name}: {details}", hint="without --remote steps run here")

    def fault(self, what: str, hint: str = _AGAIN) -> RunRefused:
        """The sentence for something else that an engine does or is."""
        return RunRefused(f"the remote engine {self.address.text} {what}", hint=hint)

    def close(self) -> None:
        """Let go of the channel."""
        self.channel.close()
