"""./do status: the clusters of this checkout."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

from sandkube import log
from sandkube.app.home import shown
from sandkube.app.options import JSON
from sandkube.app.verb import Verb
from sandkube.cluster import status
from sandkube.cluster.status import Row


class Status(Verb):
    """./do status"""

    name = "status"
    doc_purpose = "list the clusters"
    doc_usage = "[--json]"
    doc_description = "MEMORY is what a cluster takes of this machine: its processes and its memory files."
    cmd_options = (JSON,)

    def execute(self, params: Any, _words: list[str]) -> int:
        """Print the table, or the same as JSON: memory in bytes, `created` in seconds since 1970."""
        found = status.rows(self.home.outputs)
        if params["json"]:
            log.result(json.dumps([dataclasses.asdict(row) for row in found], default=str, indent=2))
        elif found:
            _show(found)
        else:
            log.say("no cluster; ./do run-cluster starts one")
        return 0


def _show(found: Sequence[Row]) -> None:
    table = [("NAME", "STATE", "AGE", "SANDBOX", "NODE", "API", "MEMORY", "DATA", "FOLDER")]
    for row in found:
        age = f"{time.time() - row.created:.0f}s" if row.created else ""
        memory = f"{row.memory / 1e6:.0f} MB" if row.memory else ""
        folder = shown(row.folder)
        node = f"{row.node} of {len(row.nodes)}" if len(row.nodes) > 1 else row.node
        data = "kept" if row.kept else ""
        table.append((row.name, row.state, age, row.sandbox, node, row.address, memory, data, folder))
    log.table(table)
    for row in found:
        if row.settings:
            log.say(f"{row.name}: its settings are those of {row.settings}")
        if row.reason:
            log.say(f"{row.name}: {row.reason}")
