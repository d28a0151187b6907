"""What the commands that build have in common."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandkube import log
from sandkube.app.guard import first_time
from sandkube.app.home import shown
from sandkube.app.options import NO_BUILD_SANDBOX, OFFLINE, Option
from sandkube.app.signals import prepare_process
from sandkube.app.verb import Verb
from sandkube.build import plan
from sandkube.build.decide import State, decide_build
from sandkube.build.realise import Realiser
from sandkube.build.sources import blobs
from sandkube.build.store import Condition, Store
from sandkube.build.weights import critical_path
from sandkube.cli import checkout, live
from sandkube.cli.checkout import OUTPUTS, OutputsRefused, outputs_refused, realiser
from sandkube.cli.running import RunTasks
from sandkube.errors import RunRefused, UserError
from sandkube.run import Interrupted, go_on, stopping

_ROUNDS = 5  # of a build
JOBS = 64  # steps in flight: which of them fetch and build is for sandkube.build.weights to say


@contextlib.contextmanager
def prepared(store: Store, cache: Path) -> Iterator[None]:
    """Signals, and a folder for temporary files: those of a killed run go with its staging folder."""
    prepare_process()
    before = tempfile.tempdir
    with contextlib.ExitStack() as stack:
        try:
            store.prepare()
            store.sweep()
            blobs.sweep(cache)
            scratch = stack.enter_context(store.staging())
        except OSError as error:
            raise outputs_refused(error) from None
        tempfile.tempdir = str(scratch)
        stack.callback(setattr, tempfile, "tempdir", before)
        yield


def known(one: Realiser, names: Sequence[str]) -> list[str]:
    """Those of the named steps that have a record, here or in a cache, in an order in which inputs come first."""
    for name in one.plan.in_order(names):
        go_on()
        one.up_to_date(name)
    return [name for name in one.plan.in_order(names) if name in one.records]


def push(one: Realiser, names: Sequence[str]) -> tuple[int, int]:
    """Give caches what is built of these steps, and of all that they need: how many steps that was, of how many.

    Raises UserError where nothing can be pushed, or not all was.
    """
    if one.shared is None or one.pusher is None or not one.pusher.able:
        why = "cache push: no cache may be written, or there is no key to sign with"
        raise UserError(why, hint="./do help cache; ./do key new NAME makes a key")
    needed = one.plan.in_order(names)  # whoever is to find a step needs records of its inputs
    here = 0
    for record in (one.records[name] for name in known(one, names)):
        if one.store.inspect(record.output) is Condition.SOUND:
            one.pusher.later(record, one.store.tree(record.output))
            here += 1
        else:  # whoever decides needs it all the same
            one.pusher.behind(record.name, functools.partial(one.pusher.tell, record))
    for name in names:
        if one.plan.recipes[name].origin:
            one.supply.give(one.ask(name))
    one.drain()
    if any(each.setting.write and (each.faults or each.kept) for each in one.shared.places):
        raise UserError("cache push: not all of it was pushed", hint="the lines above say why")
    return here, len(needed)


@dataclass(frozen=True, slots=True)
class Checkout:
    """This checkout, as commands know it: what they need is built."""

    run_tasks: RunTasks
    program: str = "./do"
    outputs: Path = OUTPUTS
    options: Sequence[Option] = (NO_BUILD_SANDBOX, OFFLINE)

    def make(self, params: Any, names: Sequence[str]) -> int:
        """Realise the named recipes; the exit status."""
        return self.build(params, tuple(names))

    def begin(self, params: Any) -> None:
        """Before anything is known of this checkout: with --offline nothing of this command opens the network."""
        if params.get("offline"):
            os.environ[checkout.OFFLINE] = "1"

    def has(self, name: str) -> bool:
        """Everything can be built."""
        return name in realiser().plan.recipes

    def output(self, name: str) -> Path:
        """The tree of a realised step."""
        return realiser().output(name)

    def told(self, path: Path) -> str:
        """Relative, for whoever works in the checkout."""
        return shown(path)

    def kubectl(self) -> Path:
        """By the link to what was built last."""
        return self.outputs / "result/kubectl/bin/kubectl"

    def build(self, params: Any, names: tuple[str, ...], *, jobs: int = JOBS, keep_going: bool = False) -> int:
        """Realise the named recipes; the exit status. Raises Interrupted when the user stopped it."""
        one = realiser()
        names = plan.choose(one.plan, names)
        one.want(names)
        one.unboxed = params["no-build-sandbox"]
        one.remote = checkout.remote(params.get("remote", ""))
        one.boxed_ahead = one.plan.has_box() and any(map(one.plan.is_boxed, one.plan.in_order(names)))
        steps, settings = [f"step:{name}" for name in names], {"continue": keep_going}
        try:
            with prepared(one.store, one.places.cache), live.shown():
                status = self._run(steps, num_process=jobs, par_type="thread", **settings)
                one.settle()
                one.drain()
        except OutputsRefused:  # outputs/ may only be read, which is enough where nothing is stale
            found = decide_build(one.plan, one.store, names, unboxed=one.unboxed)
            if any(each.state is not State.UP_TO_DATE for each in found):
                raise
            status = self.run_tasks(steps)
        if path := critical_path(one.weights.spans, one.weights.needs):
            log.say(path)
        if stopping():
            raise Interrupted
        return status

    def _run(self, steps: Sequence[str], **settings: Any) -> int:
        """Run steps, again as long as one was made anew with other bytes than what those after it were decided from."""
        status = 0
        for _ in range(_ROUNDS):
            realiser().unsettled = False
            status = self.run_tasks(steps, **settings)
            if status or not realiser().unsettled:
                break
        return status

    def build_sandbox(self, params: Any) -> tuple[str, str]:
        """What steps run in here, as `Realiser.describe_box`, or `none`; only bubblewrap is built for it."""
        one = realiser()
        one.unboxed = params["no-build-sandbox"]
        with prepared(one.store, one.places.cache):
            try:
                return one.describe_box()
            except RunRefused as error:
                first_time(str(error))  # said here: the build that follows need not say it again
                return "none", f"build sandbox: none\n  {error}"


class BuildVerb(Verb):
    """Base of the commands that only a checkout has."""

    home: Checkout
