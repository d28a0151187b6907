"""Golden keys: a change of how keys are made is seen in review, as a change of tests/golden/keys.json.

The file holds, for each step of the project of `tests.projects`, the digest of what its pin was made from, its
derivation's preimage and its key. Inputs have made-up output hashes, so that a step's change shows there alone. The
builder's digest is replaced by the names of the files that it covers: a changed line in a builder changes
real keys and not this file; a builder that covers other files does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sandkube.build import builders, code, plan, sources, spec
from sandkube.build.plan import Plan
from sandkube.digest import canonical_json, sha256_bytes
from tests.projects import number, project

GOLDEN = Path(__file__).resolve().parents[1] / "golden/keys.json"


def covered(loaded: Plan, name: str) -> str:
    """What stands for the digest of a step's code."""
    return "digest of " + " ".join((*code.SHARED, *loaded.code(name)))


def derived(root: Path) -> Mapping[str, Any]:
    """Spec, preimage and key of each step."""
    loaded = plan.load(root)
    found = {}
    for name in loaded.recipes:
        real = plan.derivation_of(loaded, name, lambda each: number(f"output of {each}"))
        assert real.builder == code.digest(loaded.code(name))
        derivation = dataclasses.replace(real, builder=covered(loaded, name))
        found[name] = {
            "key": derivation.key(),
            "preimage": derivation.preimage(),
            "spec": loaded.pin(name).spec,
        }
    return found


def test_keys_are_the_golden_ones(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = json.dumps(derived(project(tmp_path)), indent=2, sort_keys=True) + "\n"
    actual = GOLDEN.with_suffix(".actual.json")
    if request.config.getoption("--rewrite"):
        GOLDEN.write_text(text)
    if text == GOLDEN.read_text():
        actual.unlink(missing_ok=True)
        return
    actual.write_text(text)
    old, new = json.loads(GOLDEN.read_text()), json.loads(text)
    moved = sorted(name for name in old | new if old.get(name) != new.get(name))
    pytest.fail(
        f"the keys of {', '.join(moved)} are made in another way than before: every store and cache loses these "
        f"steps.\nCompare {GOLDEN.name} with {actual.name} beside it; ./do golden takes the change over",
        pytrace=False,
    )


def test_a_key_is_the_digest_of_the_shown_preimage() -> None:
    """Anyone can make a key again from the file: SHA-256 of the compact JSON with sorted names."""
    for name, step in json.loads(GOLDEN.read_text()).items():
        text = json.dumps(step["preimage"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert step["key"] == sha256_bytes(text.encode()), name


def test_canonical_json() -> None:
    value: Any = {"b": [True, None, "é\n\x7f", 2**70], "a": {"B": {}, "A": []}, "": "\U0001f600/"}
    wanted = '{"":"😀/","a":{"A":[],"B":{}},"b":[true,null,"é\\n\x7f",1180591620717411303424]}'
    assert canonical_json(value) == wanted.encode()


def test_the_golden_project_has_every_kind(tmp_path: Path) -> None:
    """A kind of builder or source that is added must be added here too."""
    loaded = plan.load(project(tmp_path))
    assert spec.check(loaded.recipes, loaded.lock, tmp_path) == []
    assert {one.kind for one in loaded.recipes.values()} == set(builders.KINDS)
    assert {one.source.kind for one in loaded.recipes.values() if one.source} == set(sources.KINDS)
    for one in loaded.recipes.values():
        given = {field.name for field in dataclasses.fields(one.build) if getattr(one.build, field.name)}
        if one.name in ("runtime", "filter", "picture", "rootfs", "images", "bundle"):
            assert given >= {field.name for field in dataclasses.fields(one.build)} - {"test", "skip"}, one.name
