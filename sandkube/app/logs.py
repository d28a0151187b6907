"""./do logs: what a component of a cluster said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from sandkube import log
from sandkube.app.options import NAME, option
from sandkube.app.verb import Verb
from sandkube.cluster import logs
from sandkube.cluster.place import Place, place
from sandkube.errors import UserError

FOLLOW = option("follow", False, "go on with new lines as they come", "f")
LINES = option("lines", 0, "only the last lines", "n")


class Logs(Verb):
    """./do logs"""

    name = "logs"
    doc_purpose = "show the log of a cluster's component"
    doc_usage = "[COMPONENT] [--name NAME] [--follow] [--lines N]"
    doc_description = "Without COMPONENT the components are listed."
    takes_words = True
    cmd_options = (NAME, FOLLOW, LINES)

    def execute(self, params: Any, args: list[str]) -> int:
        """List components, or print one's log."""
        return self._show(place(self.home.outputs, params["name"]), args, params)

    def _show(self, one: Place, args: list[str], params: Any) -> int:
        if not one.folder.exists():
            raise UserError(f"there is no cluster {one.name}", hint="./do status lists them")
        one.check_owner()
        known = logs.components(one.logs)
        if not args:
            log.result("\n".join(known)) if known else log.say("no component has said anything yet")
            return 0
        if len(args) > 1:
            raise UserError("logs shows one component at a time")
        if args[0] not in known:
            raise UserError(f"cluster {one.name} has no component {args[0]!r}", hint=f"there are: {', '.join(known)}")
        for block in self._blocks(one, args[0], params["lines"], follow=params["follow"]):
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
        return 0

    def _blocks(self, one: Place, component: str, lines: int, *, follow: bool) -> Iterator[bytes]:
        state = one.read()
        with state.opened() if follow and state else nullcontext() as supervisor:
            if supervisor is None:
                yield from logs.tail(one.logs, component, lines)
            else:
                yield from logs.follow(one.logs, component, lines, supervisor)
