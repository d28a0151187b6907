"""Settings of a cluster as options of run-cluster: a file of them, and the most used ones by themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sandkube.app.options import FILES, Option, option
from sandkube.cluster.configured import Configured, Tables, configure
from sandkube.cluster.settings import FAMILIES, PARTS, Cluster, Development, Node
from sandkube.decode import suggestion
from sandkube.errors import UserError

COMPONENTS = ("apiserver", "controller-manager", "scheduler", "kubelet", "containerd")
_NONE: list[str] = []
OF_OPTION: Mapping[str, tuple[str, ...]] = {
    "feature-gate": ("feature-gates",),
    "runtime-config": ("runtime-config",),
    "verbosity": ("verbosity",),
    "disable": ("disable",),
    "manifests": ("manifests",),
    "ip-family": ("cluster", "ip-family"),
    "pods": ("cluster", "pods"),
    "services": ("cluster", "services"),
    "load-balancers": ("cluster", "load-balancers"),
    "domain": ("cluster", "domain"),
    "api-port": ("cluster", "api-port"),
    "nodes": ("cluster", "nodes"),
    "node-name": ("node", "name"),
    "node-label": ("node", "labels"),
    "memory": ("sandbox", "memory"),
    "pids-limit": ("sandbox", "pids"),
    "audit-policy": ("audit", "policy"),
    "encrypt-secrets": ("encryption", "secrets"),
    "pull": ("pull", "enabled"),
    "pull-from": ("pull", "from"),
    "pull-mirror": ("pull", "mirrors"),
    "pull-authority": ("pull", "authorities"),
    "registry": ("registry", "enabled"),
    "registry-port": ("registry", "port"),
    "egress": ("egress", "enabled"),
    "egress-to": ("egress", "to"),
    "egress-nameserver": ("egress", "nameservers"),
    "ingress": ("ingress", "enabled"),
    "enable-admission-plugin": ("apiserver", "enable-admission-plugins"),
    "disable-admission-plugin": ("apiserver", "disable-admission-plugins"),
    "seccomp-default": ("kubelet", "seccomp-default"),
}
"""Options, and the keys of a file that they stand for; --argument has one for each component."""

CONFIG = option(
    "config", "", "a TOML file with settings of the cluster; options count for more", metavar="FILE", values=FILES
)
OPTIONS: tuple[Option, ...] = (
    CONFIG,
    option(
        *("argument", _NONE, f"an argument of {', '.join(COMPONENTS)}, such as apiserver=--event-ttl=2h; repeatable"),
        metavar="COMPONENT=ARGUMENT",
    ),
    option("feature-gate", _NONE, "a feature gate of Kubernetes; repeatable", metavar="NAME=true|false"),
    option("runtime-config", _NONE, "an API that is served or not; repeatable", metavar="API=true|false"),
    option("enable-admission-plugin", _NONE, "a further admission plugin; repeatable", metavar="NAME"),
    option("disable-admission-plugin", _NONE, "an admission plugin to leave out; repeatable", metavar="NAME"),
    option("verbosity", 0, "how much Kubernetes logs"),
    option("disable", _NONE, "leave out a part of the node; repeatable", metavar="NAME", values=PARTS),
    option("manifests", "", "a folder of objects that the cluster begins with", metavar="FOLDER", values=FILES),
    option("ip-family", "", "dual for addresses of IPv6 beside those of IPv4", metavar="FAMILY", values=FAMILIES),
    option("pods", "", f"range of the pods' addresses; {Cluster().pods}", metavar="RANGE"),
    option("services", "", f"range of Services; {Cluster().services}", metavar="RANGE"),
    option("load-balancers", "", f"range of load balancers; {Cluster().load_balancers}", metavar="RANGE"),
    option("domain", "", f"domain of names in the cluster; {Cluster().domain}", metavar="NAME"),
    option("api-port", 0, f"port of the API in the node; {Cluster().api_port}", metavar="PORT"),
    option("nodes", 0, "how many nodes the cluster has, up to 9"),
    option("node-name", "", f"the node's name; {Node().name}", metavar="NAME"),
    option("node-label", _NONE, "a label of the node; repeatable", metavar="NAME=VALUE"),
    option("memory", "", "memory that all of the cluster may take, such as 2Gi", metavar="SIZE"),
    option("pids-limit", 0, "processes and threads that all of the cluster may have"),
    option("audit-policy", "", "a file with an audit policy", metavar="FILE", values=FILES),
    option("encrypt-secrets", False, "encrypt Secrets in the datastore"),
    option("pull", False, "have containerd, and nothing else in the sandbox, pull images from registries"),
    option(
        "pull-from", _NONE, "a registry to pull from, and no others but those named; repeatable", metavar="REGISTRY"
    ),
    option("pull-mirror", _NONE, "an address to ask before a registry; repeatable", metavar="REGISTRY=ADDRESS"),
    option("pull-authority", "", "certificates of authorities for registries", metavar="FILE", values=FILES),
    option("registry", False, "have a registry on this machine's loopback that you push to and pods pull from"),
    option("registry-port", 0, f"its port; {Development().port}", metavar="PORT"),
    option("egress", False, "have pods reach what is outside, by TCP and by name, but not this machine"),
    option(
        *(
            "egress-to",
            _NONE,
            "a destination outside, such as example.org:443, and no others but those named; repeatable",
        ),
        metavar="DESTINATION",
    ),
    option("egress-nameserver", _NONE, "a server of names outside; repeatable", metavar="ADDRESS"),
    option("ingress", False, "have traefik answer for Ingresses and Gateways, at ports 80 and 443 of each node"),
    option("seccomp-default", False, "give pods the runtime's seccomp profile where they name none"),
)


def _assigned(name: str, words: list[str], value: Callable[[str], Any]) -> dict[str, Any]:
    """A table of NAME=VALUE words."""
    found = {}
    for word in words:
        key, sign, text = word.rpartition("=") if value is _truth else word.partition("=")
        if not sign or value(text) is None:
            wanted = "NAME=true or NAME=false" if value is _truth else "NAME=VALUE"
            raise UserError(f"--{name} {word}: not of the form {wanted}", hint="./do help run-cluster")
        found[key] = value(text)
    return found


def _mirrors(words: list[str]) -> Tables:
    """Addresses by registry, in their order."""
    found: Tables = {}
    for word in words:
        for registry, address in _assigned("pull-mirror", [word], str).items():
            found.setdefault(registry, []).append(address)
    return found


def _truth(word: str) -> bool | None:
    return {"true": True, "false": False}.get(word.lower())


def _arguments(words: list[str]) -> Tables:
    found: Tables = {}
    for word in words:
        component, sign, argument = word.partition("=")
        if not sign or component not in COMPONENTS:
            known = suggestion(component, COMPONENTS)
            raise UserError(
                f"--argument {word}: not of the form COMPONENT=ARGUMENT{known}",
                hint=f"for example --argument apiserver=--event-ttl=2h; components are {', '.join(COMPONENTS)}",
            )
        found.setdefault(component, {"arguments": []})["arguments"].append(argument)
    return found


def _tables(params: Any) -> Tables:
    """What the options say, as a file would."""
    found = _arguments(params["argument"])
    for name, (*above, key) in OF_OPTION.items():
        value = params[name]
        if not value:
            continue
        if name in ("feature-gate", "runtime-config"):
            value = _assigned(name, value, _truth)
        elif name == "node-label":
            value = _assigned(name, value, str)
        elif name == "pull-mirror":
            value = _mirrors(value)
        inside = found.setdefault(above[0], {}) if above else found
        inside[key] = value
    return found


def _option_of(key: str) -> str:
    """The option that a key came from."""
    path = tuple(re.split(r"[.\[]", key))
    near = [name for name, keys in OF_OPTION.items() if path[: len(keys)] == keys]
    return f"--{near[0]}" if near else f"--argument {path[0]}"


def configured(params: Any) -> Configured:
    """The settings that the options of run-cluster make. Raises UserError."""
    return configured_by(params["config"], _tables(params))


def configured_by(file: str, tables: Mapping[str, Any] = MappingProxyType({})) -> Configured:
    """The settings of a file, if one is named, and of options over it. Raises UserError."""
    return configure(Path(file) if file else None, dict(tables), _option_of)
