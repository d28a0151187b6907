"""What a user wants of a cluster: its settings, as a TOML file has them.

Here is what the host must know of them: their shapes, addresses and ports, and the files that they name. Whether a
feature gate, an argument or a plugin exists is for the component to say, whose sentence ends the boot.

The node gets one JSON document (`document`), on its standard input; native/node/settings reads it.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from sandkube.cluster.destinations import destination
from sandkube.cluster.ranges import Range, RangeV6, overlaps, too_small
from sandkube.decode import Fault, Shape, key_of, looks_like, shown
from sandkube.shapes import Distinct, matching

_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_NAME = rf"(?=.{{1,63}}$){_LABEL}(\.{_LABEL})*"
_LONGEST_NAME = 61  # with a number behind it, it is a host name
_TAKEN = {53: "the DNS server", 10250: "the kubelet", 10257: "the controller manager", 10259: "the scheduler"}
_UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}
_LEAST_MEMORY = 512 << 20
_LEAST_PIDS = 1024
_HOST = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?"
REGISTRY = re.compile(_HOST, re.ASCII)
"""A registry as names of images have it: HOST or HOST:PORT."""
_MOST_NODES = 9
_IN_COMMON = {"feature-gates": "feature-gates", "v": "verbosity"}
INSTEAD: Mapping[str, Mapping[str, str]] = {
    "apiserver": {
        "secure-port": "cluster.api-port",
        "service-cluster-ip-range": "cluster.services",
        "enable-admission-plugins": "apiserver.enable-admission-plugins",
        "disable-admission-plugins": "apiserver.disable-admission-plugins",
        "runtime-config": "runtime-config",
        "encryption-provider-config": "encryption.configuration",
        "audit-policy-file": "audit.policy",
    },
    "kubelet": {
        "hostname-override": "node.name",
        "node-labels": "node.labels",
        "config": "kubelet.configuration",
        "config-dir": "kubelet.configuration",
        "cluster-domain": "cluster.domain",
    },
    "containerd": {"config": "containerd.configuration"},
}
"""Arguments of components that other parts of the node must know of, and so are keys of their own."""


def _document_fault(value: object) -> str:
    """What TOML has and JSON has not: dates, times, and numbers that are none."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    if not isinstance(value, Mapping | list | str | int) and not (isinstance(value, float) and math.isfinite(value)):
        return f"holds {shown(value)}, which JSON cannot hold"
    return next((fault for fault in map(_document_fault, inner) if fault), "")


def _destination_fault(text: object) -> str:
    try:
        destination(str(text))
    except ValueError as error:
        return f"expected a name, *.NAME, *, an address, a range or localhost, each with :PORT or without ({error})"
    return ""


def _is_server(text: str) -> bool:
    host, colon, port = text.partition(":")
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return not colon or (port.isascii() and port.isdigit() and 0 < int(port) < 65536)


FAMILIES = ("ipv4", "dual")
Families = Annotated[str, matching(" or ".join(FAMILIES), "|".join(FAMILIES))]
Name = Annotated[str, matching("a DNS name of at most 63 lower-case characters", _NAME)]
Port = Annotated[int, looks_like("a port from 1 to 65535", lambda v: 0 < v < 65536)]
Word = Annotated[str, matching("a name without blanks, commas and =", r"[\w./:-]+")]
Nodes = Annotated[int, looks_like(f"a number from 1 to {_MOST_NODES}", lambda v: 1 <= v <= _MOST_NODES)]
Argument = Annotated[str, matching('"--NAME" or "--NAME=VALUE"', r"--[A-Za-z0-9][\w.-]*(=.*)?")]
Label = Annotated[str, matching("a label of letters, digits, -, _, . and /", r"[\w./-]+")]
LabelValue = Annotated[str, matching("a label's value of letters, digits, -, _ and .", r"[\w.-]*")]
Verbosity = Annotated[int, looks_like("a number from 0 to 10", lambda v: 0 <= v <= 10)]
PARTS = ("dns", "loadbalancer", "local-storage", "metrics-server", "services")
Part = Annotated[str, matching(f"one of {', '.join(PARTS)}", "|".join(PARTS))]
Registry = Annotated[str, matching("a registry such as docker.io or registry.example:5000", _HOST)]
Source = Annotated[
    str,
    matching("a registry such as docker.io, or http://registry.example:5000 for one without TLS", f"(http://)?{_HOST}"),
]
Mirror = Annotated[
    str,
    matching("an address such as https://mirror.example or http://10.0.0.1:5000/hub", rf"https?://{_HOST}(/[\w./-]*)?"),
]
Outside = Annotated[str, Shape(_destination_fault)]
Nameserver = Annotated[str, looks_like("an IPv4 address, or ADDRESS:PORT", _is_server)]
Table = Annotated[Mapping[str, Any], Shape(_document_fault)]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a cluster is."""

    HYPHENS: ClassVar[bool] = True

    ip_family: Families = "ipv4"
    """`ipv4`, or `dual`: pods and the node have addresses of IPv6 as well, and Services may"""
    pods: Range = "10.88.0.0/24"
    """range of the pods' addresses; the node has the first, and each further node a range as large behind it"""
    services: Range = "10.96.0.0/16"
    """range of Services; the API has the first, names the tenth"""
    load_balancers: Range = "10.97.0.0/24"
    """range of the addresses that Services of type LoadBalancer get"""
    pods_v6: RangeV6 = "fd00:10:88::/64"
    """range of the pods' second addresses, with `dual`; a pod has the same number in it as in the first"""
    services_v6: RangeV6 = "fd00:10:96::/112"
    """range of Services' addresses of IPv6, with `dual`"""
    load_balancers_v6: RangeV6 = "fd00:10:97::/120"
    """range of load balancers' addresses of IPv6, with `dual`"""
    domain: Name = "cluster.local"
    """domain of the names of Services and pods"""
    api_port: Port = 6443
    """port of the API in the node, and in place on this machine's loopback"""
    nodes: Nodes = 1
    """how many nodes there are, from 1 to 9; the first has the control plane"""

    def faults(self) -> Iterator[Fault]:
        """Ranges that overlap, a port that another part has."""
        families = [("", self.pods, self.services, self.load_balancers)]
        if self.ip_family == "dual":
            families.append(("-v6", self.pods_v6, self.services_v6, self.load_balancers_v6))
            if too_small(self.pods_v6, self.pods):
                yield ("pods-v6",), f"{self.pods_v6} has fewer addresses than {self.pods}"
        for suffix, *ranges in families:
            yield from overlaps(suffix, self.nodes, *ranges)
        if self.api_port in _TAKEN:
            yield ("api-port",), f"{self.api_port} is the port of {_TAKEN[self.api_port]}"


@dataclass(frozen=True, slots=True)
class Node:
    """What the node is called."""

    HYPHENS: ClassVar[bool] = True

    name: Name = "runsc"
    """the node's name, and the host name in it; further nodes have `-2`, `-3` behind it"""
    labels: Mapping[Label, LabelValue] = field(default_factory=dict)
    """labels of the node, of all if there are several"""


def _amount(text: str) -> int:
    """Bytes; -1 for what is no amount."""
    for unit, size in _UNITS.items():
        if text.endswith(unit) and text[: -len(unit)].isascii() and text[: -len(unit)].isdigit():
            return int(text[: -len(unit)]) * size
    return -1


Memory = Annotated[str, looks_like('512Mi or more, such as "2Gi"', lambda v: _LEAST_MEMORY <= _amount(v) < 2**53)]
Pids = Annotated[int, looks_like(f"a number from {_LEAST_PIDS} on", lambda v: _LEAST_PIDS <= v <= 1 << 22)]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What all of a cluster may take of this machine, where cgroups can be made."""

    HYPHENS: ClassVar[bool] = True

    memory: Memory | None = None
    """memory that all of the cluster may take of this machine, such as `"2Gi"`; one that needs more is ended"""
    pids: Pids | None = None
    """processes and threads that all of the cluster may have on this machine"""

    @property
    def bytes(self) -> int:
        """The memory; 0 for no bound."""
        return _amount(self.memory) if self.memory else 0


@dataclass(frozen=True, slots=True)
class Component:
    """A component that takes arguments."""

    HYPHENS: ClassVar[bool] = True

    arguments: tuple[Argument, ...] = ()
    """arguments, each `"--NAME=VALUE"`; one takes the place of the node's own of that name"""


@dataclass(frozen=True, slots=True)
class APIServer(Component):
    """kube-apiserver."""

    enable_admission_plugins: Distinct[Word] = ()
    """admission plugins beside Kubernetes' own choice, NodeRestriction and DenyServiceExternalIPs"""
    disable_admission_plugins: Distinct[Word] = ()
    """admission plugins to leave out"""


@dataclass(frozen=True, slots=True)
class Kubelet(Component):
    """kubelet."""

    seccomp_default: bool = False
    """whether pods get the runtime's seccomp profile where they name none"""
    configuration: Table = field(default_factory=dict)
    """a table, a part of a KubeletConfiguration that is put over the node's own"""

    def faults(self) -> Iterator[Fault]:
        """Feature gates, which all components have in common."""
        if "featureGates" in self.configuration:
            yield ("configuration", "featureGates"), "feature gates of all components are the key feature-gates"


@dataclass(frozen=True, slots=True)
class Containerd(Component):
    """containerd."""

    configuration: Table = field(default_factory=dict)
    """a table, a part of containerd's configuration (version 3) that is put over the node's own"""


@dataclass(frozen=True, slots=True)
class Audit:
    """What the API server notes of its requests."""

    HYPHENS: ClassVar[bool] = True

    policy: str = ""
    """file with an audit policy; the API server's notes are `./do logs audit`"""


@dataclass(frozen=True, slots=True)
class Encryption:
    """What lies in the datastore encrypted."""

    HYPHENS: ClassVar[bool] = True

    secrets: bool = False
    """whether Secrets lie encrypted in the datastore, by a key that the node makes"""
    configuration: str = ""
    """file with an EncryptionConfiguration of what lies encrypted in the datastore"""

    def faults(self) -> Iterator[Fault]:
        """Two answers to one question."""
        if self.secrets and self.configuration:
            yield ("secrets",), "goes without a configuration, which says the same"


@dataclass(frozen=True, slots=True)
class Pull:
    """Where images may be pulled from."""

    HYPHENS: ClassVar[bool] = True

    enabled: bool = False
    """whether containerd, and nothing else in the sandbox, reaches registries"""
    from_: Distinct[Source] = ()
    """the registries that it reaches, `http://` before one without TLS; all that speak TLS, if none is named"""
    mirrors: Mapping[Registry, tuple[Mirror, ...]] = field(default_factory=dict)
    """addresses that are asked before a registry itself"""
    authorities: str = ""
    """file with certificates of authorities that count for registries, beside this machine's"""


@dataclass(frozen=True, slots=True)
class Development:
    """A registry that people push to, and pods pull from."""

    HYPHENS: ClassVar[bool] = True

    enabled: bool = False
    """whether there is a registry for development on this machine's loopback, that pods pull from by the same name"""
    port: Port = 5001
    """its port"""


@dataclass(frozen=True, slots=True)
class Egress:
    """The way out that pods have."""

    HYPHENS: ClassVar[bool] = True

    enabled: bool = False
    """whether pods reach what is outside, by TCP and by name"""
    to: Distinct[Outside] = ()
    """names, addresses or ranges where they may go, with `:PORT` or without; all but this machine, if none is named"""
    nameservers: Distinct[Nameserver] = ()
    """servers that know the names outside; this machine's, if none is named"""


@dataclass(frozen=True, slots=True)
class Ingress:
    """Whether there is a controller of Ingresses and Gateways."""

    HYPHENS: ClassVar[bool] = True

    enabled: bool = False
    """whether traefik answers for Ingresses, Gateways and their routes, at ports 80 and 443 of each node"""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a cluster. Paths are those of files and folders of this machine."""

    HYPHENS: ClassVar[bool] = True

    feature_gates: Mapping[Word, bool] = field(default_factory=dict)
    """feature gates of Kubernetes, for all its components: they are one process"""
    runtime_config: Mapping[Word, bool] = field(default_factory=dict)
    """APIs that are served or not, such as `"api/all" = true`"""
    verbosity: Verbosity = 0
    """how much Kubernetes logs, from 0 to 10, for all its components"""
    disable: Distinct[Part] = ()
    """parts of the node that are left out: `dns`, `loadbalancer`, `local-storage`, `metrics-server`, `services`"""
    manifests: str = ""
    """folder whose files `*.yaml`, `*.yml` and `*.json` are applied, in the order of their names"""
    cluster: Cluster = field(default_factory=Cluster)
    node: Node = field(default_factory=Node)
    sandbox: Bounds = field(default_factory=Bounds)
    apiserver: APIServer = field(default_factory=APIServer)
    controller_manager: Component = field(default_factory=Component)
    scheduler: Component = field(default_factory=Component)
    kubelet: Kubelet = field(default_factory=Kubelet)
    containerd: Containerd = field(default_factory=Containerd)
    audit: Audit = field(default_factory=Audit)
    encryption: Encryption = field(default_factory=Encryption)
    pull: Pull = field(default_factory=Pull)
    registry: Development = field(default_factory=Development)
    egress: Egress = field(default_factory=Egress)
    ingress: Ingress = field(default_factory=Ingress)

    def faults(self) -> Iterator[Fault]:
        """Arguments that are keys of their own; a name that is too long with a number; parts that need others."""
        if self.cluster.nodes > 1 and len(self.node.name) > _LONGEST_NAME:
            much = f"has more than {_LONGEST_NAME} characters, which further nodes add to"
            yield ("node", "name"), f"{self.node.name} {much}"
        if self.ingress.enabled and "services" in self.disable:
            yield ("ingress", "enabled"), "needs the part services, which is disabled"
        for name in ("apiserver", "controller-manager", "scheduler", "kubelet", "containerd"):
            component: Component = getattr(self, name.replace("-", "_"))
            for at, argument in enumerate(component.arguments):
                flag = argument.removeprefix("--").partition("=")[0]
                common = {} if name == "containerd" else _IN_COMMON
                key = {**common, **INSTEAD.get(name, {})}.get(flag)
                if key:
                    yield (name, "arguments", at), f"--{flag} is the key {key}"


def plain(value: Any) -> Any:
    """A record as tables and arrays, with the keys that a file has."""
    if dataclasses.is_dataclass(value):
        kind = type(value)
        return {key_of(kind, each.name): plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return [plain(each) for each in value] if isinstance(value, tuple) else value
