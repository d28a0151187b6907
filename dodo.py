"""doit's entry: configuration and the task functions, nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

DOIT_CONFIG = {"verbosity": 2, "default_tasks": ["list"], "dep_file": "outputs/.doit.db", "backend": "json"}


def _pytest(*words: str) -> list[str]:
    return [f"{sys.executable} -m pytest {' '.join(words)}"]


def task_test() -> dict[str, Any]:
    """run every test, the ones CI runs"""
    return {"actions": _pytest("tests")}


def task_test_fast() -> Iterator[dict[str, Any]]:
    """run the tests that neither build nor boot"""
    yield {
        "basename": "test-fast",
        "actions": _pytest("tests/unit"),
        "doc": "run the tests that neither build nor boot",
    }
