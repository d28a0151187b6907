"""Kubernetes' own suite against a cluster: the processes that run it, and what they tell, spec by spec."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube.cluster.pod import Kubectl
from sandkube.cluster.processes import opened, signal_descendant, tree_of
from sandkube.cluster.watch import CREATE, MODIFY, Watch
from sandkube.decode import decoded
from sandkube.documents import parse_json
from sandkube.errors import UserError
from sandkube.run import base_environment, mortal

PASSED, SKIPPED, INTERRUPTED = "passed", "skipped", ("interrupted", "aborted")
_LONGEST = "24h"  # of a run; Ginkgo's own is an hour
_REGISTRIES = {
    "promoterE2eRegistry": "sandkube.local/e2e-test-images",
    "gcRegistry": "sandkube.local",
    "gcEtcdRegistry": "sandkube.local",
}
"""Where the suite's images are from: recipes `image-e2e-*` have these in their names. (test/utils/image/manifest.go)"""


@dataclass(frozen=True, slots=True)
class Spec:
    """How a spec ended. `state` is Ginkgo's word: passed, failed, timedout, panicked, interrupted, aborted, skipped."""

    name: str
    state: str
    seconds: float = 0.0
    message: str = ""
    place: str = ""
    """Where in the suite's source it failed."""


@dataclass(frozen=True, slots=True)
class Total:
    """How many specs there will be."""

    total: int = 0


@dataclass(frozen=True, slots=True)
class Suite:
    """The suite's programs, the folder that its files go to, and what of it is run."""

    programs: Path
    """The folder with e2e.test and ginkgo."""
    folder: Path
    focus: Sequence[str] = ()
    skip: Sequence[str] = ()
    left_out: Sequence[str] = ()
    """Full names of specs."""
    parallel: int = 1

    @property
    def told(self) -> Path:
        """A line of JSON for each spec that ended."""
        return self.folder / "specs.jsonl"

    @property
    def log(self) -> Path:
        """All that the suite says."""
        return self.folder / "suite.log"

    def _chosen(self, prefix: str) -> list[str]:
        words = ["label-filter=Conformance", f"timeout={_LONGEST}", "no-color", "v"]
        words += [f"focus={each}" for each in self.focus] + [f"skip={each}" for each in self.skip]
        return [f"--{prefix}{each}" for each in words]

    def environment(self) -> dict[str, str]:
        """The environment of its processes."""
        names = self.folder / "registries.yaml"
        names.write_text(json.dumps(_REGISTRIES))
        return base_environment(self.folder) | {"KUBE_TEST_REPO_LIST": str(names)}

    def argv(self, kubectl: Kubectl) -> list[str]:
        """The command line, against the cluster that a kubectl is for."""
        names = self.folder / "left-out.txt"
        names.write_text("".join(f"{each}\n" for each in self.left_out))
        own = [
            f"--told={self.told}",
            f"--left-out={names}",
            f"--kubeconfig={kubectl.place.kubeconfig}",
            f"--kubectl-path={kubectl.program}",
            f"--report-dir={self.folder}",
            f"--e2e-output-dir={self.folder}",
            "--provider=skeleton",
            "--disable-log-dump",
        ]
        program = str(self.programs / "e2e.test")
        if self.parallel == 1:
            return [program, *self._chosen("ginkgo."), *own]
        command = [str(self.programs / "ginkgo"), f"--procs={self.parallel}", "--keep-going", *self._chosen("")]
        return [*command, program, "--", *own]


def read(path: Path) -> Iterator[Spec | Total]:
    """What a file of results says; the half line of a killed writer is left out."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        yield from _parsed(each for each in stream if each.endswith(b"\n"))


def _parsed(lines: Iterable[bytes]) -> Iterator[Spec | Total]:
    for each in lines:
        told = parse_json(each)
        place = "what the suite told"
        yield decoded(Total, told, place) if "total" in told else decoded(Spec, told, place)


class _Tail:
    """Whole lines of a file that grows."""

    def __init__(self, path: Path, at: int) -> None:
        self.path, self.at = path, at

    def lines(self) -> list[bytes]:
        """Those that are new."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as stream:
            stream.seek(self.at)
            whole = stream.read().rpartition(b"\n")
        self.at += len(whole[0]) + len(whole[1])
        return whole[0].splitlines()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a process and all that came from it."""
    for each in [*tree_of(process.pid)]:
        signal_descendant(each, number)


@contextlib.contextmanager
def _asked_to_end(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """While inside, hand on what asks us to end, the second time as SIGKILL; the signals that came."""
    came: list[int] = []

    def hand_on(number: int, _frame: object) -> None:
        came.append(number)
        _signal(process, signal.SIGKILL if len(came) > 1 else signal.SIGINT)

    before = {each: signal.signal(each, hand_on) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _until_end(process: subprocess.Popen[bytes], watch: Watch, tail: _Tail) -> Iterator[Spec | Total]:
    with opened(process.pid, lambda: True) as ends:
        while process.poll() is None:
            select.select([each for each in (ends, watch.descriptor) if each is not None], [], [])
            watch.drain()
            yield from _parsed(tail.lines())
        yield from _parsed(tail.lines())


def run(suite: Suite, kubectl: Kubectl) -> Iterator[Spec | Total]:
    """Run the suite, and yield what it tells; its file of results is written on behind what is in it.

    The first SIGINT or SIGTERM has the suite end in order: it ends the specs that run, cleans up behind them and tells
    of them; then KeyboardInterrupt is raised. The second kills it. Raises UserError if no spec was begun.
    """
    tail = _Tail(suite.told, suite.told.stat().st_size if suite.told.exists() else 0)
    before = tail.at
    with suite.log.open("wb") as log, Watch(suite.folder, MODIFY | CREATE) as watch:
        process = subprocess.Popen(
            mortal(suite.argv(kubectl)),
            env=suite.environment(),
            cwd=suite.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )
        try:
            with _asked_to_end(process) as came:
                yield from _until_end(process, watch, tail)
        finally:
            if process.poll() is None:
                _signal(process, signal.SIGKILL)
                process.wait()
    if came:
        raise KeyboardInterrupt
    if tail.at == before:
        said = suite.log.read_text(errors="replace").splitlines()[-20:]
        raise UserError("\n".join(["the suite ended before its first spec", *(f"  | {each}" for each in said)]))
