"""./do info: what is known of a recipe and of its step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sandkube import log
from sandkube.app.home import shown
from sandkube.app.options import JSON, RECIPES
from sandkube.app.verb import Verb
from sandkube.build import plan
from sandkube.build.decide import Decision, decide_build
from sandkube.build.realise import Realiser
from sandkube.cli import checkout
from sandkube.errors import UserError


def _rows(one: Realiser, decision: Decision) -> Iterator[tuple[str, Any]]:
    recipe = one.plan.recipes[decision.name]
    yield "recipe", f"recipes/{decision.name}.toml"
    yield "for", recipe.description
    yield "source", str(recipe.source) if recipe.source else None
    yield "builder", recipe.kind
    yield "inputs", list(recipe.inputs)
    yield "patches", [each.file for each in recipe.patches]
    yield "modules", len(one.plan.pin(decision.name).modules)
    yield "state", decision.state.value
    yield "because", decision.reason
    yield "key", decision.key
    yield "output", decision.record.output if decision.record else None
    path = one.store.tree(decision.record.output) if decision.record else None
    yield "folder", shown(path) if path and path.is_dir() else None
    failed = one.failed(decision.name)
    yield "failed", shown(failed) if failed.is_dir() else None


class Info(Verb):
    """./do info NAME"""

    name = "info"
    doc_purpose = "show what a recipe is made from, its key, its output, and whether it is stale"
    doc_usage = "NAME [--json]"
    takes_words = True
    values = RECIPES
    cmd_options = (JSON,)

    def execute(self, params: Any, args: list[str]) -> int:
        """A line a fact. Nothing is written."""
        if len(args) != 1:
            raise UserError("info is about one recipe", hint="./do list shows what there is")
        one = checkout.realiser()
        (name,) = plan.choose(one.plan, args)
        *_, decision = decide_build(one.plan, one.store, [name])
        rows = dict(_rows(one, decision))
        if params["json"]:
            log.result(json.dumps(rows))
            return 0
        for what, value in rows.items():
            if text := ", ".join(value) if isinstance(value, list) else str(value or ""):
                log.result(f"{what:<9}{text}")
        return 0
