"""./do shell-cluster: a shell in the node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sandkube.app.options import NAME, option
from sandkube.app.verb import Verb
from sandkube.cluster import programs
from sandkube.cluster.configured import configured_of
from sandkube.cluster.place import Place, needs_running, place
from sandkube.decode import suggestion
from sandkube.errors import UserError
from sandkube.run import base_environment, run_attached

NODE = option("node", "", "the node, where a cluster has several; the first", metavar="NODE")
_ENTER = 'exec nsenter -t "$(cat /run/sandkube/nodes/{}/pid)" -m -u -- "$@"'
"""Goes from the first node into the folders of another one (native/node/member.go)."""


def _inside(one: Place, node: str, words: list[str]) -> list[str]:
    """A command in a node, as the first node starts it. Raises UserError."""
    nodes = configured_of(one).nodes
    if node in ("", nodes[0]):
        return words
    if node not in nodes:
        found = suggestion(node, nodes)
        raise UserError(f"cluster {one.name} has no node {node!r}{found}", hint=f"it has {', '.join(nodes)}")
    return ["sh", "-c", _ENTER.format(nodes.index(node) + 1), "sh", *words]


class ShellCluster(Verb):
    """./do shell-cluster"""

    name = "shell-cluster"
    doc_purpose = "open a shell in a cluster's node, or run a command there"
    doc_usage = "[--name NAME] [--node NODE] [COMMAND ...]"
    doc_description = "The exit status is the command's."
    takes_words = options_first = True
    cmd_options = (NAME, NODE)

    def execute(self, params: Any, args: list[str]) -> int:
        """Run a shell, or the command."""

        one = place(self.home.outputs, params["name"])
        state = needs_running(one)
        sandbox = programs.sandbox(one, state.container)
        env = base_environment(Path("/root")) | {"TERM": os.environ.get("TERM", "dumb")}
        return run_attached(sandbox.execute(_inside(one, params["node"], args or ["/bin/sh"])), env)
