"""Completion at a terminal, by the key itself: bash, and zsh and fish where they are or can be installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.anywhere.packages import install
from tests.small import ROOT
from tests.terminals import Terminal, terminal

SHELLS = {
    "bash": ("--norc", "-i"),
    "zsh": ("-f", "-i"),
    "fish": ("--no-config", "-i"),
}
LOAD = {
    "bash": 'PS1=; bind "set enable-bracketed-paste off"; source {script}\r',
    "zsh": "PS1=; autoload -U compinit; compinit -D -u; source {script}\r",
    "fish": "function fish_prompt; end; source {script}\r",
}
SHOWS = "#!/bin/sh\nprintf 'got'; printf '<%s>' \"$@\"; echo .\n"


@pytest.fixture(scope="session")
def _shells() -> None:
    """Install those that are missing."""
    install({"bash": "bash", "zsh": "zsh", "fish": "fish"})


def _scripts(folder: Path, shell: str) -> dict[str, Path]:
    """As an installed package and a checkout print them."""
    code = {
        "sandkube": "from sandkube.app.main import run; import sys; sys.argv[1:] = {words}; sys.exit(run())",
        "./do": "import runpy, sys; sys.argv[1:] = {words}; runpy.run_module('sandkube', run_name='__main__')",
    }
    made = {}
    for name, text in code.items():
        argv = [sys.executable, "-c", text.format(words=["completion", shell])]
        made[name] = folder / f"{Path(name).name}.{shell}"
        made[name].write_text(subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    return made


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path, _shells: None) -> Iterator[Terminal]:
    """One at a terminal, in a checkout with a cluster, where programs show their words."""
    name: str = request.param
    found = shutil.which(name)
    if not found:
        pytest.skip(f"there is no {name} here, and only root of a Debian can install it")
    for program in (tmp_path / "do", tmp_path / "bin/sandkube"):
        program.parent.mkdir(exist_ok=True)
        program.write_text(SHOWS)
        program.chmod(0o755)
    for each in ("outputs/clusters/theirs", "state/sandkube/clusters/mine", "recipes"):
        (tmp_path / each).mkdir(parents=True)
    (tmp_path / "recipes/kubectl.toml").touch()
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    env["XDG_STATE_HOME"] = str(tmp_path / "state")
    with terminal([found, *SHELLS[name]], cwd=tmp_path, env=env) as one:
        for script in _scripts(tmp_path, name).values():
            one.type(LOAD[name].format(script=script))
        one.type("sandkube ready\r")
        one.until(b"got<ready>.")
        yield one


TYPED = {
    "sandkube shell-c\t": "shell-cluster",
    "sandkube stop-cluster --name m\t": "stop-cluster,--name,mine",
    "sandkube run-cluster --sandbox confined-\t": "run-cluster,--sandbox,confined-legacy",
    "sandkube run-cluster --time\t5": "run-cluster,--timeout,5",
    "sandkube completion zs\t": "completion,zsh",
    "./do build kub\t": "build,kubectl",
    "./do kubectl --name \t": "kubectl,--name,theirs",
    "./do cache qu\t": "cache,quarantine",
}


def test_a_key_completes(shell: Terminal) -> None:
    for typed, words in TYPED.items():
        shell.type(f"{typed}\r")
        said = shell.until(b">.").decode()
        found = said[said.rindex("got<") + 4 : -2].replace("><", ",").replace("=", ",")
        assert found == words
