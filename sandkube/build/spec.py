"""What a pin is made from: its digest tells whether a recipe and lock.json still match.

The *spec* of a pin is the source asked for and, for Go programs, all that chooses the module closure (packages, tags,
cgo, tests, patches to go.mod and go.sum, and for a folder of this repository its go.mod, go.sum and imports). Other
patches are not in it: they may change at will without `./do lock`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sandkube.build.builders.kind import Asked
from sandkube.build.lock import Lock, Pin
from sandkube.build.recipe import Recipe
from sandkube.build.sources.kind import source_told
from sandkube.digest import Json, canonical_json, sha256_bytes


def asked(recipe: Recipe, root: Path) -> Asked:
    """What the modules of a recipe are chosen by."""
    assert recipe.source is not None
    main = (recipe.patch_path(root, each) for each in recipe.patches if not each.module)
    return Asked(recipe.build, recipe.source, tuple(main), root)


def spec_digest(recipe: Recipe, root: Path) -> str:
    """What a recipe's pin is made from, as 64 hexadecimal characters."""
    spec: dict[str, Json] = {"source": str(recipe.source)}
    if recipe.source and (modules := recipe.builder.modules):
        with source_told(recipe.name, recipe.source):
            spec |= modules.spec(asked(recipe, root))
    return sha256_bytes(canonical_json(spec))


def pinned(recipes: Mapping[str, Recipe]) -> Iterator[Recipe]:
    return (recipe for _, recipe in sorted(recipes.items()) if recipe.source is not None)


def misfit(recipe: Recipe, pin: Pin) -> str:
    """What is wrong with a pin for this recipe, whatever it was made from; "" if nothing."""
    assert recipe.origin is not None
    assert recipe.source is not None
    if pin.parts != recipe.origin.pinned:
        wanted, got = (" and ".join(each) or "nothing" for each in (recipe.origin.pinned, pin.parts))
        return f"source: {recipe.source.kind}: is pinned by {wanted}, got {got}"
    if said := recipe.origin.misfit(recipe.source, pin):
        return f"source: {recipe.source}: {said}"
    return f"modules: builder {recipe.kind} has none" if pin.modules and not recipe.builder.modules else ""


def is_of(pin: Pin, recipe: Recipe, root: Path) -> bool:
    """Whether a pin was made from a recipe as it is now, and is one that its kinds can have."""
    return pin.spec == spec_digest(recipe, root) and not misfit(recipe, pin)


def check(recipes: Mapping[str, Recipe], lock: Lock, root: Path) -> list[str]:
    """What of the lock does not match the recipes, a sentence each; empty when all does."""
    problems = []
    for recipe in pinned(recipes):
        pin = lock.get(recipe.name)
        if pin is None:
            problems.append(f"lock.json: no pin for recipes/{recipe.name}.toml ({recipe.source})")
        elif pin.spec != spec_digest(recipe, root):
            problems.append(
                f"recipes/{recipe.name}.toml: {recipe.source} and what chooses its modules "
                f"do not match the pin of {recipe.name} in lock.json"
            )
        elif said := misfit(recipe, pin):
            problems.append(f"lock.json: recipes.{recipe.name}.{said}")
        elif recipe.origin is not None and (lack := recipe.origin.lacks(pin)):
            problems.append(f"lock.json: the pin of {recipe.name} is of an older form, which {lack}")
    names = {recipe.name for recipe in pinned(recipes)}
    problems += [f"lock.json: {each} is pinned, but no such recipe has a source" for each in lock.keys() - names]
    return sorted(problems)
