"""`./do`: doit with this project's tasks, and commands of our own in place of doit's."""

from __future__ import annotations

import difflib
import functools
import importlib
import itertools
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

from doit.cmd_base import ModuleTaskLoader, NamespaceTaskLoader, TaskLoader2, get_loader
from doit.doit_cmd import DoitMain
from doit.plugin import PluginDict

from sandkube import log
from sandkube.app.completion import Completion
from sandkube.app.verb import Verb
from sandkube.cli.building import Checkout
from sandkube.cli.running import RunTask, RunTasks, run_tasks
from sandkube.errors import UserError

GROUPS: Mapping[str, Sequence[str]] = {
    "Build": ("build", "list", "info", "shell", "lock", "cache", "key", "export", "import", "vendor", "export-node"),
    "Clusters": (
        *("run-cluster", "status", "list-clusters", "logs", "shell-cluster", "kubectl", "kubeconfig", "expose"),
        *("load-image", "images", "remove-image"),
        *("stop-cluster", "delete-cluster"),
    ),
    "This machine": ("doctor", "completion"),
    "Work on Sandkube": ("ci", "conformance", "test", "test-fast", "bench", "golden"),
}


class Dodo(NamespaceTaskLoader):  # type: ignore[misc]
    """The tasks of dodo.py, read by the commands that run some; it has no option."""

    def setup(self, _opt_values: object) -> None:
        """Import them."""
        self.namespace = vars(importlib.import_module("dodo"))


def own_tasks() -> dict[str, FunctionType]:
    """The tasks of dodo.py that are commands by themselves; a name has hyphens where its function has underscores."""
    namespace = vars(importlib.import_module("dodo"))
    found = {name.removeprefix("task_").replace("_", "-"): each for name, each in namespace.items() if "task_" in name}
    return {name: each for name, each in found.items() if name != "step"}


class Main(DoitMain):  # type: ignore[misc]
    """doit, but for its commands, its options and its variables (`NAME=VALUE` belongs to an option here)."""

    BIN_NAME = "./do"
    DOIT_CMDS = ()

    def verb(self, name: str, commands: PluginDict) -> Verb:
        """A command. Raises UserError for a word that is none."""
        home = Checkout(self._runs(Dodo(), commands))
        if name in commands:
            made: Verb = commands.get_plugin(name)(home)
            made.name = name
            if isinstance(made, Completion):
                made.others = lambda: [self.verb(each, commands) for each in itertools.chain(*GROUPS.values())]
        elif task := own_tasks().get(name):
            loader = ModuleTaskLoader({f"task_{name}": task})
            made = RunTask(home, name, task.__doc__ or "", self._runs(loader, commands))
        else:
            near = difflib.get_close_matches(name, ["help", *itertools.chain(*GROUPS.values())], 1, 0.7)
            raise UserError(
                f"there is no command {name!r}", hint=f"did you mean ./do {near[0]}?" if near else "./do help"
            )
        return made

    def _runs(self, loader: TaskLoader2, commands: PluginDict) -> RunTasks:
        return functools.partial(run_tasks, get_loader(self.config, loader, commands), self.config, commands)

    def run(self, words: Sequence[str]) -> int:
        """Run a command line; its exit status. Raises what a command raises."""
        name, *rest = words or ["help"]
        asked = ("--help", "-h")
        if name in asked or (rest and rest[0] in asked):
            name, rest = "help", [each for each in (name, *rest[:1]) if each not in asked]
        commands = self.get_cmds()
        if name == "help":
            return self._help(rest, commands)
        return self.verb(name, commands).parse_execute(rest)

    def _help(self, words: Sequence[str], commands: PluginDict) -> int:
        if len(words) > 1:
            raise UserError("help is about one command at a time")
        page = self.verb(words[0], commands).help() if words and words[0] != "help" else self._table(commands)
        log.result(page)
        return 0

    def _table(self, commands: PluginDict) -> str:
        """What there is, grouped by what people do."""
        purposes: dict[str, Any] = {name: each.__doc__ for name, each in own_tasks().items()}
        purposes |= {name: commands.get_plugin(name).doc_purpose for name in commands}
        lines = ["A Kubernetes node, built from pinned sources and booted in gVisor."]
        for group, names in GROUPS.items():
            lines += ["", group, *(f"  ./do {name:<16}{purposes[name]}" for name in names)]
        return "\n".join([*lines, "", "./do help COMMAND tells more."])
