"""Data that stay: a cluster comes back from an end in order, and from any other, with all that it acknowledged."""

from __future__ import annotations

import datetime
import http.client
import json
import os
import random
import select
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandkube.cluster import start, stop
from sandkube.cluster.place import Place, place
from sandkube.cluster.pod import NAME, Kubectl, apply
from sandkube.cluster.processes import opened, tree_of
from sandkube.cluster.programs import Programs
from sandkube.cluster.status import row
from tests.api import Api
from tests.cluster.conftest import Cluster, as_nobody, inside, of_kind

MAPS = "/api/v1/namespaces/default/configmaps"
SUPERVISOR = stop.SUPERVISOR.encode()
HOOKED = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "hooked"},
    "spec": {
        "terminationGracePeriodSeconds": 30,
        "volumes": [
            {"name": "empty", "emptyDir": {}},
            {"name": "host", "hostPath": {"path": "/data/hooked", "type": "DirectoryOrCreate"}},
        ],
        "containers": [
            {
                "name": "test",
                "image": "sandkube.local/test:1",
                "imagePullPolicy": "Never",
                "volumeMounts": [{"name": "empty", "mountPath": "/empty"}, {"name": "host", "mountPath": "/host"}],
                "command": [
                    *("/bin/sh", "-c"),
                    "echo start >>/empty/log; trap 'echo term >>/host/log; exit 0' TERM; sleep 2147483647 & wait",
                ],
                "lifecycle": {"preStop": {"exec": {"command": ["/bin/sh", "-c", "sleep 1; echo hook >>/host/log"]}}},
            }
        ],
    },
}


def boot(one: Place, programs: Programs) -> Cluster:
    with one.lock():
        events = list(start.start(one, programs, keep=True))
    return Cluster(one, Kubectl(programs.kubectl, one), events)


def again(one: Place, programs: Programs) -> Cluster:
    """The cluster if it runs, else a start of it."""
    return Cluster(one, Kubectl(programs.kubectl, one), []) if one.running() else boot(one, programs)


ORDINARY = """\
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from sandkube.cluster import start, stop
from sandkube.cluster.place import place
from sandkube.cluster.pod import Kubectl
from sandkube.cluster.programs import Programs
runsc, bundle, kubectl, outputs = map(Path, sys.argv[2:6])
one, ask = place(outputs, "ordinary"), None
for at in range(2):
    with one.lock():
        list(start.start(one, Programs(runsc, bundle, kubectl, sys.argv[6]), keep=True))
    ask = Kubectl(kubectl, one)
    if at == 0:
        for pod in json.loads(sys.argv[7]):
            ask("create", "--filename=-", stdin=json.dumps(pod).encode())
    for pod in json.loads(sys.argv[7]):
        name = pod["metadata"]["name"]
        ask("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
        while b"end" not in (said := ask("logs", name).stdout):
            pass
        print(at, name, said.decode().split())
    stop.stop(one)
stop.delete(one)
print("left", [path.name for path in one.folder.parent.iterdir()])
"""


def writer(name: str, volume: dict[str, Any], user: int) -> dict[str, Any]:
    """A pod that adds a line to a file of a volume, as a user, and says what is in it."""
    write = "echo line 2>/dev/null >>/volume/file; cat /volume/file; echo end; sleep 2147483647"
    pod = json.loads(json.dumps(HOOKED))
    pod["metadata"]["name"] = name
    pod["spec"] |= {"terminationGracePeriodSeconds": 0, "volumes": [{"name": "volume"} | volume]}
    pod["spec"]["securityContext"] = {"runAsUser": user}
    (container,) = pod["spec"]["containers"]
    del container["lifecycle"]
    container |= {
        "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
        "command": ["/bin/sh", "-c", f"( {write} ) 2>&1"],
    }
    return dict(pod)


@pytest.mark.skipif(os.geteuid() != 0, reason="every test here is an ordinary user's already")
@pytest.mark.parametrize("kind", ["confined"])  # with namespaces it is the same, and less is refused
def test_an_ordinary_user(programs: Programs, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept is root's, whoever root is: another user writes where it is memory."""
    host = {"hostPath": {"path": "/data/pods", "type": "DirectoryOrCreate"}}
    pods = [writer("root", host, 0), writer("other", {"emptyDir": {}}, 1000)]
    said = as_nobody(ORDINARY, of_kind(programs, kind), tmp_path_factory, json.dumps(pods))
    assert said.splitlines() == [
        "0 root ['line', 'end']",
        "0 other ['line', 'end']",
        "1 root ['line', 'line', 'end']",
        "1 other ['line', 'end']",
        "left ['.ordinary.lock']",
    ]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A cluster that the tests of this module stop and start, each after the other."""
    yield (made := place(tmp_path_factory.mktemp("outputs"), "kept"))
    if made.folder.exists():
        stop.delete(made)


def restarts(cluster: Cluster, pod: str) -> int:
    status = json.loads(cluster.kubectl("get", "pod", pod, "--output=json").stdout)["status"]
    return int(status["containerStatuses"][0]["restartCount"])


def test_an_end_in_order_and_what_comes_back(one: Place, programs: Programs) -> None:
    first = boot(one, programs)
    apply(first.kubectl, fresh=True)
    first.kubectl("create", "--filename=-", stdin=json.dumps(HOOKED).encode())
    first.kubectl("wait", "pod/hooked", "--for=condition=Ready", "--timeout=60s")
    first.kubectl("create", "configmap", "stays", "--from-literal=a=1")
    kubeconfig, port = one.kubeconfig.read_bytes(), first.state.port
    machine = inside(first, "cat /etc/machine-id").stdout
    stop.stop(one)
    assert (row(one).state, row(one).kept) == ("stopped", True)
    assert {path.name for path in one.folder.iterdir()} == {"data", "settings.json", "state.json"}
    assert (one.data / "data/hooked/log").read_text() == "hook\nterm\n"
    assert (one.data / "db/state.db-wal").stat().st_size == 0
    second = boot(one, programs)
    assert (one.kubeconfig.read_bytes(), second.state.port) == (kubeconfig, port)
    assert second.kubectl("get", "configmap", "stays", "--output=jsonpath={.data}").stdout == b'{"a":"1"}'
    apply(second.kubectl, fresh=False)
    second.kubectl("wait", "pod/hooked", "--for=condition=Ready", "--timeout=60s")
    assert (restarts(second, NAME), restarts(second, "hooked")) == (1, 1)
    assert second.kubectl("exec", "hooked", "--", "cat", "/empty/log").stdout == b"start\nstart\n"
    assert inside(second, "cat /etc/machine-id").stdout == machine
    second.kubectl("delete", "pod", "hooked", "--grace-period=1")


@dataclass
class Writer:
    """Writes objects one after the other for as long as the API answers, and knows which were acknowledged."""

    kubectl: Kubectl
    acknowledged: list[str] = field(default_factory=list)

    def run(self, prefix: str) -> None:
        with closing(Api(self.kubectl)) as api, suppress(OSError, http.client.HTTPException, AssertionError):
            for at in range(1 << 30):
                name = f"{prefix}-{at}"
                api("POST", MAPS, {"metadata": {"name": name}, "data": {"text": "x" * 1000}})
                self.acknowledged.append(name)


def kill(cluster: Cluster) -> None:
    """SIGKILL to a process of the sandbox or to its supervisor, and wait for the latter's end."""
    supervisor = cluster.state.pid
    words = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in tree_of(supervisor)}
    victims = {pid: each[0] for pid, each in words.items() if {b"run", b"boot", b"gofer", b"--", SUPERVISOR} & {*each}}
    victim = random.choice([*victims])
    print(f"killing {victims[victim].decode()} of {victims}")
    with opened(supervisor, cluster.state.alive) as process:
        assert process is not None
        os.kill(victim, signal.SIGKILL)
        assert select.select([process], [], [], 30)[0]


@contextmanager
def writers(cluster: Cluster, prefix: str) -> Iterator[list[Writer]]:
    all_of_them = [Writer(cluster.kubectl) for _ in range(3)]
    threads = [
        threading.Thread(target=each.run, args=(f"{prefix}-{at}",), daemon=True) for at, each in enumerate(all_of_them)
    ]
    for thread in threads:
        thread.start()
    yield all_of_them
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


ROUNDS = int(os.environ.get("SANDKUBE_KILL_ROUNDS", "2"))


def test_no_acknowledged_write_is_lost(one: Place, programs: Programs) -> None:
    """Its processes are killed while three clients write."""
    written: set[str] = set()
    for at in range(ROUNDS):
        cluster = again(one, programs)
        with writers(cluster, f"round-{at}") as all_of_them:
            while not all(each.acknowledged for each in all_of_them):
                time.sleep(0.01)
            time.sleep(random.random() * 2)
            kill(cluster)
        added = {name for each in all_of_them for name in each.acknowledged}
        print(f"round {at}: {len(added)} acknowledged")
        written |= added
        if row(one).state not in ("killed", "failed"):
            pytest.fail(row(one).state)
    cluster = boot(one, programs)
    with closing(Api(cluster.kubectl)) as api:
        found = {each["metadata"]["name"] for each in api("GET", MAPS)["items"]}
    assert written - found == set()
    assert len(written) > 3 * ROUNDS


def kept_by(one: Place, version: str) -> None:
    (one.data / "version").write_text(f"{version}\n")


def test_data_of_another_version_are_refused(one: Place, programs: Programs) -> None:
    """They stay as they are, for the version that wrote them."""
    if one.running():
        stop.stop(one, now=True)
    ours = (one.data / "version").read_text().strip()
    assert ours == "v1.34.2"
    for theirs, words in (
        ("v1.35.0", "v1.34.2 cannot go on from: start it with that one or a newer one"),
        ("v1.32.9", "an upgrade is one minor version at a time: start it with v1.33 before v1.34.2"),
    ):
        kept_by(one, theirs)
        with pytest.raises(start.NodeFailed) as caught:
            boot(one, programs)
        said = caught.value.message.splitlines()[0]
        assert said.startswith("cluster kept: node failed: claim: its data were written by Kubernetes "), said
        assert theirs in said
        assert words in said
        assert (one.data / "version").read_text().strip() == theirs
    kept_by(one, ours)


def signed_anew(folder: Path, name: str, days: int) -> bytes:
    """Replace a certificate by one of the same authority that says the same, and ends in so many days of its year."""
    authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    old = x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(
        authority.subject,
        old.subject,
        old.public_key(),
        old.serial_number + 1,
        now - datetime.timedelta(365 - days),
        now + datetime.timedelta(days),
        list(old.extensions),
    ).sign(key, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return ssl.PEM_cert_to_DER_cert(made.public_bytes(serialization.Encoding.PEM).decode())


def served(one: Place) -> bytes:
    """The certificate that the API server shows."""
    state = one.read()
    assert state is not None
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", state.port)))


def test_a_start_renews_certificates(one: Place, programs: Programs) -> None:
    """One of whose life less than a third is left, and no other: the authority, and who trusts it, stay."""
    folder = one.data / "pki"
    kubeconfig = (folder / "admin.kubeconfig").read_bytes()
    kubelet = (folder / "kubelet.crt").read_bytes()
    good = signed_anew(folder, "apiserver", 130)
    first = boot(one, programs)
    assert served(one) == good, "it had more than a third of its life left"
    stop.stop(one, now=True)
    short = signed_anew(folder, "apiserver", 110)
    first = boot(one, programs)
    assert served(one) not in (good, short)
    left = x509.load_der_x509_certificate(served(one)).not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert left > datetime.timedelta(364)
    assert (folder / "kubelet.crt").read_bytes() == kubelet
    assert (folder / "admin.kubeconfig").read_bytes() == kubeconfig
    assert first.kubectl("get", "configmap", "stays", "--output=name").stdout == b"configmap/stays\n"


def test_delete_takes_the_data(one: Place) -> None:
    stop.delete(one)
    assert not one.folder.exists()
