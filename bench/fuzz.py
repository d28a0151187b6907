"""Fuzzing for longer than a test may: `python -m bench.fuzz [SECONDS]` for each target, ten minutes if left out."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.sanitized import TARGETS, fuzz, fuzzer


def main(seconds: str = "600") -> int:
    """Each target in turn; what is wrong is shown, to become a file of tests/fuzz/corpus."""
    wrong = 0
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as name:
            said, found = fuzz(fuzzer(target, Path(name)), Path(name), int(seconds))
        print(f"{target}: {len(found)} found in {seconds} s", flush=True)
        if found:
            print(said)
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
