"""containerd, kine, Kubernetes, runc and runsc pass tests of what we patch, in the build sandbox."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {
    "containerd-tests": {
        "internal/cri/config TestValidateEnableUnprivileged/"
        "enable_unprivileged_icmp_or_unprivileged_port_on_a_kernel_below_4.11_whose_version_is_ignored",
        "internal/cri/server TestPortForwardOfAResetConnection",
        "internal/cri/server TestPortForwardReadsWhatIsLeft",
        "plugins/transfer TestWithSnapshotters/a_snapshotter_without_an_entry_gets_one",
    },
    "gvisor-tests": {
        "runsc/boot/portforward TestNetstackConnMissesNoEvent/read",
        "runsc/boot/portforward TestNetstackConnMissesNoEvent/write",
        "runsc/config TestConfined/directfs",
        "runsc/container TestCheckConfinedSpec/bind_mount",
        "runsc/container TestConfinedGoferStaysInNetworkNamespace",
        "kernel/pipe TestInterruptedOpenOfFIFO/writer_alone",
        "fsimpl/cgroup2fs TestForksTakeTurns",
        "socket/netfilter TestStatisticNth",
        "sentry/vfs TestUmountPropagates/to_several",
        "tcpip/stack TestClosedConnectionsAreNotFound/reset",
        "tcpip/stack TestConnectionsAreBounded",
    },
    "kine-tests": {
        "drivers/sqlite TestLogIsWrittenBack",
        "drivers/sqlite TestCompactionGivesBack",
        "drivers/sqlite TestProgressNeedsNoOtherPoll",
        "endpoint TestProgressDoesNotOvertake",
        "drivers/sqlite TestRevisionIsNotBehindAWrite",
    },
    "kubernetes-tests": {
        "util/workqueue TestUnfinishedWorkWakesNobodyAtRest",
        "kubelet/util/queue TestUntilIsWoken",
        "cgroups/fs TestMemoryStatsUsageWithoutStatFile",
    },
    "runc-tests": {
        "capability TestProbeLastCap",
        "libcontainer/capabilities TestNew",
        "internal/pathrs TestRetryEINTR",
    },
}
OF_NODE = {
    "kine-tests": {"github.com/k3s-io/kine"},
    "kubernetes-tests": {"github.com/opencontainers/cgroups", "k8s.io/client-go", "k8s.io/kubernetes"},
}
"""Modules of the node's closure."""
FEWER = {"gvisor-tests": 10, "kine-tests": 5, "kubernetes-tests": 25}
"""How many tests there are at least, where that is not 40."""


@pytest.mark.parametrize("name", OURS)
def test_own_tests_passed(name: str) -> None:
    lines = (ROOT / "outputs/result" / name / "tests.txt").read_text().splitlines()
    print("\n".join(lines))
    passed = [line.removeprefix("pass ") for line in lines if line.startswith("pass ")]
    assert len(passed) > FEWER.get(name, 40)
    for wanted in OURS[name]:
        assert any(line.endswith(wanted) for line in passed), wanted


@pytest.mark.parametrize("name", OURS)
def test_they_are_of_the_source_that_is_built(name: str) -> None:
    """The same pin and the same patches as the product's; some are modules of the node's closure."""
    product = "node" if name in OF_NODE else name.removesuffix("-tests")
    one, other = (tomllib.loads((ROOT / f"recipes/{each}.toml").read_text()) for each in (product, name))
    assert one["source"] == other["source"]
    patches = one["build"]["patches"]
    if name in OF_NODE:
        patches = [each for each in patches if each["module"] in OF_NODE[name]]
    assert patches == other["build"]["patches"]
    assert one["build"].get("tags") == other["build"].get("tags")
    assert other["patches_of"] == product
    assert not (ROOT / "patches" / name).exists()
