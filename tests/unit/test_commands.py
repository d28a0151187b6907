"""The commands around a cluster, as typed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from doit.exceptions import TaskFailed
from doit.task import Task

from sandkube.app.expose import Expose
from sandkube.app.guard import guarded
from sandkube.app.kubeconfig import KubeconfigVerb
from sandkube.app.kubectl import KubectlCommand
from sandkube.app.list_clusters import ListClusters
from sandkube.app.logs import Logs
from sandkube.app.shell_cluster import ShellCluster
from sandkube.app.status import Status
from sandkube.app.stop_cluster import StopCluster
from sandkube.app.verb import Verb
from sandkube.cli import checkout
from sandkube.cli.building import Checkout
from sandkube.cli.main import Main
from sandkube.cli.tasks import Command
from sandkube.cluster import programs
from sandkube.cluster.place import Place, State, birth, boot_id, place
from sandkube.run import Interrupted

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A cluster whose supervisor is this process."""
    monkeypatch.setattr(checkout, "OUTPUTS", tmp_path)
    made = place(tmp_path, "dev")
    made.logs.mkdir(parents=True)
    (made.logs / "kubelet.log").write_text("one\ntwo\nthree\n")
    (tmp_path / "config.json").write_text('{"root": {"path": "."}, "process": {"args": ["node"]}}')
    programs.Programs(Path("runsc"), tmp_path, Path("kubectl"), "confined").prepare(made)
    made.write(State("running", os.getpid(), birth(os.getpid()), boot_id(), "sandkube-1", 1.0, port=1234))
    return made


def do(kind: type[Verb], words: Sequence[str]) -> int:
    """Run a command as `./do` does; its exit status."""
    home = Checkout(lambda *_words, **_settings: 0, outputs=checkout.OUTPUTS)
    return guarded(lambda: kind(home).parse_execute([*words]))


@pytest.mark.usefixtures("one")
def test_status_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert do(Status, []) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "STATE", "AGE", "SANDBOX", "NODE", "API", "MEMORY", "DATA", "FOLDER"]
    assert re.fullmatch(
        r"dev\s+running\s+\S+\s+confined\s+runsc\s+https://127\.0\.0\.1:1234\s+\d+ MB\s+\S+/clusters/dev\s*", line
    )


def test_status_without_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkout, "OUTPUTS", tmp_path)
    assert do(Status, []) == 0
    assert capsys.readouterr() == ("", "no cluster; ./do run-cluster starts one\n")
    assert do(Status, ["--json"]) == 0
    assert capsys.readouterr() == ("[]\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["kubelet", "--name", "dev", "--lines", "2"],
        ["--name=dev", "kubelet", "-n", "2"],
        ["-n2", "--name", "dev", "kubelet"],
    ],
)
@pytest.mark.usefixtures("one")
def test_logs_takes_options_in_any_place(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert do(Logs, words) == 0
    assert capsys.readouterr().out == "two\nthree\n"


@pytest.mark.usefixtures("one")
def test_logs_lists_components(capsys: pytest.CaptureFixture[str]) -> None:
    assert do(Logs, ["--name", "dev"]) == 0
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
@pytest.mark.usefixtures("one")
def test_logs_says_what_is_wrong(capsys: pytest.CaptureFixture[str], words: list[str], text: str) -> None:
    assert do(Logs, words) == 1
    assert capsys.readouterr().err == text


@pytest.mark.parametrize("command", [ShellCluster, KubectlCommand])
@pytest.mark.usefixtures("one")
def test_access_needs_a_running_cluster(capsys: pytest.CaptureFixture[str], command: type[Verb]) -> None:
    assert do(command, ["--name", "other"]) == 1
    assert capsys.readouterr().err == "error: cluster other is not running\n  hint: ./do run-cluster --name other\n"


def test_what_the_machine_refuses_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> int:
        raise PermissionError(13, "Permission denied", "/no\nwhere")

    assert guarded(refuse) == 1
    assert capsys.readouterr().err == "error: /no\\nwhere: Permission denied\n"


def test_stop_without_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkout, "OUTPUTS", tmp_path)
    assert do(StopCluster, ["--all"]) == 0
    assert capsys.readouterr() == ("", "no cluster to stop\n")
    assert do(StopCluster, []) == 1
    assert capsys.readouterr().err == "error: there is no cluster default\n  hint: ./do status lists them\n"


def run(*words: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE) -> tuple[int, Any, Any]:
    """Run `./do WORDS`; its exit status and what it said on the streams that are pipes, None for the others."""
    command = [sys.executable, "-m", "sandkube", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=stdout, stderr=stderr, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def unread() -> Iterator[int]:
    """The end of a pipe that nobody reads, as after `head`."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("words", [("list",), ("help",), ("status", "--json")])
def test_a_reader_that_has_seen_enough_ends_a_command(unread: int, words: tuple[str, ...]) -> None:
    assert run(*words, stdout=unread) == (128 + signal.SIGPIPE, None, "")


@pytest.mark.parametrize("words", [("lock", "--check"), ("nonsense",)])
def test_so_does_one_of_both_streams(unread: int, words: tuple[str, ...]) -> None:
    assert run(*words, stdout=unread, stderr=unread) == (128 + signal.SIGPIPE, None, None)


def test_a_full_disk_behind_a_stream_is_a_sentence() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        assert run("list", stdout=full.fileno()) == (1, None, "error: standard output: No space left on device\n")
        assert run("nonsense", stderr=full.fileno()) == (1, "", None)


def test_closed_streams_are_none() -> None:
    """No file may get the number of a stream: a program started later would write into it."""
    code = "import runpy, sys; sys.argv[1:] = ['list']; runpy.run_module('sandkube', run_name='__main__')"
    shell = f"exec {shlex.join([sys.executable, '-c', code])} >&- 2>&- <&-"
    assert subprocess.run(["/bin/sh", "-c", shell], cwd=ROOT, check=False).returncode == 0


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Gives what `run` does, of commands that only look at their words, without a process for each."""
    monkeypatch.chdir(ROOT)  # where `./do` runs, and finds its commands

    def run_here(*words: str) -> tuple[int, str, str]:
        status = guarded(lambda: Main(config_filenames=("pyproject.toml",)).run(words))
        return status, *capsys.readouterr()

    return run_here


def test_alone_it_shows_what_there_is(typed: Callable[..., tuple[int, str, str]]) -> None:
    status, table, said = run()
    assert (status, said) == (0, "")
    assert typed() == typed("help") == typed("--help") == typed("-h") == (0, table, "")
    shown = re.findall(r"^  \./do (\S+) +\w", table, re.MULTILINE)
    assert shown[:2] == ["build", "list"]
    assert not {"ignore", "forget", "strace", "dumpdb", "reset-dep", "clean", "tabcompletion", "run"} & {*shown}


@pytest.mark.parametrize("words", [("help", "build"), ("build", "--help"), ("build", "-h"), ("--help", "build")])
def test_help_of_a_command(words: tuple[str, ...], typed: Callable[..., tuple[int, str, str]]) -> None:
    status, page, said = typed(*words)
    assert (status, said) == (0, "")
    assert page.startswith("./do build [NAME ...] [--jobs N] ")
    assert re.findall(r"--([\w-]+)", page.partition("\n")[2]) == [
        *("jobs", "keep-going", "remote", "dry-run", "json", "no-build-sandbox", "offline"),
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["biuld"], "there is no command 'biuld'\n  hint: did you mean ./do build?"),
        (["ignore", "step:base"], "there is no command 'ignore'\n  hint: ./do help"),
        (["step:bundle"], "there is no command 'step:bundle'\n  hint: ./do help"),
        (["build", "--foo"], "build: option --foo not recognized\n  hint: ./do help build"),
        (["list", "--a\nb"], "list: option --a\\nb not recognized\n  hint: ./do help list"),
        (["export-node", "a\nb.zip"], "a\\nb.zip: a node is exported as .tar.gz only"),
        (["build", "-a"], "build: option -a not recognized\n  hint: ./do help build"),
        (["build", "--jobs", "many"], "build: --jobs takes a whole number, not 'many'\n  hint: ./do help build"),
        (["build", "--jobs=0"], "build: --jobs takes a number from 1 on\n  hint: ./do help build"),
        (["build", "nosuch"], "no recipe 'nosuch'\n  hint: ./do list shows what there is"),
        (["run-cluster", "dev"], "run-cluster takes no argument, got 'dev'\n  hint: a name goes with --name"),
        (
            ["run-cluster", "--timeout", "x"],
            "run-cluster: --timeout takes a number, not 'x'\n  hint: ./do help run-cluster",
        ),
        *(
            (
                ["run-cluster", f"--timeout={seconds}"],
                "run-cluster: --timeout takes seconds from 0, which is no limit, to 1000000\n"
                "  hint: ./do help run-cluster",
            )
            for seconds in ("-1", "nan", "inf", "1e7")
        ),
        (["status", "--port", "1"], "status: option --port not recognized\n  hint: ./do help status"),
        *(
            ([*words.split()], f"{words.split()[0]}: {both} exclude each other\n  hint: ./do help {words.split()[0]}")
            for words, both in {
                "lock --check --upgrade x": "--check and --upgrade",
                "lock --upgr=x --check": "--check and --upgrade",
                "stop-cluster --all --name default": "--name and --all",
                "doctor --here --sandbox modern": "--sandbox and --here",
                "run-cluster --in-place --sandbox modern": "--in-place and --sandbox",
                "run-cluster --port 0 --in-place": "--in-place and --port",
            }.items()
        ),
        (["test-fast", "x"], "test-fast does not know 'x'"),
        (["help", "nosuch"], "there is no command 'nosuch'\n  hint: ./do help"),
    ],
)
def test_wrong_words_are_a_sentence(words: list[str], text: str, typed: Callable[..., tuple[int, str, str]]) -> None:
    assert typed(*words) == (1, "", f"error: {text}\n")


@pytest.mark.parametrize(("status", "how"), [(1, "exit status 1"), (130, "exit status 130"), (-9, "signal 9")])
def test_a_task_that_fails_shows_its_command(status: int, how: str) -> None:
    """Quoted for a shell, and no bug of ours whatever the status."""
    code = f"import os; os.kill(os.getpid(), {-status}) if {status} < 0 else os._exit({status})"
    (action,) = Task("test-fast", [Command([sys.executable, "-c", code])], io={"capture": False}).actions
    failure = action.execute()
    assert isinstance(failure, TaskFailed)
    assert failure.get_msg() == (
        f"test-fast: {Path(sys.executable).name}: {how}\n  command: {shlex.join([sys.executable, '-c', code])}\n"
    )


def test_a_bug_is_marked_as_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: dict[str, int]()["x"]) == 2
    assert re.fullmatch(
        r"Traceback .*KeyError: 'x'\nthis is a bug of Sandkube, nothing that you did; please report it "
        r"with the lines above\n",
        capsys.readouterr().err,
        re.DOTALL,
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted()])
def test_interrupted(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> int:
        raise error

    assert guarded(interrupt) == 130
    assert capsys.readouterr().err.startswith("interrupted; ")


def test_a_copy_onto_a_full_disk_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """shutil.copytree gathers what it met as texts."""

    def copy() -> int:
        raise shutil.Error([("/a/x", "/full/x", "[Errno 28] No space left on device: '/full/x'")])

    assert guarded(copy) == 1
    assert capsys.readouterr().err == (
        "error: /full/x: No space left on device\n  hint: free some space on its file system\n"
    )


def test_doit_remembers_nothing() -> None:
    """Neither does it read or write a file, nor does a torn one of former times matter."""
    torn = ROOT / "outputs/.doit.db"
    before = torn.read_bytes() if torn.exists() else None
    torn.parent.mkdir(exist_ok=True)
    torn.write_text("{torn")
    try:
        assert run("build", "nosuch")[0] == 1
        assert run("golden", "nosuch")[0] == 1
        assert torn.read_text() == "{torn"
    finally:
        torn.unlink() if before is None else torn.write_bytes(before)


@pytest.mark.parametrize("name", ["build", "ci", "conformance", "doctor", "export", "export-node", "run-cluster"])
def test_offline_comes_before_all_else(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever a command looks at first, its caches are those that need no network."""
    monkeypatch.setenv(checkout.OFFLINE, "0")
    monkeypatch.setenv("SANDKUBE_CACHE", f"file://{tmp_path} http://127.0.0.1:9")
    checkout.realiser.cache_clear()
    seen: list[str] = []

    def execute(_self: Verb, _params: Any, _words: list[str]) -> int:
        shared = checkout.realiser().shared
        assert shared is not None
        seen.extend(each.setting.address for each in shared.places)
        return 0

    main = Main(config_filenames=("pyproject.toml",))
    verb = main.verb(name, main.get_cmds())
    monkeypatch.setattr(type(verb), "execute", execute)
    try:
        assert verb.parse_execute(["--offline"]) == 0
    finally:
        checkout.realiser.cache_clear()
    assert seen == [f"file://{tmp_path}"]


def test_who_can_be_offline() -> None:
    """All of them are in the test above."""
    main = Main(config_filenames=("pyproject.toml",))
    commands = main.get_cmds()
    found = {name for name in commands if any(each.name == "offline" for each in main.verb(name, commands).options)}
    assert found == {"build", "ci", "conformance", "doctor", "export", "export-node", "run-cluster"}


def test_clusters_for_programs(one: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place(one.folder.parents[1], "other").folder.mkdir()
    assert do(ListClusters, ["-o", "name"]) == 0
    assert capsys.readouterr().out == "dev\nother\n"
    port = {"address": "127.0.0.1", "port": 8080, "network": "tcp", "to": "10.88.0.1:80", "of": "port 80 of the node"}
    one.write_file("ports.json", json.dumps({"ports": [port]}))
    assert do(ListClusters, ["--output=json"]) == 0
    dev, other = json.loads(capsys.readouterr().out)
    assert dev == {
        "name": "dev",
        "state": "running",
        "created": 1.0,
        "sandbox": "confined",
        "nodes": ["runsc"],
        "server": "https://127.0.0.1:1234",
        "context": "sandkube-dev",
        "kubeconfig": str(one.kubeconfig),
        "ports": [port],
        "kept": False,
    }
    assert (other["state"], other["nodes"], other["ports"]) == ("damaged", [], [])
    assert do(ListClusters, []) == 0
    head, line, _ = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "STATE", "NODES", "API", "PORTS"]
    assert line.split() == ["dev", "running", "1", "https://127.0.0.1:1234", "127.0.0.1:8080/tcp"]
    assert do(ListClusters, ["-o", "yaml"]) == 1
    assert (
        capsys.readouterr().err
        == "error: list-clusters: there is no form 'yaml'\n  hint: there are: table, name, json\n"
    )


def test_no_cluster_for_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkout, "OUTPUTS", tmp_path)
    assert do(ListClusters, ["-o", "name"]) == 0
    assert capsys.readouterr() == ("", "no cluster; ./do run-cluster starts one\n")
    assert do(ListClusters, ["-o", "json"]) == 0
    assert capsys.readouterr() == ("[]\n", "")


def test_a_kubeconfig_is_printed_whole(one: Place, capsys: pytest.CaptureFixture[str]) -> None:
    one.write_file("kubeconfig", "apiVersion: v1\nkind: Config\n")
    assert do(KubeconfigVerb, ["--name", "dev"]) == 0
    assert capsys.readouterr() == ("apiVersion: v1\nkind: Config\n", "")
    assert do(KubeconfigVerb, []) == 1
    assert capsys.readouterr().err == "error: cluster default is not running\n  hint: ./do run-cluster --name default\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "error: expose takes one Service\n  hint: ./do help expose\n"),
        (["a", "b"], "error: expose takes one Service\n  hint: ./do help expose\n"),
        (["a", "--port", "70000"], "error: 70000 is not a port\n  hint: choose one up to 65535, or leave --port out\n"),
        (["a/b/c"], "error: expose a/b/c: not of the form SERVICE[:PORT]\n  hint: for example ./do expose web:http\n"),
    ],
)
@pytest.mark.usefixtures("one")
def test_what_is_no_service(capsys: pytest.CaptureFixture[str], words: Sequence[str], text: str) -> None:
    assert do(Expose, ["--name=dev", *words]) == 1
    assert capsys.readouterr().err == text
