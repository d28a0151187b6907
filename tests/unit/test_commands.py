"""The commands around a cluster, as typed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sandkube import commands
from sandkube.cluster.place import Place, State, birth, boot_id, place


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A cluster whose supervisor is this process."""
    monkeypatch.setattr(commands, "OUTPUTS", tmp_path)
    made = place(tmp_path, "dev")
    made.logs.mkdir(parents=True)
    (made.logs / "kubelet.log").write_text("one\ntwo\nthree\n")
    made.write(State("running", os.getpid(), birth(os.getpid()), boot_id(), "sandkube-1", 1.0, port=1234))
    return made


def test_status_is_a_table(one: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.Status().parse_execute([]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "STATE", "AGE", "NODE", "API", "MEMORY", "FOLDER"]
    assert re.fullmatch(r"dev\s+running\s+\S+\s+runsc\s+https://127\.0\.0\.1:1234\s+\d+ MB\s+\S+/clusters/dev\s*", line)


def test_status_without_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "OUTPUTS", tmp_path)
    assert commands.Status().parse_execute([]) == 0
    assert capsys.readouterr().out == "no cluster; ./do run-cluster starts one\n"


@pytest.mark.parametrize(
    "words",
    [
        ["kubelet", "--name", "dev", "--lines", "2"],
        ["--name=dev", "kubelet", "-n", "2"],
        ["-n2", "--name", "dev", "kubelet"],
    ],
)
def test_logs_takes_options_in_any_place(one: Place, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert commands.Logs().parse_execute(words) == 0
    assert capsys.readouterr().out == "two\nthree\n"


def test_logs_lists_components(one: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.Logs().parse_execute(["--name", "dev"]) == 0
    assert capsys.readouterr().out == "kubelet\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["kubelt", "--name", "dev"],
            "error: cluster dev has no component 'kubelt'\n  hint: there are: kubelet\n",
        ),
        ([], "error: there is no cluster default\n  hint: ./do status lists them\n"),
        (["a", "b", "--name", "dev"], "error: logs shows one component at a time\n"),
    ],
)
def test_logs_says_what_is_wrong(one: Place, capsys: pytest.CaptureFixture[str], words: list[str], text: str) -> None:
    assert commands.Logs().parse_execute(words) == 1
    assert capsys.readouterr().err == text


@pytest.mark.parametrize("command", [commands.ShellCluster, commands.KubectlCommand])
def test_access_needs_a_running_cluster(
    one: Place, capsys: pytest.CaptureFixture[str], command: type[commands.ShellCluster]
) -> None:
    assert command().parse_execute(["--name", "other"]) == 1
    assert capsys.readouterr().err == "error: cluster other is not running\n  hint: ./do run-cluster --name other\n"


def test_what_the_machine_refuses_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> int:
        raise PermissionError(13, "Permission denied", "/nowhere")

    assert commands.guarded(refuse) == 1
    assert capsys.readouterr().err == "error: /nowhere: Permission denied\n"


def test_stop_without_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "OUTPUTS", tmp_path)
    assert commands.StopCluster().parse_execute(["--all"]) == 0
    assert capsys.readouterr().out == "no cluster to stop\n"
    assert commands.StopCluster().parse_execute([]) == 1
    assert capsys.readouterr().err == "error: there is no cluster default\n  hint: ./do status lists them\n"
