"""The C programs' own tests once more, with programs that AddressSanitizer and UndefinedBehaviorSanitizer watch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clones import ROOT, Clone
from tests.sanitized import compiled, need_clang

TESTS = {
    "interceptor": ("test_interceptor.py", "test_interceptor_odd.py"),
    "runc-wrapper": ("test_runc_wrapper.py",),
    "userns": ("test_userns.py",),
}


@pytest.fixture(scope="module")
def folder(here: Clone, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """The three programs, and all else as it is built."""
    need_clang()
    base = tmp_path_factory.mktemp("sanitized")
    for name in TESTS:
        compiled(name, base)
    return base


@pytest.mark.parametrize("name", TESTS)
def test_its_tests_pass(folder: Path, name: str) -> None:
    """On this machine only: gVisor has no room for AddressSanitizer's shadow."""
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "not gVisor",
        *(f"tests/integration/{each}" for each in TESTS[name]),
    ]
    env = os.environ | {"SANDKUBE_TEST_PROGRAMS": str(folder), "SOAK": "5"}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_planted_fault_is_seen(tmp_path: Path) -> None:
    """Else the test above proves nothing: a byte behind the end of an allocation, an overflow of int."""
    need_clang()
    for name, body in {
        "over-read": "char *p = malloc(3); return p[count + 2];",
        "overflow": "return 2147483647 + count;",
    }.items():
        source = tmp_path / f"{name}.c"
        source.write_text(f"#include <stdlib.h>\nint main(int count, char **words) {{ (void)words; {body} }}\n")
        program = tmp_path / name
        flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        subprocess.run(["clang", "-O0", *flags, str(source), "-o", str(program)], check=True)
        done = subprocess.run([program], capture_output=True, text=True, check=False)
        assert done.returncode != 0, name
        assert {"over-read": "heap-buffer-overflow", "overflow": "signed integer overflow"}[name] in done.stderr
