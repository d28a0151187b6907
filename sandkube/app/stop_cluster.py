"""./do stop-cluster: end a cluster, leave nothing behind but data that stay."""

from __future__ import annotations

from typing import Any

from sandkube import log
from sandkube.app.options import NAME, option
from sandkube.app.verb import Verb
from sandkube.cluster import stop
from sandkube.cluster.place import all_places, place

ALL = option("all", False, "every cluster")
NOW = option("now", False, "pull the plug on a cluster whose data stay: no hook runs, and no pod gets its grace period")


class StopCluster(Verb):
    """./do stop-cluster"""

    name = "stop-cluster"
    doc_purpose = "stop a cluster and remove all of it, but for data that stay"
    doc_usage = "[--name NAME | --all] [--now]"
    doc_description = "One that was started with run-cluster --keep ends in order: pods, API, datastore."
    stray = "a name goes with --name"
    cmd_options = (NAME, ALL, NOW)
    excluding = (("name", "all"),)

    def execute(self, params: Any, _words: list[str]) -> int:
        """Stop one or all."""
        chosen = all_places(self.home.outputs) if params["all"] else [place(self.home.outputs, params["name"])]
        if not chosen:
            log.say("no cluster to stop")
        for one in chosen:
            stop.stop(one, now=params["now"])
            log.say(f"cluster {one.name} is stopped{_left(self.home.told(one.data)) if one.kept else ' and gone'}")
        return 0


def _left(folder: str) -> str:
    return f"; its data stay in {folder}"
