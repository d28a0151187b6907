"""./do images: what pods of a cluster can be made from."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from sandkube import log
from sandkube.app.options import NAME, option
from sandkube.app.verb import Verb
from sandkube.cluster.images import listed
from sandkube.cluster.place import place
from sandkube.errors import UserError

OUTPUT = option("output", "", "json: one JSON document in place of the table", "o", metavar="json", values=("json",))
_ID = 12  # digits that a table shows


class Images(Verb):
    """./do images"""

    name = "images"
    doc_purpose = "list the images of a cluster"
    doc_usage = "[--name NAME] [-o json]"
    doc_description = "They are those that pods find without a registry; SIZE is what an image takes, compressed or not"
    stray = "a name goes with --name"
    cmd_options = (NAME, OUTPUT)

    def execute(self, params: Any, _words: list[str]) -> int:
        """Print the table, or the same as JSON: sizes in bytes."""
        if params["output"] not in ("", "json"):
            raise UserError(f"images: there is no output {params['output']!r}", hint="-o json, or without it a table")
        found = listed(place(self.home.outputs, params["name"]))
        if params["output"]:
            log.result(json.dumps([dataclasses.asdict(each) for each in found], indent=2))
            return 0
        table = [("IMAGE", "ID", "SIZE")]
        for each in found:
            id_ = each.id.removeprefix("sha256:")[:_ID]
            table += [(name, id_, f"{each.size / 1e6:.1f} MB") for name in each.names or ("<none>",)]
        log.table(table)
        return 0
