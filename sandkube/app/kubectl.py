"""./do kubectl: the built kubectl against a cluster."""

from __future__ import annotations

import os
from typing import Any

from sandkube.app.options import NAME
from sandkube.app.verb import Verb
from sandkube.cluster.place import needs_running, place
from sandkube.cluster.pod import Kubectl
from sandkube.run import become


class KubectlCommand(Verb):
    """./do kubectl"""

    name = "kubectl"
    doc_purpose = "run kubectl against a cluster"
    doc_usage = "[--name NAME] -- ARGUMENT ..."
    doc_description = "The exit status is kubectl's."
    takes_words = options_first = True
    cmd_options = (NAME,)

    def execute(self, params: Any, args: list[str]) -> int:
        """Run kubectl on this terminal."""

        one = place(self.home.outputs, params["name"])
        needs_running(one)
        kubectl = Kubectl(self.home.kubectl().resolve(), one)
        become(kubectl.argv(*args), os.environ)
