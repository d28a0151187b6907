"""./do list-clusters: the clusters of this checkout, for people and programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sandkube import log
from sandkube.app.options import option
from sandkube.app.verb import Verb
from sandkube.cluster import kubeconfig, ports, status
from sandkube.cluster.place import Place
from sandkube.cluster.status import Row
from sandkube.errors import UserError

FORMS = ("table", "name", "json")
OUTPUT = option("output", "table", f"one of {', '.join(FORMS)}", short="o", metavar="FORM", values=FORMS)


class ListClusters(Verb):
    """./do list-clusters"""

    name = "list-clusters"
    doc_purpose = "list the clusters, for programs as well"
    doc_usage = "[--output FORM]"
    doc_description = "With -o name a name a line, with -o json an array; status has their memory and folders."
    cmd_options = (OUTPUT,)

    def execute(self, params: Any, _words: list[str]) -> int:
        """Print them; nothing on standard output where there are none, but for JSON's empty array."""
        form = params["output"]
        if form not in FORMS:
            raise UserError(f"list-clusters: there is no form {form!r}", hint=f"there are: {', '.join(FORMS)}")
        found = status.rows(self.home.outputs, memory=False)
        if form == "json":
            log.result(json.dumps([_document(row) for row in found], indent=2))
        elif not found:
            log.say("no cluster; ./do run-cluster starts one")
        elif form == "name":
            log.result("\n".join(row.name for row in found))
        else:
            log.table(_table(found))
        return 0


def _document(row: Row) -> Mapping[str, Any]:
    one = Place(row.folder)
    return {
        "name": row.name,
        "state": row.state,
        "created": row.created,
        "sandbox": row.sandbox,
        "nodes": [row.node] if row.node else [],
        "server": row.address,
        "context": kubeconfig.context(row.name),
        "kubeconfig": str(one.kubeconfig) if row.node else "",
        "ports": [asdict(each) for each in ports.open_of(one)] if row.node else [],
        "kept": row.kept,
    }


def _table(found: Sequence[Row]) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [("NAME", "STATE", "NODES", "API", "PORTS")]
    for row in found:
        led = [f"{each}/{each.network}" for each in ports.open_of(Place(row.folder))] if row.node else []
        table.append((row.name, row.state, "1" if row.node else "0", row.address, ",".join(led)))
    return table
