"""./do delete-cluster: end a cluster, leave nothing behind."""

from __future__ import annotations

from typing import Any

from sandkube import log
from sandkube.app.options import NAME
from sandkube.app.verb import Verb
from sandkube.cluster import stop
from sandkube.cluster.place import place


class DeleteCluster(Verb):
    """./do delete-cluster"""

    name = "delete-cluster"
    doc_purpose = "stop a cluster at once and remove all of it, data that stay too"
    doc_usage = "[--name NAME]"
    doc_description = ""
    stray = "a name goes with --name"
    cmd_options = (NAME,)

    def execute(self, params: Any, _words: list[str]) -> int:
        """Delete one."""
        one = place(self.home.outputs, params["name"])
        stop.delete(one)
        log.say(f"cluster {one.name} is gone")
        return 0
