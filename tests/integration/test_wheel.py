"""The wheel on a machine with nothing but Python: no network, no repository, an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clones import PATH, Clone, clone
from tests.small import ROOT, let_in

LARGEST = 160 << 20  # bytes; PyPI takes 100 MiB of a project that has not asked for more
Do = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(here: Clone) -> Path:
    """As it was built."""
    (found,) = (here.folder / "outputs/result/wheel").glob("*.whl")
    return found.resolve()


def _as_nobody(folder: Path, *words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program as an ordinary user, with an empty home and no index; asserts its exit status."""
    user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={"PATH": PATH, "HOME": str(folder), "PIP_NO_INDEX": "1", "UV_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        **user,  # type: ignore[call-overload]
    )
    print(done.stdout, done.stderr, flush=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of an ordinary user with the wheel in a fresh environment, without any network or index."""
    folder = tmp_path_factory.mktemp("wheel") / "own"
    folder.mkdir()
    shutil.copy(wheel, folder)
    let_in(folder)
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    _as_nobody(folder, "/usr/bin/python3", "-m", "venv", "v")
    _as_nobody(folder, "v/bin/pip", "install", "--no-index", "--quiet", folder / wheel.name)
    return folder


def test_it_is_small_and_holds_no_engine(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert not [name for name in names if name.startswith(("sandkube/build/", "sandkube/cli/"))]
    assert "sandkube/cluster/start.py" in names


def test_a_cluster_from_the_wheel(installed: Path) -> None:
    sandkube = installed / "v/bin/sandkube"
    try:
        first = _as_nobody(installed, sandkube, "run-cluster")
        assert "unpacking the node" in first.stderr
        assert "1/1     Running" in first.stdout
        assert "./do" not in first.stdout + first.stderr
        nodes = _as_nobody(installed, sandkube, "kubectl", "get", "nodes")
        assert "runsc   Ready" in nodes.stdout
        assert "modern" in _as_nobody(installed, sandkube, "status").stdout
        second = _as_nobody(installed, sandkube, "run-cluster", "--name", "two")
        assert "unpacking" not in second.stderr
    finally:
        _as_nobody(installed, sandkube, "stop-cluster", "--all")
    assert [each.name for each in (installed / ".local/state/sandkube/clusters").iterdir() if each.name[0] != "."] == []


def test_what_is_damaged_is_unpacked_again(installed: Path) -> None:
    sandkube = installed / "v/bin/sandkube"
    _as_nobody(installed, sandkube, "doctor", "--here")
    (node,) = (installed / ".cache/sandkube/trees").glob("*/usr/bin/sandkube-node")
    node.chmod(0o755)
    node.write_bytes(b"#!/bin/sh\n")
    said = _as_nobody(installed, sandkube, "doctor", "--here")
    assert "unpacking the node" in said.stderr
    assert "cap-last-cap" in said.stdout


def test_wrong_words_are_sentences(installed: Path) -> None:
    sandkube = installed / "v/bin/sandkube"
    for words, said in (
        (("run-clusterr",), "did you mean sandkube run-cluster?"),
        (("logs", "--name", "x"), "there is no cluster x\n  hint: sandkube status lists them"),
        (("run-cluster", "--sandbox", "legacy"), "gvisor-legacy does not come with this package"),
        (("run-cluster", "--port", "x"), "--port takes a whole number, not 'x'"),
    ):
        assert said in _as_nobody(installed, sandkube, *words, status=1).stderr


@pytest.fixture(scope="module")
def installers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """uv and pipx, for every user."""
    folder = tmp_path_factory.mktemp("installers")
    packages = ROOT / "tests/installers.txt"
    words = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    subprocess.run(["/usr/bin/python3", "-m", "venv", folder / "v"], check=True)
    subprocess.run([folder / "v/bin/pip", "install", *words, "--requirement", packages], check=True)
    let_in(folder)
    return folder / "v/bin"


@pytest.mark.parametrize(
    "words", [("uvx", "--offline", "--from"), ("pipx", "run", "--spec"), ("v/bin/python", "-m", "sandkube")]
)
def test_other_ways_to_run_it(installers: Path, installed: Path, wheel: Path, words: tuple[str, ...]) -> None:
    """As their users do, with the file alone and an empty home: nothing of the net is needed."""
    name, *rest = words
    argv = [name, *rest] if "/" in name else [installers / name, *rest, installed / wheel.name, "sandkube"]
    for left in (".cache/uv", ".local/share/pipx", ".cache/pipx"):
        shutil.rmtree(installed / left, ignore_errors=True)
    assert "sandkube run-cluster" in _as_nobody(installed, *argv, "--help").stdout
    assert (
        "is no cluster x\n  hint: sandkube status"
        in _as_nobody(installed, *argv, "logs", "--name", "x", status=1).stderr
    )
    assert "cap-last-cap" in _as_nobody(installed, *argv, "doctor", "--here").stdout


def test_it_is_the_same_elsewhere(here: Clone, wheel: Path, tmp_path: Path) -> None:
    """Another folder, umask and home, with the node from this store: only the wheel itself is made again."""
    one = clone(tmp_path, "other place", home=here.home, umask=0o077)
    (one.folder / "outputs").mkdir(mode=0o755)
    (one.folder / "outputs/store").symlink_to(here.folder / "outputs/store")
    path = one.folder / "sandkube/app/main.py"
    path.write_text(path.read_text() + "# another text, so that it is made anew\n")
    assert "wheel" in one.steps("wheel")
    with (
        zipfile.ZipFile(wheel) as first,
        zipfile.ZipFile(next((one.folder / "outputs/result/wheel").glob("*.whl"))) as second,
    ):
        changed = {name for name in first.namelist() if first.read(name) != second.read(name)}
        assert changed == {"sandkube/app/main.py", "sandkube-0.1.0.dist-info/RECORD"}
        assert [each.external_attr for each in first.infolist()] == [each.external_attr for each in second.infolist()]
