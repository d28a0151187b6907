"""The launcher `do`, in made-up checkouts with a package of their own: whose .venv it makes, when, and with what."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.servers import file_server

ROOT = Path(__file__).resolve().parents[2]
TELL = (
    "import json, os, sys, thing\n"
    "print(json.dumps([os.getcwd(), sys.argv[1:], os.path.dirname(thing.__file__), thing.WORD]))\n"
)


def wheel(folder: Path) -> str:
    """A package `thing` in a folder; its line of requirements."""
    folder.mkdir()
    name = folder / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(name, "w") as archive:
        archive.writestr("thing/__init__.py", "WORD = 'right'\n")
        archive.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        archive.writestr(
            "thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("thing-1.dist-info/RECORD", "")
    return f"thing==1 --hash=sha256:{hashlib.sha256(name.read_bytes()).hexdigest()}\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("launcher")


@pytest.fixture(scope="module")
def checkout(base: Path) -> Path:
    """One whose path has all that paths may have."""
    made = base / "a b%sü "
    (made / "sandkube").mkdir(parents=True)
    shutil.copy(ROOT / "do", made / "do")
    (made / "sandkube/__init__.py").write_text("")
    (made / "sandkube/__main__.py").write_text(TELL)
    (made / "requirements.txt").write_text(wheel(base / "wheels"))
    (made / "requirements-test.txt").write_text("# nothing\n")
    return made


def environment(base: Path, **more: str) -> Mapping[str, str]:
    """What pip may know, and nothing else."""
    sources = {"PIP_FIND_LINKS": str(base / "wheels"), "PIP_NO_INDEX": "1"}
    return {"PATH": os.environ["PATH"], "HOME": str(base), **sources, **more}


def start(program: Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
    words = [str(program), "build", "a  b"]
    return subprocess.Popen(words, cwd="/", env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(program: Path, env: Mapping[str, str]) -> tuple[list[object], str]:
    """What the package told, and what the launcher said."""
    with start(program, env) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out), err


def told(checkout: Path) -> list[object]:
    (site,) = (checkout / ".venv/lib").glob("python3*/site-packages/thing")
    return [str(checkout), ["build", "a  b"], str(site), "right"]


def test_two_first_runs_at_once_with_settings_that_lead_elsewhere(base: Path, checkout: Path) -> None:
    (base / "wrong").mkdir()
    (base / "wrong/thing.py").write_text("WORD = 'wrong'\n")
    settings = {"PIP_TARGET": f"{base}/target", "PIP_USER": "1", "PIP_PREFIX": f"{base}/target"}
    odd = environment(base, **settings, PYTHONPATH=f"{base}/wrong", PYTHONHOME="/nonexistent")
    both = [start(checkout / "do", odd) for _ in range(2)]
    said = [each.communicate() for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert [json.loads(out) for out, _ in said] == [told(checkout)] * 2
    assert sorted(err for _, err in said) == [
        "setting up .venv (once)\n",
        "waiting for another command that sets up .venv\n",
    ]
    assert not (base / "target").exists()
    assert run(checkout / "do", odd) == (told(checkout), "")


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["build", "--remote", "grpc://a:1"], {}),
        (["build", "--remote=grpc://a:1"], {}),
        (["list"], {"SANDKUBE_REMOTE": "grpc://a:1"}),
    ],
)
def test_what_an_engine_takes_is_installed_when_one_is_named(
    base: Path, checkout: Path, words: list[str], more: Mapping[str, str]
) -> None:
    """The environment that is there is kept."""
    (checkout / "requirements-remote.txt").write_text("# nothing\n")
    stamp = checkout / ".venv/requirements-remote.txt"
    run(checkout / "do", environment(base))
    stamp.unlink(missing_ok=True)
    marker = checkout / ".venv/marker"
    marker.touch()
    run(checkout / "do", environment(base))
    assert not stamp.exists()
    for _ in range(2):
        subprocess.run([checkout / "do", *words], env=environment(base, **more), check=True, capture_output=True)
        assert stamp.read_text() == "# nothing\n"
    assert marker.exists()


def test_offline_asks_no_index(base: Path, checkout: Path) -> None:
    """Packages come from the folder that is named, or not at all."""
    with file_server() as served:
        env = {**environment(base), "PIP_INDEX_URL": f"{served.address}/simple/"}
        del env["PIP_NO_INDEX"]
        without = {name: value for name, value in env.items() if name != "PIP_FIND_LINKS"}
        for words, more in ((["build", "--offline"], {}), (["build"], {"SANDKUBE_OFFLINE": "1"})):
            shutil.rmtree(checkout / ".venv", ignore_errors=True)
            done = subprocess.run(
                [checkout / "do", *words], env={**without, **more}, capture_output=True, text=True, check=False
            )
            assert done.returncode == 1
            assert "do: could not install the packages of requirements.txt" in done.stderr
        assert run(checkout / "do", {**env, "SANDKUBE_OFFLINE": "1"})[0][-1] == "right"
        assert served.seen == []


def test_reached_by_a_link_it_is_the_checkout_that_runs(base: Path, checkout: Path) -> None:
    run(checkout / "do", environment(base))
    mine = base / "mine"
    (mine / ".venv").mkdir(parents=True)
    (mine / ".venv/precious").write_text("mine\n")
    (mine / "requirements.txt").write_text("mine\n")
    (mine / "do").symlink_to(checkout / "do")
    assert run(mine / "do", environment(base)) == (told(checkout), "")
    assert (mine / ".venv/precious").read_text() == "mine\n"


def test_a_python_that_moved_on_gets_a_new_environment(base: Path, checkout: Path) -> None:
    run(checkout / "do", environment(base))
    python = checkout / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/bin/true")
    assert run(checkout / "do", environment(base)) == (told(checkout), "setting up .venv (once)\n")


def test_an_environment_that_is_not_its_own_is_left_alone(base: Path, checkout: Path) -> None:
    other = base / "other"
    shutil.copytree(checkout, other, ignore=shutil.ignore_patterns(".venv"))
    (other / ".venv").mkdir()
    (other / ".venv/precious").write_text("mine\n")
    with start(other / "do", environment(base)) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err == f"do: {other}/.venv is not one that ./do made; move it away\n"
    assert (other / ".venv/precious").read_text() == "mine\n"


def test_a_colon_in_the_path_is_a_sentence(base: Path, checkout: Path) -> None:
    """Python's venv refuses it, since PATH could not hold such a folder."""
    other = base / "a:b"
    shutil.copytree(checkout, other, ignore=shutil.ignore_patterns(".venv"))
    with start(other / "do", environment(base)) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err == f"do: {other} has a colon in its name, which Python's venv refuses; clone into another folder\n"
    assert not (other / ".venv").exists()
