"""Decide: whether a step is up to date, must run, or has lost what it made; and why. Nothing is written or said.

Whoever builds acts on decisions; whoever only asks (`list`, a dry run) reads them.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sandkube.build import plan
from sandkube.build.cache.shared import Shared
from sandkube.build.derivation import Derivation
from sandkube.build.explain import Change, changes, sentences
from sandkube.build.plan import Plan
from sandkube.build.store import Condition, DamagedRecord, Record, Store


class State(enum.Enum):
    """What is to be done about a step."""

    UP_TO_DATE = "up to date"
    MUST_RUN = "must run"
    """There is no record of its key, or none that counts."""
    OUTPUT_LOST = "not here"
    """Its record is there, its output is not."""
    DAMAGED = "damaged"
    """Its record, or its output, is not what was stored."""
    ELSEWHERE = "in a cache"
    """Its output is not here, or damaged; a shared cache has it, and is to be asked."""
    WAITS = "waits"
    """An input must be made first: whether this step runs depends on the bytes of that."""


THERE = (State.UP_TO_DATE, State.ELSEWHERE)
"""States of steps that need not run."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is known of one step."""

    name: str
    state: State
    derivation: Derivation | None = None
    """None while an input is not known."""
    record: Record | None = None
    """The record of its key, if one is there and sound."""
    changes: tuple[Change, ...] = ()
    """What differs from the derivation that this recipe had last."""
    reason: str = ""
    """Why it must run, a sentence; empty when it is up to date."""
    fault: str = ""
    """What is damaged, a sentence."""

    @property
    def unknown(self) -> bool:
        """Whether no record of its key that counts is here, so that caches may be asked for one."""
        if self.state is State.DAMAGED:
            return self.record is None
        return self.state is State.MUST_RUN and (self.record is None or self.record.unboxed)

    @property
    def key(self) -> str:
        """The key; empty while an input is not known."""
        return self.derivation.key() if self.derivation else ""


def decide(
    one: Plan,
    store: Store,
    name: str,
    known: Mapping[str, str],
    *,
    unboxed: bool = False,
    wanted: bool = True,
    shared: Shared | None = None,
) -> Decision:
    """The decision on one step. `known`: output hashes of inputs, by recipe; `unboxed`: records count that were
    made without the build sandbox; not `wanted`: the record is enough, its tree is not looked at; `shared`: caches that
    may have what is not here.
    """
    missing = [each for each in one.recipes[name].inputs if each not in known]
    if missing:
        return Decision(name, State.WAITS, reason=f"after {', '.join(missing)}")
    derived = plan.derivation_of(one, name, known.__getitem__)
    try:
        record = store.record(key := derived.key())
        damage = None
    except DamagedRecord as found:
        record, damage = None, found
    if shared and (record is None or (record.unboxed and not unboxed)):
        record = shared.record(name, key) or record
    if record is None and damage:
        return Decision(name, State.DAMAGED, derived, reason="what the store held was damaged", fault=damage.message)
    if record is None:
        return _without_record(store, name, derived)
    if record.unboxed and not unboxed:
        return Decision(name, State.MUST_RUN, derived, record, reason="built without the build sandbox")
    condition = store.inspect(record.output) if wanted else Condition.SOUND
    if condition is Condition.SOUND:
        return Decision(name, State.UP_TO_DATE, derived, record)
    if shared and record.shareable and shared.has(name, record):
        return Decision(name, State.ELSEWHERE, derived, record, reason="a cache has it")
    if condition is Condition.ABSENT:
        return Decision(name, State.OUTPUT_LOST, derived, record, reason="its output is gone from the store")
    reason, fault = "what the store held was damaged", f"store: output {record.output} was damaged"
    return Decision(name, State.DAMAGED, derived, record, reason=reason, fault=fault)


def _without_record(store: Store, name: str, derived: Derivation) -> Decision:
    previous = store.previous(name)
    if previous is None:
        return Decision(name, State.MUST_RUN, derived, reason="never built here")
    found = changes(previous.preimage, derived.preimage())
    reason = "; ".join(sentences(found)) or "its record is gone"
    return Decision(name, State.MUST_RUN, derived, changes=found, reason=reason)


def decide_all(
    one: Plan,
    store: Store,
    names: Iterable[str],
    *,
    unboxed: bool = False,
    wanted: Collection[str] | None = None,
    shared: Shared | None = None,
) -> Iterator[Decision]:
    """Decisions on the named steps and on all that they need, in an order in which inputs come first. `wanted`: those
    whose trees count, all of them if left out; `shared`: as for `decide`.
    """
    known: dict[str, str] = {}
    for name in one.in_order(names):
        needed = wanted is None or name in wanted
        decision = decide(one, store, name, known, unboxed=unboxed, wanted=needed, shared=shared)
        if decision.state in (*THERE, State.OUTPUT_LOST) and decision.record:
            known[name] = decision.record.output
        yield decision


def decide_build(
    one: Plan, store: Store, names: Iterable[str], *, unboxed: bool = False, shared: Shared | None = None
) -> list[Decision]:
    """Decisions on all that a build of these steps looks at. The trees that it needs are those of the steps themselves,
    of what their outputs refer to, and of what a stale step is made from and with. `shared`: as for `decide`.
    """
    wanted: set[str] = set()
    more = set(names := tuple(names))
    found: list[Decision] = []
    while more - wanted:
        wanted |= more
        found = list(decide_all(one, store, names, unboxed=unboxed, wanted=wanted, shared=shared))
        stale = [each.name for each in found if each.state not in THERE]
        more = {need for name in stale for need in one.needs(name)} | {
            each for name in wanted for each in one.refers(name)
        }
    return found
