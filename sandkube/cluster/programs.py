"""What a cluster is started from, and what it leaves in the cluster's folder to be found again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandkube import tree
from sandkube.cluster import in_place
from sandkube.cluster.configured import Configured, configured_of
from sandkube.cluster.in_place import InPlace
from sandkube.cluster.linux import Linux
from sandkube.cluster.place import REGISTRY, Place
from sandkube.cluster.sandbox import DEFAULT, KINDS, Sandbox
from sandkube.decode import Fault, decoded
from sandkube.documents import parse_json, read_file
from sandkube.errors import UserError

_FILE = "programs.json"
_BUNDLE = "bundle"
BUNDLE, WITH_INGRESS = "bundle", "bundle-ingress"
"""Products that are what a sandbox boots; the second one's images are more."""
KEPT = "/var/kept"
"""Where a node has data that stay (native/node/boot/kept.go)."""


@dataclass(frozen=True, slots=True)
class Written:
    """What `prepare` wrote and `sandbox` reads."""

    runsc: str
    kind: str
    arguments: tuple[str, ...]
    registry: str = ""

    def faults(self) -> Iterator[Fault]:
        """A kind of sandbox that there is not."""
        if self.kind not in (*KINDS, in_place.KIND):
            yield ("kind",), f"there is no sandbox {self.kind!r}"


@dataclass(frozen=True, slots=True)
class Programs:
    """Built products, the kind of sandbox, arguments of the node, and the settings of the cluster. `runsc` is what
    makes the sandbox: the program `userns` of the bundle where that is the machine's own kernel.
    """

    runsc: Path
    bundle: Path
    kubectl: Path
    kind: str = DEFAULT
    arguments: tuple[str, ...] = ()
    configured: Configured = Configured()
    registry: Path | None = None

    def prepare(self, place: Place) -> None:
        """Write what `sandbox` reads, and the bundle with this cluster's configuration."""
        given = self.configured.document is not None and self.kind != in_place.KIND
        words = (*self.arguments, *(["--settings-fd=0"] if given else []))
        found = {"runsc": str(self.runsc), "kind": self.kind, "arguments": words}
        if self.registry is not None:
            found["registry"] = str(self.registry)
        place.write_file(_FILE, json.dumps(found))
        self.configured.write(place)
        if self.kind == in_place.KIND:
            in_place.make(self.bundle, place.folder / in_place.NAME, self.configured.text)
            return
        if KINDS[self.kind].native:
            return
        folder = place.folder / _BUNDLE
        folder.mkdir(mode=0o700)
        spec: dict[str, Any] = json.loads((self.bundle / "config.json").read_text())
        root = (self.bundle / spec["root"]["path"]).resolve()
        if KINDS[self.kind].copied:
            tree.copy(root, ".", folder, "rootfs")
            root = folder / "rootfs"
        spec["root"]["path"] = str(root)
        spec["process"]["args"] += words
        spec["hostname"] = self.configured.node_name
        if place.kept:
            spec["process"]["args"].append("--keep")
            source = {"source": str(place.data), "type": "bind", "options": ["rbind", "rw"]}
            spec["mounts"].append({"destination": KEPT} | source)
        (folder / "config.json").write_text(json.dumps(spec))


def _read(place: Place) -> Written | None:
    """What was written; None when it is damaged."""
    try:
        return decoded(Written, parse_json(read_file(place.folder / _FILE, _FILE)), _FILE)
    except (UserError, ValueError):
        return None


def sandbox(place: Place, container: str) -> Sandbox | InPlace | Linux:
    """Where a cluster that was prepared runs. Raises UserError when its folder is damaged."""
    found = _read(place)
    if found is None:
        raise UserError(f"{place.folder / _FILE} is damaged", hint=f"./do stop-cluster --name {place.name}")
    data = str(place.data) if place.kept else ""
    if found.kind == in_place.KIND:
        return InPlace(place.folder / in_place.NAME, found.arguments, data)
    if KINDS[found.kind].native:
        name = configured_of(place).node_name
        return Linux(Path(found.runsc), place.folder, container, name, found.arguments, data)
    return Sandbox(Path(found.runsc), place.runsc, container, found.kind)


def kind_of(place: Place) -> str:
    """The kind of sandbox of a cluster that was prepared; "" when its folder is damaged."""
    found = _read(place)
    return found.kind if found else ""


def registry(place: Place) -> Path:
    """The registry's program, of a cluster that was prepared with one."""
    found = _read(place)
    return Path(found.registry if found else "")


def bundle(place: Place) -> Path:
    """The bundle of a cluster that was prepared."""
    return place.folder / _BUNDLE


def chosen(kind: str, output: Callable[[str], Path], fixes: Sequence[str], bundle: str = BUNDLE) -> Programs:
    """The products of a kind of sandbox that boots a bundle. Raises UserError for an unknown kind."""
    check_kind(kind)
    return Programs(
        runsc=maker(kind, lambda name: output(bundle if name == BUNDLE else name)),
        bundle=output(bundle),
        kubectl=output("kubectl") / "bin/kubectl",
        kind=kind,
        arguments=tuple(fix_words(fixes)),
    )


def maker(kind: str, output: Callable[[str], Path]) -> Path:
    """The program that makes a sandbox of a kind."""
    if kind == in_place.KIND:
        return Path()
    made = output(KINDS[kind].product)
    return (made / "rootfs").resolve() / "usr/bin/userns" if KINDS[kind].native else made / "bin/runsc"


def fix_words(fixes: Sequence[str]) -> list[str]:
    """Arguments of the node for overrides, `NAME=VALUE` each; names and values are for the node to judge."""
    for each in fixes:
        if not re.fullmatch(r"[a-z-]+=[a-z-]+", each):
            raise UserError(f"--fix {each}: not of the form NAME=VALUE", hint="for example --fix cap-last-cap=off")
    return [f"--fix={each}" for each in fixes]


def products(kind: str, bundle: str = BUNDLE) -> tuple[str, ...]:
    """What must be built for a kind of sandbox that boots a bundle."""
    check_kind(kind)
    product = () if kind == in_place.KIND else (KINDS[kind].product,)
    return tuple(dict.fromkeys(bundle if each == BUNDLE else each for each in (BUNDLE, "kubectl", *product)))


def bundle_for(configured: Configured) -> str:
    """The product that has all that a cluster with these settings needs."""
    return WITH_INGRESS if configured.ingress else BUNDLE


def beside(configured: Configured) -> tuple[str, ...]:
    """Products that run beside the sandbox of a cluster with these settings."""
    return (REGISTRY,) if configured.registry.enabled else ()


def check_kind(kind: str) -> None:
    """Raises UserError for an unknown kind of sandbox."""
    if kind not in (*KINDS, in_place.KIND):
        raise UserError(f"there is no sandbox {kind!r}", hint=f"there are: {', '.join(KINDS)}")
