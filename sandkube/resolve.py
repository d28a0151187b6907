"""Resolve: turn what recipes ask for into exact pins, and move a pin to a newer version."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tomlkit

from sandkube import fetch, log
from sandkube.decode import suggestion
from sandkube.errors import Problems, UserError
from sandkube.fetch import deb, git, pypi, url
from sandkube.fetch import go as fetch_go
from sandkube.lock import Lock, Pin
from sandkube.patching import apply_patches
from sandkube.recipe import Go, Recipe, Source, parse_source
from sandkube.spec import module_patches, pinned, spec_digest

GoClient = Callable[[Mapping[str, Pin]], Path]
"""Gives the go client, realised from the pins found so far: resolving Go modules needs it."""


def _plain_pin(recipe: Recipe, source: Source, spec: str, cache: Path) -> Pin:
    """The pin of a source that needs no go client."""
    match source.kind:
        case "pypi":
            return Pin(spec, files=pypi.resolve(source, cache))
        case "deb":
            return Pin(spec, files=deb.resolve(recipe.name, source, cache))
        case "url":
            return Pin(spec, files=url.resolve(recipe.name, source, cache))
        case "git":
            commit, tree = git.resolve(recipe.name, source, cache)
            return Pin(spec, commit=commit, tree=tree)
        case _:
            return Pin(spec)


def _closure(recipe: Recipe, pin: Pin, go: Path, root: Path, cache: Path) -> Pin:
    build = recipe.build
    assert isinstance(build, Go)
    assert recipe.source is not None
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "src"
        tree.mkdir()
        fetch.fetch(recipe.name, recipe.source, pin, cache=cache, go_client=go, root=root)
        fetch.unpack(recipe.source, pin, tree, cache=cache, root=root)
        apply_patches(tree, module_patches(recipe, root))
        modules = fetch_go.resolve_closure(
            go, tree, build.packages, build.tags, cgo=build.cgo, test=build.test, cache=cache
        )
    whole = sum(each.zip is not None for each in modules)
    log.step(recipe.name, f"{len(modules)} Go modules, {whole} of them with their files")
    return dataclasses.replace(pin, modules=modules)


def _needs_go(recipe: Recipe) -> bool:
    return recipe.kind == "go" or (recipe.source is not None and recipe.source.kind == "go")


def _pin(recipe: Recipe, root: Path, cache: Path, go: Callable[[], Path]) -> Pin:
    source = recipe.source
    assert source is not None
    spec = spec_digest(recipe, root)
    if source.kind == "go":
        module = fetch_go.resolve_module(go(), source.name, source.version, cache=cache)
        pin = Pin(spec, h1=module.zip or "", mod=module.mod)
    else:
        pin = _plain_pin(recipe, source, spec, cache)
    return _closure(recipe, pin, go(), root, cache) if recipe.kind == "go" else pin


def resolve(
    recipes: Mapping[str, Recipe], lock: Lock, root: Path, cache: Path, *, again: Sequence[str], go_client: GoClient
) -> dict[str, Pin]:
    """A lock that matches the recipes: sound pins are kept as they are, stale ones and those of `again` made anew."""
    wanted = list(pinned(recipes))
    kept = {r.name: lock[r.name] for r in wanted if r.name in lock and r.name not in again}
    pins = {name: pin for name, pin in kept.items() if pin.spec == spec_digest(recipes[name], root)}
    stale = sorted((recipe for recipe in wanted if recipe.name not in pins), key=_needs_go)
    for recipe in stale:
        log.step(recipe.name, f"resolving {recipe.source}")
        with log.running(recipe.name, "resolving"):
            pins[recipe.name] = _pin(recipe, root, cache, lambda: go_client(pins))
    return pins


def _newest(recipe: Recipe, cache: Path, go: Callable[[], Path]) -> str:
    """The newest version that the source's registry knows; "" where a source has no versions."""
    source = recipe.source
    assert source is not None
    match source.kind:
        case "go":
            known = fetch_go.versions(go(), source.name)
        case "pypi":
            known = pypi.versions(source, cache)
        case "deb":
            known = deb.versions(source, cache)
        case "git":
            known = git.versions(source, cache)
        case _:
            return ""
    if not known:
        raise UserError(f"{recipe.name}: no newer version of {source} is known to its registry")
    return known[-1]


def upgrade(
    recipes: Mapping[str, Recipe], name: str, wanted: str, root: Path, cache: Path, go: Callable[[], Path]
) -> None:
    """Write a newer version (`wanted`, else the newest known) into a recipe's file; comments and order stay."""
    if name not in recipes:
        raise Problems([f"no recipe {name!r}{suggestion(name, recipes)}"])
    recipe = recipes[name]
    if recipe.source is None:
        raise UserError(f"{name}: is composed of other outputs and has no version", hint="name one with a source")
    version = wanted or _newest(recipe, cache, go)
    if not version or version == recipe.source.version:
        log.step(name, f"{recipe.source} is the newest known; its pin is made anew")
        return
    source = dataclasses.replace(recipe.source, version=version)
    try:
        parse_source(str(source), source.mirrors)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from None
    path = root / "recipes" / f"{name}.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    document["source"] = str(source)
    temporary = path.with_suffix(".toml.new")
    temporary.write_text(tomlkit.dumps(document), encoding="utf-8")
    temporary.replace(path)
    log.step(name, f"{recipe.source.version} -> {version}")
