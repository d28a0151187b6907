"""Where pods may go outside: what a list of destinations says of an address, and of a name.

A destination is a name, `*.` and a name for all below it, an address, a range, `localhost` for this machine, or `*` for
all that is reached without a list; with `:PORT` behind it, that port alone. What is reached without one is everything
but this machine and what lies around it. A name leads nowhere else: who has a name's answers in hand could lead it to
an address of this machine. So that takes an address, or `localhost`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

DEVICE = "169.254.88.1"
"""The node's own address on its way out."""
NAMES = "169.254.88.2"
"""Where names outside are asked for, in the node (native/node/cluster has it as well)."""
HOST = IPv4Address("169.254.88.3")
"""The address by which pods mean the loopback of this machine."""
HOST_NAME = "host.sandkube.internal"
_LOOPBACK = ("localhost", HOST_NAME, "127.0.0.1", str(HOST))
_LABELS = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*"
_NAME = re.compile(rf"\*|(\*\.)?{_LABELS}", re.ASCII | re.IGNORECASE)
_NOWHERE = tuple(map(IPv4Network, ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4")))
_AROUND = {
    IPv4Network("127.0.0.0/8"): "this machine's loopback",
    IPv4Network("169.254.0.0/16"): "a link-local address (clouds tell machines their secrets there)",
}


@dataclass(frozen=True, slots=True)
class Destination:
    """One of a list: a name in lower case, or a range; 0 for any port."""

    name: str = ""
    range: IPv4Network | None = None
    port: int = 0

    def has(self, address: IPv4Address, port: int, names: Collection[str]) -> bool:
        """Whether it is meant, by its address or by a name that led to it."""
        if self.port not in (0, port):
            return False
        if self.range is not None:
            return address in self.range
        return any(self.is_name(each) for each in names) or self.name == "*"

    def is_name(self, name: str) -> bool:
        """Whether it is that name, or all below one."""
        return name.endswith(self.name[1:]) if self.name.startswith("*.") else name == self.name


def destination(word: str) -> Destination:
    """What a word of a list means. Raises ValueError."""
    host, colon, number = word.partition(":")
    if colon and not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise ValueError(f"{number} is no port")
    port = int(number) if colon else 0
    if host.lower() in _LOOPBACK:
        return Destination(range=IPv4Network(HOST), port=port)
    if re.fullmatch(r"[\d./]+", host):
        return Destination(range=IPv4Network(host), port=port)
    if not _NAME.fullmatch(host) or len(host) > 253:
        raise ValueError(f"{host} is neither a name nor an address")
    return Destination(host.lower(), port=port)


def is_own(address: IPv4Address) -> bool:
    """Whether an address is one of this machine's: it then goes there from there. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:
            return False
        return bool(probe.getsockname()[0] == str(address))


class Allowed:
    """What pods may reach. `ranges` are those of the cluster, which nothing outside is in."""

    def __init__(
        self,
        words: Iterable[str] = (),
        ranges: Iterable[IPv4Network] = (),
        own: Callable[[IPv4Address], bool] = is_own,
    ) -> None:
        self._list = [destination(word) for word in words]
        self._around = _AROUND | dict.fromkeys(ranges, "an address of the cluster's own")
        self._own = own

    def refusal(self, address: IPv4Address, port: int, names: Collection[str]) -> str:
        """Why an address is not reached, in a sentence that has the way out; "" if it is. `names` led to it."""
        if any(address in each for each in _NOWHERE):
            return "no machine has that address"
        what, within = self._near(address)
        if what:
            named = (each for each in self._list if each.range is not None and each.range.subnet_of(within))
            if any(each.has(address, port, ()) for each in named):
                return ""
            word = "localhost" if address == HOST else str(address)
            return f"{what} is reached only if it is named: run-cluster --egress-to {word}:{port} allows it"
        if not self._list or any(each.has(address, port, names) for each in self._list):
            return ""
        word = min(names, default=str(address))
        return f"this cluster may not go there; run-cluster --egress-to {word}:{port} allows it"

    def _near(self, address: IPv4Address) -> tuple[str, IPv4Network]:
        """What an address is of this machine or around it, and the range in which it is that."""
        if address == HOST:
            return "this machine's loopback", IPv4Network(HOST)
        for within, what in self._around.items():
            if address in within:
                return what, within
        return ("this machine" if self._own(address) else ""), IPv4Network(address)

    def may_ask(self, name: str) -> bool:
        """Whether a name is looked up: if something may be reached by it. A query, too, takes something out."""
        anywhere = [each for each in self._list if each.name == "*" or each.range not in (None, IPv4Network(HOST))]
        return not self._list or bool(anywhere) or any(each.is_name(name) for each in self._list)

    def names(self, port: int) -> Iterator[str]:
        """The names of the list that lead to a port, each of one destination."""
        return (each.name for each in self._list if each.name and "*" not in each.name and each.port in (0, port))
