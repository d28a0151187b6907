"""What runs, and what it takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sandkube.cluster import linux, programs
from sandkube.cluster.configured import configured_of
from sandkube.cluster.place import Place, State, all_places
from sandkube.cluster.processes import memory_of


@dataclass(frozen=True, slots=True)
class Row:
    """One cluster: `memory` in bytes, `created` in seconds since 1970, `sandbox` the kind that it was started in,
    `settings` where its settings are from, "" for nowhere; node, address and nodes are empty unless it runs. `node` is
    the first of `nodes`.
    """

    name: str
    state: str
    created: float
    sandbox: str
    node: str
    address: str
    memory: int
    folder: Path
    reason: str
    settings: str = ""
    kept: bool = False
    nodes: tuple[str, ...] = ()


def describe(state: State) -> str:
    """How a cluster is, in one word."""
    if state.phase in ("starting", "running") and not state.alive():
        return "killed"
    return state.phase


def _reason(place: Place, state: State) -> str:
    again = f"./do run-cluster --name {place.name} starts it anew, ./do stop-cluster --name {place.name} clears it away"
    if place.kept:
        again = f"./do run-cluster --name {place.name} starts it again, ./do delete-cluster --name {place.name} ends it"
    match describe(state):
        case "stopped" if place.kept:
            return f"its data stay; {again}"
        case "killed":
            return f"its supervisor ended without a word: killed, out of disk space, or the machine restarted; {again}"
        case "failed":
            return f"{state.reason}; ./do logs --name {place.name} lists its logs; {again}"
    return ""


def row(place: Place, *, memory: bool = True) -> Row:
    """One cluster as it is now; without `memory` that is 0, for it takes a look at all of its processes."""
    if not os.access(place.folder, os.R_OK | os.X_OK):
        return Row(place.name, "unknown", 0.0, "", "", "", 0, place.folder, "it belongs to another user")
    state = place.read()
    if state is None:
        reason = f"its state file is missing or damaged; ./do stop-cluster --name {place.name} clears it away"
        return Row(place.name, "damaged", 0.0, "", "", "", 0, place.folder, reason, kept=place.kept)
    alive = state.alive()
    configured = configured_of(place)
    nodes = configured.nodes if alive and state.phase == "running" else ()
    return Row(
        name=place.name,
        state=describe(state),
        created=state.created,
        sandbox=programs.kind_of(place),
        node=nodes[0] if nodes else "",
        address=f"https://127.0.0.1:{state.port}" if alive and state.port else "",
        memory=memory_of(state.pid) + linux.memory_of(place.folder) if alive and memory else 0,
        folder=place.folder,
        reason=_reason(place, state),
        settings=configured.origin,
        kept=place.kept,
        nodes=nodes,
    )


def rows(outputs: Path, *, memory: bool = True) -> list[Row]:
    """Every cluster, by name."""
    return [row(place, memory=memory) for place in all_places(outputs)]
