"""One store and two processes that build, list and are killed, while somebody damages and removes.

Nothing good is lost, and nothing bad is used.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sandkube.build.store import Condition, Store
from sandkube.nar import nar_hash
from sandkube.tree import remove_tree
from tests.unit.test_realise import ORDER, project

WORKER = """\
import os, sys
from pathlib import Path
from sandkube.build import plan
from sandkube.build.decide import decide_all
from sandkube.build.lock import Pin
from sandkube.build.places import Places
from sandkube.build.realise import Realiser
from sandkube.build.store import Store
for line in sys.stdin:
    what, root = line.split()
    root = Path(root)
    one = plan.load(root)
    one = plan.Plan(root, one.recipes, {name: Pin("") for name in one.recipes})
    realiser = Realiser(one, Places(root, root / "outputs", root / "cache"), Store(root / "outputs/store"))
    if what == "list":
        print(*(each.state.name for each in decide_all(one, realiser.store, ["top"])), flush=True)
        continue
    realiser.store.prepare()
    realiser.store.sweep()
    realiser.want(["base", "middle", "top"])
    for name in ("base", "middle", "top"):
        realiser.up_to_date(name) or realiser.realise(name)
    realiser.settle()
    print(*(realiser.records[name].output for name in ("base", "middle", "top")), flush=True)
"""


class Worker:
    """A process that builds and lists as it is told."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def tell(self, what: str, root: Path) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {root}\n")
        self._process.stdin.flush()

    def answer(self) -> list[str]:
        assert self._process is not None and self._process.stdout is not None
        words = self._process.stdout.readline().split()
        assert words, "the process died"
        return words

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


WORKERS = (Worker(), Worker())
TEXTS = ("one\n", "two\n")


class StoreMachine(RuleBasedStateMachine):
    """The project of test_realise, in a folder of its own."""

    @initialize()
    def begin(self) -> None:
        self.root = project(Path(tempfile.mkdtemp(prefix="store-")))
        self.store = Store(self.root / "outputs/store")
        self.text = "used\n"
        self.sound: set[str] = set()

    def trees(self) -> list[str]:
        folder = self.store.root / "trees"
        return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []

    def look(self) -> set[str]:
        return {each for each in self.trees() if self.store.inspect(each) is Condition.SOUND}

    def check(self, outputs: list[str]) -> None:
        assert [nar_hash(self.store.tree(each)) for each in outputs] == outputs
        assert (self.store.tree(outputs[-1]) / "all/etc/used").read_text() == self.text
        for name, output in zip(ORDER, outputs, strict=True):
            assert (self.root / "outputs/result" / name).resolve().name == output

    @rule(text=st.sampled_from(TEXTS))
    def edit(self, text: str) -> None:
        (self.root / "native/base/used").write_text(text)
        self.text = text

    @rule(which=st.sampled_from(WORKERS))
    def build(self, which: Worker) -> None:
        which.tell("build", self.root)
        self.check(which.answer())

    @rule()
    def build_at_once(self) -> None:
        for each in WORKERS:
            each.tell("build", self.root)
        first, second = (each.answer() for each in WORKERS)
        assert first == second
        self.check(first)

    @rule(which=st.sampled_from(WORKERS), delay=st.sampled_from((0.0, 0.01, 0.03)))
    def kill(self, which: Worker, delay: float) -> None:
        which.tell("build", self.root)
        assert which._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            which._process.wait(delay)
        which.kill()

    @rule(which=st.sampled_from(WORKERS))
    def list_it(self, which: Worker) -> None:
        before = self.everything()
        which.tell("list", self.root)
        assert len(which.answer()) == len(ORDER)
        assert self.everything() == before

    def everything(self) -> list[tuple[str, int, int, int]]:
        folder = self.root / "outputs"
        found = [(path, path.lstat()) for path in sorted(folder.rglob("*"))] if folder.exists() else []
        return [(str(path), status.st_ino, status.st_size, status.st_ctime_ns) for path, status in found]

    @precondition(lambda self: self.trees())
    @rule(data=st.data(), how=st.sampled_from(("write", "another file", "remove", "more")))
    def damage(self, data: st.DataObject, how: str) -> None:
        tree = self.store.tree(data.draw(st.sampled_from(self.trees())))
        files = sorted(path for path in tree.rglob("*") if path.is_file())
        if how == "remove" or not files:
            remove_tree(tree)
        else:
            files[0].parent.chmod(0o755)
            if how == "another file":
                files[0].unlink()
            elif how == "more":
                (files[0].parent / "more").touch()
            if how != "more":
                with contextlib.suppress(FileNotFoundError):
                    files[0].chmod(0o644)
                files[0].write_text("EVIL\n")
        self.sound = self.look()

    @precondition(lambda self: (self.store.root / "records").is_dir())
    @rule(data=st.data(), folder=st.sampled_from(("records", "seals", "last")), text=st.sampled_from(("", "{}", None)))
    def lose(self, data: st.DataObject, folder: str, text: str | None) -> None:
        found = sorted((self.store.root / folder).iterdir())
        if not found:
            return
        path = data.draw(st.sampled_from(found))
        path.unlink() if text is None else path.write_text(text)

    @precondition(lambda self: (self.store.root / "records").is_dir())
    @rule(data=st.data())
    def swap(self, data: st.DataObject) -> None:
        """A record that names another output."""
        found = sorted((self.store.root / "records").iterdir())
        if found:
            path = data.draw(st.sampled_from(found))
            with contextlib.suppress(ValueError, TypeError):
                path.write_text(json.dumps(json.loads(path.read_text()) | {"output": "f" * 64}))

    @invariant()
    def nothing_good_is_lost(self) -> None:
        if hasattr(self, "store"):
            now = self.look()
            assert self.sound <= now
            self.sound = now

    def teardown(self) -> None:
        if hasattr(self, "root"):
            remove_tree(self.root)


def test_one_store_and_two_processes() -> None:
    try:
        run = settings(max_examples=15, stateful_step_count=15, deadline=None, derandomize=True, database=None)
        StoreMachine.TestCase.settings = run
        StoreMachine.TestCase().runTest()
    finally:
        for each in WORKERS:
            each.kill()
