"""containerd unpacks with the snapshotter that the CRI plug-in is configured for, whichever it is.

A second containerd in the node, with nothing set but `snapshotter = "native"`: without our patch each import there ends
in "unable to initialize unpacker: no unpack platforms defined".

The export is `--local`: by the transfer service, `ctr` (2.1.4) ends before what it received is written.
"""

from __future__ import annotations

import subprocess

from sandkube.cluster.programs import sandbox as sandbox_of
from sandkube.run import base_environment
from tests.cluster.conftest import Cluster

IMAGE = "sandkube.local/test:1"
SCRIPT = f"""\
set -e
mkdir -p /run/second && cd /run/second
cat >config.toml <<'END'
version = 3
root = "/run/second/root"
state = "/run/second/state"
[grpc]
address = "/run/second/socket"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "native"
END
ctr --namespace k8s.io images export --local image.tar {IMAGE}
containerd --config config.toml >log 2>&1 &
trap "kill $!" EXIT
second() {{ ctr --address /run/second/socket --namespace k8s.io "$@"; }}
until second version >/dev/null 2>&1; do sleep 0.1; done
second images import --snapshotter native image.tar
second snapshots --snapshotter native list
"""


def test_another_snapshotter_needs_no_more_settings(cluster: Cluster) -> None:
    argv = sandbox_of(cluster.place, cluster.state.container).execute(["timeout", "60", "sh", "-c", SCRIPT])
    done = subprocess.run(argv, env=base_environment(cluster.place.folder), capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = done.stdout.strip().splitlines()
    assert last.startswith("sha256:")
    assert last.split()[-1] == "Committed"
