"""Settings from files and options to the node, and what a cluster was started with.

A cluster's folder keeps `settings.json`: the origin of its settings in words, and the settings with the texts of the
files that they name. It is as secret as the folder.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandkube.cluster.bound import Bound, bound_of
from sandkube.cluster.place import SETTINGS, Place
from sandkube.cluster.settings import Cluster, Development, Egress, Pull, Settings, plain
from sandkube.decode import decode, decoded, placed
from sandkube.documents import parse_json, parse_toml, read_file, toml_of
from sandkube.errors import Problems, UserError

FILE = SETTINGS
_MANIFESTS = (".yaml", ".yml", ".json")
_PATHS = (("manifests",), ("audit", "policy"), ("encryption", "configuration"), ("pull", "authorities"))
"""Keys whose values are paths, below the folder of the file that says them."""
_HOSTS = ("pull", "registry")
"""Keys that are for the host alone."""
_ENABLED = "enabled"
_COLLECTED = {"imageGCHighThresholdPercent": 85, "imageGCLowThresholdPercent": 80}
"""When the kubelet removes images that can be had again: Kubernetes' own figures."""
_LARGEST = 16 << 20  # bytes of all files together

Tables = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Configured:
    """Settings with all that they name; `origin` says in words where they are from, "" for nowhere."""

    origin: str = ""
    api_port: int = 6443
    node_name: str = "runsc"
    document: Mapping[str, Any] | None = None
    """What the node reads; None if nothing is set."""

    @property
    def text(self) -> bytes:
        """The document as the node gets it."""
        if self.document is None:
            return b""
        told = {key: value for key, value in self.document.items() if key not in _HOSTS}
        if "egress" in told:
            told["egress"] = {_ENABLED: self.egress.enabled}  # where it leads is for the host alone
        return json.dumps(told).encode()

    def same(self, other: Configured) -> bool:
        """Whether a cluster would be the same, wherever its settings are from."""
        return self.document == other.document

    def same_cluster(self, other: Configured) -> bool:
        """Whether one goes on from data of the other: the node, and the network, are the same."""
        default = plain(Settings())  # data may be from before there was a key
        mine, its = (
            [default[table] | ((each.document or {}).get(table) or {}) for table in ("cluster", "node")]
            for each in (self, other)
        )
        return mine == its

    def write(self, place: Place) -> None:
        """Keep it in a cluster's folder."""
        known = {"origin": self.origin, "api_port": self.api_port, "node_name": self.node_name}
        place.write_file(FILE, json.dumps(known | {"document": self.document}))

    @property
    def bound(self) -> Bound:
        """What all of the cluster may take of this machine."""
        return bound_of(self.document)

    @property
    def pull(self) -> Pull:
        """Where images may be pulled from; `authorities` is the text of the file."""
        return decoded(Pull, (self.document or {}).get("pull", {}), FILE)

    @property
    def registry(self) -> Development:
        """The registry that people push to."""
        return decoded(Development, (self.document or {}).get("registry", {}), FILE)

    @property
    def egress(self) -> Egress:
        """Where pods may go outside."""
        return decoded(Egress, (self.document or {}).get("egress", {}), FILE)

    @property
    def cluster(self) -> Cluster:
        """Where the cluster is."""
        return decoded(Cluster, (self.document or {}).get("cluster") or {}, FILE)

    @property
    def ingress(self) -> bool:
        """Whether there is a controller of Ingresses."""
        return bool(((self.document or {}).get("ingress") or {}).get("enabled"))

    @property
    def node_address(self) -> str:
        """The node's address in the cluster."""
        tables = {"pods": Settings().cluster.pods} | ((self.document or {}).get("cluster") or {})
        return str(ipaddress.ip_network(tables["pods"])[1])

    @property
    def disabled(self) -> frozenset[str]:
        """Parts of the node that are left out, and stages that a cluster with these settings has not."""
        left_out = self.document["disable"] if self.document else ()
        lacking = {"nodes": len(self.nodes) == 1, "egress": not self.egress.enabled}
        return frozenset((*left_out, *(stage for stage, lacks in lacking.items() if lacks)))

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes, the first one's first."""
        count = ((self.document or {}).get("cluster") or {}).get("nodes", 1)
        return (self.node_name, *(f"{self.node_name}-{number}" for number in range(2, count + 1)))


def configured_of(place: Place) -> Configured:
    """What a cluster was started with; the defaults, if that cannot be told."""
    try:
        return decoded(Configured, parse_json(read_file(place.folder / FILE, FILE)), FILE)
    except (UserError, ValueError):
        return Configured()


def _tables_of(path: Path) -> Tables:
    place = str(path)
    try:
        found: Tables = parse_toml(read_file(path, place))
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    return found


def _located(tables: Tables, folder: Path) -> Tables:
    """Tables whose paths are absolute."""
    located = {key: dict(value) if isinstance(value, dict) else value for key, value in tables.items()}
    for *above, key in _PATHS:
        inside = located.get(above[0], {}) if above else located
        if path := str(inside.get(key, "")):
            inside[key] = str(folder / path)
    return located


def merged(below: Tables, above: Tables) -> Tables:
    """Tables over tables: what is above counts, but that tables are put together and arrays one after the other."""
    found = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(found.get(key), dict):
            found[key] = merged(found[key], value)
        elif isinstance(value, list) and isinstance(found.get(key), list):
            found[key] = [*found[key], *(each for each in value if each not in found[key])]
        else:
            found[key] = value
    return found


def configure(file: Path | None, options: Tables, option_of: Callable[[str], str]) -> Configured:
    """The settings of a file, and those of options over them; `option_of` names the option of a key.

    Raises Problems with all that is wrong.
    """
    problems: list[str] = []
    tables: Tables = {}
    if file is not None:
        tables = _tables_of(file)
        decode(Settings, tables, "", lambda key, sentence: problems.append(placed(str(file), key, sentence)))
    decode(Settings, options, "", lambda key, sentence: problems.append(f"{option_of(key)}: {sentence}"))
    if problems:
        raise Problems(problems)
    origin = " and ".join(filter(None, (str(file) if file else "", "options" if options else "")))
    both = merged(_located(tables, file.parent.absolute()) if file else {}, _located(options, Path.cwd()))
    settings = decoded(Settings, both, origin or "settings")
    if settings == Settings():
        return Configured(origin)
    document = dict(_read(settings, origin))
    return Configured(origin, settings.cluster.api_port, settings.node.name, document)


def _read(settings: Settings, origin: str) -> Iterator[tuple[str, Any]]:
    """The document's tables: the settings with texts in place of paths. Raises Problems."""
    problems: list[str] = []
    tables = plain(settings)

    def text(path: str, key: str) -> str:
        try:
            return read_file(Path(path), path).decode() if path else ""
        except (UserError, UnicodeDecodeError) as error:
            problems.append(placed(origin, key, error.message if isinstance(error, UserError) else f"{path}: {error}"))
            return ""

    tables["audit"]["policy"] = text(settings.audit.policy, "audit.policy")
    tables["pull"] |= {
        _ENABLED: settings.pull != Pull(),
        "mirrors": {registry: [*addresses] for registry, addresses in settings.pull.mirrors.items()},
        "authorities": text(settings.pull.authorities, "pull.authorities"),
    }
    tables["registry"][_ENABLED] = settings.registry != Development()
    tables["egress"][_ENABLED] = settings.egress != Egress()
    tables["encryption"]["configuration"] = text(settings.encryption.configuration, "encryption.configuration")
    paths = _manifests(settings.manifests, lambda sentence: problems.append(placed(origin, "manifests", sentence)))
    tables["manifests"] = [{"name": path.name, "text": text(str(path), "manifests")} for path in paths]
    if sum(len(each["text"]) for each in tables["manifests"]) > _LARGEST:
        problems.append(placed(origin, "manifests", f"{settings.manifests} has more than {_LARGEST >> 20} MB"))
    if problems:
        raise Problems(problems)
    tables["sandbox"] = {"memory": settings.sandbox.bytes, "pids": settings.sandbox.pids or 0}
    own: Tables = {"seccompDefault": True} if tables["kubelet"].pop("seccomp-default") else {}
    own |= _COLLECTED if tables["pull"][_ENABLED] or tables["registry"][_ENABLED] else {}
    tables["kubelet"]["configuration"] = {**own, **settings.kubelet.configuration}
    configuration = settings.containerd.configuration
    whole = {"version": 3, **configuration} if configuration else {}
    tables["containerd"]["configuration"] = toml_of(whole)
    yield from tables.items()


def _manifests(folder: str, report: Callable[[str], None]) -> list[Path]:
    if not folder:
        return []
    try:
        found = sorted(path for path in Path(folder).iterdir() if path.suffix in _MANIFESTS and path.is_file())
    except OSError as error:
        report(f"{folder}: {error.strerror}")
        return []
    if not found:
        report(f"{folder} has no {', '.join(f'*{suffix}' for suffix in _MANIFESTS)}")
    return found
