"""Logs are split by component, bounded, and followed by events."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from sandkube.cluster.logs import Logs, components, follow, tail
from sandkube.cluster.watch import DELETE, Watch


def test_lines_go_to_their_component(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "logs")
    for line in (b"kubelet\tone\n", b"api server\tnot a component\n", b"panic: node\n", b"kubelet\ttwo\twith a tab\n"):
        logs.write(line)
    logs.close()
    assert components(tmp_path / "logs") == ["kubelet", "sandbox"]
    assert tail(tmp_path / "logs", "kubelet", 0) == [b"one\n", b"two\twith a tab\n"]
    assert tail(tmp_path / "logs", "sandbox", 0) == [b"api server\tnot a component\n", b"panic: node\n"]
    assert logs.last() == ["api server\tnot a component", "panic: node"]


def test_a_log_is_bounded(tmp_path: Path) -> None:
    logs = Logs(tmp_path, limit=2000)
    for number in range(1000):
        logs.write(b"kubelet\tline %04d\n" % number)
    logs.close()
    kept = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 1000 <= kept <= 2200
    assert tail(tmp_path, "kubelet", 3) == [b"line 0997\n", b"line 0998\n", b"line 0999\n"]


def test_a_log_that_cannot_be_written_is_lost_not_fatal(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "logs")
    shutil.rmtree(tmp_path / "logs")
    logs.write(b"kubelet\tone\n")
    logs.write(b"panic: shown all the same\n")
    logs.close()
    assert logs.last() == ["panic: shown all the same"]


def test_follow_sees_every_line_and_ends_with_the_supervisor(tmp_path: Path) -> None:
    """A log that is cut while somebody follows it loses no line."""
    logs = Logs(tmp_path, limit=1 << 20)
    logs.write(b"kubelet\tline 0\n")
    logs.write(b"kubelet\tline 1\n")
    supervisor = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    descriptor = os.pidfd_open(supervisor.pid)
    blocks = follow(tmp_path, "kubelet", 1, descriptor)
    assert next(blocks) == b"line 1\n"

    def write() -> None:
        for number in range(2, 2000):
            logs.write(b"kubelet\tline %d\n" % number)
        assert supervisor.stdin is not None
        supervisor.stdin.close()

    writer = threading.Thread(target=write)
    writer.start()
    seen = b"".join(blocks).splitlines()
    writer.join()
    logs.close()
    supervisor.wait()
    os.close(descriptor)
    assert seen == [b"line %d" % number for number in range(2, 2000)]


def test_follow_goes_on_with_the_file_that_replaced_it(tmp_path: Path) -> None:
    logs = Logs(tmp_path, limit=40)
    logs.write(b"kubelet\tshort\n")
    supervisor = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    descriptor = os.pidfd_open(supervisor.pid)
    blocks = follow(tmp_path, "kubelet", 0, descriptor)
    assert next(blocks) == b"short\n"
    logs.write(b"kubelet\tlong enough to be cut\n")
    assert next(blocks) == b"long enough to be cut\n"
    logs.write(b"kubelet\tafter\n")
    assert next(blocks) == b"after\n"
    logs.close()
    assert supervisor.stdin is not None
    supervisor.stdin.close()
    supervisor.wait()
    assert list(blocks) == []
    os.close(descriptor)


def test_watch_names_what_happened(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    (tmp_path / "gone").touch()
    with Watch(tmp_path, DELETE) as watch:
        (tmp_path / "kept").replace(tmp_path / "renamed")
        (tmp_path / "gone").unlink()
        assert watch.drain() == [(DELETE, "gone")]
        assert watch.drain() == []
