"""./do doctor: what a sandbox lacks that the node needs, and what the node would do about it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from doit.cmdparse import CmdOption

from sandkube import log
from sandkube.cluster import programs
from sandkube.cluster.place import Place
from sandkube.cluster.sandbox import KINDS, NO_SANDBOX
from sandkube.commands import FIX, OUTPUTS, guarded, option
from sandkube.errors import UserError
from sandkube.run import CommandFailed, base_environment, run
from sandkube.tasks import BuildCommand, realiser, release_signals

_SHOWN = ("modern", "legacy")
SANDBOX = option(
    "sandbox", "", f"one of {', '.join(KINDS)}; if left out: {', '.join(_SHOWN)}, or where none can be started: --here"
)
HERE = option("here", False, "look at the place where this command runs, which may be a sandbox itself")
JSON = option("json", False, "print JSON")


def _ask(argv: list[str]) -> str:
    with tempfile.TemporaryFile() as said:
        try:
            done = run(argv, env=base_environment(Path("/root")), cwd=Path("/"), log=said, capture=True)
        except CommandFailed as error:
            said.seek(0)
            raise UserError(f"{error}: {said.read().decode(errors='replace').strip()}") from None
    return done.stdout.decode()


def _ask_sandbox(kind: str, words: list[str]) -> str:
    """What the node says in a sandbox that is booted for nothing else."""
    made = programs.chosen(kind, realiser().output, [])
    made = programs.Programs(made.runsc, made.bundle, made.kubectl, kind, tuple(words))
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=OUTPUTS) as folder:
        place = Place(Path(folder))
        place.runsc.mkdir()
        made.prepare(place)
        return _ask(programs.sandbox(place, f"doctor-{os.getpid()}").run(programs.bundle(place), os.getpid()))


class Doctor(BuildCommand):
    """./do doctor"""

    name = "doctor"
    doc_purpose = "show what a sandbox lacks and what the node does about it"
    doc_usage = "[--sandbox KIND | --here] [--fix NAME=VALUE ...] [--json]"
    doc_description = "Nothing is changed. A fix is on, off, or auto: chosen by what was found."

    def get_options(self) -> list[Any]:
        """doit's own options and ours."""
        return [*super().get_options(), *map(CmdOption, (SANDBOX, HERE, FIX, JSON))]

    def execute(self, params: Any, args: list[str]) -> int:
        """Build what is missing, ask the node."""

        def work() -> int:
            if args:
                raise UserError(f"doctor takes no argument, got {args[0]!r}", hint="a sandbox goes with --sandbox")
            if params["sandbox"] and params["here"]:
                raise UserError("--sandbox and --here exclude each other")
            kinds = [params["sandbox"]] if params["sandbox"] else [] if params["here"] else list(_SHOWN)
            needed = [name for kind in kinds for name in programs.products(kind)]
            if failed := self.build(params, tuple(dict.fromkeys(["bundle", *needed]))):
                return failed
            release_signals()
            words = ["doctor", *(["--json"] if params["json"] else []), *programs.fix_words(params["fix"])]
            here = params["here"]
            for kind in kinds:
                title = "" if params["json"] else f"== {kind}: {KINDS[kind].text}\n"
                try:
                    log.say(title + _ask_sandbox(kind, words).rstrip())
                except UserError as error:
                    if params["sandbox"] or NO_SANDBOX not in error.message:
                        raise
                    if not params["json"]:
                        log.say("no sandbox can be started here; this is about the place itself")
                    here = True
                    break
            if here:
                log.say(_ask([str(realiser().output("bundle") / "rootfs/usr/bin/sandkube-node"), *words]).rstrip())
            return 0

        return guarded(work)
