"""./do lock: make lock.json match the recipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from doit.cmd_base import Command

from sandkube import lock, log, recipe, spec
from sandkube.errors import Problems, UserError
from sandkube.lock import Pin
from sandkube.plan import Plan
from sandkube.realise import Places, Realiser
from sandkube.store import Store
from sandkube.tasks import ROOT, Sentences, prepare_process

_CHECK = {
    "name": "check",
    "long": "check",
    "short": "",
    "type": bool,
    "default": False,
    "help": "change nothing; exit 1 if lock.json does not match the recipes",
}
_UPGRADE = {
    "name": "upgrade",
    "long": "upgrade",
    "short": "",
    "type": list,
    "default": [],
    "help": "NAME or NAME@VERSION: move this recipe to the newest (or given) version; the other pins stay",
}


def _go_client(places: Places, recipes: Mapping[str, recipe.Recipe], pins: Mapping[str, Pin]) -> Path:
    """The go client, built from the pins known so far: it comes as a wheel and needs no other step."""
    one = Realiser(Plan(ROOT, recipes, pins), places, Store(places.outputs / "store"))
    if not one.up_to_date("go-client"):
        one.realise("go-client")
    return one.output("go-client") / "go/bin/go"


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def relock(upgrades: Sequence[str]) -> None:
    """Resolve what is stale or asked for and write lock.json; an error changes nothing but finished recipe edits."""
    from sandkube import resolve  # its network libraries cost more to import than a whole no-op build

    places = Places.of(ROOT, os.environ)
    before = lock.load(ROOT / "lock.json")
    recipes = recipe.load(ROOT)
    names = []
    for each in upgrades:
        name, _, version = each.partition("@")
        resolve.upgrade(recipes, name, version, ROOT, places.cache, lambda: _go_client(places, recipes, before))
        names.append(name)
    recipes = recipe.load(ROOT)
    pins = resolve.resolve(
        recipes,
        before,
        ROOT,
        places.cache,
        again=names,
        go_client=lambda known: _go_client(places, recipes, known),
    )
    text = lock.encode(pins)
    if text == lock.encode(before):
        log.say("lock.json matches the recipes; nothing changed")
        return
    _write(ROOT / "lock.json", text)
    moved = sorted(name for name in pins.keys() | before.keys() if pins.get(name) != before.get(name))
    log.say(f"lock.json written; pins that moved: {', '.join(moved)}")


class LockCommand(Sentences, Command):  # type: ignore[misc]
    """./do lock [--check] [--upgrade NAME[@VERSION]]"""

    name = "lock"
    doc_purpose = "pin every source and Go module that the recipes ask for in lock.json"
    doc_usage = "[--check] [--upgrade NAME[@VERSION] ...]"
    doc_description = "Sound pins are kept as they are. Builds only read lock.json."
    cmd_options = (_CHECK, _UPGRADE)

    def execute(self, params: Any, args: list[str]) -> int:
        """Check or write the lock."""
        prepare_process()
        try:
            if args:
                raise UserError(f"lock takes no argument, got {args[0]!r}", hint="did you mean lock --upgrade NAME?")
            if params["check"]:
                recipes = recipe.load(ROOT)
                if problems := spec.check(recipes, lock.load(ROOT / "lock.json"), ROOT):
                    raise Problems(problems, hint="run ./do lock")
                log.say("lock.json matches the recipes")
            else:
                relock(params["upgrade"])
        except UserError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1
        return 0
