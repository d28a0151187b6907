"""./do build: make outputs, or tell which would be made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sandkube import log
from sandkube.app.options import EVENTS, RECIPES, option, tell_as_asked
from sandkube.build import plan
from sandkube.build.decide import THERE, State, decide_build
from sandkube.cli import building
from sandkube.cli.building import BuildVerb
from sandkube.cli.checkout import realiser
from sandkube.errors import UserError
from sandkube.events import StepWouldRun

JOBS = option("jobs", building.JOBS, "steps at once, as many as cores and memory allow if left out", "n")
KEEP_GOING = option("keep-going", False, "after a failed step go on with all that does not need it", "k")


REMOTE = option(
    "remote",
    "",
    "run commands of steps on the workers of an engine: grpc://HOST:PORT[/INSTANCE], grpcs://…",
    metavar="ADDRESS",
)
DRY_RUN = option("dry-run", False, "print what would run or be fetched, and why; nothing is built or written")


def _tell(names: Iterable[str], *, unboxed: bool, machine: bool) -> int:
    """A line a step that would run; one that waits runs only if the input that it waits for has other bytes then.

    Caches are asked for records, as a build would; a line a tree that would be fetched.
    """
    one = realiser()
    found = decide_build(one.plan, one.store, names, unboxed=unboxed, shared=one.shared)
    stale = [each for each in found if each.state not in THERE]
    fetched = [each.name for each in found if each.state is State.ELSEWHERE]
    for name in () if machine else fetched:
        log.result(f"{name}: would be fetched from a cache")
    for each in stale:
        certain = each.state is not State.WAITS
        if machine:
            log.tell(StepWouldRun(each.name, certain, each.reason))
        else:
            log.result(f"{each.name}: {'would run, because:' if certain else 'may run'} {each.reason}")
    whole = f"{len(found)} steps"
    runs = f"at most {len(stale)} of {whole} would run" if stale else f"none of {whole} would run"
    log.say(runs if stale or fetched else f"nothing to do: {whole} are up to date")
    one.drain()
    return 0


class Build(BuildVerb):
    """./do build [NAME ...]"""

    name = "build"
    doc_purpose = "make the outputs of all recipes, or of those named"
    doc_usage = "[NAME ...] [--jobs N] [--keep-going] [--remote ADDRESS] [--dry-run] [--json]"
    doc_description = "Links to the outputs are put in outputs/result/. Only what is stale runs; each step says why."
    takes_words = True
    values = RECIPES
    cmd_options = (JOBS, KEEP_GOING, REMOTE, DRY_RUN, EVENTS)
    needs_products = True

    def execute(self, params: Any, args: list[str]) -> int:
        """Build the named recipes, all if none is named."""
        if params["jobs"] < 1:
            raise UserError("build: --jobs takes a number from 1 on", hint="./do help build")
        tell_as_asked(params)
        names = plan.choose(realiser().plan, args)
        if params["dry-run"]:
            return _tell(names, unboxed=params["no-build-sandbox"], machine=params["json"])
        return self.home.build(params, names, jobs=params["jobs"], keep_going=params["keep-going"])
