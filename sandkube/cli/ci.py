"""./do ci: the whole pipeline as one command, for machines of a CI service and for people at home."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sandkube import events, log, tree
from sandkube.app.home import shown
from sandkube.app.options import option
from sandkube.app.run_cluster import RunCluster
from sandkube.app.stop_cluster import StopCluster
from sandkube.build.cache.push import Pusher
from sandkube.cli.building import BuildVerb, prepared, push
from sandkube.cli.checkout import OUTPUTS, ROOT, realiser
from sandkube.cli.summary import Stage, junit, markdown
from sandkube.cli.tasks import FAST, SLOW
from sandkube.cluster.place import place
from sandkube.errors import UserError
from sandkube.events import Event
from sandkube.files import locked, write_whole
from sandkube.run import CommandFailed, Interrupted, base_environment, run

FOLDER = OUTPUTS / "ci"
PRODUCTS = ("bundle", "gvisor", "kubectl", "wheel")
_LINT = "tests/unit/test_lint.py"
_FAST = (*FAST, f"--ignore={_LINT}")
_TESTS: Mapping[str, tuple[tuple[str, ...], ...]] = {"fast": (_FAST,), "all": (_FAST, SLOW), "none": ()}
_TAIL = 40  # lines of a log that a summary shows
TESTS = option("tests", "fast", f"which tests run: {', '.join(_TESTS)}", metavar="KIND", values=tuple(_TESTS))


def _pytest(name: str, *words: str) -> None:
    """Run tests, what they say in a file of the folder. Raises UserError with its end."""
    path = FOLDER / f"{name}.log"
    env = {**base_environment(Path(os.environ.get("HOME", "/"))), **os.environ}
    argv = [sys.executable, "-m", "pytest", f"--junitxml={FOLDER}/{name}.xml", *words]
    try:
        with path.open("wb") as sink, log.running(name, "running", path):
            run(argv, env=env, cwd=ROOT, log=sink)
    except CommandFailed as failure:
        said = path.read_text(errors="replace").splitlines()[-_TAIL:]
        raise UserError("\n".join([f"{failure.message}; {shown(path)}:", *said])) from None


def _size(folder: Path) -> int:
    """Bytes of the files of a tree."""
    return sum(found.st_size for _, found in tree.walk(folder) if stat.S_ISREG(found.st_mode))


class Ci(BuildVerb):
    """./do ci"""

    name = "ci"
    doc_purpose = "run the whole pipeline: lint, build with caches, boot, tests, push"
    doc_usage = "[--tests KIND]"
    doc_description = (
        "What it made and how long it took is in outputs/ci: summary.md, junit.xml, logs, reports of tests, and the "
        "wheel. The last stage pushes to the caches that may be written (SANDKUBE_CACHE), signed with a key of this "
        "user (./do key new)"
    )
    cmd_options = (TESTS,)
    needs_products = True
    _pusher: Pusher | None = None

    def execute(self, params: Any, _words: list[str]) -> int:
        """One stage after the other; after one that fails only what cleans up."""
        if params["tests"] not in _TESTS:
            raise UserError(f"ci: there are no tests {params['tests']!r}", hint=f"there are: {', '.join(_TESTS)}")
        OUTPUTS.mkdir(exist_ok=True)  # in a clean clone nothing has made it yet
        with locked(OUTPUTS / ".ci.lock", waits=lambda: log.say("waiting for another ./do ci")):
            tree.remove_tree(FOLDER)
            FOLDER.mkdir(parents=True)
            return self._run(params)

    def _run(self, params: Any) -> int:
        recorded = events.record()
        stages: list[Stage] = []
        try:
            for name, work in self._stages(params):
                self._stage(stages, name, work)
        finally:
            self._leave(stages, [event for _, event in recorded.events])
        failed = [each.name for each in stages if each.fault]
        page = shown(FOLDER / "summary.md")
        log.say(f"{', '.join(failed)} failed: {page}" if failed else f"all passed: {page}")
        return 1 if failed else 0

    def _stages(self, params: Any) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "lint", lambda: _pytest("lint", "-q", _LINT)
        yield "build", lambda: self._build(params)
        yield "boot", lambda: self._boot(params)
        for at, words in enumerate(_TESTS[params["tests"]]):
            name = "tests" if not at else "slow tests"
            yield name, lambda name=name, words=words: _pytest(name.replace(" ", "-"), *words)  # type: ignore[misc]
        if self._pusher:
            yield "push", self._push

    def _stage(self, stages: list[Stage], name: str, work: Callable[[], None]) -> None:
        if any(each.fault for each in stages):
            stages.append(Stage(name, 0.0, skipped=True))
            return
        log.say(f"== {name}")
        began = time.monotonic()
        fault = "it did not end"
        try:
            work()
            fault = ""
        except UserError as error:
            fault = str(error) or "failed"
            log.say(f"error: {fault}")
        finally:
            stages.append(Stage(name, round(time.monotonic() - began, 2), fault))

    def _build(self, params: Any) -> None:
        """Have the products, from caches or built. They are pushed when all else went well."""
        one = realiser()
        one.pusher, pusher = None, one.pusher
        if one.shared and any(each.setting.write for each in one.shared.places):
            self._pusher = pusher
        try:
            if self.home.build(params, PRODUCTS, keep_going=True):
                raise UserError("some steps failed; what they said is above")
        finally:
            for path in sorted((OUTPUTS / "failed").glob("*")):
                with contextlib.suppress(OSError):
                    write_whole(FOLDER / f"{path.name}.log", (OUTPUTS / "logs" / f"{path.name}.log").read_bytes())
        tree.copy(self.home.output("wheel"), ".", FOLDER)

    def _boot(self, params: Any) -> None:
        """A cluster with a Running pod, and its end."""
        name = f"ci-{os.getpid()}"
        flags = [f"--{each.name}" for each in self.home.options if params[each.name]]
        at = place(OUTPUTS, name)
        try:
            if RunCluster(self.home).parse_execute(["--name", name, *flags]):
                raise UserError("no cluster could be started; what was said is above")
        except UserError:
            if at.logs.is_dir():
                tree.copy(at.logs, ".", FOLDER, "cluster")
            raise
        finally:
            if at.folder.exists():
                StopCluster(self.home).parse_execute(["--name", name])

    def _push(self) -> None:
        one = realiser()
        one.pusher = self._pusher
        with prepared(one.store, one.places.cache):
            push(one, PRODUCTS)

    def _leave(self, stages: list[Stage], happened: list[Event]) -> None:
        """Summary, JUnit, and the summary where the CI service shows one."""
        if not stages:
            return
        sizes: dict[str, int] = {}
        with contextlib.suppress(UserError, OSError, Interrupted):  # said by the stage that met it; or there is no time
            one = realiser()
            trees = {name: one.store.tree(record.output) for name, record in one.records.items()}
            for name, at in trees.items():
                if at.is_dir():
                    sizes[name] = _size(at)
        page = markdown(stages, happened, sizes)
        write_whole(FOLDER / "summary.md", page)
        write_whole(FOLDER / "junit.xml", junit(stages))
        if step := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(step).open("a") as stream:
                stream.write(page)
