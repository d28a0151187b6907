"""doit's side: one task a step, and the commands that build.

Up to date means that the store says so (`Realiser.up_to_date`), never doit's own database.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doit.cmd_run import Run
from doit.cmdparse import CmdParseError
from doit.exceptions import TaskFailed

from sandkube import log, plan, spec
from sandkube.errors import UserError
from sandkube.realise import Places, Realiser
from sandkube.run import stop_children, stopping
from sandkube.store import Store

ROOT = Path(__file__).resolve().parents[1]
JOBS = 4  # steps in flight: fetches wait for the network while one build has the cores


def _on_signal(number: int, frame: object) -> None:
    """First signal: end the children, let the steps fail. Second: leave at once (the store takes it)."""
    if stopping():
        os._exit(128 + number)
    stop_children()


def prepare_process() -> None:
    """Signals and umask of a command that builds."""
    os.umask(0o022)
    signal.signal(signal.SIGINT, _on_signal)
    signal.signal(signal.SIGTERM, _on_signal)


def _on_term(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def release_signals() -> None:
    """Signals of a command that has built and goes on: both ask it to clean up and leave."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _on_term)


@functools.cache
def realiser() -> Realiser:
    """The one Realiser of this process. Raises UserError for wrong recipes or a lock that does not match them."""
    places = Places.of(ROOT, os.environ)
    loaded = plan.load(ROOT)
    plan.check_lock(loaded, spec.check(loaded.recipes, loaded.lock, ROOT))
    return Realiser(loaded, places, Store(places.outputs / "store"))


def _realise(name: str) -> TaskFailed | None:
    try:
        realiser().realise(name)
    except UserError as error:
        text = str(error) if str(error).startswith(f"{name}:") else f"{name}: {error}"
        return TaskFailed(text, report=not stopping())
    return None


def step_tasks() -> Iterator[dict[str, Any]]:
    """One task a step, `step:<name>`."""
    one = realiser()
    for name in sorted(one.plan.recipes):
        yield {
            "name": name,
            "doc": str(one.plan.recipes[name].source or one.plan.recipes[name].kind),
            "actions": [(_realise, (name,))],
            "uptodate": [functools.partial(_up_to_date, name)],
            "task_dep": [f"step:{each}" for each in one.plan.needs(name)],
            "io": {"capture": False},
            "meta": {"step": name},
        }


def _up_to_date(name: str, task: object, values: object) -> bool:
    return not stopping() and realiser().up_to_date(name)


class Sentences:
    """Mixin of our commands: a wrong option is one sentence, without the table of all options that doit adds."""

    def parse_execute(self, in_args: list[str]) -> int:
        """As doit's own."""
        try:
            status: int = super().parse_execute(in_args)  # type: ignore[misc]
        except CmdParseError as error:
            text = re.sub(r"^Error parsing Command: | \(parsing options: .*", "", str(error), flags=re.DOTALL)
            name = getattr(self, "name", "")
            raise CmdParseError(f"{name}: {text}\n  hint: ./do help {name}") from None
        return status


class BuildCommand(Sentences, Run):  # type: ignore[misc]
    """Base of the commands that build first."""

    def build(self, params: Any, names: tuple[str, ...]) -> int:
        """Realise the named recipes; the exit status."""
        prepare_process()
        store = realiser().store
        store.sweep()
        params["reporter"] = "steps"
        params["num_process"] = JOBS
        params["par_type"] = "thread"
        with store.staging() as scratch:  # temporary files of a killed run go with its staging folder
            tempfile.tempdir = str(scratch)
            status: int = Run.execute(self, params, [f"step:{name}" for name in names])
            tempfile.tempdir = None
        if stopping():
            log.say("interrupted; finished steps are kept, run the same command again to go on")
            return 130
        return status


class Build(BuildCommand):
    """./do build [NAME ...]"""

    name = "build"
    doc_purpose = "make the outputs of all recipes, or of those named"
    doc_usage = "[NAME ...]"
    doc_description = "Links to the outputs are put in outputs/result/. Only what is stale runs; each step says why."

    def execute(self, params: Any, args: list[str]) -> int:
        """Build the named recipes, all if none is named."""
        try:
            return self.build(params, plan.choose(realiser().plan, args))
        except UserError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
