"""How far a boot is, and who owes what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sandkube.cluster.logs import LAST, tail
from sandkube.cluster.place import Place

WHOLE = frozenset(
    {"access", "ready", "accounts", "manifests", "service", "controllers", "services", "dns", "nodes", "egress"}
)
"""What a cluster needs to be whole: node, API from here and from pods, controllers, Services, names, further nodes, the
way out of pods."""
OWED: Mapping[str, str] = {
    **{"probe": "sandbox", "mounts": "node", "settings": "node", "network": "node", "images": "node"},
    **{"egress": "egress"},
    **{"certificates": "node", "datastore": "datastore", "containerd": "containerd", "apiserver": "apiserver"},
    **{"access": "sandbox", "accounts": "apiserver", "manifests": "manifests"},
    **{"services": "services", "dns": "dns", "ready": "kubelet", "service": "apiserver"},
    **{"controllers": "controller-manager", "nodes": "node"},
}
"""Stages in an order in which none needs a later one, each with the component whose log tells why it does not come."""


@dataclass(slots=True)
class Progress:
    """What a boot has reached, in the order in which it was."""

    reached: list[str] = field(default_factory=list)
    left_out: frozenset[str] = frozenset()
    """Stages that do not come, since their parts are disabled."""

    def note(self, event: Mapping[str, Any]) -> None:
        """Count a supervisor's event."""
        self.reached.append(event.get("stage", event["type"]))

    @property
    def whole(self) -> bool:
        """Whether the cluster can be used."""
        return {*self.reached} >= WHOLE - self.left_out

    def debt(self) -> tuple[str, str]:
        """The component that owes the first of the stages that are missing, and a sentence about them."""
        missing = [stage for stage in OWED if stage not in self.reached and stage not in self.left_out]
        last = f"the last stage was {self.reached[-1]}" if self.reached else "it reached no stage"
        component = OWED[missing[0]]
        return component, f"{last}, missing are {', '.join(missing)}; {component} owes {missing[0]}"


def last_lines(place: Place, component: str) -> list[str]:
    """What a component logged last."""
    with suppress(OSError):
        return [line.decode(errors="replace").rstrip("\n") for line in tail(place.logs, component, LAST)]
    return []
