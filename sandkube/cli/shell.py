"""./do shell: the build sandbox of a failed step."""

from __future__ import annotations

from typing import Any

from sandkube.app.options import RECIPES
from sandkube.app.signals import release_signals
from sandkube.build import failed, plan
from sandkube.build.boxes import attach
from sandkube.cli.building import BuildVerb
from sandkube.cli.checkout import realiser
from sandkube.errors import UserError
from sandkube.run import run_attached


class Shell(BuildVerb):
    """./do shell NAME [-- COMMAND ...]"""

    name = "shell"
    doc_purpose = "open the build sandbox of a step that failed, or run a command there"
    doc_usage = "NAME [-- COMMAND ...]"
    doc_description = (
        "The folder that the step left, its inputs at the same paths, its environment, and busybox's tools. "
        "The exit status is the command's"
    )
    takes_words = options_first = True
    values = RECIPES
    cmd_options = ()

    def execute(self, _params: Any, args: list[str]) -> int:
        """Run a shell, or the command."""
        if not args:
            raise UserError("shell: which recipe's step?", hint="./do shell NAME; a failed build names it")
        name, *words = args
        words = words[1:] if words[:1] == ["--"] else words
        one = realiser()
        plan.choose(one.plan, [name])
        folder = one.failed(name)
        call = failed.load(folder, name)
        if status := self.home.build({"no-build-sandbox": False}, ("bubblewrap", "busybox")):
            return status
        release_signals()
        busybox = one.output("busybox") / "bin/busybox"
        argv, env = attach.argv(one.box(), call, words, busybox, folder / "tools")
        return run_attached(argv, env)
