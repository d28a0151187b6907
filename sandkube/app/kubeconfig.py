"""./do kubeconfig: what a client needs of a cluster."""

from __future__ import annotations

from typing import Any

from sandkube import log
from sandkube.app.options import NAME
from sandkube.app.verb import Verb
from sandkube.cluster.place import needs_running, place


class KubeconfigVerb(Verb):
    """./do kubeconfig"""

    name = "kubeconfig"
    doc_purpose = "print a cluster's kubeconfig"
    doc_usage = "[--name NAME]"
    doc_description = (
        "It holds all that a client needs, so it works in any folder for as long as the cluster runs. Its context is "
        "sandkube-NAME. run-cluster --kubeconfig-merge puts it into your own."
    )
    stray = "a name goes with --name"
    cmd_options = (NAME,)

    def execute(self, params: Any, _words: list[str]) -> int:
        """Print it."""
        one = place(self.home.outputs, params["name"])
        needs_running(one)
        log.result(one.kubeconfig.read_text().rstrip("\n"))
        return 0
