"""The plan: one step a recipe, in an order in which inputs come first; and each step's derivation.

A derivation needs the output hashes of its inputs, so it is made when they are known: `derivation_of` takes a
look-up function from input name to output hash and recurses nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sandkube.build import code, lock, recipe
from sandkube.build.derivation import Derivation
from sandkube.build.lock import Lock, Pin
from sandkube.build.recipe import Recipe
from sandkube.build.sources.kind import Ask, Source, no_client, source_told
from sandkube.decode import suggestion
from sandkube.digest import sha256_file
from sandkube.errors import Problems


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a build may do: the checked recipes with their pins."""

    root: Path
    recipes: Mapping[str, Recipe]
    lock: Lock
    identities: dict[tuple[Source, Pin], str] = field(default_factory=dict, compare=False)
    """What each source is; a folder of this repository is read once a run."""

    def pin(self, name: str) -> Pin:
        """The pin of a recipe; compositions have an empty one."""
        return self.lock.get(name, Pin(""))

    def is_boxed(self, name: str) -> bool:
        """Whether a step runs commands, so that it needs a build sandbox."""
        return self.recipes[name].builder.boxed

    def has_box(self) -> bool:
        """Whether there is a recipe of the build sandbox; checkouts whose steps run no command need none."""
        return "bubblewrap" in self.recipes

    def is_heavy(self, name: str) -> bool:
        """Whether a step uses every core for a while: a builder that does, unless it has next to nothing to compile."""
        return self.recipes[name].builder.heavy and len(self.pin(name).modules) >= _MANY

    def in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """Steps with all that they need, which comes before them."""
        found: dict[str, None] = {}

        def add(name: str) -> None:
            if name not in found:
                for each in self.needs(name):
                    add(each)
                found[name] = None

        for name in names:
            add(name)
        return tuple(found)

    def needs(self, name: str) -> tuple[str, ...]:
        """Steps that must be realised before this one: inputs, and tools that exist as recipes."""
        one = self.recipes[name]
        tools = {*one.builder.tools, *(one.origin.tools if one.origin else ())}
        extra = [] if name in _SEEDS else [each for each in tools if each in self.recipes and each != name]
        return tuple(sorted({*one.inputs, *extra}))

    def refers(self, name: str) -> tuple[str, ...]:
        """Steps whose outputs a step's own output points at."""
        one = self.recipes[name]
        return one.inputs if one.builder.refers else ()

    def with_refers(self, names: Iterable[str]) -> Iterator[str]:
        """Steps, each after those that its output points at, and that theirs do."""
        for each in names:
            yield from self.with_refers(self.refers(each))
            yield each

    def ask(self, name: str, cache: Path = Path("/nonexistent"), go_client: Callable[[], Path] = no_client) -> Ask:
        """What the functions of a recipe's source kind are asked for."""
        source = self.recipes[name].source
        assert source is not None
        return Ask(name, source, self.pin(name), self.root, cache, go_client)

    def code(self, name: str) -> tuple[str, ...]:
        """Modules of the engine that write the bytes of a step."""
        one = self.recipes[name]
        return (*one.builder.code, *(one.origin.code if one.origin else ()))


_MANY = 10
"""Modules of a closure; a cold build of fewer takes seconds."""
_SEEDS = ("go-client", "bubblewrap")
"""Tools are made without tools."""


def load(root: Path) -> Plan:
    """Read recipes and lock. Raises `Problems` with all that is wrong in the recipes."""
    return Plan(root, recipe.load(root), lock.load(root / "lock.json"))


def check_lock(problems: Iterable[str]) -> None:
    """Refuse to build from a lock that does not match the recipes."""
    if found := list(problems):
        raise Problems(found, hint="run ./do lock")


def choose(plan: Plan, names: Iterable[str]) -> tuple[str, ...]:
    """The recipes named on the command line, all but the optional ones if none is. Raises for an unknown name."""
    wanted = tuple(names) or tuple(sorted(name for name, one in plan.recipes.items() if not one.optional))
    problems = [f"no recipe {name!r}{suggestion(name, plan.recipes)}" for name in wanted if name not in plan.recipes]
    if problems:
        raise Problems(problems, hint="./do list shows what there is")
    return wanted


def source_hash(plan: Plan, one: Recipe) -> str:
    """What a source is, by content: never where it comes from."""
    if one.source is None or one.origin is None:
        return ""
    known = (one.source, plan.pin(one.name))
    found = plan.identities.get(known)
    if found is None:  # another thread may clear what is known at any time
        with source_told(one.name, one.source):
            plan.identities[known] = found = one.origin.identity(plan.ask(one.name))
    return found


def derivation_of(plan: Plan, name: str, output_of: Callable[[str], str]) -> Derivation:
    """The derivation of a step, given the output hashes of its inputs."""
    one = plan.recipes[name]
    return Derivation(
        kind=one.kind,
        builder=code.digest(plan.code(name)),
        options=recipe.options_json(one.build),
        source=source_hash(plan, one),
        inputs=tuple((each, output_of(each)) for each in one.inputs),
        patches=tuple((patch.module, sha256_file(one.patch_path(plan.root, patch))) for patch in one.patches),
        modules=tuple((f"{each.path}@{each.version}", f"{each.zip} {each.mod}") for each in plan.pin(name).modules),
    )
