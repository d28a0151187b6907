"""Libraries that are imported when something of them is first used.

The network libraries cost ten times more to import than a build with nothing to do takes, and most builds use none.
"""

from __future__ import annotations

import importlib
from typing import Any


class later:  # noqa: N801  (reads like the statement that it stands for)
    """`httpx = later("httpx")`: the module, imported by whichever thread first asks for an attribute of it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
