"""The command `sandkube` of an installed package."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping, Sequence

from sandkube import events, log
from sandkube.app.completion import Completion
from sandkube.app.delete_cluster import DeleteCluster
from sandkube.app.doctor import Doctor
from sandkube.app.expose import Expose
from sandkube.app.guard import guarded
from sandkube.app.home import Home
from sandkube.app.images import Images
from sandkube.app.installed import Installed
from sandkube.app.kubeconfig import KubeconfigVerb
from sandkube.app.kubectl import KubectlCommand
from sandkube.app.list_clusters import ListClusters
from sandkube.app.load_image import LoadImage
from sandkube.app.logs import Logs
from sandkube.app.remove_image import RemoveImage
from sandkube.app.run_cluster import RunCluster
from sandkube.app.shell_cluster import ShellCluster
from sandkube.app.signals import release_signals
from sandkube.app.status import Status
from sandkube.app.stop_cluster import StopCluster
from sandkube.app.verb import Verb
from sandkube.errors import UserError

VERBS: Mapping[str, type[Verb]] = {
    each.name: each
    for each in (
        *(RunCluster, Status, ListClusters, Logs, ShellCluster, KubectlCommand, KubeconfigVerb, Expose),
        *(LoadImage, Images, RemoveImage, StopCluster, DeleteCluster, Doctor, Completion),
    )
}


def _table(home: Home) -> str:
    lines = ["A Kubernetes node that boots in a gVisor sandbox in seconds.", ""]
    lines += [f"  {home.program} {name:<16}{each.doc_purpose}" for name, each in VERBS.items()]
    return "\n".join([*lines, "", f"{home.program} help COMMAND tells more."])


def _command(home: Home, words: Sequence[str]) -> int:
    name, *rest = words or ["help"]
    asked = ("help", "--help", "-h")
    if name in asked or (rest and rest[0] in asked[1:]):
        about = [each for each in (name, *rest[:1]) if each not in asked]
        log.result(_verb(home, about[0]).help() if about else _table(home))
        return 0
    return _verb(home, name).parse_execute(rest)


def _verb(home: Home, name: str) -> Verb:
    if name in VERBS:
        made = VERBS[name](home)
        if isinstance(made, Completion):
            made.others = lambda: [each(home) for each in VERBS.values()]
        return made
    near = difflib.get_close_matches(name, ["help", *VERBS], 1, 0.7)
    hint = f"did you mean {home.program} {near[0]}?" if near else f"{home.program} help"
    raise UserError(f"there is no command {name!r}", hint=hint)


def run() -> int:
    """Run the words of this process; its exit status."""
    release_signals()
    home = Installed(os.environ)
    events.call_program(home.program)
    return guarded(lambda: _command(home, sys.argv[1:]))
