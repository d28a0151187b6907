"""Whatever is read is a value or a sentence, never an exception, and nothing of it is passed over."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandkube.build import lock, plan, recipe, spec
from sandkube.build.builders import KINDS
from sandkube.build.lock import File
from sandkube.cluster import in_place, programs
from sandkube.cluster.place import Place, State
from sandkube.cluster.programs import Written
from sandkube.cluster.sandbox import KINDS as KINDS_OF_SANDBOX
from sandkube.decode import decode
from sandkube.documents import parse_json, parse_toml
from sandkube.errors import Problems, UserError
from tests.projects import RECIPES, keys, project

ODD = ("", ".", "a", "b/c", "../x", "/x", "-o", "a b", "\0", "\ud800", "a\nb", "0755", "1.patch", "A=1", "**/a**")
WORDS = ("modern", "in-place", "running", "go", "0" * 40, "0" * 64)
TEXTS = st.sampled_from([*ODD, *WORDS]) | st.text(max_size=5)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(2**70) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
OPTIONS = [record.options for record in KINDS.values()] + [File, State]


@functools.cache
def likely(kind: Any) -> st.SearchStrategy[Any]:
    """Values that are nearly, or quite, what a kind takes."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = {field.name.rstrip("_"): likely(hints[field.name]) for field in dataclasses.fields(kind)}
        return st.fixed_dictionaries({}, optional=fields) | st.fixed_dictionaries(fields)
    if origin is Annotated:
        return likely(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*map(likely, arguments))
    if origin is tuple:
        return st.lists(likely(arguments[0]), max_size=3)
    if origin is not None:
        return st.dictionaries(TEXTS, likely(arguments[1]), max_size=2)
    return {str: TEXTS, bool: st.booleans(), int: st.integers(), float: st.floats()}.get(kind, st.none()) | ANYTHING


def plain(value: Any) -> Any:
    """A decoded value as a parser would give it."""
    if dataclasses.is_dataclass(value):
        return {field.name.rstrip("_"): plain(getattr(value, field.name)) for field in given_fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple) else value


def given_fields(value: Any) -> Iterator[dataclasses.Field[Any]]:
    """Fields that are not as they are when nothing is said of them, which they may not be said to be."""
    for field in dataclasses.fields(value):
        default = () if field.default is dataclasses.MISSING else (field.default,)
        if getattr(value, field.name) not in (*default, {}):
            yield field


@pytest.mark.parametrize("kind", OPTIONS, ids=lambda kind: kind.__name__)
@settings(max_examples=50)
@given(data=st.data())
def test_any_value_is_decoded_or_told(kind: Any, data: st.DataObject) -> None:
    value = data.draw(likely(kind) | ANYTHING)
    said: list[tuple[str, str]] = []
    found = decode(kind, value, "build", lambda *each: said.append(each))
    assert (found is None) == bool(said)
    for place, sentence in said:
        assert place.startswith("build")
        assert sentence
        assert "\n" not in place + sentence
    if found is not None:
        assert isinstance(found, kind)
        assert decode(kind, plain(found), "", lambda *each: pytest.fail(str(each))) == found


def good_options() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, text in RECIPES.items():
        yield name, parse_toml(text.encode())["build"]


@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=10)
@given(data=st.data())
def test_one_wrong_thing_in_good_options_is_told_alone(name: str, data: st.DataObject) -> None:
    """A key that is not known, in any table of a good recipe, is the one thing that is said."""
    options = json.loads(json.dumps(dict(good_options())[name]))
    kind = KINDS[options.pop("kind")].options
    tables = [options, *(each for rows in options.values() if isinstance(rows, list) for each in rows)]
    data.draw(st.sampled_from([each for each in tables if isinstance(each, dict)]))["kynd"] = data.draw(ANYTHING)
    said: list[str] = []
    assert decode(kind, options, "build", lambda place, sentence: said.append(f"{place}: {sentence}")) is None
    (sentence,) = said
    assert "kynd: unknown key" in sentence


@settings(max_examples=20)
@given(value=st.dictionaries(st.integers() | TEXTS, ANYTHING))
def test_keys_that_are_no_strings(value: Any) -> None:
    said: list[str] = []
    decode(KINDS["c"].options, value, "", lambda *each: said.append(each[1]))
    assert said


@given(data=st.binary(max_size=40) | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"a = " + b"[" * 100_000]))
def test_any_bytes_are_a_document_or_a_sentence(data: bytes) -> None:
    for parse in (parse_json, parse_toml):
        try:
            parse(data)
        except ValueError as error:
            assert str(error).startswith("not valid")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "\ufeff1", "1" * 5000, '"\\ud800', "01"])
def test_what_only_python_takes_for_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^not valid JSON: "):
        parse_json(text.encode())


def changed_text(text: str) -> st.SearchStrategy[str]:
    """A text with a piece cut out, doubled, or put in."""
    places = st.integers(0, len(text))
    pieces = st.sampled_from(["", "\0", '"', "[", "]", "{", "}", "=", "\n", "#", "a", "=1\n", '""', "\\u0000", "é"])

    def change(start: int, length: int, piece: str, double: bool) -> str:
        end = min(len(text), start + length)
        return text[:end] + piece + (text[start:] if double else text[end:][1:])

    return st.builds(change, places, st.integers(0, 30), pieces, st.booleans())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize("name", ["filter", "runtime", "picture", "words"])
@settings(max_examples=20)
@given(data=st.data())
def test_any_recipe_is_read_or_told(root: Path, name: str, data: st.DataObject) -> None:
    path = root / f"recipes/{name}.toml"
    good = path.read_text()
    bad = data.draw(changed_text(good).map(str.encode) | st.binary(max_size=30))
    try:
        path.write_bytes(bad)
        try:
            plan.load(root)
        except Problems as found:
            assert all(each.startswith("recipes/") for each in found.problems)
    finally:
        path.write_text(good)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place below a value of JSON."""
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in rows:
        yield (*path, key)
        yield from places(each, (*path, key))


def said_of(root: Path, text: str | bytes) -> str:
    """What is said of a lock; "" for one that is taken, which has lost nothing then."""
    path = root / "lock.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    try:
        loaded = lock.load(path)
    except UserError as error:
        assert all(each.startswith("lock.json") for each in error.message.splitlines())
        return error.message
    wanted = json.loads(text)
    for entry in wanted["recipes"].values():
        if entry.get("modules") == {}:
            del entry["modules"]
    assert json.loads(lock.encode(loaded)) == wanted
    one = plan.load(root)
    problems = spec.check(one.recipes, one.lock, root)
    if not problems:
        keys(one)
    return "\n".join(problems)


@given(data=st.data())
def test_any_change_of_the_lock_is_kept_or_told(root: Path, data: st.DataObject) -> None:
    good = (root / "lock.json").read_text()
    value = json.loads(good)
    path = data.draw(st.sampled_from(list(places(value))))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    what = data.draw(st.sampled_from(["other", "gone", "more"]))
    if what == "other":
        holder[path[-1]] = data.draw(ANYTHING | st.sampled_from(["../../x", "0" * 64, None, {}, [], 1.0, True]))
    elif what == "gone":
        del holder[path[-1]]
    elif isinstance(holder, dict):
        holder[data.draw(TEXTS)] = holder[path[-1]]
    try:
        said_of(root, json.dumps(value))
    finally:
        (root / "lock.json").write_text(good)


@given(data=st.data())
def test_any_text_of_a_lock_is_kept_or_told(root: Path, data: st.DataObject) -> None:
    good = (root / "lock.json").read_text()
    try:
        said_of(root, data.draw(changed_text(good) | st.binary(max_size=60)))
    finally:
        (root / "lock.json").write_text(good)


@given(data=st.binary(max_size=60) | likely(State).map(lambda value: json.dumps(value).encode()))
def test_any_state_of_a_cluster_is_one_or_none(root: Path, data: bytes) -> None:
    (root / "state.json").write_bytes(data)
    found = Place(root).read()
    if found is not None:
        assert found == State(**json.loads(data))
        assert not found.alive()


@given(data=st.binary(max_size=60) | likely(Written).map(lambda value: json.dumps(value).encode()))
def test_any_file_of_programs_is_used_or_told(root: Path, data: bytes) -> None:
    (root / "programs.json").write_bytes(data)
    kind = programs.kind_of(Place(root))
    assert kind in ("", in_place.KIND, *KINDS_OF_SANDBOX)
    if kind:
        programs.sandbox(Place(root), "x")
    else:
        with pytest.raises(UserError, match=r"programs\.json is damaged\n"):
            programs.sandbox(Place(root), "x")


def test_a_file_of_state_that_waits_is_none(tmp_path: Path) -> None:
    """A FIFO is not opened."""
    os.mkfifo(tmp_path / "state.json")
    assert Place(tmp_path).read() is None
    with pytest.raises(UserError, match=r"^lock\.json is no regular file$"):
        os.mkfifo(tmp_path / "lock.json")
        lock.load(tmp_path / "lock.json")


def test_the_project_itself_is_read() -> None:
    here = Path(__file__).resolve().parents[2]
    one = plan.load(here)
    assert spec.check(one.recipes, one.lock, here) == []
    assert recipe.unused(here, one.recipes) == []
    assert lock.encode(one.lock) == (here / "lock.json").read_text()
