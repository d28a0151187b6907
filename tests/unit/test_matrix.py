"""The README's table of places is that of the tests; `./do golden` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import pages
from tests.anywhere.matrix import HEADER, RELEASES, ROWS, Elsewhere, Says, table

ROOT = Path(__file__).resolve().parents[2]
_TABLE = re.compile(re.escape("\n".join(HEADER)) + r"(\n\|.*)+")


def test_the_table_on_the_page_is_the_one_that_is_tested(request: pytest.FixtureRequest) -> None:
    pages.has(request, _TABLE, table())


def test_rows_have_names_of_their_own() -> None:
    names = [*(each.name for each in RELEASES), *(each.name for each in ROWS)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("row", RELEASES, ids=lambda row: row.name)
def test_a_row_that_is_tested_elsewhere_is(row: Elsewhere) -> None:
    file, _, function = row.test.partition("::")
    assert f"\ndef {function}(" in (ROOT / "tests/anywhere" / file).read_text()


def test_sentences_are_one_line_each() -> None:
    said = [each for row in ROWS for each in (row.build, row.cluster) if isinstance(each, Says)]
    assert len(said) > 5
    for each in said:
        assert all(each.gist and "\n" not in text and len(text) > 20 for text in (each.sentence, each.hint))
