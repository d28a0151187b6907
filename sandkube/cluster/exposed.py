"""A Service of a cluster at a port of this machine."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandkube.cluster import programs
from sandkube.cluster.forward import TCP, UDP, Forwarder
from sandkube.cluster.place import Place, needs_running
from sandkube.cluster.pod import Kubectl
from sandkube.cluster.ports import LOOPBACK, Port
from sandkube.cluster.relay import COMMAND, Relay
from sandkube.errors import UserError

_SCHEMES = {"http": "http", "https": "https", "kubernetes.io/h2c": "http", "kubernetes.io/ws": "http"}
_SCHEMES |= {"kubernetes.io/wss": "https"}
_WELL_KNOWN = {80: "http", 443: "https"}


@dataclass(frozen=True, slots=True)
class Target:
    """A port of a Service: its address in the cluster, and how one speaks to it."""

    name: str
    network: str
    address: str
    scheme: str

    def url(self, port: Port) -> str:
        """The address of it on this machine."""
        return f"{self.scheme}://{port}" + ("/" if self.scheme in ("http", "https") else "")

    def wanted(self, port: int) -> Port:
        """The port of this machine that is to lead there; 0 for a free one."""
        return Port(LOOPBACK, port, self.network, self.address, self.name)


def find(kubectl: Kubectl, namespace: str, word: str) -> Target:
    """What `SERVICE[:PORT]` means, as kubectl takes it, with svc/ or without. Raises UserError."""
    name, _, wanted = word.removeprefix("service/").removeprefix("svc/").partition(":")
    if not name or "/" in name:
        raise UserError(f"expose {word}: not of the form SERVICE[:PORT]", hint="for example ./do expose web:http")
    found = kubectl("get", "service", name, f"--namespace={namespace}", "--ignore-not-found", "--output=json").stdout
    if not found.strip():
        raise UserError(
            f"there is no Service {name} in namespace {namespace}",
            hint=f"./do kubectl --name {kubectl.place.name} -- get services --all-namespaces lists them",
        )
    return target(json.loads(found), wanted)


def target(service: Mapping[str, Any], wanted: str) -> Target:
    """The port of a Service that is wanted, by its name or number; its only one for "". Raises UserError."""
    meta, spec = service["metadata"], service["spec"]
    name = f"{meta['namespace']}/{meta['name']}"
    address = spec.get("clusterIP", "")
    if spec.get("type") == "ExternalName" or address in ("", "None"):
        kind = "an external name" if spec.get("type") == "ExternalName" else "headless"
        raise UserError(
            f"Service {name} is {kind}: it has no address", hint="./do kubectl -- port-forward reaches a pod of it"
        )
    port = _port(name, spec.get("ports", []), wanted)
    network = port.get("protocol", "TCP").lower()
    if network not in (TCP, UDP):
        raise UserError(f"Service {name}: port {port['port']} is {network.upper()}, which is not served")
    return Target(f"Service {name}, port {port['port']}", network, f"{address}:{port['port']}", _scheme(port, network))


def _port(name: str, ports: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any]:
    matching = [each for each in ports if wanted in ("", each.get("name"), str(each["port"]))]
    if len(matching) == 1:
        return matching[0]
    words = [f"{each.get('name') or each['port']}" for each in ports]
    what = f"has no port {wanted}" if wanted and not matching else "has several ports"
    raise UserError(f"Service {name} {what}", hint=f"name one: {', '.join(words)}" if words else None)


def _scheme(port: Mapping[str, Any], network: str) -> str:
    """By what the Service says of a port, else by its number."""
    said = port.get("appProtocol") or str(port.get("name", "")).partition("-")[0]
    return _SCHEMES.get(said) or (_WELL_KNOWN.get(port["port"], network) if network == TCP else network)


def forward(place: Place, listener: socket.socket, network: str, to: str) -> bool:
    """Have a socket lead to an address until a signal comes, which is True, or the cluster ends."""
    state = needs_running(place)
    sandbox = programs.sandbox(place, state.container)
    with place.supervisor() as supervisor:
        return asyncio.run(_forward(Relay(lambda: sandbox.execute(COMMAND)), listener, network, to, supervisor))


async def _forward(relay: Relay, listener: socket.socket, network: str, to: str, supervisor: int) -> bool:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[bool] = loop.create_future()

    def end(asked: bool) -> None:  # noqa: FBT001
        if not ended.done():
            ended.set_result(asked)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, True)
    loop.add_reader(supervisor, end, False)
    await Forwarder(relay).serve(listener, network, to)
    try:
        return await ended
    finally:
        loop.remove_reader(supervisor)
        await relay.end()
