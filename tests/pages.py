"""Tables of the README that are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "README.md"


def has(request: pytest.FixtureRequest, table: re.Pattern[str], wanted: str) -> None:
    """The page has a table as it is wanted; with --rewrite it gets it."""
    text = PAGE.read_text()
    if request.config.getoption("--rewrite"):
        PAGE.write_text(table.sub(lambda _: wanted, text))
        return
    found = table.search(text)
    assert found is not None
    assert found.group(0) == wanted, "./do golden writes it anew"
