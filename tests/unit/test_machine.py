"""What this process may use of the machine: within affinity and cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandkube import machine


def group(root: Path, inner: dict[str, str], outer: dict[str, str]) -> dict[str, Path]:
    """A cgroup `a/b` with files `inner`, in `a` with files `outer`; the arguments that make it this process's."""
    for folder, files in ((root / "a/b", inner), (root / "a", outer)):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    own = root / "own"
    own.write_text("1:name=systemd:/elsewhere\n0::/a/b\n")
    return {"root": root, "own": own}


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("inner", "outer", "cores"),
    [
        ("max 100000", "max 100000", 8),
        ("200000 100000", "max 100000", 2),
        ("150000 100000", "max 100000", 2),
        ("max 100000", "300000 100000", 3),
        ("10000 100000", "300000 100000", 1),
        ("1600000 100000", "max 100000", 8),
        ("", "nonsense", 8),
    ],
)
def test_cores_are_those_of_the_narrowest_group(tmp_path: Path, inner: str, outer: str, cores: int) -> None:
    assert machine.cores(**group(tmp_path, {"cpu.max": inner}, {"cpu.max": outer})) == cores


@pytest.mark.usefixtures("many")
def test_no_groups_limit_nothing(tmp_path: Path) -> None:
    assert machine.cores(root=tmp_path / "none", own=tmp_path / "none") == 8


def test_affinity_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_memory_is_the_least_of_all(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 999 kB\nMemAvailable: 500 kB\n")
    whole = group(tmp_path / "c", {"memory.max": "max"}, {"memory.max": "max"})
    assert machine.memory(**whole, meminfo=meminfo) == 500 << 10
    files = {"memory.max": "300000", "memory.current": "200000", "memory.stat": "anon 5\ninactive_file 50000\n"}
    assert machine.memory(**group(tmp_path / "d", {}, files), meminfo=meminfo) == 150_000
    assert machine.memory(tmp_path / "none", tmp_path / "none", tmp_path / "none") > 1 << 32


def test_compilers_need_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 64)
    monkeypatch.setattr(machine, "memory", lambda: 2 << 30)
    assert machine.compilers() == 4
    monkeypatch.setattr(machine, "memory", lambda: 0)
    assert machine.compilers() == 1
