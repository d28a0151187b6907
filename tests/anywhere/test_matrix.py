"""Every row of the README's table."""

from __future__ import annotations

import pytest

from tests.anywhere.engines import Done
from tests.anywhere.matrix import ROWS, Outcome, Row, Says
from tests.anywhere.measures import measure
from tests.anywhere.yard import Yard, say


def check(outcome: Outcome, done: Done) -> None:
    """A command did what its row says."""
    assert "Traceback" not in done.said, done.said
    if isinstance(outcome, Says):
        assert done.status == 1, done.said
        lines = [line for line in done.said.splitlines() if not line.startswith("  | ")]
        assert lines[-2:] == [f"error: {outcome.sentence}", f"  hint: {outcome.hint}"]
    else:
        assert done.status == 0, done.said


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(yard: Yard, row: Row) -> None:
    found = measure(yard, row)
    ready = f"Ready after {found.ready:.1f} s, {found.memory} MB" if found.ready else "no node"
    say(f"{row.name}: build {found.build.seconds:.1f} s; {found.kind} {ready}, {found.cluster.seconds:.1f} s in all")
    for line in found.cluster.said.splitlines():
        if "the sandbox is confined" in line:
            say(line.strip())
    check(row.build, found.build)
    check(row.cluster, found.cluster)
    if not isinstance(row.cluster, Says):
        assert found.kind == row.cluster.kind
        assert found.stop.status == 0
    assert found.left == []
