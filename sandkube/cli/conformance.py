"""./do conformance: Kubernetes' own suite against a fresh cluster."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandkube import log, tree
from sandkube.app.options import option
from sandkube.app.run_cluster import SANDBOX
from sandkube.app.settings import configured_by
from sandkube.app.signals import release_signals
from sandkube.build import recipe
from sandkube.build.builders.image import Image
from sandkube.cli import checkout, conformed
from sandkube.cli.building import BuildVerb
from sandkube.cli.checkout import OUTPUTS
from sandkube.cluster import linux, programs, start, stop
from sandkube.cluster.place import place
from sandkube.cluster.pod import Kubectl
from sandkube.cluster.sandbox import DEFAULT, KINDS, choose
from sandkube.cluster.suite import Spec, Suite, Total, run
from sandkube.errors import UserError
from sandkube.events import Booting
from sandkube.files import locked, make_folder, write_whole

NAME = "conformance"
_BUNDLE, _SUITE = "bundle-e2e", "e2e"
_RESULTS, _RUNS = "specs.jsonl", "runs.txt"
_NODES = 2  # that some specs want, where a sandbox may have several
_LONG = 300  # characters of options, in a page's first line
_NONE: list[str] = []
FOCUS = option("focus", _NONE, "run only specs whose full name matches; repeatable", metavar="RE")
SKIP = option("skip", _NONE, "leave out specs whose full name matches; repeatable", metavar="RE")
RESUME = option("resume", False, "leave out what passed before, and add up the results")
PARALLEL = option("parallel", 1, "how many specs run at once; those that want a quiet cluster run alone, at the end")
PAGE = option("page", False, f"run nothing; write what the last runs came to into {conformed.PAGE}")


def _check(params: Any) -> None:
    if not 1 <= params["parallel"] <= 64:
        raise UserError("conformance: --parallel takes a number from 1 to 64", hint="./do help conformance")
    for name in ("focus", "skip"):
        for each in params[name]:
            try:
                re.compile(each)
            except re.error as error:
                raise UserError(f"conformance: --{name} {each!r}: {error}") from None


def _words(params: Any) -> str:
    """The options that chose what was run."""
    said = [f"--{name} '{each}'" for name in ("focus", "skip") for each in params[name]]
    if sum(map(len, said)) > _LONG:
        said = [f"--{name} … ({len(params[name])} times)" for name in ("focus", "skip") if params[name]]
    said += ["--resume"] if params["resume"] else []
    said += [f"--parallel {params['parallel']}"] if params["parallel"] > 1 else []
    return " ".join(["./do conformance", *said])


def _write_page(folder: Path, explained: Mapping[str, conformed.Known]) -> None:
    images = [
        (str(each.build.name), each.description)
        for name, each in sorted(recipe.load(checkout.ROOT).items())
        if name.startswith("image-e2e-") and isinstance(each.build, Image)
    ]
    runs = folder / _RUNS
    ran = runs.read_text().splitlines() if runs.exists() else []
    found = conformed.results(folder / _RESULTS)
    write_whole(checkout.ROOT / conformed.PAGE, conformed.page(found, explained, ran, images))
    log.say(f"{conformed.PAGE} is written")


class Conformance(BuildVerb):
    """./do conformance"""

    name = NAME
    doc_purpose = "run Kubernetes' own suite, its Conformance specs, in a fresh cluster"
    doc_usage = "[--focus RE ...] [--skip RE ...] [--resume] [--parallel N] | --page"
    doc_description = (
        "Results are in outputs/conformance: specs.jsonl, junit_01.xml, summary.txt, suite.log and the "
        "node's logs. Ctrl-C ends the specs that run, and keeps the results. The exit status is 1 if a spec fails that "
        f"{conformed.KNOWN} does not explain"
    )
    cmd_options = (FOCUS, SKIP, RESUME, PARALLEL, PAGE, SANDBOX)
    needs_products = True

    def execute(self, params: Any, _words: list[str]) -> int:
        """Build, boot, run, tell."""
        _check(params)
        explained = conformed.known(checkout.ROOT)
        folder = (OUTPUTS / NAME).resolve()
        if params["page"]:
            _write_page(folder, explained)
            return 0
        if params["sandbox"]:
            programs.check_kind(params["sandbox"])
        kind, wall = choose(params["sandbox"])
        if failed := self.home.make(params, (*programs.products(kind, _BUNDLE), _SUITE)):
            return failed
        release_signals()
        make_folder(folder)
        with locked(OUTPUTS / f".{NAME}.lock", waits=lambda: log.say("waiting for another ./do conformance")):
            return self._run(params, (kind, wall), folder, explained)

    def _run(self, params: Any, kind: tuple[str, str], folder: Path, explained: Mapping[str, conformed.Known]) -> int:
        if not params["resume"]:
            tree.remove_tree(folder)
            folder.mkdir()
        with (folder / _RUNS).open("a") as runs:
            runs.write(f"{_words(params)}\n")
        suite = Suite(
            programs=self.home.output(_SUITE) / "bin",
            folder=folder,
            focus=params["focus"],
            skip=params["skip"],
            left_out=conformed.passed(conformed.results(folder / _RESULTS)) if params["resume"] else (),
            parallel=params["parallel"],
        )
        try:
            with self._cluster(*kind, folder) as kubectl:
                _tell(suite, kubectl, explained)
        finally:
            found = conformed.results(suite.told)
            if found:
                text = conformed.summary(found, explained)
                write_whole(folder / "summary.txt", f"{text}\n")
                log.result(text)
        return 1 if any(each.name not in explained for each in conformed.bad(found)) else 0

    @contextlib.contextmanager
    def _cluster(self, kind: str, wall: str, folder: Path) -> Iterator[Kubectl]:
        """A fresh cluster with the suite's images, until the run is over; its logs stay."""
        one = place(OUTPUTS, NAME)
        if one.folder.exists():
            stop.delete(one)
        made = programs.chosen(kind, self.home.output, (), _BUNDLE)
        if kind == DEFAULT:
            made = replace(made, configured=configured_by("", {"cluster": {"nodes": _NODES}}))
        if KINDS[kind].native:
            linux.try_out(made.runsc)
        log.tell(Booting(one.name, wall))
        try:
            with one.lock():
                for _ in start.start(one, made):
                    pass
            yield Kubectl(made.kubectl.resolve(), one)
        finally:
            if one.logs.is_dir():
                tree.remove_tree(folder / "cluster")
                tree.copy(one.logs, ".", folder, "cluster")
            if one.folder.exists():
                stop.delete(one)


def _tell(suite: Suite, kubectl: Kubectl, explained: Mapping[str, conformed.Known]) -> None:
    """A line for each spec as it ends."""
    total, at, began = 0, 0, time.monotonic()
    for each in run(suite, kubectl):
        if isinstance(each, Total):
            total = each.total
            left = f", {len(suite.left_out)} passed before" if suite.left_out else ""
            log.say(f"{total} specs{left}; {os.path.relpath(suite.log)} has all that the suite says")
            continue
        at += 1
        log.say(f"[{time.monotonic() - began:6.0f}s] {at}/{total} {_line(each, explained)}")


def _line(spec: Spec, explained: Mapping[str, conformed.Known]) -> str:
    text = f"{spec.state} in {spec.seconds:.1f} s: {spec.name}"
    if spec.state == "passed":
        return text
    why = explained.get(spec.name)
    return f"{text}\n    {f'known: {why.cause}' if why else conformed.cause(spec)}"
