"""./do shell-cluster: a shell in the node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sandkube.app.options import NAME
from sandkube.app.verb import Verb
from sandkube.cluster import programs
from sandkube.cluster.place import needs_running, place
from sandkube.run import base_environment, run_attached


class ShellCluster(Verb):
    """./do shell-cluster"""

    name = "shell-cluster"
    doc_purpose = "open a shell in a cluster's node, or run a command there"
    doc_usage = "[--name NAME] [COMMAND ...]"
    doc_description = "The exit status is the command's."
    takes_words = options_first = True
    cmd_options = (NAME,)

    def execute(self, params: Any, args: list[str]) -> int:
        """Run a shell, or the command."""

        one = place(self.home.outputs, params["name"])
        state = needs_running(one)
        sandbox = programs.sandbox(one, state.container)
        env = base_environment(Path("/root")) | {"TERM": os.environ.get("TERM", "dumb")}
        return run_attached(sandbox.execute(args or ["/bin/sh"]), env)
