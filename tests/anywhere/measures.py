"""Running a row of the matrix, and what was seen."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.anywhere.engines import Done, NoEngine, run
from tests.anywhere.matrix import NEARLY_PRIVILEGED, Row
from tests.anywhere.yard import Yard, say


def memory_of(status: Done) -> int:
    """Megabytes that `./do status` shows; 0 if nothing runs."""
    found = re.search(r" (\d+) MB ", status.said)
    return int(found.group(1)) if found else 0


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a row: of its commands, and what there was afterwards and not before."""

    build: Done
    cluster: Done
    status: Done
    stop: Done
    left: list[str]

    @property
    def ready(self) -> float:
        """Seconds from the command to the node being Ready; 0 if it was not."""
        found = re.search(r"^ +(\d+\.\d+)s  ready ", self.cluster.said, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    @property
    def memory(self) -> int:
        """Megabytes that the cluster took; 0 if it did not run."""
        return memory_of(self.status)

    @property
    def kind(self) -> str:
        """The kind of sandbox that was booted."""
        found = re.search(r"^default +running +\S+ +(\S+) ", self.status.said, re.MULTILINE)
        return found.group(1) if found else ""


def measure(yard: Yard, row: Row) -> Measured:
    """Run a row."""
    engine = yard.engine(row.engine)
    yard.checkout.give_to(row.owner)
    yard.checkout.forget(row.step)
    container = row.container
    if container.privileged:
        try:
            run(engine, container, yard.checkout.folder, [])
        except NoEngine as error:
            say(f"--privileged is refused here, so all but that is given: {error}")
            container = NEARLY_PRIVILEGED
    plan = [["./do", *words] for words in (["build", row.step], ["run-cluster"], ["status"], ["stop-cluster"])]
    found = run(engine, container, yard.checkout.folder, plan, row.prelude)
    build, cluster, status, stop = found.done
    return Measured(build, cluster, status, stop, [*found.left, *(f"gone: {each}" for each in found.gone)])
