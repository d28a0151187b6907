"""The package as the wheel holds it: without its engine, on a Python without any other package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sandkube.app.main import VERBS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the modules that recipes/wheel.toml names."""
    folder = tmp_path_factory.mktemp("installed")
    build = tomllib.loads((ROOT / "recipes/wheel.toml").read_text())["build"]
    for pattern in build["modules"]:
        for path in (ROOT / "sandkube").glob(pattern):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    module, _, function = build["program"].partition(":")
    (folder / "sandkube.py.script").write_text(f"import sys; from {module} import {function}; sys.exit({function}())\n")
    return folder


def said(package: Path, how: str, *words: str, closed: str = "") -> subprocess.CompletedProcess[str]:
    """Run the package's program, or the package itself as a module, with streams of the shell's making."""
    program = ["-m", "sandkube"] if how == "module" else ["-c", (package / "sandkube.py.script").read_text()]
    argv = [sys.executable, "-S", "-E", *program, *words]
    env = {"PATH": "/usr/bin:/bin", "HOME": str(package)}
    shell = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *argv]
    return subprocess.run(shell, cwd=package, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("how", ["program", "module"])
def test_both_ways_to_run_it(how: str, package: Path) -> None:
    for words in (["help"], ["--help"], []):
        done = said(package, how, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  ")] == [*VERBS]
        assert "./do" not in done.stdout
    for name in VERBS:
        assert said(package, how, "help", name).stdout.startswith(f"sandkube {name}")
    done = said(package, how, "run-clusterr")
    assert (done.returncode, done.stdout) == (1, "")
    assert "did you mean sandkube run-cluster?" in done.stderr
    assert said(package, how, "status").stderr.startswith("no cluster")


@pytest.mark.parametrize("how", ["program", "module"])
def test_streams_that_are_closed(how: str, package: Path) -> None:
    done = said(package, how, "status", closed="<&- >&-")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)


def test_a_checkout_has_its_engine() -> None:
    argv = [sys.executable, "-m", "sandkube", "help", "build"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("./do build")
