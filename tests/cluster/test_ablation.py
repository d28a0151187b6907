"""What becomes of a boot without a fix: the table of ARCHITECTURE.md, row by row, with real boots."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from sandkube.cluster.deadline import Deadline
from sandkube.cluster.place import place
from sandkube.cluster.pod import NAME, apply
from sandkube.cluster.programs import Programs, fix_words
from sandkube.cluster.sandbox import KINDS
from sandkube.errors import UserError
from tests.cluster.conftest import ROOT, boot, of_kind

PATIENCE = 180  # seconds for the pod


@dataclass(frozen=True)
class Row:
    """One prediction."""

    kind: str
    off: tuple[str, ...]
    outcome: str
    log: str
    error: str

    @property
    def title(self) -> str:
        return f"{self.kind} without {'+'.join(self.off) or 'nothing'}"


def predictions() -> list[Row]:
    rows = []
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].strip("`") in KINDS:
            rows.append(Row(cells[0].strip("`"), tuple(re.findall(r"`([a-z-]+)`", cells[1])), *cells[2:]))
    return rows


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """What came out; printed at the end."""
    made = Table("SANDBOX", "FIXES OFF", "OUTCOME", "READY", "SAID", box=None)
    yield made
    Console(width=200).print(made)


def ready(events: list[dict[str, Any]]) -> str:
    return next(f"{event['seconds']:.2f} s" for event in events if event.get("stage") == "ready")


@pytest.mark.parametrize("row", predictions(), ids=lambda row: row.title)
def test_as_predicted(row: Row, programs: Programs, outputs: Path, table: Table) -> None:
    one = place(outputs, "ablation")
    words = tuple(fix_words([f"{fix}=off" for fix in row.off]))
    made = replace(of_kind(programs, row.kind), arguments=words)
    try:
        cluster = boot(one, made)
        pod = apply(cluster.kubectl, fresh=True, deadline=Deadline(PATIENCE))
    except UserError as error:
        state = one.read()
        said = error.message.splitlines()[0]
        table.add_row(row.kind, " ".join(row.off), "fails", "", said.partition(": ")[2])
        assert row.outcome == "fails", error
        assert state is not None
        assert state.phase == "failed"
        assert re.search(f"fix `({'|'.join(row.off)})` is off", said), said
        assert row.error in (one.logs / f"{row.log}.log").read_text()
        return
    table.add_row(row.kind, " ".join(row.off), "Running", ready(cluster.events), "")
    assert row.outcome == "Running"
    line = next(line.split() for line in pod.splitlines() if line.startswith(NAME))
    assert line[1:3] == ["1/1", "Running"]
    assert (line[5][:8], line[6]) == ("10.88.0.", "runsc")


def test_every_fix_is_in_the_table(programs: Programs, outputs: Path) -> None:
    one = place(outputs, "names")
    with pytest.raises(UserError) as caught:
        boot(one, replace(programs, arguments=("--fix=nothing=off",)))
    found = re.search(r"there are (.*)", caught.value.message)
    assert found is not None
    assert set(found.group(1).split(", ")) == {fix for row in predictions() for fix in row.off}
