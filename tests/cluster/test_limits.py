"""What a sandbox does not have or enforce: it says so, or does without. README's table of limits names these tests."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from sandkube.cluster.pod import NAME
from sandkube.errors import UserError
from sandkube.run import base_environment
from tests.cluster.conftest import Cluster, inside
from tests.cluster.test_hostile import create, event, mine, pod, service
from tests.cluster.test_system import eventually

__all__ = ["mine"]
# ruff: noqa: F811


def test_time_zones(mine: Cluster) -> None:
    spec = {
        "schedule": "0 4 1 1 *",
        "timeZone": "Europe/Berlin",
        "jobTemplate": {"spec": {"template": {"spec": pod("x", ["true"], restartPolicy="Never")["spec"]}}},
    }
    create(mine, {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "zoned"}, "spec": spec})
    said = mine.kubectl("get", "cronjob", "zoned", "--output=jsonpath={.spec.timeZone}").stdout
    assert said == b"Europe/Berlin"


def test_metrics_of_clients(mine: Cluster) -> None:
    said = mine.kubectl("get", "--raw=/metrics").stdout.decode()
    for name in (
        "rest_client_requests_total",
        "workqueue_adds_total",
        "kubernetes_build_info",
        "kubernetes_feature_enabled",
    ):
        assert re.search(rf"^{name}\{{", said, re.MULTILINE), name


def sysctl(name: str, key: str, value: str) -> dict[str, object]:
    return pod(name, ["sleep", "infinity"], securityContext={"sysctls": [{"name": key, "value": value}]})


def test_sysctls_that_ask_for_what_is_so(mine: Cluster) -> None:
    create(
        mine,
        sysctl("low-port", "net.ipv4.ip_unprivileged_port_start", "80"),
        sysctl("port-range", "net.ipv4.ip_local_port_range", "1024 65535"),
    )
    mine.kubectl("wait", "pod", "low-port", "port-range", "--for=condition=Ready", "--timeout=60s")
    said = mine.kubectl("exec", "port-range", "--", "cat", "/proc/sys/net/ipv4/ip_local_port_range").stdout.split()
    assert said == [b"32768", b"60999"], "a pod moved the ports of the node"


def test_sysctls_that_cannot_be_set(mine: Cluster) -> None:
    create(mine, sysctl("keepalive", "net.ipv4.tcp_keepalive_time", "120"))
    event(mine, "keepalive", "sysctl net.ipv4.tcp_keepalive_time cannot be set here")
    mine.kubectl("delete", "pod", "keepalive", "--wait=false")


def test_forced_removal_of_shared_memory(mine: Cluster) -> None:
    """Each IPC namespace has its own setting; Go tests of gVisor's package shm show what is removed, and when."""
    create(mine, sysctl("forced", "kernel.shm_rmid_forced", "1"), pod("unforced", ["sleep", "infinity"]))
    mine.kubectl("wait", "pod", "forced", "unforced", "--for=condition=Ready", "--timeout=60s")
    file = "/proc/sys/kernel/shm_rmid_forced"
    for name, value in (("forced", b"1\n"), ("unforced", b"0\n")):
        assert mine.kubectl("exec", name, "--", "cat", file).stdout == value, name
    assert inside(mine, f"cat {file}").stdout == "0\n", "a pod set it for the node"


def test_an_umount_reaches_copies(mine: Cluster) -> None:
    """As containerd needs for what it mounts for a moment, while another container has copies of the mounts."""
    script = """
        set -e
        mkdir -p /run/shared && mount -t tmpfs shared /run/shared
        mount --make-shared /run/shared && mkdir /run/shared/on
        unshare -m --propagation shared sleep 20 & other=$!
        while [ $(readlink /proc/$other/ns/mnt) = $(readlink /proc/self/ns/mnt) ]; do sleep 0.01; done
        mount -t tmpfs on /run/shared/on
        grep -c /run/shared/on /proc/$other/mounts
        umount /run/shared/on
        grep -c /run/shared/on /proc/$other/mounts || true
        kill $other
        umount /run/shared
    """
    done = inside(mine, script)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "0"]), done.stderr


def test_user_namespaces_of_pods(mine: Cluster) -> None:
    create(mine, pod("own-users", ["sleep", "infinity"], hostUsers=False))
    event(mine, "own-users", "runtime does not support user namespaces")
    mine.kubectl("delete", "pod", "own-users", "--wait=false")


def test_memory_is_told(mine: Cluster) -> None:
    for _ in range(60):
        said = mine.kubectl("get", "--raw=/api/v1/nodes/runsc/proxy/metrics/resource").stdout.decode()
        found = {
            name: float(value)
            for name, value in re.findall(
                r"^(node_memory_working_set_bytes|pod_memory_working_set_bytes\{[^}]*\}) (\S+)", said, re.MULTILINE
            )
        }
        if len(found) > 1 and all(found.values()):
            break
        time.sleep(1)  # the kubelet asks every ten seconds
    assert len(found) > 1, said
    assert all(found.values()), found
    pods = sum(value for name, value in found.items() if name.startswith("pod"))
    assert found["node_memory_working_set_bytes"] > pods


def test_memory_limits_are_not_enforced(mine: Cluster) -> None:
    command = [
        "sh",
        "-c",
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=48 && head -c 50000000 /dev/zero | tail -c 40000000 | wc -c",
    ]
    create(mine, pod("hog", command, restartPolicy="Never", resources={"limits": {"memory": "16Mi"}}))
    mine.kubectl("wait", "pod", "hog", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")


def test_images_are_not_pulled(mine: Cluster) -> None:
    elsewhere = pod("elsewhere", ["true"])
    elsewhere["spec"]["containers"][0] |= {"image": "example.org/somebodys:1", "imagePullPolicy": "IfNotPresent"}
    create(mine, elsewhere)
    event(mine, "elsewhere", 'Failed to pull image "example.org/somebodys:1"')
    mine.kubectl("delete", "pod", "elsewhere", "--wait=false")


def test_whom_endpoints_see(mine: Cluster) -> None:
    """busybox' httpd tells whom it has answered: the client, but for a Service that keeps clients at an endpoint."""
    ports = [{"port": 80, "targetPort": 8080}]
    create(
        mine,
        pod("told", ["sh", "-c", "mkdir /w; echo page >/w/index.html; exec httpd -f -v -p 8080 -h /w"]),
        service("told", type="NodePort", selector={"app": "told"}, ports=[{**ports[0], "nodePort": 30123}]),
        service("told-sticky", selector={"app": "told"}, ports=ports, sessionAffinity="ClientIP"),
    )
    mine.kubectl("wait", "pod", "told", "--for=condition=Ready", "--timeout=60s")
    client = mine.kubectl("get", "pod", NAME, "--output=jsonpath={.status.podIP}").stdout.decode()

    def seen(by: str) -> str:
        fetch = f"until wget -q -T 5 -O- http://{by}/; do sleep 0.2; done"
        assert mine.kubectl("exec", NAME, "--", "timeout", "30", "sh", "-c", fetch).stdout == b"page\n"
        last = mine.kubectl("logs", "told", "--tail=1").stdout.decode()
        found = re.search(r"(\d+\.\d+\.\d+\.\d+)\]?:\d+", last)
        assert found, last
        return found[1]

    eventually(f"the endpoint sees {client}", 20, lambda: seen("told.default.svc.cluster.local") == client)
    assert seen("10.88.0.1:30123") == client
    assert seen("told-sticky.default.svc.cluster.local") == "10.88.0.1"


def test_a_pod_cannot_ping_itself(mine: Cluster) -> None:
    address = mine.kubectl("get", "pod", NAME, "--output=jsonpath={.status.podIP}").stdout.decode()
    ping = f"ping -c 1 -W 3 127.0.0.1 >/dev/null && ! ping -c 1 -W 3 {address} >/dev/null && echo no answer"
    assert mine.kubectl("exec", NAME, "--", "sh", "-c", ping).stdout == b"no answer\n"


def test_nothing_of_the_node_is_a_pod(mine: Cluster) -> None:
    """Nor has it what kubeadm leaves: only the system pods are there."""
    pods = mine.kubectl("get", "pods", "--namespace=kube-system", "--output=name").stdout.decode().split()
    assert {each.rsplit("-", 2)[0] for each in pods} <= {"pod/local-path-provisioner", "pod/metrics-server"}, pods
    maps = mine.kubectl("get", "configmaps", "--namespace=kube-system", "--output=name").stdout.decode()
    assert "kubeadm" not in maps


def test_there_is_no_ipv6(mine: Cluster) -> None:
    both = service("both", ipFamilyPolicy="RequireDualStack", selector={"app": "x"}, ports=[{"port": 80}])
    with pytest.raises(UserError, match="this cluster is not configured for dual-stack services"):
        create(mine, both)
    assert b"inet6" not in mine.kubectl("exec", NAME, "--", "ip", "addr", "show", "dev", "eth0").stdout


def test_there_is_no_ebpf(mine: Cluster) -> None:
    assert inside(mine, "mkdir -p /tmp/bpf && mount -t bpf bpf /tmp/bpf").returncode != 0


def test_names_outside_do_not_exist(mine: Cluster) -> None:
    """musl's resolver and Go's give up at once, and search lists go on."""
    said = mine.kubectl("exec", NAME, "--", "sh", "-c", "nslookup -type=a example.org 10.96.0.10; true").stdout.decode()
    assert "NXDOMAIN" in said


def test_wget_with_a_time_out(mine: Cluster) -> None:
    """Debian's busybox before 1.36.1-5 ends in a segmentation fault."""
    said = mine.kubectl("exec", NAME, "--", "sh", "-c", "wget -T 5 -q -O- http://127.0.0.1:1/; echo $?").stdout
    assert said == b"1\n"


def test_a_reset_ends_one_forwarded_connection(mine: Cluster) -> None:
    serve = "mkdir /w; echo page >/w/index.html; httpd -p 8080 -h /w; exec nc -ll -p 8081 -e true"
    create(mine, pod("servers", ["sh", "-c", serve]))
    mine.kubectl("wait", "pod", "servers", "--for=condition=Ready", "--timeout=60s")
    command = mine.kubectl.argv("port-forward", "pod/servers", ":8080", ":8081")
    environment = base_environment(Path("/root"))
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as forward:
        try:
            assert forward.stdout is not None
            ports: dict[str, int] = {}
            while len(ports) < 2:
                line = forward.stdout.readline()
                assert line, "it ended"
                if found := re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> (\d+)", line):
                    ports[found[2]] = int(found[1])
            for _ in range(10):
                rude(ports["8081"])
            assert b"page" in get(ports["8080"])
            assert forward.poll() is None
        finally:
            forward.terminate()


def rude(port: int) -> None:
    """Sends what nobody reads; the pod's end resets the connection."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        try:
            for _ in range(20):
                connection.sendall(b"x" * 65536)
        except OSError:
            return


def get(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_following_a_log_over_its_rotation(mine: Cluster) -> None:
    """8 MB in lines; the kubelet looks every 10 s whether there are more than 2 MB."""
    lines = "p=$(printf %0180d 0); i=0; while [ $i -lt 40000 ]; do echo $i $p; i=$((i+1)); done"
    write = f"{lines}; sleep 15; echo last; sleep 3"
    create(mine, pod("chatty", ["sh", "-c", write], restartPolicy="Never"))
    mine.kubectl("wait", "pod", "chatty", "--for=jsonpath={.status.containerStatuses[0].started}=true", "--timeout=60s")
    said = mine.kubectl("logs", "--follow", "chatty").stdout.decode().splitlines()
    assert said[-1] == "last"
    numbers = [int(line.split()[0]) for line in said[:-1]]
    assert numbers == [*range(numbers[0], 40000)]


def test_pids_are_limited(mine: Cluster) -> None:
    """The kubelet is asked by the API server's own client, which is no administrator."""
    found = json.loads(mine.kubectl("get", "--raw=/api/v1/nodes/runsc/proxy/configz").stdout)["kubeletconfig"]
    assert (found["podPidsLimit"], found["containerLogMaxSize"], found["containerLogMaxFiles"]) == (1024, "2Mi", 2)
    secrets = ("auth", "can-i", "get", "secrets", "--all-namespaces", "--as=kube-apiserver-kubelet-client")
    with pytest.raises(UserError):
        mine.kubectl(*secrets)
