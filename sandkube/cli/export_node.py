"""./do export-node: the node for a sandbox that has no Python."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any

from sandkube import log
from sandkube.app.options import FILES
from sandkube.app.settings import CONFIG, configured_by
from sandkube.app.signals import release_signals
from sandkube.app.verb import Verb
from sandkube.build.derivation import EPOCH
from sandkube.cli import checkout
from sandkube.cluster import in_place, programs
from sandkube.cluster.bound import refuse_in_place
from sandkube.errors import UserError, one_line
from sandkube.pack import write_tar_gz


class ExportNode(Verb):
    """./do export-node"""

    name = "export-node"
    doc_purpose = "write the node and a script that starts it into an archive"
    doc_usage = "FILE.tar.gz [--config FILE]"
    takes_words = needs_products = True
    cmd_options = (CONFIG,)
    values = FILES
    doc_description = "To be unpacked in a sandbox and started there, as root: sandkube-node/sandkube start."

    def execute(self, params: Any, args: list[str]) -> int:
        """Build, write."""
        if len(args) != 1:
            raise UserError("export-node takes one file name", hint="for example node.tar.gz")
        given = one_line(args[0])
        if Path(args[0]).suffix in (".tar", ".zip", ".xz", ".zst", ".bz2"):
            raise UserError(f"{given}: a node is exported as .tar.gz only")
        target = checkout.check_target(args[0], "node.tar.gz")
        configured = configured_by(params["config"])
        refuse_in_place(configured.bound)
        if configured.pull.enabled or configured.registry.enabled:
            raise UserError(
                "a node that is exported pulls no images", hint="./do run-cluster --pull has a cluster that does"
            )
        if configured.egress.enabled:
            raise UserError(
                "pods of a node that is exported have no way out",
                hint="./do run-cluster --egress has a cluster where they do",
            )
        settings, bundle = configured.text, programs.bundle_for(configured)
        if failed := self.home.make(params, (bundle,)):
            return failed
        release_signals()
        log.say(f"writing {given}")
        places = in_place.places(checkout.realiser().output(bundle))
        with tempfile.TemporaryDirectory() as folder:
            (beside := Path(folder) / in_place.SETTINGS).write_bytes(settings)
            name = f"{in_place.NAME}/{in_place.SETTINGS}"
            more = {name: beside} if settings else {}
            write_tar_gz(places | more, target, mtime=EPOCH, modes={name: 0o600})
        log.result(
            f"{given}: {target.stat().st_size / 1e6:.0f} MB; where it is to run, as root:\n"
            f"tar xzf {shlex.quote(target.name)} && {in_place.NAME}/{in_place.SCRIPT} start"
        )
        return 0
