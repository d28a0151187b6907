"""./do run-cluster: build, boot, wait for a Running pod."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandkube import log
from sandkube.app import settings
from sandkube.app.home import Home
from sandkube.app.options import EVENTS, FIX, NAME, option, tell_as_asked
from sandkube.app.signals import release_signals
from sandkube.app.verb import Verb
from sandkube.cluster import development, in_place, kubeconfig, linux, ports, programs, start, workloads
from sandkube.cluster.bound import refuse_in_place
from sandkube.cluster.configured import Configured, configured_of
from sandkube.cluster.deadline import LONGEST, Deadline
from sandkube.cluster.place import REGISTRY, Place, place
from sandkube.cluster.pod import Kubectl, have_running, table
from sandkube.cluster.ports import Publication
from sandkube.cluster.programs import Programs
from sandkube.cluster.sandbox import KINDS, choose
from sandkube.errors import UserError
from sandkube.events import Booting, PodRunning, StageReached

_NONE: list[str] = []
PORT = option("port", 0, "port of this machine's loopback for the API; a free one if left out")
SANDBOX = option(
    "sandbox",
    "",
    f"what to boot in: {', '.join(KINDS)}; if left out: what this place gives",
    metavar="KIND",
    values=tuple(KINDS),
)
TIMEOUT = option(
    *("timeout", 600.0, "how long the boot may take until the pod runs; 0 for no limit"),
    metavar="SECONDS",
)
WAIT = option(
    "wait", False, "wait, within --timeout, until all Deployments, DaemonSets and StatefulSets are rolled out as well"
)
PUBLISH = option(
    *("publish", _NONE, "a port of this machine that leads to a port of the node; repeatable"),
    metavar="[ADDRESS:]HOSTPORT:PORT[/tcp|udp]",
)
MERGE = option("kubeconfig-merge", False, "put the cluster into your own kubeconfig, as the current context")
KEEP = option("keep", False, "have data that stay, until delete-cluster: the datastore, certificates, volumes")
IN_PLACE = option("in-place", False, "boot right here, as root, in no other sandbox")


def _boot(
    one: Place, made: Programs, params: Any, deadline: Deadline, began: float, wall: str, publish: Sequence[Publication]
) -> None:
    log.tell(Booting(one.name, wall))
    for event in start.start(one, made, params["port"], deadline, keep=params["keep"], publish=publish):
        if event["type"] == "stage":
            took = round(time.monotonic() - began, 2)
            log.tell(StageReached(one.name, event["stage"], took, event["seconds"]))


def _check_same(one: Place, wanted: Configured, publish: Sequence[Publication] = (), *, keep: bool) -> None:
    """Raises UserError if a cluster runs otherwise than is wanted: with other settings, if any are, or data that go."""
    stop = f"./do stop-cluster --name {one.name}"
    if others := [each for each in publish if each not in ports.wanted_of(one)]:
        raise UserError(
            f"cluster {one.name} runs already, without --publish {others[0]}",
            hint=f"{stop}, or have a Service led to by ./do expose --background",
        )
    if keep and not one.kept:
        raise UserError(
            f"cluster {one.name} runs already, and its data do not stay",
            hint=f"{stop}, then run it with --keep; or take another --name",
        )
    running = configured_of(one)
    if wanted.origin and not wanted.same(running):
        of = f"with those of {running.origin}" if running.origin else "with the defaults"
        raise UserError(
            f"cluster {one.name} is running already, {of}: the settings of {wanted.origin} are others",
            hint=f"{stop}, or choose another --name",
        )


def _with_data(one: Place, wanted: Configured) -> Configured:
    """The settings of a cluster, those of its data if none are wanted. Raises UserError if data forbid them."""
    if not one.kept:
        return wanted
    earlier = configured_of(one)
    if wanted.origin and not wanted.same_cluster(earlier):
        raise UserError(
            f"cluster {one.name} has data of a node or network with other settings than those of {wanted.origin}",
            hint=f"leave out those of the tables cluster and node; ./do delete-cluster --name {one.name} ends the data",
        )
    return wanted if wanted.origin else earlier


def _bundle(home: Home, one: Place, wanted: Configured) -> tuple[str, tuple[str, ...]]:
    """The product that a cluster is to boot, and those that run beside it. Raises UserError where one cannot be had."""
    configured = _with_data(one, wanted) if one.running() is None else wanted
    found, others = programs.bundle_for(configured), programs.beside(configured)
    if not all(map(home.has, others)):
        raise UserError(
            "there is no registry in this package",
            hint="a checkout of Sandkube builds it: ./do run-cluster --registry there",
        )
    if found != programs.BUNDLE and not home.has(found):
        raise UserError(
            "there is no ingress controller in this package",
            hint="a checkout of Sandkube builds it: ./do run-cluster --ingress there",
        )
    return found, others


def run_cluster(home: Home, params: Any, made: Programs, began: float, wall: str) -> int:
    """Boot a cluster unless it runs, have the acceptance pod Running within `timeout`, print how to use it.

    `wall` is what there is to say about the sandbox; with `json`, events say all of it.
    """
    name, keep = params["name"], params["keep"]
    publish = [ports.publication(each) for each in params["publish"]]
    one = place(home.outputs, name)
    client = start.kubectl_link(home.outputs, home.kubectl())
    with one.lock():
        deadline = Deadline(params["timeout"])
        known = one.kept or one.running() is not None
        if one.running() is None:
            made = replace(made, configured=_with_data(one, made.configured))
            _boot(one, made, params, deadline, began, wall, publish)
        else:
            _check_same(one, made.configured, publish, keep=keep)
            log.say(f"cluster {name} is running already")
        have_running(Kubectl(made.kubectl, one), fresh=not known, deadline=deadline)
        if (registry := configured_of(one).registry).enabled:
            told = json.dumps(development.announcement(registry.port)).encode()
            Kubectl(made.kubectl, one, deadline)("apply", "--filename=-", stdin=told)
        if params["wait"]:
            log.say("waiting until all workloads are rolled out")
            count = workloads.rolled_out(Kubectl(made.kubectl, one), deadline, configured_of(one))
            log.say(f"{count} workloads are rolled out")
        if params["kubeconfig-merge"]:
            merged = kubeconfig.user_file(os.environ)
            kubeconfig.merge(one, home.kubectl().resolve(), merged)
            log.say(f"{merged} has the context {kubeconfig.context(name)}, which is the current one")
        log.tell(PodRunning(name, round(time.monotonic() - began, 2), str(one.kubeconfig), str(client)))
        if not params["json"]:
            log.result(f"{table(Kubectl(made.kubectl, one, deadline))}\n")
            _show_use(home, one, client)
    return 0


def _show_use(home: Home, one: Place, client: Path) -> None:
    flag = "" if one.name == "default" else f" --name {one.name}"
    for each in ports.open_of(one):
        log.result(f"{each}/{each.network} leads to {each.of}")
    if (registry := configured_of(one).registry).enabled:
        name = development.address(registry.port)
        log.result(f"{name} is a registry: push {name}/NAME there, and pods pull it by that name")
    log.result(
        f"export KUBECONFIG={shlex.quote(home.told(one.kubeconfig))}\n"
        f"{shlex.quote(home.told(client))} get pods --all-namespaces\n"
        f"./do status   ./do logs{flag}   ./do shell-cluster{flag}   ./do stop-cluster{flag}"
    )


class RunCluster(Verb):
    """./do run-cluster"""

    name = "run-cluster"
    doc_purpose = "have what is needed, boot a cluster, wait for a Running pod"
    doc_usage = (
        "[--name NAME] [--keep] [--port PORT] [--sandbox KIND | --in-place] [--fix NAME=VALUE ...] "
        "[--timeout SECONDS] [--wait] [--publish [ADDRESS:]HOSTPORT:PORT[/tcp|udp] ...] [--kubeconfig-merge] "
        "[--json] [--config FILE] [SETTING ...]"
    )
    doc_description = (
        "The cluster goes on in the background; stop it with stop-cluster. One that was started with --keep comes back "
        "with its data the next time, with that option or without."
    )
    stray = "a name goes with --name"
    excluding = (("in-place", "sandbox"), ("in-place", "port"))
    cmd_options = (
        *(NAME, KEEP, PORT, SANDBOX, IN_PLACE, FIX, TIMEOUT, WAIT, PUBLISH, MERGE, EVENTS),
        *settings.OPTIONS,
    )
    needs_products = True

    @staticmethod
    def _kind(params: Any) -> tuple[str, str]:
        """The kind to boot in, and what there is to say about it."""
        kind: str = params["sandbox"]
        if not params["in-place"]:
            if kind:
                programs.check_kind(kind)
            return choose(kind)
        if os.geteuid() != 0:
            raise UserError("a node in place needs root", hint="without --in-place it gets a sandbox of its own")
        return in_place.KIND, ""

    def execute(self, params: Any, _words: list[str]) -> int:
        """Build, boot, show."""
        began = time.monotonic()
        seconds = params["timeout"]
        if not 0 <= seconds <= LONGEST:  # nor NaN
            raise UserError(
                f"run-cluster: --timeout takes seconds from 0, which is no limit, to {LONGEST:.0f}",
                hint="./do help run-cluster",
            )
        tell_as_asked(params)
        one = place(self.home.outputs, params["name"])
        wanted = settings.configured(params)
        for each in params["publish"]:
            ports.publication(each)
        kind, wall = self._kind(params)
        if kind == in_place.KIND:
            refuse_in_place(wanted.bound)
        else:
            wanted.bound.check(native=KINDS[kind].native)
        bundle, others = _bundle(self.home, one, wanted)
        if failed := self.home.make(params, (*programs.products(kind, bundle), *others)):
            return failed
        release_signals()
        made = programs.chosen(kind, self.home.output, params["fix"], bundle)
        registry = self.home.output(REGISTRY) / "bin/registry" if others else None
        made = replace(made, configured=wanted, registry=registry)
        if kind == in_place.KIND:
            in_place.check(made.bundle, made.arguments)
        elif KINDS[kind].native:
            linux.try_out(made.runsc)
        return run_cluster(self.home, params, made, began, wall)
