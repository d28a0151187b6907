"""Recipes: `recipes/<name>.toml`, one product each, decoded strictly and checked as a set before any work.

Shape of a file:

    description = "The OCI runtime."                      # what it is for, in one line; not in the key
    source = "go:github.com/opencontainers/runc@v1.3.3"   # where bytes come from; absent for compositions
    mirrors = ["https://…"]                               # only with url:, tried in order
    patches_of = "runc"                                   # the recipe that has the patches which this one has not
    [build]
    kind = "go"                                           # which builder; its options follow
    patches = ["0001-subject.patch", {file = "0002-x.patch", module = "golang.org/x/sys"}]
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from sandkube.build import builders, sources
from sandkube.build.builders import BuilderKind, Patch
from sandkube.build.remote.kind import NEEDS
from sandkube.build.sources import Source, SourceKind
from sandkube.decode import Report, decode, looks_like, placed, shown, suggestion
from sandkube.documents import parse_toml, read_file, regular_file_fault
from sandkube.errors import Problems, UserError, one_line
from sandkube.shapes import Distinct, Line, RecipeName, Text

Need = Annotated[str, looks_like(f"one of {', '.join(NEEDS)}", lambda value: value in NEEDS)]
_EDITORS = ("~", ".swp", ".swo", "#", ".orig", ".rej")
"""Ends of names that editors and git leave behind; one begins with .# and looks like a recipe."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One product."""

    name: str
    source: Source | None
    kind: str
    build: Any
    """The options of its builder."""
    description: str = ""
    """What it is for, in one line: for people, not for the key."""
    optional: bool = False
    """Whether it is made only when somebody names it, or another needs it."""
    patches_of: str = ""
    """The recipe whose folder of patches has those that its own has not."""
    needs: tuple[str, ...] = ()
    """What its commands need of a machine, which workers of a remote engine may not have."""

    @property
    def builder(self) -> BuilderKind:
        """The record of its builder."""
        return builders.KINDS[self.kind]

    @property
    def origin(self) -> SourceKind | None:
        """The record of its source's kind; None for a composition."""
        return sources.KINDS[self.source.kind] if self.source else None

    @property
    def patches(self) -> tuple[Patch, ...]:
        """The patches in order, each as a `Patch`."""
        listed = getattr(self.build, "patches", ())
        return tuple(Patch(each) if isinstance(each, str) else each for each in listed)

    def patch_path(self, root: Path, patch: Patch) -> Path:
        """The file of a patch, in a checkout."""
        own = root / "patches" / self.name / patch.file
        return root / "patches" / self.patches_of / patch.file if self.patches_of and not os.path.lexists(own) else own

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the recipes whose outputs this one is built from, sorted."""
        return tuple(sorted(self.builder.inputs(self.build)))


@dataclass(frozen=True, slots=True)
class _Document:
    """A recipe as it stands in its file; the kind decides what [build] holds beside it."""

    description: Line
    build: Mapping[str, object]
    source: Text = ""
    mirrors: Distinct[Text] = field(default=())
    optional: bool = False
    patches_of: RecipeName = ""
    needs: Distinct[Need] = field(default=())


@dataclass(frozen=True, slots=True)
class _Named:
    """A name that must be a recipe's."""

    name: RecipeName


def _decode_source(document: _Document, builder: BuilderKind, kind: str, report: Report) -> Source | None:
    if builder.sourced != bool(document.source):
        lack = f"missing key: builder {kind} needs a source"
        report("source", lack if builder.sourced else f"builder {kind} composes other outputs and takes no source")
        return None
    if document.mirrors and not document.source:
        report("mirrors", "there is no source that they are of")
        return None
    try:
        return sources.parse(document.source, document.mirrors) if document.source else None
    except ValueError as error:
        report("source", str(error))
        return None


def _decode_recipe(name: str, data: Any, report: Report) -> Recipe | None:
    """The recipe; where anything is wrong with it, that is reported."""
    document = decode(_Document, data, "", report)
    table = document.build if document else data.get("build") if isinstance(data, dict) else None
    if not isinstance(table, dict):
        return None
    kind = table.get("kind", "")
    if not isinstance(kind, str) or kind not in builders.KINDS:
        known = ", ".join(builders.KINDS)
        near = suggestion(kind, builders.KINDS) if isinstance(kind, str) else ""
        report("build.kind", f"expected one of {known}, got {shown(kind)}{near}")
        return None
    builder = builders.KINDS[kind]
    build = decode(builder.options, {key: value for key, value in table.items() if key != "kind"}, "build", report)
    source = _decode_source(document, builder, kind, report) if document else None
    if document is None or build is None:
        return None
    also = document.patches_of, document.needs
    return Recipe(name, source, kind, build, document.description, document.optional, *also)


def _check_patches(recipe: Recipe, root: Path) -> Iterator[tuple[str, str]]:
    folders = [root / "patches" / each for each in (recipe.name, recipe.patches_of) if each]
    if recipe.patches_of and not folders[1].is_dir():
        yield "patches_of", f"no such folder patches/{recipe.patches_of}"
    there = sorted({path.name for folder in folders if folder.is_dir() for path in folder.glob("*.patch")})
    for at, patch in enumerate(recipe.patches):
        path = recipe.patch_path(root, patch)
        name = one_line(f"patches/{path.parent.name}/{patch.file}")
        if not patch.file.isprintable():
            yield f"build.patches[{at}]", f"expected a name without control characters, got {patch.file!r}"
        elif patch.file not in there:
            yield f"build.patches[{at}]", f"no such file {name}{suggestion(patch.file, there)}"
        elif fault := regular_file_fault(path):
            yield f"build.patches[{at}]", f"{name} {fault}"
        if patch in recipe.patches[:at]:
            yield f"build.patches[{at}]", f"{name} is listed twice"
        if patch.module and not recipe.builder.modules:
            yield f"build.patches[{at}].module", f"builder {recipe.kind} has no modules"


def _cycle(recipes: Mapping[str, Recipe]) -> tuple[str, ...]:
    """One cycle of input names, first name repeated at the end; empty where there is none."""
    state: dict[str, int] = {}
    trail: list[str] = []

    def visit(name: str) -> tuple[str, ...]:
        if state.get(name) == 2 or name not in recipes:
            return ()
        if state.get(name) == 1:
            return (*trail[trail.index(name) :], name)
        state[name] = 1
        trail.append(name)
        for each in recipes[name].inputs:
            if found := visit(each):
                return found
        trail.pop()
        state[name] = 2
        return ()

    for name in sorted(recipes):
        if found := visit(name):
            return found
    return ()


def _check_folder(recipe: Recipe, root: Path) -> Iterator[tuple[str, str]]:
    """What is wrong with the folder of a local: source."""
    if recipe.source and recipe.source.kind == "local":
        folder = root / recipe.source.name
        if not folder.is_dir():
            yield "source", f"no such folder {recipe.source.name}"
        elif not folder.resolve().is_relative_to(root.resolve()):
            yield "source", f"{recipe.source.name} is a link that leads out of this repository"


def _load_one(path: Path, root: Path, report: Report) -> Recipe | None:
    """One recipe file, its own problems reported; None if there is any."""
    problems: list[tuple[str, str]] = []

    def note(key: str, sentence: str) -> None:
        problems.append((key, sentence))

    decode(_Named, {"name": path.stem}, "", lambda _, sentence: note("", f"{sentence} in the file's name"))
    try:
        recipe = _decode_recipe(path.stem, parse_toml(read_file(path, "the file")), note)
    except (ValueError, UserError) as error:
        note("", str(error))
        recipe = None
    if recipe is not None and not problems:
        problems += [*_check_patches(recipe, root), *_check_folder(recipe, root)]
    for key, sentence in problems:
        report(key, sentence)
    return None if problems else recipe


def _check_set(recipes: Mapping[str, Recipe], known: Collection[str]) -> Iterator[str]:
    """Problems between recipes: unknown inputs, cycles."""
    for name, recipe in recipes.items():
        for each, key in sorted(recipe.builder.inputs(recipe.build).items()):
            if each not in known:
                where = key or "build.kind"
                yield f"recipes/{name}.toml: {where}: unknown input {each!r}{suggestion(each, known)}"
    if loop := _cycle(recipes):
        yield f"recipes/{loop[0]}.toml: cycle: {' -> '.join(loop)}"


def _files(root: Path) -> list[Path]:
    """The files of recipes, without Emacs's locks, which are links that lead nowhere."""
    return sorted(path for path in (root / "recipes").glob("*.toml") if not path.name.startswith(".#"))


def load(root: Path) -> Mapping[str, Recipe]:
    """Every recipe of `root/recipes`, by name. Raises `Problems` with all that is wrong, sorted."""
    problems: list[str] = []
    recipes: dict[str, Recipe] = {}
    paths = _files(root)
    folded: dict[str, Path] = {}
    for path in paths:

        def report(key: str, sentence: str, place: str = one_line(f"recipes/{path.name}")) -> None:
            problems.append(placed(place, key, sentence))

        twin = folded.setdefault(path.stem.lower().replace("_", "-"), path)
        if twin != path:
            report("", f"duplicate name: recipes/{one_line(twin.name)} is the same product")
        recipe = _load_one(path, root, report)
        if recipe is not None:
            recipes[path.stem] = recipe
    problems += _check_set(recipes, {path.stem for path in paths})
    if not paths:
        problems.append("recipes/: no recipe found")
    if problems:
        raise Problems(problems)
    return recipes


def unused(root: Path, recipes: Mapping[str, Recipe]) -> list[str]:
    """Files beside recipes and patches that nothing reads, a sentence each: mostly a slip of somebody's."""
    found = []
    for path in sorted((root / "recipes").iterdir()):
        if path.suffix != ".toml" and not path.name.endswith(_EDITORS) and not path.name.startswith("."):
            found.append(f"recipes/{one_line(path.name)}: is no recipe: their names end in .toml")
    listed = {one.patch_path(root, each) for one in recipes.values() for each in one.patches}
    for path in sorted((root / "patches").glob("*/*")):
        name = path.parent.name
        if path not in listed and not path.name.endswith(_EDITORS) and not path.name.startswith("."):
            why = f"recipes/{name}.toml does not list it" if name in recipes else f"there is no recipe {one_line(name)}"
            found.append(f"{one_line(f'patches/{name}/{path.name}')}: is not used: {why}")
    return found


def options_json(build: Any) -> dict[str, Any]:
    """A build's options as plain JSON values, for keys; the patches' names are left out (their bytes count)."""
    found = dataclasses.asdict(build)
    found.pop("patches", None)
    plain: dict[str, Any] = json.loads(json.dumps(found))  # tuples as lists, as a record on disk has them
    return plain
