"""./do list: the recipes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sandkube import log
from sandkube.app.options import JSON, option
from sandkube.app.verb import Verb
from sandkube.build import recipe
from sandkube.build.decide import Decision, decide_all
from sandkube.build.recipe import Recipe
from sandkube.cli import checkout

STATUS = option("status", False, "show which steps are up to date", "s")


def _decisions(names: Iterable[str]) -> dict[str, Decision]:
    """What is decided on each recipe. Nothing is written for it."""
    one = checkout.realiser()
    return {each.name: each for each in decide_all(one.plan, one.store, names)}


def _row(one: Recipe, decision: Decision) -> dict[str, Any]:
    """What a machine is told of a recipe; `output` is the output hash that its step has or had, if it is known."""
    return {
        "name": one.name,
        "description": one.description,
        "state": decision.state.value,
        "because": decision.reason,
        "output": decision.record.output if decision.record else None,
    }


def _show(recipes: Mapping[str, Recipe], states: Mapping[str, str]) -> None:
    """A line a recipe; with its state where there are any."""
    wide, state = (max(map(len, each), default=0) + 2 for each in (recipes, states.values()))
    for name in sorted(recipes):
        shown = f"{states[name]:<{state}}" if states else ""
        log.result(f"{name:<{wide}}{shown}{recipes[name].description}")


class List(Verb):
    """./do list"""

    name = "list"
    doc_purpose = "list the recipes, each with what it is for"
    doc_usage = "[--status] [--json]"
    doc_description = "The JSON has the status, and the output hash, of each."
    cmd_options = (STATUS, JSON)

    def execute(self, params: Any, _words: list[str]) -> int:
        """A line a recipe, or an array of objects."""
        recipes = recipe.load(checkout.ROOT)
        found = _decisions(recipes) if params["status"] or params["json"] else {}
        if params["json"]:
            log.result(json.dumps([_row(recipes[name], found[name]) for name in sorted(recipes)], indent=2))
        else:
            _show(recipes, {name: each.state.value for name, each in found.items()})
        return 0
