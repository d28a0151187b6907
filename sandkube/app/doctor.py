"""./do doctor: what a sandbox lacks that the node needs, and what the node would do about it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sandkube import log
from sandkube.app.home import Home
from sandkube.app.options import FIX, JSON, option
from sandkube.app.signals import release_signals
from sandkube.app.verb import Verb
from sandkube.cluster import programs
from sandkube.cluster.deadline import TRIAL
from sandkube.cluster.place import Place
from sandkube.cluster.sandbox import INSTEAD, KINDS, NO_SANDBOX, choose
from sandkube.errors import UserError
from sandkube.run import CommandFailed, base_environment, run

_SHOWN = ("modern", "legacy")
SANDBOX = option(
    *("sandbox", "", f"one of {', '.join(KINDS)}; if left out: {', '.join(_SHOWN)}, or where none can start: --here"),
    metavar="KIND",
    values=tuple(KINDS),
)
HERE = option("here", False, "look at the place where this command runs, which may be a sandbox itself")


def _ask(home: Home, argv: list[str]) -> str:
    with tempfile.TemporaryFile(dir=home.outputs) as said:
        try:
            env = base_environment(Path("/root"))
            done = run(argv, env=env, cwd=Path("/"), log=said, capture=True, seconds=TRIAL)
        except CommandFailed as error:
            said.seek(0)
            raise UserError(f"{error}: {said.read().decode(errors='replace').strip()}") from None
    return done.stdout.decode()


def _ask_sandbox(home: Home, kind: str, words: list[str]) -> str:
    """What the node says in a sandbox that is booted for nothing else."""
    made = programs.chosen(kind, home.output, [])
    made = programs.Programs(made.runsc, made.bundle, made.kubectl, kind, tuple(words))
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=home.outputs) as folder:
        place = Place(Path(folder))
        place.runsc.mkdir()
        made.prepare(place)
        return _ask(home, programs.sandbox(place, f"doctor-{os.getpid()}").run(programs.bundle(place), os.getpid()))


def _cluster_sandbox(home: Home, wanted: str, *, here: bool) -> tuple[tuple[str, str], list[str]]:
    """The kind that run-cluster would take and a sentence about it; and the kinds to look into.

    Raises UserError for a wanted kind that cannot be had.
    """
    if wanted:
        programs.check_kind(wanted)
        return (wanted, choose(wanted)[1] or KINDS[wanted].text), [wanted]
    try:
        kind, wall = choose("")
    except UserError as error:
        return ("none", str(error)), []
    shown = [INSTEAD[each] for each in _SHOWN] if wall else list(_SHOWN)
    shown = [each for each in shown if home.has(KINDS[each].product)]
    return (kind, wall or f"{kind}, in namespaces of its own"), [] if here else shown


class Doctor(Verb):
    """./do doctor"""

    name = "doctor"
    doc_purpose = "show what a sandbox lacks and what the node does about it"
    doc_usage = "[--sandbox KIND | --here] [--fix NAME=VALUE ...] [--json]"
    stray = "a sandbox goes with --sandbox"
    excluding = (("sandbox", "here"),)
    cmd_options = (SANDBOX, HERE, FIX, JSON)
    needs_products = True
    doc_description = "Nothing is changed. A fix is on, off, or auto: chosen by what was found."

    def execute(self, params: Any, _words: list[str]) -> int:
        """Say what build sandbox there is, build what is missing, ask the node."""
        build = self.home.build_sandbox(params)  # builds bubblewrap alone; where that fails, it is said
        cluster, kinds = _cluster_sandbox(self.home, params["sandbox"], here=params["here"])
        if not params["json"]:
            log.result("\n".join([*([build[1]] if build else []), f"cluster sandbox: {cluster[1]}"]))
        needed = [name for kind in kinds for name in programs.products(kind)]
        if failed := self.home.make(params, tuple(dict.fromkeys(["bundle", *needed]))):
            return failed
        release_signals()
        words = ["doctor", *(["--json"] if params["json"] else []), *programs.fix_words(params["fix"])]
        found = _looked(self.home, kinds, words, wanted=params["sandbox"] != "")
        if params["json"]:
            parts = {**({"build-sandbox": build} if build else {}), "cluster-sandbox": cluster}
            about: dict[str, Any] = {what: {"kind": kind, "text": text} for what, (kind, text) in parts.items()}
            log.result(json.dumps(about | {"found": {place: json.loads(said) for place, said in found}}, indent=2))
        else:
            for place, said in found:
                log.result((f"== {place}: {KINDS[place].text}\n" if place in KINDS else "") + said.rstrip())
        return 0


def _looked(home: Home, kinds: Sequence[str], words: list[str], *, wanted: bool) -> Iterator[tuple[str, str]]:
    """What the node says in each kind of sandbox; or `here`, where none is asked for, or none starts."""
    for kind in kinds:
        try:
            yield kind, _ask_sandbox(home, kind, words)
        except UserError as error:
            if wanted or NO_SANDBOX not in error.message:
                raise
            log.say("no sandbox can be started here; this is about the place itself")
            break
    else:
        if kinds:
            return
    yield "here", _ask(home, [str(home.output("bundle") / "rootfs/usr/bin/sandkube-node"), *words])
