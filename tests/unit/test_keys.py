"""Keys: every part of a recipe and of its pin counts, for its step and all that contains it, and nothing else does."""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandkube.build import code, lock, plan, sources
from sandkube.build.builders import KINDS, Patch
from sandkube.build.builders.c import C
from sandkube.build.derivation import Derivation
from sandkube.build.lock import File, Pin
from sandkube.build.plan import Plan
from sandkube.build.recipe import Recipe
from tests.projects import FILES, PINS, PROGRAMS, RECIPES, keys, project

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = {
    "Recipe.name": "two products with one derivation are one output",
    "Recipe.source": "its pin says what the bytes are; spec.check refuses a pin that is of another source",
    "Recipe.description": "words for people",
    "Recipe.optional": "when it is made, not what it is made of",
    "Recipe.patches_of": "where patches are; they count by their bytes",
    "Recipe.needs": "where its commands can run, not what they make",
    "Recipe.kind": "goes with the type of the options",
    **dict.fromkeys(
        ("Tree.patches", "Go.patches", "C.patches"), "see test_patches_count_by_their_bytes_order_and_module"
    ),
    "Pin.spec": "what the pin was made from",
    "Pin.mod": "go.mod is in the zip",
    "Pin.commit": "the tree counts",
    "File.size": "the digest counts",
    **dict.fromkeys(("File.pool", "File.suite", "File.component", "File.sha1"), "where the file is fetched from"),
    "File.name": "see test_the_name_of_a_file_that_is_not_unpacked_counts",
}


@pytest.fixture
def made(tmp_path: Path) -> Plan:
    """The small project, read."""
    return plan.load(project(tmp_path))


def containing(one: Plan, name: str) -> set[str]:
    """A step and all that are built from it."""
    found = {name}
    for _ in one.recipes:
        found |= {each.name for each in one.recipes.values() if found & set(each.inputs)}
    return found


def other_texts(value: str | None, where: str) -> Iterator[tuple[str, Any]]:
    yield where, f"{value or ''}x"
    if value:
        yield f"{where} emptied", None if value.startswith("h1:") else ""


def other_tuples(value: tuple[Any, ...], where: str) -> Iterator[tuple[str, Any]]:
    for at, item in enumerate(value):
        yield f"{where}[{at}] left out", value[:at] + value[at + 1 :]
        for place, other in others(item, f"{where}[{at}]"):
            yield place, (*value[:at], other, *value[at + 1 :])
    if len(set(value)) > 1 and not where.endswith((".modules", ".inputs")):  # sorted on the way to the key
        yield f"{where} reversed", value[::-1]


def other_tables(value: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    yield f"{where} with one more", {**value, "more": ""}
    for key in value:
        yield f"{where}.{key} left out", {each: value[each] for each in value if each != key}
        for place, other in others(value[key], f"{where}.{key}"):
            yield place, {**value, key: other}


def others(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every value that differs from this one in one place, with the place."""
    match value:
        case bool():
            yield where, not value
        case str() | None:
            yield from other_texts(value, where)
        case tuple():
            yield from other_tuples(value, where)
        case Mapping():
            yield from other_tables(value, where)
        case _:
            for field in dataclasses.fields(value):
                if f"{type(value).__name__}.{field.name}" not in LEFT_OUT:
                    for place, other in others(getattr(value, field.name), f"{where}.{field.name}"):
                        yield place, replace(value, **{field.name: other})


def with_recipe(one: Plan, recipe: Recipe) -> Plan:
    return replace(one, recipes={**one.recipes, recipe.name: recipe})


def with_pin(one: Plan, name: str, pin: Pin) -> Plan:
    return replace(one, lock={**one.lock, name: pin})


def changed(before: Plan, after: Plan) -> set[str]:
    old, new = keys(before), keys(after)
    return {name for name in old if old[name] != new[name]}


@pytest.mark.parametrize("name", RECIPES)
def test_every_field_of_a_recipe_counts(made: Plan, name: str) -> None:
    recipe = made.recipes[name]
    told = dict(others(recipe, name))
    assert told or name == "files"
    wanted = containing(made, name)
    wrong = {place for place, other in told.items() if changed(made, with_recipe(made, other)) != wanted}
    assert wrong == set()


@pytest.mark.parametrize("name", [name for name in PINS if PINS[name] != Pin("")])
def test_every_field_of_a_pin_counts(made: Plan, name: str) -> None:
    pin = made.lock[name]
    used = {f"{name}.{field.name}" for field in dataclasses.fields(pin) if getattr(pin, field.name)}
    told = {place: other for place, other in others(pin, name) if re.split(r"[ \[]", place)[0] in used}
    assert told
    wanted = containing(made, name)
    wrong = {place for place, other in told.items() if changed(made, with_pin(made, name, other)) != wanted}
    assert wrong == set()


def test_what_is_left_out_counts_nowhere(made: Plan) -> None:
    for name, pin in made.lock.items():
        files = tuple(
            replace(each, size=each.size + 1, pool="x", suite="x", component="x", sha1="x") for each in pin.files
        )
        other = replace(pin, spec="x", mod="x", commit="x", files=files)
        assert changed(made, with_pin(made, name, other)) == set()
    for recipe in made.recipes.values():
        if recipe.source and recipe.source.kind != "local":
            source = replace(recipe.source, name="x", version="x", mirrors=("x",))
            assert changed(made, with_recipe(made, replace(recipe, source=source))) == set()


def test_patches_count_by_their_bytes_order_and_module(made: Plan) -> None:
    recipe = made.recipes["filter"]
    folder = made.root / "patches/filter"
    shutil.copyfile(folder / "0001-first.patch", folder / "0003-first.patch")
    first, second = recipe.patches

    def after(*patches: Patch) -> set[str]:
        assert isinstance(recipe.build, C)
        return changed(made, with_recipe(made, replace(recipe, build=replace(recipe.build, patches=patches))))

    assert after(first, second) == set(), "a patch and its name alone mean the same"
    assert after(Patch("0003-first.patch"), second) == set()
    for patches in [(), (first,), (second, first), (first, first, second), (Patch(first.file, "m"), second)]:
        assert after(*patches) == containing(made, "filter")


def test_a_byte_of_a_patch_counts(made: Plan) -> None:
    before = keys(made)
    path = made.root / "patches/runtime/0002-dependency.patch"
    path.write_text(path.read_text().replace("+2", "+3"))
    after = keys(plan.load(made.root))
    assert {name for name in before if before[name] != after[name]} == containing(made, "runtime")


@pytest.mark.parametrize("change", ["byte", "name", "executable", "link", "another", "gone"])
def test_every_part_of_a_local_folder_counts(made: Plan, change: str) -> None:
    before = keys(made)
    path = made.root / "native/files/bin/hello"
    match change:
        case "byte":
            path.write_text("#!/bin/sh\necho hellO\n")
        case "name":
            path.rename(path.with_name("hallo"))
        case "executable":
            path.chmod(0o644)
        case "link":
            path.with_name("link").symlink_to("hello")
        case "another":
            path.with_name("another").touch()
        case "gone":
            path.unlink()
    after = keys(plan.load(made.root))
    assert {name for name in before if before[name] != after[name]} == containing(made, "files")


def turned(text: str) -> str:
    """A recipe with its keys in the reverse order, comments, and white space."""
    head, _, build = text.partition("[build]\n")
    lines = [f"{line}   # words" for line in reversed(build.splitlines())]
    return "\n\n".join(["# A comment.", *reversed(head.splitlines()), "  [build]", "# Another.", *lines]) + "\n"


def test_order_and_comments_of_recipes_do_not_count(tmp_path: Path) -> None:
    first = plan.load(project(tmp_path / "a"))
    second = plan.load(project(tmp_path / "b", retype=turned))
    assert (tmp_path / "a/recipes/go.toml").read_text() != (tmp_path / "b/recipes/go.toml").read_text()
    assert keys(first) == keys(second)


def test_order_inside_a_table_does_not_count(made: Plan) -> None:
    before = keys(made)
    for name, old, new in (
        ("filter", '{A = "1", B = ""}', '{B = "", A = "1"}'),
        ("rootfs", '{from = "images", path = ".", to = "images"}', '{to = "images", path = ".", from = "images"}'),
        ("go", '{"_go.mod" = "go.mod", "_go.sum" = "go.sum"}', '{"_go.sum" = "go.sum", "_go.mod" = "go.mod"}'),
    ):
        path = made.root / f"recipes/{name}.toml"
        text = path.read_text().replace(old, new)
        assert text != path.read_text()
        path.write_text(text)
    assert keys(plan.load(made.root)) == before


def test_order_and_white_space_of_the_lock_do_not_count(made: Plan) -> None:
    def reverse(value: Any) -> Any:
        return {key: reverse(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    path = made.root / "lock.json"
    text = json.dumps(reverse(json.loads(path.read_text())))
    assert text != path.read_text()
    path.write_text(text)
    assert keys(plan.load(made.root)) == keys(made)


def test_place_times_and_umask_do_not_count(tmp_path: Path) -> None:
    first = plan.load(project(tmp_path / "a"))
    old = os.umask(0o077)
    try:
        second = plan.load(project(tmp_path / "another folder/deeper/b"))
        for path in second.root.rglob("*"):
            os.utime(path, (1, 1))
        assert keys(second) == keys(first)
    finally:
        os.umask(old)
    assert (second.root / "native/files/bin/hello").stat().st_mode & 0o777 == 0o700
    assert PROGRAMS[0] in FILES


def test_what_editors_and_empty_folders_leave_does_not_count(made: Plan) -> None:
    before = keys(made)
    (made.root / "native/files/.#hosts").symlink_to("user@host.1234:5678")  # Emacs has hosts open
    for name in ("native/files/.hosts.swp", "native/files/etc/hosts~", "native/files/__pycache__/x.pyc"):
        path = made.root / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (made.root / "native/files/empty").mkdir()
    assert keys(plan.load(made.root)) == before


def test_every_field_of_a_derivation_counts() -> None:
    pairs = (("a", "1"), ("b", "2"))
    one = Derivation("tree", "builder", {"x": "y"}, "source", pairs, pairs, pairs)
    different: list[Derivation] = []
    for field in dataclasses.fields(one):
        value = getattr(one, field.name)
        if isinstance(value, tuple):
            changes: list[Any] = [(), pairs[:1], (("a", "2"), ("b", "2")), (("a", "1"), ("c", "2"))]
            different += [replace(one, **{field.name: each}) for each in changes]
        else:
            different += [replace(one, **{field.name: other}) for _, other in others(value, "")]
    different += [replace(one, patches=pairs[::-1]), one]
    found = [each.key() for each in different]
    assert len(set(found)) == len(found), "two different derivations have one key"


def test_inputs_are_known_by_name_and_output(made: Plan) -> None:
    """The same two outputs, the one in the other's place, are another derivation."""
    swapped = {"go": "zig", "zig": "go"}
    one = plan.derivation_of(made, "runtime", lambda name: name)
    other = plan.derivation_of(made, "runtime", lambda name: swapped.get(name, name))
    assert one.key() != other.key()


CODE = {
    (kind, origin): (*record.code, *(sources.KINDS[origin].code if origin else ()))
    for kind, record in KINDS.items()
    for origin in (sources.KINDS if record.sourced else ("",))
}
"""Modules whose meaning is in the keys of a builder's steps, by builder and source kind."""
DIGESTS = """\
import json
from pathlib import Path
from sandkube.build import code
assert code.PACKAGE.parent == Path.cwd(), code.PACKAGE
modules = [str(path.relative_to(code.PACKAGE).with_suffix("")) for path in sorted(code.PACKAGE.rglob("*.py"))]
by_statements, by_words = [], []
for name in modules:
    path, before = code.PACKAGE / f"{name}.py", code.digest([name])
    text = path.read_bytes()
    for more, changed in (b"X = 1\\n", by_statements), (b'# words\\n\\n"words"\\n', by_words):
        path.write_bytes(text + more)
        changed += [name] if code.digest([name]) != before else []
    path.write_bytes(text)
print(json.dumps([modules, by_statements, by_words]))
"""


def test_what_code_means_is_in_its_digest_and_words_are_not(tmp_path: Path) -> None:
    """In a copy of the engine, a statement more in each file, then a comment and a text that stands by itself."""
    shutil.copytree(ROOT / "sandkube", tmp_path / "sandkube", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {['.', *sys.path]!r}\n{DIGESTS}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    modules, by_statements, by_words = json.loads(done.stdout)
    assert len(modules) > 40
    assert by_statements == modules
    assert by_words == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("def f():\n    return 1\n", 'def f():\n    """Words."""\n    return (1)  # words\n', True),
        ("A = 1\n", 'A = 1\n"""Words on A."""\n', True),
        ('A = """Words."""\n', 'A = """Others."""\n', False),
        ("A = 1\n", "A = 1.0\n", False),
        ("A = 1\n", "A = True\n", False),
        ("A = 'x'\n", "A = b'x'\n", False),
        ("f('')\n", "f()\n", False),
        ("A = f'{x}'\n", "A = f'{x!r}'\n", False),
        ("def f(a, /): ...\n", "def f(a): ...\n", False),
        ("f(*a)\n", "f(a)\n", False),
        ("{**a, b: c}\n", "{a: c}\n", False),
        ("if a:\n    b\nelse:\n    c\n", "if a:\n    b\n    c\n", False),
    ],
)
def test_the_meaning_of_code(one: str, other: str, same: bool) -> None:
    assert (code.meaning(one) == code.meaning(other)) == same


def test_every_python_finds_the_same_meaning() -> None:
    text = "import a.b as c\n\ndef f(x: int = 1, *, y=f'{c!r:>{x}} é') -> None:\n    return [z for z in x if z]\n"
    assert code.meaning(text) == "988e9ed4e2983f8e1f4edfe8d767de325a8af05c7f831fc6b350acae6df42ce3"


CARRIES = {
    "tree": "normalises, copies and removes; what it writes is hashed after",
    "__init__": "empty",
    "build/__init__": "empty",
    "later": "imports",
    "files": "whole files and locks",
    "machine": "how much a compiler may use",
    "build/sources/kind": "a record of functions, each in a module that is covered",
    "build/builders/go_closure": "chooses modules, which are pinned",
    "build/sources/__init__": "a table",
    "build/builders/__init__": "a table",
    "errors": "sentences",
    "log": "lines for the user",
    "run": "starts processes, with an environment that build/box makes",
    **dict.fromkeys(("decode", "documents", "shapes"), "strictness; what it lets through is in the options"),
    "digest": "hashes: another hash is another key",
    "build/lock": "pins: what they say is in the key",
    "build/recipe": "options: what they say is in the key",
    "build/sources/settings": "proxies",
    "build/sources/blobs": "a file by its digest",
    **dict.fromkeys(
        (
            *(f"build/cache/{each}" for each in ("kind", "oci", "patience", "threads", "web")),
            *(f"registry/{each}" for each in ("__init__", "certificates", "client", "images", "logins", "tokens")),
        ),
        "fetch what is checked by its digest",
    ),
    "build/store": "normalises every output alike, before its hash is taken",
    "nar": "the serialisation that output hashes are made of",
}
"""Modules that builders stand on and that write no output byte."""


@functools.cache
def stands_on(name: str) -> set[str]:
    """Every module of the engine that one imports, and those import that CARRIES does not excuse."""
    package = ROOT / "sandkube"
    found: set[str] = set()
    todo = [name]
    while todo:
        at = todo.pop()
        if at in found:
            continue
        found.add(at)
        if at in CARRIES:
            continue
        for node in ast.walk(ast.parse((package / f"{at}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sandkube":
                base = node.module.replace(".", "/").removeprefix("sandkube").lstrip("/")  # type: ignore[union-attr]
                for each in (base, *(f"{base}/{alias.name}".lstrip("/") for alias in node.names)):
                    todo += [one for one in (each, f"{each}/__init__".lstrip("/")) if (package / f"{one}.py").is_file()]
    return found


@pytest.mark.parametrize("kinds", CODE, ids=" ".join)
def test_the_code_of_a_step_covers_all_that_writes(kinds: tuple[str, str]) -> None:
    """What the code that makes an output stands on is in its digest, or CARRIES excuses it."""
    covered = {*code.SHARED, *CODE[kinds]}
    left = set().union(*map(stands_on, covered)) - covered - CARRIES.keys()
    carriers = {name for name in left if name.startswith("build/sources/")}  # of bytes that the cache checks again
    assert left - carriers == set()


def test_the_name_of_a_file_that_is_not_unpacked_counts(made: Plan) -> None:
    (file,) = made.lock["words"].files
    other = Pin("", files=(File("other.txt", file.sha256, file.size),))
    assert "words" in changed(made, with_pin(made, "words", other))


def test_the_way_a_file_is_unpacked_counts(made: Plan) -> None:
    pin = made.lock["zig"]
    for kind in ("url", "deb"):
        recipe = replace(made.recipes["zig"], source=replace(made.recipes["zig"].source, kind=kind))  # type: ignore[type-var]
        assert "zig" in changed(with_pin(made, "zig", pin), with_recipe(made, recipe))


def test_a_lock_is_read_as_it_was_written(made: Plan) -> None:
    assert lock.encode(made.lock) == (made.root / "lock.json").read_text()
