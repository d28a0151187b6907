"""The plan: one step a recipe, in an order in which inputs come first; and each step's derivation.

A derivation needs the output hashes of its inputs, so it is made when they are known: `derivation_of` takes a
look-up function from input name to output hash and recurses nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sandkube import builders, lock, recipe
from sandkube.decode import suggestion
from sandkube.derivation import Derivation
from sandkube.digest import canonical_json, sha256_bytes, sha256_file
from sandkube.errors import Problems
from sandkube.fetch import local
from sandkube.lock import Lock, Pin
from sandkube.recipe import Recipe

TOOLS: Mapping[str, tuple[str, ...]] = {
    "go": ("bubblewrap", "go-client"),
    "c": ("bubblewrap",),
    "content": ("bubblewrap",),
    "rootfs": ("bubblewrap",),
    "image": ("bubblewrap",),
}
"""What a step of each kind is run or fetched with. Not in keys: see `sandkube.derivation`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a build may do: the checked recipes with their pins."""

    root: Path
    recipes: Mapping[str, Recipe]
    lock: Lock
    local: dict[Path, str] = field(default_factory=dict, compare=False)
    """Hashes of folders of this repository, each read once a run."""

    def pin(self, name: str) -> Pin:
        """The pin of a recipe; compositions have an empty one."""
        return self.lock.get(name, Pin(""))

    def needs(self, name: str) -> tuple[str, ...]:
        """Steps that must be realised before this one: inputs, and tools that exist as recipes."""
        one = self.recipes[name]
        tools = list(TOOLS.get(one.kind, ()))
        if one.source and one.source.kind == "go":
            tools.append("go-client")
        extra = [each for each in tools if each in self.recipes and each != name and each not in _seeds(self, name)]
        return tuple(sorted({*one.inputs, *extra}))


def _seeds(plan: Plan, name: str) -> tuple[str, ...]:
    """Tools are made without tools."""
    return ("go-client", "bubblewrap") if name in ("go-client", "bubblewrap") else ()


def load(root: Path) -> Plan:
    """Read recipes and lock. Raises `Problems` with all that is wrong in the recipes."""
    return Plan(root, recipe.load(root), lock.load(root / "lock.json"))


def check_lock(plan: Plan, problems: Iterable[str]) -> None:
    """Refuse to build from a lock that does not match the recipes."""
    if found := list(problems):
        raise Problems(found, hint="run ./do lock")


def choose(plan: Plan, names: Iterable[str]) -> tuple[str, ...]:
    """The recipes named on the command line, all of them if none is. Raises for an unknown name."""
    wanted = tuple(names) or tuple(sorted(plan.recipes))
    problems = [f"no recipe {name!r}{suggestion(name, plan.recipes)}" for name in wanted if name not in plan.recipes]
    if problems:
        raise Problems(problems, hint="./do list --all shows what there is")
    return wanted


def source_hash(plan: Plan, one: Recipe) -> str:
    """What a source is, by content: never where it comes from."""
    if one.source is None:
        return ""
    pin = plan.pin(one.name)
    match one.source.kind:
        case "local":
            folder = plan.root / one.source.name
            if folder not in plan.local:
                plan.local[folder] = local.tree_hash(folder)
            return plan.local[folder]
        case "go":
            return pin.h1
        case "git":
            return f"git-tree:{pin.tree}"
        case "url":  # a file that is no archive keeps its name
            return sha256_bytes(canonical_json(["url", [[each.name, each.sha256] for each in pin.files]]))
        case kind:
            return sha256_bytes(canonical_json([kind, [each.sha256 for each in pin.files]]))


def patch_path(plan: Plan, one: Recipe, patch: recipe.Patch) -> Path:
    """The file of a patch."""
    return plan.root / "patches" / one.name / patch.file


def derivation_of(plan: Plan, name: str, output_of: Callable[[str], str]) -> Derivation:
    """The derivation of a step, given the output hashes of its inputs."""
    one = plan.recipes[name]
    return Derivation(
        kind=one.kind,
        builder=builders.source_digest(one.kind),
        options=recipe.options_json(one.build),
        source=source_hash(plan, one),
        inputs=tuple((each, output_of(each)) for each in one.inputs),
        patches=tuple((patch.module, sha256_file(patch_path(plan, one, patch))) for patch in one.patches),
        modules=tuple((f"{each.path}@{each.version}", f"{each.zip} {each.mod}") for each in plan.pin(name).modules),
    )
