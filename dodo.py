"""doit's entry: configuration and the task functions, nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidDodoFile

from sandkube import tasks
from sandkube.errors import UserError

Path(__file__).with_name("outputs").mkdir(exist_ok=True)
DOIT_CONFIG = {"verbosity": 2, "default_tasks": ["build"], "dep_file": "outputs/.doit.db", "backend": "json"}


def task_step() -> Iterator[dict[str, Any]]:
    """make the outputs of all recipes"""
    try:
        yield from tasks.step_tasks()
    except UserError as error:
        raise InvalidDodoFile(str(error)) from error


def _pytest(*words: str) -> str:
    return " ".join([sys.executable, "-m", "pytest", *words])


def task_test() -> dict[str, Any]:
    """run every test, the ones CI runs"""
    return {
        "actions": [_pytest("tests/unit"), _pytest("--capture=no", "--verbose", "tests/integration", "tests/cluster")]
    }


def task_test_fast() -> Iterator[dict[str, Any]]:
    """run the tests that neither build nor boot"""
    doc = "run the tests that neither build nor boot"
    yield {"basename": "test-fast", "actions": [_pytest("tests/unit")], "doc": doc}


def task_golden() -> dict[str, Any]:
    """write anew what the tests compare keys with"""
    return {"actions": [_pytest("tests/unit/test_golden.py", "--rewrite")]}


def task_bench() -> dict[str, Any]:
    """print measured times and sizes; needs a finished build"""
    return {"actions": [f"{sys.executable} -m bench"]}
