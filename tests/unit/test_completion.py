"""Completion scripts: made of the commands' own tables, and what bash makes of them."""

from __future__ import annotations

import getopt
import subprocess
import tomllib
from pathlib import Path

import pytest

from sandkube.app.completion import SHELLS, Completion
from sandkube.app.installed import Installed
from sandkube.app.main import VERBS, _verb
from sandkube.app.options import Option
from sandkube.app.verb import Verb
from sandkube.cli.main import GROUPS, Main
from sandkube.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def completions(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    made = _verb(Installed({"HOME": "/nonexistent"}), "completion")
    assert made.execute({}, [*words]) == 0
    return capsys.readouterr().out


def of_checkout() -> Completion:
    commands = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["doit"]["plugins"]["command"]
    doit = Main(config_filenames=(), extra_config={"COMMAND": commands})
    made = doit.verb("completion", doit.get_cmds())
    assert isinstance(made, Completion)
    return made


def bash(script: str, words: list[str], home: Path, cwd: Path | None = None, **more: str) -> list[str]:
    """What bash would offer for the last of these words, in its order."""
    text = (
        f'{script}\nCOMP_WORDS=("$@") COMP_CWORD=$(($# - 1))\n'
        'function=$(complete -p "${1##*/}") function=${function#*-F }\n${function%% *}\n'
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), **more}
    argv = ["bash", "--norc", "-c", text, "bash", *words]
    done = subprocess.run(argv, env=env, cwd=cwd or home, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1] if done.stdout != "\n" else []


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> str:
    return completions(capsys, "bash")


def clusters(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / "clusters" / name).mkdir(parents=True)
    return folder


def test_commands(script: str, tmp_path: Path) -> None:
    assert bash(script, ["sandkube", ""], tmp_path) == ["help", *VERBS]
    assert bash(script, ["sandkube", "st"], tmp_path) == ["status", "stop-cluster"]
    assert bash(script, ["/a/b/sandkube", "ku"], tmp_path) == ["kubectl", "kubeconfig"]
    assert bash(script, ["sandkube", "nothing", ""], tmp_path) == []


def test_options(script: str, tmp_path: Path) -> None:
    assert bash(script, ["sandkube", "logs", "-"], tmp_path) == ["--name", "-f", "--follow", "-n", "--lines"]
    assert bash(script, ["sandkube", "logs", "--lines", ""], tmp_path) == []
    kinds = ["modern", "legacy", "legacy-9p", "confined", "confined-legacy", "linux"]
    for words in (["--sandbox", ""], ["--sandbox", "="]):
        assert bash(script, ["sandkube", "run-cluster", *words], tmp_path) == kinds
    assert bash(script, ["sandkube", "run-cluster", "--sandbox", "=", "con"], tmp_path) == kinds[3:5]
    assert bash(script, ["sandkube", "kubectl", "--", "-"], tmp_path) == [], "they are kubectl's"
    assert bash(script, ["sandkube", "completion", ""], tmp_path) == [*SHELLS]


def test_names_of_clusters(script: str, tmp_path: Path) -> None:
    """Those of this user, wherever the state is; no name is more than a name."""
    clusters(tmp_path / ".local/state/sandkube", "one", "two", ".staging", "$(touch evil)", "a b")
    offered = ["$(touch evil)", "a b", "one", "two"]
    assert bash(script, ["sandkube", "stop-cluster", "--name", ""], tmp_path) == offered
    assert bash(script, ["sandkube", "stop-cluster", "--name", "=", "t"], tmp_path) == ["two"]
    assert not [*tmp_path.rglob("evil")]
    moved = str(clusters(tmp_path / "state/sandkube", "moved").parent)
    assert bash(script, ["sandkube", "logs", "--name", ""], tmp_path, XDG_STATE_HOME=moved) == ["moved"]
    assert bash(script, ["sandkube", "logs", "--name", "o"], tmp_path, XDG_STATE_HOME="state") == ["one"]
    assert bash(script, ["sandkube", "logs", "--name", ""], tmp_path / "state") == []


@pytest.mark.parametrize("word", ["./do", "../it/do", "~/it/do"])
def test_a_checkout(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the launcher is that was typed, from anywhere."""
    of_checkout().execute({}, ["bash"])
    script, it = capsys.readouterr().out, tmp_path / "it"
    clusters(it / "outputs", "one")
    (it / "recipes").mkdir()
    for name in ("kine.toml", "kubectl.toml", "README"):
        (it / "recipes" / name).touch()

    def ask(*words: str) -> list[str]:
        return bash(script, [word, *words], tmp_path, it)

    assert ask("") == ["help", *(name for names in GROUPS.values() for name in names)]
    assert ask("kubectl", "--name", "") == ["one"]
    assert ask("build", "k") == ask("lock", "--upgrade", "k") == ["kine", "kubectl"]
    assert ask("cache", "p") == ["push", "pull"]
    assert ask("key", "") == ["new", "trust", "revoke", "list"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_known(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = of_checkout()
    made.execute({}, [shell])
    lines = capsys.readouterr().out.splitlines()
    for one in made.others():
        about = " ".join(line for line in lines if f" {one.name}" in line)
        for each in one.options:
            assert (f" -l {each.name} " if shell == "fish" else f"--{each.name}") in about, (one.name, each.name)


def test_values_that_are_taken() -> None:
    """What is offered is what the command knows."""
    for one in of_checkout().others():
        for each in one.options:
            assert isinstance(each, Option)
            if not isinstance(each.values, str):
                assert not each.flag or not each.values
                for value in each.values:
                    assert getopt.gnu_getopt([f"--{each.name}", value], *one.words_of_options())[1] == []


def test_texts_are_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(Verb):
        name = "odd"
        doc_purpose = "it's \\ a: [test] $(touch evil) `touch evil` %s {x}"
        cmd_options = (Option("some", "", doc_purpose), Option("all", False, doc_purpose, "a"))

    home = Installed({"HOME": "/nonexistent"})
    made = Completion(home)
    made.others = lambda: [Odd(home)]
    for shell in SHELLS:
        made.execute({}, [shell])
        text = capsys.readouterr().out
        assert "touch evil" in text or shell == "bash"
        assert "odd:it'\"'\"'s \\\\ a: [test]" in text or shell != "zsh"
        assert "'it\\'s \\\\ a: [test]" in text or shell != "fish"


@pytest.mark.parametrize(("words", "said"), [([], "for which shell?"), (["csh"], "what is 'csh'?")])
def test_shells_that_are_not_known(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Completion(Installed({})).execute({}, words)
    assert (caught.value.message, caught.value.hint) == (f"completion: {said}", "there are: bash, zsh, fish")
