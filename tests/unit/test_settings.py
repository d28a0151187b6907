"""Settings of a cluster: from files and options to what the node reads."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as any_of
from hypothesis import strategies as st

from sandkube.app.options import Option
from sandkube.app.run_cluster import _check_same, _with_data
from sandkube.app.settings import OPTIONS, configured, configured_by
from sandkube.cluster.configured import Configured, configure, configured_of, merged
from sandkube.cluster.place import Place, place
from sandkube.cluster.settings import INSTEAD, Egress, Pull, Settings, plain
from sandkube.documents import toml_of
from sandkube.errors import Problems, UserError
from tests import pages
from tests.settings import HEADER, table

ROOT = Path(__file__).resolve().parents[2]
_TABLE = re.compile(re.escape("\n".join(HEADER)) + r"(\n\|.*)+")


def given(folder: Path, text: str = "", **options: Any) -> Configured:
    """What a file and options come to."""
    params: dict[str, Any] = {each.name: each.default for each in OPTIONS}
    if text:
        (folder / "sandkube.toml").write_text(text)
        params["config"] = str(folder / "sandkube.toml")
    return configured(params | {name.replace("_", "-"): value for name, value in options.items()})


def document(folder: Path, text: str = "", **options: Any) -> Any:
    found = given(folder, text, **options)
    return json.loads(found.text)


def faults(folder: Path, text: str = "", **options: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        given(folder, text, **options)
    return caught.value.message.replace(str(folder / "sandkube.toml"), "FILE").splitlines()


def test_the_table_on_the_page_is_that_of_the_records(request: pytest.FixtureRequest) -> None:
    pages.has(request, _TABLE, table())


def test_the_example_on_the_page_is_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"^    # FILE\n((?:    .*\n|\n)+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/a.yaml").write_text("kind: Namespace")
    found = document(tmp_path, re.sub("^    ", "", example, flags=re.MULTILINE))
    assert (found["kubelet"]["configuration"], found["cluster"]["pods"]) == ({"maxPods": 20}, "10.77.0.0/24")


def test_every_option_is_a_key_of_the_table() -> None:
    shown = set(re.findall(r"`--([\w-]+)`", table()))
    assert shown == {each.name for each in OPTIONS} - {"config"}


def test_nodes_have_names_and_a_stage() -> None:
    one, three = (configure(None, {"cluster": {"nodes": count}}, str) for count in (1, 3))
    assert (one.nodes, one.disabled) == (("runsc",), frozenset({"nodes", "egress"}))
    assert (three.nodes, three.disabled) == (("runsc", "runsc-2", "runsc-3"), frozenset({"egress"}))


def test_defaults_are_the_nodes() -> None:
    """They are said here for the page and for faults between them, and in the node for a node without a host."""
    source = (ROOT / "native/node/cluster/cluster.go").read_text()
    ranges = re.search(r'In\(netip\.MustParsePrefix\("(.*)"\), netip\.MustParsePrefix\("(.*)"\)\)', source)
    assert ranges
    cluster, node = Settings().cluster, Settings().node
    assert ranges.groups() == (cluster.pods, cluster.services)
    assert f'LoadBalancers: netip.MustParsePrefix("{cluster.load_balancers}"),' in source
    second = {"Pods": cluster.pods_v6, "Services": cluster.services_v6, "LoadBalancers": cluster.load_balancers_v6}
    for field, value in second.items():
        assert re.search(rf'^\t{field}:\s+netip\.MustParsePrefix\("{value}"\),$', source, re.MULTILINE), field
    for field, value in {"NodeName": node.name, "Domain": cluster.domain}.items():
        assert re.search(rf'^\t{field}:\s+"{re.escape(value)}",$', source, re.MULTILINE), field
    assert re.search(rf"^\tAPIPort:\s+{cluster.api_port},$", source, re.MULTILINE)
    assert (Configured().api_port, Configured().node_name) == (cluster.api_port, node.name)


def keys(value: Any, above: str = "") -> Iterator[str]:
    for key, inner in value.items():
        yield f"{above}{key}"
        if isinstance(inner, dict) and key not in ("configuration", "labels", "feature-gates", "runtime-config"):
            yield from keys(inner, f"{above}{key}.")


def test_the_node_reads_each_key(tmp_path: Path) -> None:
    """The names in the document are those of native/node/settings, which knows no others."""
    source = (ROOT / "native/node/settings/settings.go").read_text()
    known = set(re.findall(r'`json:"([\w-]+)"`', source))
    sent = {each.rpartition(".")[2] for each in keys(document(tmp_path, node_name="a"))}
    assert sent == known - {"name", "text"} | {"name"}


def test_nothing_set_is_nothing_said(tmp_path: Path) -> None:
    assert given(tmp_path) == Configured()
    assert given(tmp_path).text == b""
    assert given(tmp_path, 'disable = []\n[cluster]\ndomain = "cluster.local"').document is None


def test_every_fault_is_said_at_once_with_its_place(tmp_path: Path) -> None:
    text = """
feature-gates = {A = "yes"}
disable = ["dsn"]
[cluster]
pods = "10.88.0.1/24"
servics = "10.0.0.0/16"
api-port = 0
[node]
name = "Foo_"
[kubelet]
arguments = ["v=4"]
configuration = {started = 2020-01-01}
"""
    assert faults(tmp_path, text, domain="a b", argument=["scheduler=-v"]) == [
        """--argument scheduler: expected "--NAME" or "--NAME=VALUE", got '-v'""",
        "--domain: expected a DNS name of at most 63 lower-case characters, got 'a b'",
        "FILE: cluster.api-port: expected a port from 1 to 65535, got 0",
        "FILE: cluster.pods: expected an IPv4 range such as 10.88.0.0/24, got '10.88.0.1/24' (host bits are set)",
        "FILE: cluster.servics: unknown key (did you mean services?)",
        "FILE: disable[0]: expected one of dns, loadbalancer, local-storage, metrics-server, services, got 'dsn'",
        "FILE: feature-gates.A: expected true or false, got 'yes'",
        'FILE: kubelet.arguments[0]: expected "--NAME" or "--NAME=VALUE", got \'v=4\'',
        "FILE: kubelet.configuration: holds datetime.date(2020, 1, 1), which JSON cannot hold",
        "FILE: node.name: expected a DNS name of at most 63 lower-case characters, got 'Foo_'",
    ]


@pytest.mark.parametrize(
    ("text", "key", "sentence"),
    [
        (
            '[cluster]\npods = "10.96.1.0/24"',
            "cluster.services",
            "10.96.0.0/16 and the pods' 10.96.1.0/24 have addresses in common",
        ),
        (
            '[cluster]\nservices = "10.97.0.0/20"',
            "cluster.load-balancers",
            "10.97.0.0/24 and the Services' 10.97.0.0/20 have addresses in common",
        ),
        ("[cluster]\nnodes = 10", "cluster.nodes", "expected a number from 1 to 9, got 10"),
        (
            '[cluster]\nnodes = 9\npods = "10.95.248.0/24"',
            "cluster.services",
            "10.96.0.0/16 and the pods' 10.96.0.0/24 have addresses in common",
        ),
        (
            '[cluster]\nnodes = 2\npods = "255.255.255.0/24"',
            "cluster.pods",
            "there are no 2 ranges from 255.255.255.0/24 on",
        ),
        (
            '[cluster]\nip-family = "dual"\nservices-v6 = "fd00:10:88:1::/112"\nnodes = 2',
            "cluster.services-v6",
            "fd00:10:88:1::/112 and the pods' fd00:10:88:1::/64 have addresses in common",
        ),
        (
            '[cluster]\nip-family = "dual"\npods-v6 = "fd00:10:88::/121"',
            "cluster.pods-v6",
            "fd00:10:88::/121 has fewer addresses than 10.88.0.0/24",
        ),
        (
            '[cluster]\npods-v6 = "10.88.0.0/24"',
            "cluster.pods-v6",
            "expected an IPv6 range such as fd00:10:88::/64, got '10.88.0.0/24'",
        ),
        ('[cluster]\nip-family = "ipv6"', "cluster.ip-family", "expected ipv4 or dual, got 'ipv6'"),
        (
            f'[cluster]\nnodes = 2\n[node]\nname = "{"n" * 62}"',
            "node.name",
            f"{'n' * 62} has more than 61 characters, which further nodes add to",
        ),
        ('[cluster]\nservices = "10.9.0.0/30"', "cluster.services", "has fewer than 16 addresses"),
        (
            '[cluster]\npods = "127.1.0.0/24"',
            "cluster.pods",
            "expected an IPv4 range such as 10.88.0.0/24, got '127.1.0.0/24'",
        ),
        ('[cluster]\npods = "10.1.0.0"', "cluster.pods", "expected an IPv4 range such as 10.88.0.0/24, got '10.1.0.0'"),
        ("[cluster]\napi-port = 10250", "cluster.api-port", "10250 is the port of the kubelet"),
        ('[kubelet]\narguments = ["--config=x"]', "kubelet.arguments[0]", "--config is the key kubelet.configuration"),
        (
            '[scheduler]\narguments = ["--feature-gates=A=true"]',
            "scheduler.arguments[0]",
            "--feature-gates is the key feature-gates",
        ),
        (
            "[kubelet.configuration.featureGates]\nA = true",
            "kubelet.configuration.featureGates",
            "feature gates of all components are the key feature-gates",
        ),
        (
            '[encryption]\nsecrets = true\nconfiguration = "x"',
            "encryption.secrets",
            "goes without a configuration, which says the same",
        ),
    ],
)
def test_what_the_host_knows_better(tmp_path: Path, text: str, key: str, sentence: str) -> None:
    assert faults(tmp_path, text) == [f"FILE: {key}: {sentence}"]


OWN = [(component, flag, key) for component, flags in INSTEAD.items() for flag, key in flags.items()]


@pytest.mark.parametrize(("component", "flag", "key"), OWN)
def test_an_argument_that_is_a_key_is_said_to_be_one(tmp_path: Path, component: str, flag: str, key: str) -> None:
    assert f"| `{key}` |" in table()
    found = faults(tmp_path, argument=[f"{component}=--{flag}=x"])
    assert found == [f"--argument {component}: --{flag} is the key {key}"]


def test_files_that_are_named_are_read_or_missed_at_once(tmp_path: Path) -> None:
    text = 'manifests = "m"\n[audit]\npolicy = "policy.yaml"\n[encryption]\nconfiguration = "e.yaml"'
    assert faults(tmp_path, text) == [
        f"FILE: audit.policy: {tmp_path}/policy.yaml does not exist",
        f"FILE: encryption.configuration: {tmp_path}/e.yaml does not exist",
        f"FILE: manifests: {tmp_path}/m: No such file or directory",
    ]
    (tmp_path / "m").mkdir()
    (tmp_path / "policy.yaml").write_text("kind: Policy\n")
    (tmp_path / "e.yaml").write_bytes(b"\xff")
    for name in ("20.yml", "10.yaml", "30.json", "notes.txt"):
        (tmp_path / "m" / name).write_text(name)
    assert [each.rpartition(": ")[0] for each in faults(tmp_path, text)] == [
        f"FILE: encryption.configuration: {tmp_path}/e.yaml: 'utf-8' codec can't decode byte 0xff in position 0"
    ]
    found = document(tmp_path, text.partition("[encryption]")[0])
    assert found["audit"] == {"policy": "kind: Policy\n"}
    assert found["manifests"] == [{"name": name, "text": name} for name in ("10.yaml", "20.yml", "30.json")]


def test_a_folder_without_manifests_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert faults(tmp_path, manifests=str(tmp_path / "m")) == [
        f"options: manifests: {tmp_path}/m has no *.yaml, *.yml, *.json"
    ]


def test_options_go_over_the_file(tmp_path: Path) -> None:
    text = 'disable = ["dns"]\n[kubelet]\narguments = ["--a=2"]\n[cluster]\npods = "10.1.0.0/24"\ndomain = "a.test"'
    found = document(tmp_path, text, pods="10.2.0.0/24", argument=["kubelet=--b=4"], disable=["services"])
    assert (found["cluster"]["pods"], found["cluster"]["domain"]) == ("10.2.0.0/24", "a.test")
    assert found["kubelet"]["arguments"] == ["--a=2", "--b=4"]
    assert found["disable"] == ["dns", "services"]
    assert merged({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2], "d": 3}}) == {"a": {"b": 1, "c": [1, 2], "d": 3}}


def test_options_by_themselves(tmp_path: Path) -> None:
    found = document(
        tmp_path,
        feature_gate=["A=true", "B=False"],
        runtime_config=["api/all=true"],
        node_label=["x.y/z=1", "a="],
        seccomp_default=True,
        encrypt_secrets=True,
        node_name="one",
    )
    assert found["feature-gates"] == {"A": True, "B": False}
    assert found["runtime-config"] == {"api/all": True}
    assert found["node"] == {"name": "one", "labels": {"x.y/z": "1", "a": ""}}
    assert found["kubelet"]["configuration"] == {"seccompDefault": True}
    assert found["encryption"]["secrets"] is True


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"feature_gate": ["A"]}, "--feature-gate A: not of the form NAME=true or NAME=false"),
        ({"feature_gate": ["A=maybe"]}, "--feature-gate A=maybe: not of the form NAME=true or NAME=false"),
        ({"node_label": ["a"]}, "--node-label a: not of the form NAME=VALUE"),
        ({"argument": ["--v=4"]}, "--argument --v=4: not of the form COMPONENT=ARGUMENT"),
        (
            {"argument": ["kublet=--v=4"]},
            "--argument kublet=--v=4: not of the form COMPONENT=ARGUMENT (did you mean kubelet?)",
        ),
    ],
)
def test_options_that_are_no_pairs(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    assert faults(tmp_path, **options) == [sentence]


def test_containerds_part_is_toml(tmp_path: Path) -> None:
    text = '[containerd.configuration.plugins."io.containerd.cri.v1.runtime"]\nmax_container_log_line_size = 1\n'
    part = tomllib.loads(document(tmp_path, text)["containerd"]["configuration"])
    assert part == {"version": 3, "plugins": {"io.containerd.cri.v1.runtime": {"max_container_log_line_size": 1}}}
    odd = {"a b": [1, 2.5, True, 'ä\n"\\\x7f\x01'], "c": {"d": {}}}
    assert tomllib.loads(toml_of(odd)) == odd


@pytest.fixture
def one(tmp_path: Path) -> Place:
    made = place(tmp_path, "a")
    made.folder.mkdir(parents=True)
    return made


def test_a_cluster_keeps_what_it_was_started_with(one: Place, tmp_path: Path) -> None:
    assert configured_of(one) == Configured()
    wanted = given(tmp_path, '[node]\nname = "one"\n[cluster]\napi-port = 7443')
    wanted.write(one)
    assert configured_of(one) == wanted
    assert (one.folder / "settings.json").stat().st_mode & 0o777 == 0o600
    _check_same(one, wanted, keep=False)
    _check_same(one, Configured(), keep=False)  # nobody wants anything
    for options, message in (({"api_port": 6443}, "the settings of"), ({"node_name": "two"}, "the settings of")):
        with pytest.raises(UserError) as caught:
            _check_same(one, given(tmp_path, (tmp_path / "sandkube.toml").read_text(), **options), keep=False)
        assert message in caught.value.message
        assert caught.value.message.startswith(
            f"cluster a is running already, with those of {tmp_path}/sandkube.toml: "
        )


def test_settings_stay_with_data(one: Place, tmp_path: Path) -> None:
    wanted = given(tmp_path, 'verbosity = 2\n[node]\nname = "one"')
    wanted.write(one)
    assert _with_data(one, Configured()) == Configured(), "no data, nothing that stays"
    one.data.mkdir()
    assert _with_data(one, Configured()) == wanted
    louder = given(tmp_path, 'verbosity = 4\n[node]\nname = "one"')
    assert _with_data(one, louder) == louder
    for other in ('[node]\nname = "two"', "verbosity = 2", '[node]\nname = "one"\n[cluster]\ndomain = "else.where"'):
        with pytest.raises(UserError, match="cluster a has data of a node or network with other settings"):
            _with_data(one, given(tmp_path, other))


ODD: Any = st.sampled_from(
    [None, True, 0, -1, 2**64, math.nan, "", "a", "~/x", "10.0.0.0/8", "--a=b", "dns", "\n", [], {}]
)
PLACES = [*keys(plain(Settings()))]


@any_of(st.dictionaries(st.sampled_from(PLACES), ODD | st.lists(ODD, max_size=2) | st.dictionaries(st.just("a"), ODD)))
def test_any_settings_are_a_document_or_a_sentence(values: dict[str, Any]) -> None:
    tables: dict[str, Any] = {}
    for path, value in values.items():
        *above, key = path.split(".")
        inside = tables.setdefault(above[0], {}) if above else tables
        if isinstance(inside, dict):
            inside[key] = value
    try:
        found = configure(None, tables, str)
    except UserError as error:
        assert "\n\n" not in str(error)
    else:
        if found.document is None:
            return
        told = {key: value for key, value in found.document.items() if key != "pull"}  # for the host alone
        told["egress"] = {"enabled": told["egress"]["enabled"]}
        assert json.loads(found.text, parse_constant=int) == told


def test_plain_is_what_is_decoded() -> None:
    assert plain(Settings())["apiserver"]["enable-admission-plugins"] == []
    assert isinstance(OPTIONS, Sequence)
    assert all(isinstance(each, Option) for each in OPTIONS)


def test_the_export_has_them_too(tmp_path: Path) -> None:
    """By a file alone."""
    (tmp_path / "a.toml").write_text('[node]\nname = "one"')
    assert json.loads(configured_by(str(tmp_path / "a.toml")).text)["node"]["name"] == "one"
    assert configured_by("") == Configured()


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.toml does not exist"):
        given(tmp_path, config=str(tmp_path / "x.toml"))
    (tmp_path / "x.toml").write_text("a = ")
    with pytest.raises(UserError, match="not valid TOML") as caught:
        given(tmp_path, config=str(tmp_path / "x.toml"))
    assert not isinstance(caught.value, Problems)


def test_where_images_are_pulled_from_is_for_the_host(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("a certificate")
    mirrors = ["docker.io=https://mirror.example", "docker.io=http://10.0.0.1:5000/hub"]
    found = given(tmp_path, '[pull]\nauthorities = "ca.pem"\nfrom = ["registry.example"]', pull_mirror=mirrors)
    addresses = ("https://mirror.example", "http://10.0.0.1:5000/hub")
    assert found.pull == Pull(True, ("registry.example",), {"docker.io": addresses}, "a certificate")
    sent = json.loads(found.text)
    assert "pull" not in sent
    own = {"imageGCHighThresholdPercent": 85, "imageGCLowThresholdPercent": 80}
    assert sent["kubelet"]["configuration"] == own, "what can be pulled again may be removed"
    assert given(tmp_path, pull=True).pull == Pull(True)
    assert given(tmp_path, node_name="a").pull == Pull()
    below = json.loads(given(tmp_path, "[kubelet.configuration]\nimageGCHighThresholdPercent = 90", pull=True).text)
    assert below["kubelet"]["configuration"] == own | {"imageGCHighThresholdPercent": 90}


def test_where_pods_may_go_is_for_the_host(tmp_path: Path) -> None:
    """The node knows that there is a way out, and no more."""
    found = given(tmp_path, '[egress]\nto = ["example.org:443"]', egress_nameserver=["192.0.2.1:5353"])
    assert found.egress == Egress(True, ("example.org:443",), ("192.0.2.1:5353",))
    assert json.loads(found.text)["egress"] == {"enabled": True}
    assert "egress" not in found.disabled
    assert given(tmp_path, egress=True).egress == Egress(True)
    assert json.loads(given(tmp_path, node_name="a").text)["egress"] == {"enabled": False}
    wanted = "expected a name, *.NAME, *, an address, a range or localhost, each with :PORT or without"
    assert faults(tmp_path, egress_to=["http://a", "a:0"], egress_nameserver=["dns.example"]) == [
        "--egress-nameserver: expected an IPv4 address, or ADDRESS:PORT, got 'dns.example'",
        f"--egress-to: {wanted} (//a is no port)",
        f"--egress-to: {wanted} (0 is no port)",
    ]


def test_registries_that_are_none(tmp_path: Path) -> None:
    assert faults(tmp_path, pull_from=["Quay.io", "https://registry.example"], pull_mirror=["docker.io=mirror"]) == [
        "--pull-from: expected a registry such as docker.io, or http://registry.example:5000 for one without TLS, "
        "got 'Quay.io'",
        "--pull-from: expected a registry such as docker.io, or http://registry.example:5000 for one without TLS, "
        "got 'https://registry.example'",
        "--pull-mirror: expected an address such as https://mirror.example or http://10.0.0.1:5000/hub, got 'mirror'",
    ]
    assert faults(tmp_path, pull_mirror=["docker.io"]) == ["--pull-mirror docker.io: not of the form NAME=VALUE"]
