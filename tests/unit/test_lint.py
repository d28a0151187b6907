"""Linters are tests: ruff, mypy, what C recipes ask for here; those of Go in tests/integration/test_go.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandkube.build import plan
from sandkube.build.builders.c import C

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "words",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["ruff", "format", "mypy"],
)
def test_linter_is_content(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_warnings_of_our_c_programs_are_errors() -> None:
    wanted = {"-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"}
    found = {
        name: wanted - set(one.build.cflags)
        for name, one in plan.load(ROOT).recipes.items()
        if isinstance(one.build, C) and one.source and one.source.name.startswith("native/")
    }
    assert found == {"interceptor": set(), "runc-wrapper": set(), "userns": set()}
