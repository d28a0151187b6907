"""Signals while a call waits: what Linux restarts is restarted, or the node does without."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile

import pytest

from tests.cluster.conftest import ROOT, Cluster, inside

PROGRAM = ROOT / "outputs/result/test-interrupted/bin/interrupted"
BUNDLE = "/run/signalled"

DIFFERENT = {
    "modern": {},
    "legacy": {
        "open FIFO to read": "EINTR, EINTR, EINTR",
        "open FIFO to write": "EINTR, EINTR, EINTR",
        "FUTEX_LOCK_PI": "waits, EINTR, waits",
        "msgrcv": "EINTR, EINTR, EINTR",
        "msgsnd": "EINTR, EINTR, EINTR",
    },
}
DIFFERENT["legacy-9p"] = DIFFERENT["legacy"]
"""What a call comes to where it is not what this kernel does: by a handler with SA_RESTART, by one without, stopped."""


def said(cluster: Cluster, script: str, stdin: str = "") -> str:
    done = inside(cluster, script, stdin, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(text: str) -> dict[str, str]:
    lines = (line.partition(": ") for line in text.splitlines())
    return {name: outcome for name, _, outcome in lines}


@pytest.fixture
def different(request: pytest.FixtureRequest) -> dict[str, str]:
    return DIFFERENT[request.node.callspec.params["cluster"]]


def test_calls_restart_as_on_this_kernel(cluster: Cluster, different: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = table(subprocess.run([PROGRAM, folder], check=True, capture_output=True, text=True).stdout)
    assert len(here) > 30
    script = "mkdir -p /run/interrupted && cd /run/interrupted && base64 -d >program && chmod +x program && ./program ."
    there = table(said(cluster, script, base64.b64encode(PROGRAM.read_bytes()).decode()))
    print("\n".join(f"{name:30}{here[name]:24}{there.get(name)}" for name in here))
    assert {name: each for name, each in there.items() if each != here[name]} == different
    assert set(there) == set(here)


def test_a_container_starts_whose_init_was_signalled(cluster: Cluster) -> None:
    """Go's runtime sends itself SIGURG at any time; runc's init waits in an open of a FIFO."""
    made = said(
        cluster,
        f"mkdir -p {BUNDLE}/rootfs/bin && cd {BUNDLE} && cp /bin/busybox rootfs/bin && runc spec && cat config.json",
    )
    spec = json.loads(made)
    spec["process"] |= {"terminal": False, "args": ["/bin/busybox", "true"]}
    said(cluster, f"cat >{BUNDLE}/config.json", json.dumps(spec))
    script = f"""\
cd {BUNDLE}
[ -e /proc/sys/kernel/cap_last_cap ] && plain=/usr/libexec/sandkube/runc
for runc in runc $plain; do
    $runc create --no-new-keyring --bundle . --pid-file pid signalled </dev/null >log 2>&1 || {{ cat log >&2; exit 1; }}
    for i in $(seq 20); do kill -URG $(cat pid); usleep 10000; done
    $runc start signalled || {{ cat log >&2; exit 1; }}
    until $runc state signalled | grep -q '"status": "stopped"'; do usleep 10000; done
    $runc delete signalled
done
"""
    said(cluster, script)
