"""`./do bench matrix`: times and memory in every place of the README's table, beside those of an ordinary machine."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tests.anywhere import packages, yard
from tests.anywhere.matrix import ROWS
from tests.anywhere.measures import measure


def main() -> None:
    """Run each row once, and print. Times are wall seconds from the command."""
    packages.install()
    table = Table("PLACE", "BUILD", "READY", "POD RUNNING", "MEMORY", "SANDBOX", box=None)
    with yard.yard() as made:
        for row in ROWS:
            found = measure(made, row)
            yard.say(row.name)
            ran = found.cluster.status == 0
            table.add_row(
                row.name.replace("`", ""),
                f"{found.build.seconds:.1f} s" if found.build.status == 0 else "refused",
                f"{found.ready:.1f} s" if ran else "refused",
                f"{found.cluster.seconds:.1f} s" if ran else "",
                f"{found.memory} MB" if ran else "",
                found.kind,
            )
    Console(width=130).print(table)
