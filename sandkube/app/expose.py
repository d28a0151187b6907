"""./do expose: a Service at a port of this machine's loopback."""

from __future__ import annotations

from typing import Any

from sandkube import log
from sandkube.app.options import NAME, option
from sandkube.app.verb import Verb
from sandkube.cluster import exposed, ports
from sandkube.cluster.forward import listen
from sandkube.cluster.place import Place, needs_running, place
from sandkube.cluster.pod import Kubectl
from sandkube.cluster.ports import Port
from sandkube.errors import UserError

NAMESPACE = option("namespace", "default", "the Service's namespace", short="n")
PORT = option("port", 0, "port of this machine's loopback; a free one if left out", metavar="HOSTPORT")
BACKGROUND = option("background", False, "return at once: the port stays until the cluster ends")


class Expose(Verb):
    """./do expose"""

    name = "expose"
    doc_purpose = "have a port of this machine's loopback lead to a Service"
    doc_usage = "SERVICE[:PORT] [--namespace NAMESPACE] [--name NAME] [--port HOSTPORT] [--background]"
    doc_description = (
        "PORT is a name or a number of the Service's ports, and may be left out where there is one only. The address "
        "is printed; it is there until Ctrl-C, or with --background until the cluster ends."
    )
    takes_words = True
    cmd_options = (NAMESPACE, NAME, PORT, BACKGROUND)

    def execute(self, params: Any, words: list[str]) -> int:
        """Say where the Service is, and serve it there."""
        if len(words) != 1:
            raise UserError("expose takes one Service", hint=self._help)
        if not 0 <= params["port"] <= 65535:
            raise UserError(f"{params['port']} is not a port", hint="choose one up to 65535, or leave --port out")
        one = place(self.home.outputs, params["name"])
        needs_running(one)
        target = exposed.find(Kubectl(self.home.kubectl().resolve(), one), params["namespace"], words[0])
        wanted = target.wanted(params["port"])
        if params["background"]:
            log.result(target.url(ports.ask(one, wanted)))
            return 0
        return self._serve(one, target, wanted)

    def _serve(self, one: Place, target: exposed.Target, wanted: Port) -> int:
        with listen(wanted.network, wanted.address, wanted.port) as listener:
            there = Port(wanted.address, listener.getsockname()[1], wanted.network, wanted.to, wanted.of)
            log.result(target.url(there))
            log.say(f"{target.name} of cluster {one.name} is there until Ctrl-C")
            if not exposed.forward(one, listener, wanted.network, wanted.to):
                raise UserError(f"cluster {one.name} has ended", hint=f"./do run-cluster --name {one.name}")
        return 0
