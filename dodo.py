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


def task_test() -> dict[str, Any]:
    """run every test, the ones CI runs"""
    return {"actions": [f"{sys.executable} -m pytest tests"]}


def task_test_fast() -> Iterator[dict[str, Any]]:
    """run the tests that neither build nor boot"""
    yield {
        "basename": "test-fast",
        "actions": [f"{sys.executable} -m pytest tests/unit"],
        "doc": "run the tests that neither build nor boot",
    }
