"""Ranges of a cluster's addresses: what they look like, and what they may not have in common."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated

from sandkube.decode import Fault, Shape, shown

_SMALLEST = 16  # addresses: the tenth of Services is that of names

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _fault(text: str, kind: type[Network], wanted: str) -> str:
    try:
        found = kind(text)
    except ValueError as error:
        why = " (host bits are set)" if "host bits" in str(error) else ""
        return f"expected {wanted}, got {shown(text)}{why}"
    if "/" not in text or found.is_loopback or found.is_multicast or found.is_link_local or found.is_unspecified:
        return f"expected {wanted}, got {shown(text)}"
    return "" if found.num_addresses >= _SMALLEST else f"has fewer than {_SMALLEST} addresses"


def _first_fault(text: str) -> str:
    return _fault(text, ipaddress.IPv4Network, "an IPv4 range such as 10.88.0.0/24")


def _second_fault(text: str) -> str:
    return _fault(text, ipaddress.IPv6Network, "an IPv6 range such as fd00:10:88::/64")


Range = Annotated[str, Shape(_first_fault)]
RangeV6 = Annotated[str, Shape(_second_fault)]


def side_by_side(first: str, count: int) -> list[Network]:
    """Ranges of the same size, one behind the other. Raises ValueError where the addresses end."""
    network = ipaddress.ip_network(first)
    begins = (int(network.network_address) + at * network.num_addresses for at in range(count))
    return [type(network)((begin, network.prefixlen)) for begin in begins]


def overlaps(suffix: str, nodes: int, first: str, *others: str) -> Iterator[Fault]:
    """What the pods' ranges, Services and load balancers of one family have in common; suffix is behind their keys."""
    services, balanced = map(ipaddress.ip_network, others)
    try:
        pods = side_by_side(first, nodes)
    except ValueError:
        yield (f"pods{suffix}",), f"there are no {nodes} ranges from {first} on"
        return
    for each in pods:
        if each.overlaps(services):
            yield (f"services{suffix}",), f"{services} and the pods' {each} have addresses in common"
    for whose, known in (("pods'", pods), ("Services'", [services])):
        for each in known:
            if balanced.overlaps(each):
                yield (f"load-balancers{suffix}",), f"{balanced} and the {whose} {each} have addresses in common"


def too_small(second: str, first: str) -> bool:
    """Whether a range of IPv6 has not a number for each address of another."""
    return ipaddress.ip_network(second).num_addresses < ipaddress.ip_network(first).num_addresses
