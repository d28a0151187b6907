"""Recipes: `recipes/<name>.toml`, one product each, decoded strictly and checked as a set before any work.

Shape of a file:

    source = "go:github.com/opencontainers/runc@v1.3.3"   # where bytes come from; absent for compositions
    mirrors = ["https://…"]                               # only with url:, tried in order
    [build]
    kind = "go"                                           # which builder; its options follow
    patches = ["0001-subject.patch", {file = "0002-x.patch", module = "golang.org/x/sys"}]
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandkube.decode import Report, decode, suggestion
from sandkube.errors import Problems

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
SOURCE_KINDS = ("go", "pypi", "deb", "git", "url", "local")


@dataclass(frozen=True, slots=True)
class Source:
    """Where bytes come from: a kind, a name in that kind's world, and the version asked for.

    go: module path and version; pypi: project and version; deb: package (`src:NAME` for a source package) and
    version; git: repository address and commit; url: address, no version; local: folder of this repository.
    """

    kind: str
    name: str
    version: str = ""
    mirrors: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}@{self.version}" if self.version else f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch file of `patches/<recipe>/`; `module`: the module of the closure it is for, if not the main one."""

    file: str
    module: str = ""


@dataclass(frozen=True, slots=True)
class Install:
    """Copy `path` (a file, a folder, or `.`) of input `from` to `to`; a mode such as "0755" only in images."""

    from_: str
    path: str
    to: str
    mode: str = ""


@dataclass(frozen=True, slots=True)
class Directory:
    """A folder to make, with a mode such as "1777"."""

    path: str
    mode: str = "0755"


@dataclass(frozen=True, slots=True)
class Tree:
    """Builder `tree`: the unpacked source as it is; `rename` gives every file of one name another one."""

    patches: tuple[str | Patch, ...] = ()
    executable: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Go:
    """Builder `go`: programs from a Go module, into `bin/`; the names of passed tests of `test`, into `tests.txt`."""

    packages: tuple[str, ...] = ()
    patches: tuple[str | Patch, ...] = ()
    tags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ()
    cgo: bool = False
    libraries: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    test: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class C:
    """Builder `c`: one static library or one static program from C files."""

    sources: tuple[str, ...]
    output: str
    patches: tuple[str | Patch, ...] = ()
    include: tuple[str, ...] = ()
    define: Mapping[str, str] = field(default_factory=dict)
    cflags: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """Builder `image`: an OCI image layout of one layer."""

    name: str
    install: tuple[Install, ...]
    directories: tuple[Directory, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    applets: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """Builder `content`: a containerd root with the images pre-imported."""

    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rootfs:
    """Builder `rootfs`: the node's file system, composed from other outputs."""

    install: tuple[Install, ...]
    directories: tuple[Directory, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    applets: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Builder `bundle`: a rootfs with its OCI runtime configuration."""

    rootfs: str


Build = Tree | Go | C | Image | Content | Rootfs | Bundle
BUILD_KINDS: Mapping[str, type[Any]] = {
    "tree": Tree,
    "go": Go,
    "c": C,
    "image": Image,
    "content": Content,
    "rootfs": Rootfs,
    "bundle": Bundle,
}
SOURCED = ("tree", "go", "c")  # kinds that need a source; the others compose outputs


@dataclass(frozen=True, slots=True)
class Recipe:
    """One product."""

    name: str
    source: Source | None
    kind: str
    build: Build

    @property
    def patches(self) -> tuple[Patch, ...]:
        """The patches in order, each as a `Patch`."""
        listed = getattr(self.build, "patches", ())
        return tuple(Patch(each) if isinstance(each, str) else each for each in listed)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the recipes whose outputs this one is built from, sorted."""
        return tuple(sorted(name for name, _ in _references(self.kind, self.build)))


def _references(kind: str, build: Build) -> Iterator[tuple[str, str]]:
    """Input names with the key that names each (empty for what a kind needs by itself)."""
    seen: dict[str, str] = {}
    match build:
        case Go():
            seen["go"] = ""
            if build.cgo:
                seen["zig"] = ""
            seen |= {name: f"build.libraries[{at}]" for at, name in enumerate(build.libraries)}
        case C():
            seen["zig"] = ""
        case Image() | Rootfs():
            if build.applets:
                seen["busybox"] = ""
            seen |= {each.from_: f"build.install[{at}].from" for at, each in enumerate(build.install)}
        case Content():
            seen["imagestore"] = ""
            seen |= {name: f"build.images[{at}]" for at, name in enumerate(build.images)}
        case Bundle():
            seen[build.rootfs] = "build.rootfs"
        case Tree():
            pass
    yield from sorted(seen.items())


def parse_source(text: str, mirrors: tuple[str, ...] = ()) -> Source:
    """Parse `KIND:NAME[@VERSION]`. Raises ValueError with a sentence."""
    kind, colon, rest = text.partition(":")
    if not colon or kind not in SOURCE_KINDS:
        raise ValueError(
            f"unknown source kind {kind!r}{suggestion(kind, SOURCE_KINDS)}; known: {', '.join(SOURCE_KINDS)}"
        )
    if kind in ("url", "local"):
        name, version = rest, ""
    else:
        name, _, version = rest.rpartition("@")
        if not name or not version:
            raise ValueError(f"expected {kind}:NAME@VERSION, got {text!r}")
    if kind == "git" and not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", version):
        raise ValueError(f"a git source is pinned by a full commit hash, got {version!r}")
    if kind == "local" and (name.startswith("/") or ".." in Path(name).parts or not name):
        raise ValueError(f"a local source is a folder of this repository, got {name!r}")
    if mirrors and kind != "url":
        raise ValueError("mirrors go with url: sources only")
    return Source(kind, name, version, mirrors)


def _decode_source(data: dict[str, Any], report: Report) -> Source | None:
    mirrors = decode(tuple[str, ...], data.get("mirrors", []), "mirrors", report)
    if "source" not in data:
        return None
    text = decode(str, data["source"], "source", report)
    try:
        return parse_source(text, mirrors)
    except ValueError as error:
        report("source", str(error))
        return None


def _decode_recipe(name: str, data: dict[str, Any], report: Report) -> Recipe | None:
    for key in data:
        if key not in ("source", "mirrors", "build"):
            report(key, f"unknown key{suggestion(key, ('source', 'mirrors', 'build'))}")
    source = _decode_source(data, report)
    table = data.get("build")
    if not isinstance(table, dict):
        report("build", "missing table" if table is None else "expected a table")
        return None
    kind = str(table.get("kind", ""))
    if kind not in BUILD_KINDS:
        report("build.kind", f"expected one of {', '.join(BUILD_KINDS)}, got {kind!r}{suggestion(kind, BUILD_KINDS)}")
        return None
    options = {key: value for key, value in table.items() if key != "kind"}
    build = decode(BUILD_KINDS[kind], options, "build", report)
    if kind in SOURCED and "source" not in data:
        report("source", f"missing key: builder {kind} needs a source")
    if kind not in SOURCED and "source" in data:
        report("source", f"builder {kind} composes other outputs and takes no source")
    return Recipe(name, source, kind, build) if build is not None else None


def _check_patches(recipe: Recipe, root: Path) -> Iterator[tuple[str, str]]:
    folder = root / "patches" / recipe.name
    there = sorted(path.name for path in folder.glob("*.patch")) if folder.is_dir() else []
    for at, patch in enumerate(recipe.patches):
        if patch.file not in there:
            yield (
                f"build.patches[{at}]",
                f"no such file patches/{recipe.name}/{patch.file}{suggestion(patch.file, there)}",
            )
        if patch.module and recipe.kind != "go":
            yield f"build.patches[{at}].module", f"only builder go has modules, this is {recipe.kind}"


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


def _load_one(path: Path, root: Path, report: Report) -> Recipe | None:
    """One recipe file, its own problems reported."""
    if not _NAME.fullmatch(path.stem):
        report("", "a recipe's name is made of a-z, 0-9 and inner hyphens")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        report("", f"not valid TOML: {error}")
        return None
    recipe = _decode_recipe(path.stem, data, report)
    if recipe is None:
        return None
    for key, sentence in _check_patches(recipe, root):
        report(key, sentence)
    if recipe.source and recipe.source.kind == "local" and not (root / recipe.source.name).is_dir():
        report("source", f"no such folder {recipe.source.name}")
    return recipe


def _check_set(recipes: Mapping[str, Recipe], known: Collection[str]) -> Iterator[str]:
    """Problems between recipes: unknown inputs, cycles."""
    for name, recipe in recipes.items():
        for each, key in _references(recipe.kind, recipe.build):
            if each not in known:
                where = key or "build.kind"
                yield f"recipes/{name}.toml: {where}: unknown input {each!r}{suggestion(each, known)}"
    if loop := _cycle(recipes):
        yield f"recipes/{loop[0]}.toml: cycle: {' -> '.join(loop)}"


def load(root: Path) -> Mapping[str, Recipe]:
    """Every recipe of `root/recipes`, by name. Raises `Problems` with all that is wrong, sorted."""
    problems: list[str] = []
    recipes: dict[str, Recipe] = {}
    paths = sorted((root / "recipes").glob("*.toml"))
    folded: dict[str, Path] = {}
    for path in paths:

        def report(key: str, sentence: str, place: str = f"recipes/{path.name}") -> None:
            problems.append(f"{place}: {key}: {sentence}" if key else f"{place}: {sentence}")

        twin = folded.setdefault(path.stem.lower().replace("_", "-"), path)
        if twin != path:
            report("", f"duplicate name: recipes/{twin.name} is the same product")
        recipe = _load_one(path, root, report)
        if recipe is not None:
            recipes[path.stem] = recipe
    problems += _check_set(recipes, {path.stem for path in paths})
    if not paths:
        problems.append("recipes/: no recipe found")
    if problems:
        raise Problems(problems)
    return recipes


def options_json(build: Build) -> dict[str, Any]:
    """A build's options as plain JSON values, for keys; the patches' names are left out (their bytes count)."""
    found = dataclasses.asdict(build)
    found.pop("patches", None)
    plain: dict[str, Any] = json.loads(json.dumps(found))  # tuples as lists, as a record on disk has them
    return plain
