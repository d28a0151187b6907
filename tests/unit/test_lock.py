"""lock.json is the root of trust: what it holds is what is written by us, or a sentence says what is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandkube.build import lock, plan, spec
from sandkube.build.places import Places
from sandkube.build.realise import Realiser
from sandkube.build.sources import go_faults
from sandkube.build.store import DamagedRecord, Store
from sandkube.digest import canonical_json, sha256_bytes
from sandkube.errors import UserError
from tests.projects import number, project

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return project(tmp_path)


def said(root: Path, text: str) -> str:
    """What is said of a lock, the hint included."""
    (root / "lock.json").write_text(text)
    with pytest.raises(UserError) as caught:
        lock.load(root / "lock.json")
    return str(caught.value)


def changed(root: Path, *path: Any, value: Any) -> str:
    """The text of the lock with another value at a place; None takes it out."""
    found = json.loads((root / "lock.json").read_text())
    holder = found
    for key in path[:-1]:
        holder = holder[key]
    if value is None:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return json.dumps(found)


MODULE = "example.org/dependency@v2.0.0+incompatible"
FILE = ("recipes", "zig", "source", "files", 0)
SHAPES: list[tuple[tuple[Any, ...], Any, str]] = [
    (("more",), 1, "lock.json: more: unknown key"),
    (("version",), True, "lock.json: version: expected a whole number, got True"),
    (("version",), 2, "lock.json: version 2 is not 1, the one this Sandkube reads"),
    (("recipes",), [], "lock.json: recipes: expected a table, got an array"),
    (
        ("recipes", "../x"),
        {"spec": "0" * 64, "source": {}},
        "lock.json: recipes['../x']: expected a recipe's name, of a-z, 0-9 and inner hyphens, got '../x'",
    ),
    (("recipes", "zig", "spec"), "x", "recipes.zig.spec: expected a SHA-256 of 64 hexadecimal digits, got 'x'"),
    (("recipes", "zig", "spec"), None, "lock.json: recipes.zig.spec: missing key"),
    (("recipes", "zig", "source", "commit"), "0" * 40, "recipes.zig.source: expected files, or h1 and mod, or"),
    (("recipes", "zig", "source", "files"), [], "recipes.zig.source.files: expected at least one item, got an array"),
    ((*FILE, "sha256"), "../../x", "files[0].sha256: expected a SHA-256 of 64 hexadecimal digits, got '../../x'"),
    ((*FILE, "name"), "../x", "files[0].name: expected the name of a file, got '../x'"),
    ((*FILE, "size"), -1, "files[0].size: expected a size in bytes, got -1"),
    ((*FILE, "size"), "1", "files[0].size: expected a whole number, got '1'"),
    ((*FILE, "shar"), "1", "files[0].shar: unknown key"),
    (
        ("recipes", "busybox", "source", "files", 0, "pool"),
        "/pool/x",
        "files[0].pool: expected a relative path without . and .., got '/pool/x'",
    ),
    (("recipes", "pages", "source", "tree"), "x", "source.tree: expected a git hash of 40 or 64 hexadecimal digits"),
    (("recipes", "runtime", "source", "h1"), "h1:x=", "source.h1: expected a sum as in go.sum, h1: and 32 bytes in"),
    (("recipes", "runtime", "source", "mod"), None, "recipes.runtime.source: expected files, or h1 and mod, or"),
    (("recipes", "runtime", "modules", MODULE), ["x"], f"modules['{MODULE}']: expected an array of 2 items, got 1"),
    (("recipes", "runtime", "modules", MODULE, 1), 3, f"modules['{MODULE}'][1]: expected a string, got 3"),
    (
        ("recipes", "runtime", "modules", "../../x@v1.0.0"),
        ["x", "y"],
        "modules['../../x@v1.0.0']: expected MODULE@VERSION of a Go module, got '../../x@v1.0.0'",
    ),
]


@pytest.mark.parametrize(("path", "value", "sentence"), SHAPES)
def test_what_is_not_as_it_is_written_is_told(root: Path, path: tuple[Any, ...], value: Any, sentence: str) -> None:
    text = said(root, changed(root, *path, value=value))
    assert sentence in text
    assert "hint: git checkout HEAD -- lock.json" in text


def test_a_key_twice_is_told(root: Path) -> None:
    """Both sides of a merge, as an editor leaves them."""
    good = (root / "lock.json").read_text()
    start, end = good.index('    "zig"'), good.rindex("\n  }\n}")
    text = f"{good[:end]},\n{good[start:end]}\n  }}\n}}\n"
    assert json.loads(text) == json.loads(good)
    assert said(root, text).startswith("lock.json: recipes.zig: is given more than once\n")


def test_a_conflict_is_told_with_its_line(root: Path) -> None:
    good = (root / "lock.json").read_text()
    text = said(root, good.replace('    "zig"', '<<<<<<< HEAD\n=======\n>>>>>>> x\n    "zig"'))
    line = good[: good.index('    "zig"')].count("\n") + 1
    assert text.startswith(f"lock.json: line {line}: <<<<<<< is a marker of an unfinished merge\n")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.mkdir(), "lock.json is a folder; a file is expected"),
        (lambda path: path.symlink_to("nowhere"), "lock.json is a link that leads nowhere"),
        (lambda path: path.write_bytes(b"\xff"), "lock.json: not valid JSON: 'utf-8' codec can't decode"),
        (lambda path: path.write_text("[" * 99999), "lock.json: not valid JSON: nested too deeply"),
        (lambda path: path.write_text("[]"), "lock.json: expected a table, got an array"),
    ],
)
def test_what_is_no_lock_is_told(tmp_path: Path, make: Any, sentence: str) -> None:
    make(tmp_path / "lock.json")
    with pytest.raises(UserError) as caught:
        lock.load(tmp_path / "lock.json")
    assert str(caught.value).startswith(sentence)


def test_no_lock_is_an_empty_one(tmp_path: Path) -> None:
    assert lock.load(tmp_path / "lock.json") == {}


FILES = [{"name": "x", "sha256": "0" * 64, "size": 1}]
MISFITS: list[tuple[tuple[Any, ...], Any, str]] = [
    (("zig", "source"), {}, "recipes.zig.source: pypi: is pinned by files, got nothing"),
    (("files", "source"), {"files": FILES}, "recipes.files.source: local: is pinned by nothing, got files"),
    (
        ("pages", "source", "commit"),
        "1" * 40,
        f"recipes.pages.source: git:https://example.org/pages.git@{'0123456789' * 4}: its commit is {'1' * 40}",
    ),
    (
        ("words", "source", "files"),
        [*FILES, {**FILES[0], "name": "y"}],
        "recipes.words.source: url:https://example.org/words-1.tar.gz: expected one file, got 2",
    ),
    (("words", "source", "files", 0, "suite"), "sid", "only a deb: source has pool, suite, component and sha1"),
    (("files", "modules"), {"a/b@v1.0.0": [None, "h1:" + "A" * 43 + "="]}, "recipes.files.modules: builder tree has"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), MISFITS)
def test_a_pin_of_another_kind_is_told_and_made_anew(
    root: Path, path: tuple[Any, ...], value: Any, sentence: str
) -> None:
    (root / "lock.json").write_text(changed(root, "recipes", *path, value=value))
    one = plan.load(root)
    (problem,) = spec.check(one.recipes, one.lock, root)
    assert sentence in problem
    assert not spec.is_of(one.lock[path[0]], one.recipes[path[0]], root)


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"unboxed": "yes"},
        {"output": "../../x"},
        {"preimage": []},
        {"name": 3},
    ],
)
def test_a_record_with_a_right_sum_is_still_looked_at(tmp_path: Path, change: dict[str, Any]) -> None:
    store = Store(tmp_path)
    store.prepare()
    preimage = {"a": "b"}
    key = sha256_bytes(canonical_json(preimage))
    value: dict[str, Any] = {"preimage": preimage, "output": number("x"), "name": "x"} | change
    value["sum"] = sha256_bytes(canonical_json(value))
    (tmp_path / f"records/{key}.json").write_bytes(canonical_json(value))
    with pytest.raises(DamagedRecord):
        store.record(key)


def test_links_of_recipes_that_are_gone_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "native/a").mkdir(parents=True)
    (tmp_path / "native/a/file").touch()
    for name in ("a", "b"):
        text = f'description = "{name}"\nsource = "local:native/a"\n[build]\nkind = "tree"\n'
        (tmp_path / f"recipes/{name}.toml").write_text(text)

    def build() -> set[str]:
        places = Places(tmp_path, tmp_path / "outputs", tmp_path / "cache")
        one = plan.load(tmp_path)
        realiser = Realiser(one, places, Store(places.outputs / "store"))
        for name in one.recipes:
            realiser.up_to_date(name) or realiser.realise(name)
        realiser.settle()
        return {each.name for each in (places.outputs / "result").iterdir()}

    assert build() == {"a", "b"}
    (tmp_path / "recipes/b.toml").unlink()
    assert build() == {"a"}
    assert "outputs/result/b is removed: there is no recipe b any more" in capsys.readouterr().err


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    folder = Path("/dev/shm") / f"sandkube-test-{os.getpid()}"
    if not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:  # noqa: PTH116
        pytest.skip("no second file system to write to")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_a_store_on_two_file_systems_is_told(tmp_path: Path, elsewhere: Path) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    (tmp_path / "store/trees").rmdir()
    (tmp_path / "store/trees").symlink_to(elsewhere)
    made = tmp_path / "store/staging/made"
    made.mkdir()
    (made / "file").write_text("x")
    with pytest.raises(UserError, match="are on two file systems") as caught:
        store.commit("x", number("x"), {}, made)
    assert caught.value.hint == f"a store is moved as a whole: make {store.root} itself a link or a mount"


@pytest.mark.parametrize(
    ("words", "network"),
    [
        ("go: example.org/x@v1.0.0: missing go.sum entry for go.mod file; to add it:\n\tgo mod download", False),
        ("go: go.mod requires go >= 1.99 (running go 1.26.8; GOTOOLCHAIN=local)", False),
        ("go: updates to go.mod needed", False),
        ("main.go:3:8: no required module provides package example.org/y; to add it:\n\tgo get example.org/y", False),
        ("go: directory cmd/x is outside main module\ndirectory not found", False),
        ("go: x@v1.0.0: Get \"https://proxy.invalid/x/@v/v1.0.0.mod\": dial tcp: lookup proxy.invalid", True),
        ("go: example.org/x@v1.0.0: reading https://proxy.example.org/x/go.mod: 404 Not Found", True),
        ("something new", True),
    ],
)  # fmt: skip
def test_the_hint_of_the_go_command_names_who_is_to_blame(words: str, network: bool) -> None:
    assert ("is a module proxy reachable?" in go_faults.hint(words)) == network


def test_a_colon_in_the_path_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    for name in ("do", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    done = subprocess.run([folder / "do", "help"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has a colon in its name" in done.stderr
    assert "apt install" not in done.stderr
    assert not (folder / ".venv").exists()
