"""./do stop-cluster: end a cluster, leave nothing behind."""

from __future__ import annotations

from typing import Any

from sandkube import log
from sandkube.app.options import NAME, option
from sandkube.app.verb import Verb
from sandkube.cluster import stop
from sandkube.cluster.place import all_places, place

ALL = option("all", False, "every cluster")


class StopCluster(Verb):
    """./do stop-cluster"""

    name = "stop-cluster"
    doc_purpose = "stop a cluster and remove all of it"
    doc_usage = "[--name NAME | --all]"
    doc_description = ""
    stray = "a name goes with --name"
    cmd_options = (NAME, ALL)
    excluding = (("name", "all"),)

    def execute(self, params: Any, _words: list[str]) -> int:
        """Stop one or all."""

        chosen = all_places(self.home.outputs) if params["all"] else [place(self.home.outputs, params["name"])]
        if not chosen:
            log.say("no cluster to stop")
        for one in chosen:
            stop.stop(one)
            log.say(f"cluster {one.name} is stopped and gone")
        return 0
