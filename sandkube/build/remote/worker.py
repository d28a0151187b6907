"""Remote: runs a step's commands on an engine's workers, and in the build sandbox here what no worker can run."""

from __future__ import annotations

import contextlib
import os
import posixpath
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sandkube import log as screen
from sandkube.build.box import ENVIRONMENT, Box, Call, Mount
from sandkube.build.remote import survey
from sandkube.build.remote.address import Address
from sandkube.build.remote.cas import Blobs
from sandkube.build.remote.engine import DEADLINE, PLATFORM, Abilities, Engine
from sandkube.build.remote.execution import WAITING
from sandkube.build.remote.kind import USER_NAMESPACES, Here
from sandkube.build.remote.merkle import KEPT_ELSEWHERE, Digest, Folder, Impossible, Trees, parts_of
from sandkube.build.remote.receive import apply, output_folder
from sandkube.build.remote.stubs.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from sandkube.build.remote.survey import Worker
from sandkube.build.remote.wire import Wire
from sandkube.errors import RunRefused, UserError
from sandkube.run import Finished, check_finished

_NETWORK = "its workers reach a network; that outputs depend on nothing but their inputs is not guaranteed"
TIMEOUT = "SANDKUBE_REMOTE_TIMEOUT"


def _platform() -> api.Platform:
    platform = api.Platform()
    for name, value in PLATFORM:
        platform.properties.add(name=name, value=value)
    return platform


def command(call: Call) -> api.Command:
    """A call as the protocol has it: what comes back are its writable mounts, but for what compilers keep."""
    made = api.Command(arguments=list(call.command), working_directory=call.cwd.strip("/"), platform=_platform())
    for name, value in sorted((dict(ENVIRONMENT) | dict(call.env)).items()):
        made.environment_variables.add(name=name, value=value)
    made.output_paths.extend(sorted(output_path(each, call.cwd) for each in returned(call)))
    return made


def returned(call: Call) -> list[Mount]:
    """The mounts that a call changes for others to see."""
    return [each for each in call.mounts if each.writable and each.inside not in KEPT_ELSEWHERE]


def output_path(mount: Mount, cwd: str) -> str:
    """Relative to the working directory; that itself by way of its parent, since engines differ on "" and "."."""
    path = posixpath.relpath(mount.inside, cwd)
    return f"../{posixpath.basename(mount.inside)}" if path == "." else path


def _deadline(environment: Mapping[str, str]) -> float:
    """Seconds in which a command has to end, waiting included. Raises UserError."""
    text = environment.get(TIMEOUT, "")
    if not text:
        return DEADLINE
    if not (text.isascii() and text.isdigit() and int(text)):
        raise UserError(f"{TIMEOUT} takes a number of seconds from 1 on, not {text!r}")
    return float(text)


class Remote:
    """The workers of one engine, opened when the first command is run. Thread-safe."""

    def __init__(self, address: Address, fixed: tuple[Path, ...], environment: Mapping[str, str] = os.environ) -> None:
        """`fixed`: folders below which trees do not change. Raises RunRefused."""
        self.engine = Engine(Wire(address, environment), _deadline(environment))
        self.trees = Trees(fixed)
        self._gate = threading.Lock()
        self._found: tuple[Abilities, Worker] | None = None
        self._refusal: RunRefused | None = None

    def open(self) -> tuple[Abilities, Worker]:
        """What engine and workers can do, found once. Raises RunRefused, the same for all."""
        with self._gate:
            if self._refusal:
                raise self._refusal
            if self._found is None:
                try:
                    self._found = self.engine.open(), self._find_worker()
                except RunRefused as refusal:
                    self._refusal = refusal
                    raise
            return self._found

    def _find_worker(self) -> Worker:
        where = f"the remote engine {self.engine.wire.address.text}"
        with screen.running(where, WAITING):
            result = self.engine.run(command(survey.CALL), survey.ROOT, lambda _: None, anew=True)
        worker = survey.read(result.exit_code)
        if worker is None:
            raise RunRefused(
                f"{where}: its workers do not show an input root as /, which steps need for equal bytes",
                hint="workers that start commands by buildbox-run-bubblewrap do; without --remote steps run here",
            )
        if worker.network:
            screen.say(f"warning: {where}: {_NETWORK}")
        return worker

    def box(self, name: str, here: Here, log_path: Path, needs: Sequence[str] = ()) -> Box:
        """What a step runs its commands in."""
        return _RemoteBox(self, name, here, log_path, needs)

    def report(self) -> Iterator[str]:
        """What became of a run, in a line."""
        if text := self.engine.report():
            yield text


@dataclass(slots=True)
class _RemoteBox:
    remote: Remote
    name: str
    here: Here
    log_path: Path
    needs: Sequence[str]

    def run(self, call: Call, *, log: BinaryIO, capture: bool = False, check: bool = True) -> Finished:
        """Run one command. Raises CommandFailed unless `check` is off, RunRefused where the engine fails."""
        abilities, worker = self.remote.open()
        try:
            if USER_NAMESPACES in self.needs and not worker.user_namespaces:
                raise Impossible("its recipe needs user namespaces, and workers have none")
            root = self.remote.trees.root(call.mounts)
            check_links(root, abilities)
        except Impossible as why:
            screen.step(self.name, f"workers cannot run a command of it, so that runs here: {why}")
            with self.here() as box:
                return box.run(call, log=log, capture=capture, check=check)
        log.write(f"$ {call.text()}\n".encode(errors="surrogateescape"))
        log.flush()
        with self._progress() as tell:
            result = self.remote.engine.run(command(call), root, tell)
            tell("fetching what a worker made")
            for mount in returned(call):
                after = _left(self.remote.engine.blobs, result, output_path(mount, call.cwd))
                apply(self.remote.engine.blobs, mount.host, root.at(parts_of(mount.inside)), after)
            output = self._told(result, log, capture=capture)
        finished = Finished(tuple(call.command), result.exit_code, output)
        return check_finished(finished) if check else finished

    @contextlib.contextmanager
    def _progress(self) -> Iterator[Callable[[str], None]]:
        """Tells how far a command is, while inside."""
        with contextlib.ExitStack() as now:
            last = ""

            def tell(what: str) -> None:
                nonlocal last
                if what != last:
                    now.close()
                    now.enter_context(screen.running(self.name, f"remote: {what}", self.log_path))
                    last = what

            yield tell

    def _told(self, result: api.ActionResult, log: BinaryIO, *, capture: bool) -> bytes:
        """Put into the log what a command said; its standard output, if that is wanted."""
        blobs = self.remote.engine.blobs
        out, err = (
            raw or (blobs.whole(Digest.said(digest)) if digest.size_bytes else b"")
            for raw, digest in (
                (result.stdout_raw, result.stdout_digest),
                (result.stderr_raw, result.stderr_digest),
            )
        )
        log.write(err if capture else out + err)
        log.flush()
        return out if capture else b""


def _left(blobs: Blobs, result: api.ActionResult, path: str) -> Folder:
    """What a worker left at an output path; an empty folder where there is none any more."""
    found = (each for each in result.output_directories if each.path == path)
    return next((output_folder(blobs, each) for each in found), Folder())


def check_links(root: Folder, abilities: Abilities) -> None:
    """Raises Impossible for links with absolute aims where an engine takes none."""
    if abilities.absolute_links:
        return
    for name, node in root.walk():
        if isinstance(node, str) and node.startswith("/"):
            raise Impossible(f"/{name} is a link with an absolute aim, which this engine takes none of")
