"""Every parser of the C programs against what libFuzzer makes up: 15 s each, or as many as SANDKUBE_FUZZ_SECONDS says.

What was found is a file in tests/fuzz/corpus, each of which is tried first. `python -m bench.fuzz` runs longer.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.sanitized import FUZZ, TARGETS, fuzz, fuzzer, need_clang

SECONDS = int(os.environ.get("SANDKUBE_FUZZ_SECONDS", "15"))


def test_every_target_is_run() -> None:
    named = {path.stem for path in FUZZ.glob("*.c")} - {"options"}
    assert named == set(TARGETS) == {path.name for path in (FUZZ / "corpus").iterdir()}


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_found(target: str, tmp_path: Path) -> None:
    need_clang()
    program = fuzzer(target, tmp_path)
    said, found = fuzz(program, tmp_path, SECONDS)
    assert not found, said


def test_a_planted_fault_is_found(tmp_path: Path) -> None:
    """The look behind the end of a config.json that the target `bundle` found first; else nothing is proved."""
    need_clang()
    source = (FUZZ.parents[1] / "native/runc-wrapper/runc-wrapper.c").read_text()
    mended = "if (!scanner->bad && is(key, "
    assert source.count(mended) == 1
    (tmp_path / "native/runc-wrapper").mkdir(parents=True)
    (tmp_path / "native/runc-wrapper/runc-wrapper.c").write_text(source.replace(mended, "if (is(key, "))
    (tmp_path / "tests/fuzz").mkdir(parents=True)
    for name in ("bundle.c", "check.h"):
        (tmp_path / "tests/fuzz" / name).write_text((FUZZ / name).read_text())
    said, found = fuzz(fuzzer("bundle", tmp_path, sources=tmp_path / "tests/fuzz"), tmp_path, 1)
    assert found
    assert "heap-buffer-overflow" in said
