"""An engine: what it can do, and commands that its workers run (Execution of REAPI v2)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sandkube.build.remote.cas import BATCH, Blob, Blobs
from sandkube.build.remote.execution import WAITING, Execution
from sandkube.build.remote.merkle import Digest, Folder
from sandkube.build.remote.stubs.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from sandkube.build.remote.wire import Wire
from sandkube.errors import RunRefused

PLATFORM = (("ISA", "x86-64"), ("OSFamily", "linux"))
"""What workers must be, by the protocol's own names (its platform lexicon), sorted. None asks for a network."""
DEADLINE = 7200.0
"""Seconds in which a command has to end, waiting included."""
_FAILED_PRECONDITION = 9  # google.rpc.Code: an input is missing


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine said of itself."""

    absolute_links: bool
    """Whether input roots may have symbolic links with absolute aims."""
    batch: int
    """Bytes that it takes in one message."""


@dataclass(slots=True)
class Engine:
    """One engine. Thread-safe."""

    wire: Wire
    deadline: float = DEADLINE
    blobs: Blobs = field(init=False)
    ran: int = 0
    """Commands that workers ran."""
    cached: int = 0
    """Commands whose results its action cache had."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.blobs = Blobs(self.wire)

    def open(self) -> Abilities:
        """Ask what it can do. Raises RunRefused for one that is of no use."""
        request = api.GetCapabilitiesRequest(instance_name=self.wire.instance)
        said = self.wire.ask(self.wire.capabilities.GetCapabilities, request)
        where = f"the remote engine {self.wire.address.text}"
        if said.low_api_version.major > 2 or said.high_api_version.major < 2:
            versions = f"{said.low_api_version.major} to {said.high_api_version.major}"
            raise RunRefused(f"{where} speaks version {versions} of the protocol, not 2")
        if not said.execution_capabilities.exec_enabled:
            hint = "an address of its scheduler is needed; a server that only stores is a cache: ./do help cache"
            raise RunRefused(f"{where} runs nothing", hint=hint)
        if api.DigestFunction.SHA256 not in said.cache_capabilities.digest_functions:
            raise RunRefused(f"{where} does not name blobs by SHA-256")
        cache = said.cache_capabilities
        most = cache.max_batch_total_size_bytes or BATCH
        self.blobs.batch = min(BATCH, most)
        allowed = api.SymlinkAbsolutePathStrategy.ALLOWED
        return Abilities(cache.symlink_absolute_path_strategy == allowed, self.blobs.batch)

    def run(
        self, command: api.Command, root: Folder, tell: Callable[[str], None], *, anew: bool = False
    ) -> api.ActionResult:
        """Run a command with an input root, or, unless `anew`, take what its action cache has. `tell` hears its state.

        A failure that was cached is no answer: it may have been the worker's. Raises RunRefused, Interrupted.
        """
        data = command.SerializeToString(deterministic=True)
        action = api.Action(
            command_digest=Digest.of(data).message(), input_root_digest=root.digest.message(), platform=command.platform
        )
        named = action.SerializeToString(deterministic=True)
        digest = Digest.of(named)
        needed: dict[Digest, Blob] = {Digest.of(data): data, digest: named, **dict(root.blobs())}
        until = time.monotonic() + self.deadline
        response = self._execute(digest, needed, tell, until, cached=not anew)
        if response.cached_result and response.result.exit_code != 0:
            response = self._execute(digest, needed, tell, until, cached=False)
        with self._lock:
            self.cached += response.cached_result
            self.ran += not response.cached_result
        return response.result

    def _execute(
        self, action: Digest, needed: dict[Digest, Blob], tell: Callable[[str], None], until: float, *, cached: bool
    ) -> api.ExecuteResponse:
        """Send what is missing, execute; once more where the engine dropped some of it meanwhile."""
        request = api.ExecuteRequest(
            instance_name=self.wire.instance, action_digest=action.message(), skip_cache_lookup=not cached
        )
        for _ in range(2):
            tell("sending")
            self.blobs.send(needed)
            tell(WAITING)
            response = Execution(self.wire, request, tell, until).follow()
            if response.status.code != _FAILED_PRECONDITION:
                break
            self.blobs.forget()
        if response.status.code != 0:
            raise self.wire.fault(f"could not run a command: {response.status.message or 'it does not say why'}")
        return response

    def report(self) -> str:
        """What became of a run's commands, in one line; empty where there were none."""
        if not self.ran + self.cached:
            return ""
        sent, received = (round(each / 1e6, 1) for each in (self.blobs.sent, self.blobs.received))
        commands = f"{self.ran} commands run, {self.cached} known to its action cache"
        return f"remote engine {self.wire.address.text}: {commands}, {sent} MB sent, {received} MB received"
