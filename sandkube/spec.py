"""What a pin is made from: its digest tells whether a recipe and lock.json still match.

The *spec* of a pin is the source asked for and, for Go programs, all that chooses the module closure (packages, tags,
cgo, tests, patches to go.mod and go.sum, and for a folder of this repository its go.mod, go.sum and imports). Other
patches are not in it: they may change at will without `./do lock`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sandkube.digest import Json, canonical_json, sha256_bytes
from sandkube.lock import Lock
from sandkube.recipe import Go, Recipe

_IMPORT_BLOCK = re.compile(r'^import\s*(?:\((.*?)^\)|(?:[\w.]+\s+)?"([^"\n]+)")', re.MULTILINE | re.DOTALL)
_QUOTED = re.compile(r'"([^"\n]+)"')


def _imports(folder: Path) -> list[str]:
    """Every import path of the Go files below a folder, sorted."""
    found: set[str] = set()
    for path in folder.rglob("*.go"):
        for block, single in _IMPORT_BLOCK.findall(path.read_text(encoding="utf-8")):
            found.update([single] if single else _QUOTED.findall(block))
    return sorted(found)


def module_patches(recipe: Recipe, root: Path) -> list[Path]:
    """The patches that touch the main module's go.mod or go.sum."""
    paths = [root / "patches" / recipe.name / each.file for each in recipe.patches if not each.module]
    return [path for path in paths if re.search(rb"^\+\+\+ b/go\.(mod|sum)$", path.read_bytes(), re.MULTILINE)]


def spec_digest(recipe: Recipe, root: Path) -> str:
    """What a recipe's pin is made from, as 64 hexadecimal characters."""
    spec: dict[str, Json] = {"source": str(recipe.source)}
    if isinstance(recipe.build, Go):
        build = recipe.build
        spec |= {"packages": list(build.packages), "tags": list(build.tags), "cgo": build.cgo, "test": list(build.test)}
        spec["patches"] = [sha256_bytes(path.read_bytes()) for path in module_patches(recipe, root)]
        if recipe.source and recipe.source.kind == "local":
            folder = root / recipe.source.name
            spec["imports"] = list(_imports(folder))
            for name in ("go.mod", "go.sum"):
                path = folder / name
                spec[name] = sha256_bytes(path.read_bytes()) if path.is_file() else ""
    return sha256_bytes(canonical_json(spec))


def pinned(recipes: Mapping[str, Recipe]) -> Iterator[Recipe]:
    return (recipe for _, recipe in sorted(recipes.items()) if recipe.source is not None)


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
    names = {recipe.name for recipe in pinned(recipes)}
    problems += [f"lock.json: {each} is pinned, but no such recipe has a source" for each in lock.keys() - names]
    return sorted(problems)
