"""Resolve: turn what recipes ask for into exact pins, and move a pin to a newer version."""

from __future__ import annotations

import dataclasses
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tomlkit

from sandkube import log
from sandkube.build import sources, spec
from sandkube.build.lock import Lock, Module, Pin
from sandkube.build.patching import apply_patches
from sandkube.build.recipe import Recipe
from sandkube.build.sources.kind import Ask, SourceKind, no_client
from sandkube.build.spec import pinned, spec_digest
from sandkube.decode import suggestion
from sandkube.errors import Problems, UserError
from sandkube.files import write_whole

GoClient = Callable[[Mapping[str, Pin]], Path]
"""Gives the go client, realised from the pins found so far: resolving Go modules needs it."""


def _ask(recipe: Recipe, before: Pin, root: Path, cache: Path, go: Callable[[], Path]) -> Ask:
    assert recipe.source is not None
    return Ask(recipe.name, recipe.source, before, root, cache, go)


def _kind(recipe: Recipe) -> SourceKind:
    assert recipe.origin is not None
    return recipe.origin


def _closure(recipe: Recipe, ask: Ask) -> tuple[Module, ...]:
    builder = recipe.builder.modules
    if builder is None:
        return ()
    asked = spec.asked(recipe, ask.root)
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "src"
        tree.mkdir()
        _kind(recipe).fetch(ask)
        _kind(recipe).snapshot(ask, tree)
        apply_patches(tree, builder.patches(asked.patches))
        modules = builder.resolve(asked, tree, ask.go_client(), ask.cache)
    whole = sum(each.zip is not None for each in modules)
    log.step(recipe.name, f"{len(modules)} Go modules, {whole} of them with their files")
    return modules


def _needs_go(recipe: Recipe) -> bool:
    return "go-client" in (*recipe.builder.tools, *_kind(recipe).tools)


def _pin(recipe: Recipe, ask: Ask) -> Pin:
    pin = dataclasses.replace(_kind(recipe).resolve(ask), spec=spec_digest(recipe, ask.root))
    return dataclasses.replace(pin, modules=_closure(recipe, dataclasses.replace(ask, pin=pin)))


def resolve(
    recipes: Mapping[str, Recipe], lock: Lock, root: Path, cache: Path, *, again: Sequence[str], go_client: GoClient
) -> dict[str, Pin]:
    """A lock that matches the recipes: sound pins are kept as they are, stale ones and those of `again` made anew."""
    wanted = list(pinned(recipes))
    kept = {r.name: lock[r.name] for r in wanted if r.name in lock and r.name not in again}
    pins = {name: pin for name, pin in kept.items() if spec.is_of(pin, recipes[name], root)}
    for name, pin in pins.items():
        pins[name] = _kind(recipes[name]).completed(_ask(recipes[name], pin, root, cache, no_client))
    stale = sorted((recipe for recipe in wanted if recipe.name not in pins), key=_needs_go)
    for recipe in stale:
        log.step(recipe.name, f"resolving {recipe.source}")
        with log.running(recipe.name, "resolving"):
            before = lock.get(recipe.name, Pin(""))
            pins[recipe.name] = _pin(recipe, _ask(recipe, before, root, cache, lambda: go_client(pins)))
    return pins


def _newest(recipe: Recipe, ask: Ask) -> str:
    """The newest version that the source's registry knows; "" where a source has no versions."""
    versions = _kind(recipe).versions
    if versions is None:
        return ""
    known = versions(ask)
    if not known:
        raise UserError(f"{recipe.name}: no newer version of {ask.source} is known to its registry")
    return known[-1]


def upgrade(
    recipes: Mapping[str, Recipe],
    lock: Lock,
    name: str,
    wanted: str,
    root: Path,
    cache: Path,
    *,
    go: Callable[[], Path],
) -> None:
    """Write a newer version (`wanted`, else the newest known) into a recipe's file; comments and order stay."""
    if name not in recipes:
        raise Problems([f"no recipe {name!r}{suggestion(name, recipes)}"])
    recipe = recipes[name]
    if recipe.source is None:
        raise UserError(f"{name}: is composed of other outputs and has no version", hint="name one with a source")
    if wanted and not _kind(recipe).versioned:
        hint = f"change source in recipes/{name}.toml; without a version the pin is made anew"
        raise UserError(f"{name}: {recipe.source} has no version", hint=hint)
    version = wanted or _newest(recipe, _ask(recipe, lock.get(name, Pin("")), root, cache, go))
    if not version or version == recipe.source.version:
        log.step(name, f"{recipe.source} is the newest known; its pin is made anew")
        return
    source = dataclasses.replace(recipe.source, version=version)
    try:
        sources.parse(str(source), source.mirrors)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    path = root / "recipes" / f"{name}.toml"
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
    except ValueError as error:  # two readers of TOML never agree on everything
        raise UserError(
            f"recipes/{name}.toml: cannot be rewritten: {error}", hint="change its source by hand"
        ) from None
    document["source"] = str(source)
    write_whole(path, tomlkit.dumps(document), mode=stat.S_IMODE(path.stat().st_mode))
    log.step(name, f"{recipe.source.version} -> {version}")
