"""The commands around a running cluster."""

from __future__ import annotations

import contextlib
import errno
import getopt
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from doit.cmd_base import Command
from doit.cmdparse import CmdOption

from sandkube import log
from sandkube.archive import write_tar_gz
from sandkube.cluster import in_place, logs, programs, start, status, stop
from sandkube.cluster.place import Place, all_places, needs_running, place
from sandkube.cluster.pod import Kubectl, apply
from sandkube.cluster.programs import Programs
from sandkube.cluster.sandbox import DEFAULT, KINDS
from sandkube.derivation import EPOCH
from sandkube.errors import UserError
from sandkube.run import base_environment, become, run_attached
from sandkube.tasks import ROOT, BuildCommand, Sentences, realiser, release_signals

OUTPUTS = ROOT / "outputs"


def option(name: str, default: Any, text: str, short: str = "") -> dict[str, Any]:
    """An option of a command; its type is that of the default."""
    return {"name": name, "long": name, "short": short, "type": type(default), "default": default, "help": text}


_MACHINE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENOMEM}
"""What the machine may refuse through no fault of ours: a sentence, no traceback."""
NAME = option("name", "default", "the cluster's name")
PORT = option("port", 0, "port of this machine's loopback for the API; a free one if left out")
ALL = option("all", False, "every cluster of this checkout")
SANDBOX = option("sandbox", DEFAULT, f"what to boot in: {', '.join(KINDS)}")
IN_PLACE = option("in-place", False, "boot right here, as root, in no other sandbox")
NO_FIXES: list[str] = []
FIX = option(
    "fix", NO_FIXES, "override what the node does about its sandbox: NAME=on, off, auto or a means; repeatable"
)
FOLLOW = option("follow", False, "go on with new lines as they come", "f")
LINES = option("lines", 0, "only the last lines", "n")


def guarded(work: Callable[[], int]) -> int:
    """Run a command's work; what the user can mend is a sentence and exit status 1."""
    try:
        return work()
    except UserError as error:
        sys.stdout.flush()
        sys.stderr.write(f"error: {error}\n")
        return 1
    except OSError as error:
        if error.errno not in _MACHINE:
            raise
        sys.stderr.write(f"error: {error.filename or 'this machine'}: {error.strerror}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _boot(one: Place, made: Programs, port: int, began: float) -> None:
    log.say(f"booting cluster {one.name}")
    for event in start.start(one, made, port):
        if event["type"] == "stage":
            log.say(f"  {time.monotonic() - began:5.2f}s  {event['stage']:<20}{event['seconds']:.2f}s in the sandbox")


def run_cluster(name: str, port: int, made: Programs, began: float) -> int:
    """Boot a cluster unless it runs, have the acceptance pod Running, print how to use it."""
    one = place(OUTPUTS, name)
    start.kubectl_link(OUTPUTS, made.kubectl)
    kubectl = Kubectl(made.kubectl, one)
    with one.lock():
        fresh = one.running() is None
        if fresh:
            _boot(one, made, port, began)
        else:
            log.say(f"cluster {name} is running already")
        table = apply(kubectl, fresh=fresh)
    log.say(f"  {time.monotonic() - began:5.2f}s  pod Running\n\n{table}\n")
    flag = "" if name == "default" else f" --name {name}"
    log.say(
        f"export KUBECONFIG={_shown(one.kubeconfig)}\n"
        f"{_shown(OUTPUTS / 'bin/kubectl')} get pods --all-namespaces\n"
        f"./do status   ./do logs{flag}   ./do shell-cluster{flag}   ./do stop-cluster{flag}"
    )
    return 0


class RunCluster(BuildCommand):
    """./do run-cluster"""

    name = "run-cluster"
    doc_purpose = "build what is missing, boot a cluster, wait for a Running pod"
    doc_usage = "[--name NAME] [--port PORT] [--sandbox KIND | --in-place] [--fix NAME=VALUE ...]"
    doc_description = "The cluster goes on in the background; stop it with stop-cluster."

    def get_options(self) -> list[Any]:
        """doit's own options and ours."""
        return [*super().get_options(), *map(CmdOption, (NAME, PORT, SANDBOX, IN_PLACE, FIX))]

    @staticmethod
    def _kind(params: Any) -> str:
        kind: str = params["sandbox"]
        if not params["in-place"]:
            programs.check_kind(kind)
            return kind
        if os.geteuid() != 0:
            raise UserError("a node in place needs root", hint="without --in-place it gets a sandbox of its own")
        if kind != DEFAULT or params["port"]:
            raise UserError("--in-place goes with neither --sandbox nor --port: there is no sandbox to choose")
        return in_place.KIND

    def execute(self, params: Any, args: list[str]) -> int:
        """Build, boot, show."""
        began = time.monotonic()
        name, port = params["name"], params["port"]

        def work() -> int:
            if args:
                raise UserError(f"run-cluster takes no argument, got {args[0]!r}", hint="a name goes with --name")
            place(OUTPUTS, name)
            kind = self._kind(params)
            if failed := self.build(params, programs.products(kind)):
                return failed
            release_signals()
            made = programs.chosen(kind, realiser().output, params["fix"])
            return run_cluster(name, port, made, began)

        return guarded(work)


class ExportNode(BuildCommand):
    """./do export-node"""

    name = "export-node"
    doc_purpose = "write the node and a script that starts it into an archive"
    doc_usage = "FILE.tar.gz"
    doc_description = "To be unpacked in a sandbox and started there, as root: sandkube-node/sandkube start."

    def execute(self, params: Any, args: list[str]) -> int:
        """Build, write."""

        def work() -> int:
            if len(args) != 1:
                raise UserError("export-node takes one file name", hint="for example node.tar.gz")
            target = Path(args[0]).absolute()
            if target.suffix in (".tar", ".zip", ".xz", ".zst", ".bz2"):
                raise UserError(f"{args[0]}: a node is exported as .tar.gz only")
            if target.is_dir():
                raise UserError(f"{args[0]} is a folder", hint=f"for example {Path(args[0]) / 'node.tar.gz'}")
            if not target.parent.is_dir():
                raise UserError(f"{target.parent}: there is no such folder")
            if failed := self.build(params, ("bundle",)):
                return failed
            release_signals()
            with tempfile.TemporaryDirectory(prefix=".export-", dir=OUTPUTS) as folder:
                in_place.make(realiser().output("bundle"), Path(folder) / in_place.NAME, linked=True)
                log.say(f"writing {args[0]}")
                write_tar_gz(Path(folder), target, mtime=EPOCH)
            log.say(
                f"{args[0]}: {target.stat().st_size / 1e6:.0f} MB; where it is to run, as root:\n"
                f"tar xzf {target.name} && {in_place.NAME}/{in_place.SCRIPT} start"
            )
            return 0

        return guarded(work)


class Status(Sentences, Command):  # type: ignore[misc]
    """./do status"""

    name = "status"
    doc_purpose = "list the clusters of this checkout"
    doc_usage = ""
    doc_description = "MEMORY is what a cluster takes of this machine: its processes and its memory files."

    def execute(self, params: Any, args: list[str]) -> int:
        """Print the table."""
        found = status.rows(OUTPUTS)
        if not found:
            log.say("no cluster; ./do run-cluster starts one")
            return 0
        from rich.console import Console
        from rich.table import Table

        table = Table("NAME", "STATE", "AGE", "NODE", "API", "MEMORY", "FOLDER", box=None, pad_edge=False)
        for row in found:
            age = f"{time.time() - row.created:.0f}s" if row.created else ""
            memory = f"{row.memory / 1e6:.0f} MB" if row.memory else ""
            table.add_row(row.name, row.state, age, row.node, row.address, memory, _shown(row.folder))
        # Never narrower than the table, which would cut cells: a terminal wraps, a pipe gets whole lines.
        Console(width=Console(width=1 << 16).measure(table).maximum, highlight=False).print(table)
        for row in found:
            if row.reason:
                log.say(f"{row.name}: {row.reason}")
        return 0


class StopCluster(Sentences, Command):  # type: ignore[misc]
    """./do stop-cluster"""

    name = "stop-cluster"
    doc_purpose = "stop a cluster and remove all of it"
    doc_usage = "[--name NAME | --all]"
    doc_description = ""
    cmd_options = (NAME, ALL)

    def execute(self, params: Any, args: list[str]) -> int:
        """Stop one or all."""

        def work() -> int:
            if args:
                raise UserError(f"stop-cluster takes no argument, got {args[0]!r}", hint="a name goes with --name")
            chosen = all_places(OUTPUTS) if params["all"] else [place(OUTPUTS, params["name"])]
            if not chosen:
                log.say("no cluster to stop")
            for one in chosen:
                stop.stop(one)
                log.say(f"cluster {one.name} is stopped and gone")
            return 0

        return guarded(work)


class Logs(Sentences, Command):  # type: ignore[misc]
    """./do logs"""

    name = "logs"
    doc_purpose = "show the log of a cluster's component"
    doc_usage = "[COMPONENT] [--name NAME] [--follow] [--lines N]"
    doc_description = "Without COMPONENT the components are listed."
    cmd_options = (NAME, FOLLOW, LINES)

    def parse_execute(self, in_args: list[str]) -> int:
        """As doit's own, with options also after the component: doit's parser stops at the first other word."""
        parser = self.cmdparser
        with contextlib.suppress(getopt.GetoptError):
            options, words = getopt.gnu_getopt(in_args, parser.get_short(), parser.get_long())
            in_args = [word for option in options for word in option if word] + ["--", *words]
        status: int = super().parse_execute(in_args)
        return status

    def execute(self, params: Any, args: list[str]) -> int:
        """List components, or print one's log."""
        return guarded(lambda: self._show(place(OUTPUTS, params["name"]), args, params))

    def _show(self, one: Place, args: list[str], params: Any) -> int:
        if not one.folder.exists():
            raise UserError(f"there is no cluster {one.name}", hint="./do status lists them")
        one.check_owner()
        known = logs.components(one.logs)
        if not args:
            log.say("\n".join(known) or "no component has said anything yet")
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
        if not follow or state is None or not state.alive():
            yield from logs.tail(one.logs, component, lines)
            return
        with open(os.pidfd_open(state.pid)) as supervisor:  # noqa: PTH123
            yield from logs.follow(one.logs, component, lines, supervisor.fileno())


class ShellCluster(Sentences, Command):  # type: ignore[misc]
    """./do shell-cluster"""

    name = "shell-cluster"
    doc_purpose = "open a shell in a cluster's node, or run a command there"
    doc_usage = "[--name NAME] [COMMAND ...]"
    doc_description = "The exit status is the command's."
    cmd_options = (NAME,)

    def execute(self, params: Any, args: list[str]) -> int:
        """Run a shell, or the command."""

        def work() -> int:
            one = place(OUTPUTS, params["name"])
            state = needs_running(one)
            sandbox = programs.sandbox(one, state.container)
            env = base_environment(Path("/root")) | {"TERM": os.environ.get("TERM", "dumb")}
            return run_attached(sandbox.execute(args or ["/bin/sh"]), env)

        return guarded(work)


class KubectlCommand(Sentences, Command):  # type: ignore[misc]
    """./do kubectl"""

    name = "kubectl"
    doc_purpose = "run the built kubectl against a cluster"
    doc_usage = "[--name NAME] -- ARGUMENT ..."
    doc_description = "The exit status is kubectl's."
    cmd_options = (NAME,)

    def execute(self, params: Any, args: list[str]) -> int:
        """Run kubectl on this terminal."""

        def work() -> int:
            one = place(OUTPUTS, params["name"])
            needs_running(one)
            kubectl = Kubectl((OUTPUTS / "result/kubectl/bin/kubectl").resolve(), one)
            become(kubectl.argv(*args), os.environ)

        return guarded(work)
