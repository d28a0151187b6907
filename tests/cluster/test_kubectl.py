"""What people do with kubectl, from the host."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.request import urlopen

import pytest

from sandkube.cluster.pod import NAME, apply
from sandkube.run import base_environment
from tests.cluster.conftest import Cluster, inside

PATIENCE = 60.0


@pytest.fixture
def pod(cluster: Cluster) -> str:
    apply(cluster.kubectl, fresh=False)
    return NAME


@pytest.fixture
def web(cluster: Cluster) -> Iterator[str]:
    """A pod that serves a page on port 8080 and says that it does."""
    name = "page"
    command = "mkdir /w; echo page >/w/index.html; echo serving; exec httpd -f -p 8080 -h /w"
    cluster.kubectl(
        "run",
        name,
        "--image=sandkube.local/test:1",
        "--image-pull-policy=Never",
        "--command",
        "--",
        "sh",
        "-c",
        command,
    )
    cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
    yield name
    cluster.kubectl("delete", "pod", name, "--grace-period=1")


def popen(cluster: Cluster, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    env = base_environment(cluster.place.folder)
    return subprocess.Popen(
        cluster.kubectl.argv(*words), env=env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def line(stream: IO[bytes]) -> bytes:
    """One line, waited for with an end."""
    assert select.select([stream], [], [], PATIENCE)[0], "nothing came"
    return stream.readline()


def test_logs_follow(cluster: Cluster, web: str) -> None:
    with popen(cluster, "logs", "--follow", web) as process:
        assert process.stdout is not None
        assert line(process.stdout) == b"serving\n"
        process.terminate()


def test_exec_on_a_terminal(cluster: Cluster, pod: str) -> None:
    host, guest = pty.openpty()
    env = base_environment(cluster.place.folder) | {"TERM": "dumb"}
    process = subprocess.Popen(
        cluster.kubectl.argv("exec", "--stdin", "--tty", pod, "--", "sh"),
        env=env,
        stdin=guest,
        stdout=guest,
        stderr=guest,
    )
    os.close(guest)
    os.write(host, b"test -t 0 && echo a-terminal-$((40+2)); exit\n")
    said = b""
    while b"a-terminal-42" not in said and select.select([host], [], [], PATIENCE)[0]:
        try:
            said += os.read(host, 4096)
        except OSError:  # the other side is closed
            break
    assert b"a-terminal-42" in said
    process.wait()
    os.close(host)


def test_copy_there_and_back(cluster: Cluster, pod: str, tmp_path: Path) -> None:
    data = os.urandom(300_000)
    (tmp_path / "there").write_bytes(data)
    cluster.kubectl("cp", str(tmp_path / "there"), f"{pod}:/tmp/copied")
    cluster.kubectl("cp", f"{pod}:/tmp/copied", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data


def test_copy_many_small_files(cluster: Cluster, pod: str, tmp_path: Path) -> None:
    """They are bursts of small frames, which a sandbox with RACK is slow to take."""
    names = [str(each) for each in range(300)]
    folder = tmp_path / "small"
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"{name}\n")
    cluster.kubectl("cp", str(folder), f"{pod}:/tmp/small")
    said = cluster.kubectl("exec", pod, "--", "sh", "-c", "cat /tmp/small/*; rm -r /tmp/small").stdout.decode()
    assert sorted(said.split()) == sorted(names)
    assert inside(cluster, "cat /proc/sys/net/ipv4/tcp_recovery").stdout == "0\n"


def test_port_forward(cluster: Cluster, web: str) -> None:
    with popen(cluster, "port-forward", f"pod/{web}", ":8080") as process:
        assert process.stdout is not None
        words = line(process.stdout).decode()
        port = int(words.partition("127.0.0.1:")[2].split()[0])
        with urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as answer:
            assert answer.read() == b"page\n"
        process.terminate()


def test_describe_and_delete(cluster: Cluster) -> None:
    apply(cluster.kubectl, fresh=False)
    said = cluster.kubectl("describe", "pod", NAME).stdout.decode()
    assert "Started container test" in said or "Started" in said
    cluster.kubectl("delete", "pod", NAME, "--wait", "--timeout=60s")
    assert cluster.kubectl("get", "pods", "--output=name").stdout.decode().split().count(f"pod/{NAME}") == 0


def test_nobody_gets_in_without_a_certificate(cluster: Cluster) -> None:
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--output=json").stdout)
    (user,) = config["users"]
    config["users"] = [{"name": user["name"], "user": {"token": "made-up"}}]
    anonymous = cluster.place.folder / "anonymous"
    anonymous.write_text(json.dumps(config))
    done = subprocess.run(
        [str(cluster.kubectl.program), f"--kubeconfig={anonymous}", "get", "--raw=/version"],
        env=base_environment(cluster.place.folder),
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode != 0
    assert b"Unauthorized" in done.stderr or b"must be logged in" in done.stderr
