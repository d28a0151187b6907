"""Remote execution without an engine that runs anything: what is sent, what is believed, what is said when it fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from sandkube.build.box import CACHE, IN, OUT, SRC, ZIG, Box, Call, Mount
from sandkube.build.remote import address, execution, wire
from sandkube.build.remote.kind import USER_NAMESPACES
from sandkube.build.remote.merkle import Digest, File, Folder, Impossible, Trees, read_folder
from sandkube.build.remote.stubs.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from sandkube.build.remote.worker import Remote, command
from sandkube.errors import RunRefused, UserError
from sandkube.run import Finished
from tests import stubs
from tests.remotes import Engine, serving

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with serving(Engine()) as one:
        yield one


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(execution, "PAUSES", (0.0, 0.0, 0.0))


class Here:
    """Stands for the build sandbox of this machine."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def run(self, call: Call, **_how: object) -> Finished:
        self.calls.append(call)
        return Finished(tuple(call.command), 0, b"here")


def remote(engine: Engine, environment: Mapping[str, str] | None = None) -> Remote:
    return Remote(address.parse(engine.address), (), environment or {})


def box(engine: Engine, tmp_path: Path, here: Here | None = None) -> Box:
    return remote(engine).box("step", lambda: contextlib.nullcontext(here or Here()), tmp_path / "log")


def work(folder: Path) -> Call:
    """A call with an input, a source and an output, and what compilers keep."""
    for name in ("in/bin", "src/a", "src/b", "out", "cache"):
        (folder / name).mkdir(parents=True)
    (folder / "in/bin/tool").write_bytes(b"tool")
    (folder / "in/bin/tool").chmod(0o555)
    (folder / "src/a/kept").write_bytes(b"kept")
    (folder / "src/b/gone").write_bytes(b"gone")
    (folder / "cache/old").write_bytes(b"old")
    mounts = [
        Mount(folder / "in", f"{IN}/tool"),
        Mount(folder / "src", SRC, writable=True),
        Mount(folder / "out", OUT, writable=True),
        Mount(folder / "cache", CACHE, writable=True),
        Mount(folder / "cache", ZIG, writable=True),
    ]
    return Call([f"{IN}/tool/bin/tool", "a b"], mounts, {"B": "2", "A": "1"}, SRC)


def run(one: Box, call: Call, log: Path, *, check: bool = True) -> Finished:
    with log.open("wb") as sink:
        return one.run(call, log=sink, capture=True, check=check)


def leaves(engine: Engine, before: Path, status: int = 4) -> Folder:
    """Have the engine's worker leave a known state; the source of it."""
    kept = read_folder(before / "src/a").files["kept"]
    source = Folder(
        {"new": File(Digest.of(b"new"), True, b"new")},
        {"b": "a/kept"},
        {"a": Folder({"kept": File(kept.digest, True, b"kept")})},
    )
    output = Folder({"big": File(Digest.of(b"x" * 5000), False, b"x" * 5000)}, {}, {"empty": Folder()})

    def ended(asked: api.Command, _root: str) -> api.ActionResult:
        if asked.arguments[0] == "/probe":
            return api.ActionResult()
        made = api.ActionResult(exit_code=status, stdout_raw=b"out", stderr_digest=engine.put(b"err\n"))
        made.output_directories.extend([engine.folder("../src", source), engine.folder("../out", output)])
        return made

    engine.run = ended
    return source


@pytest.mark.parametrize("tree_form", [True, False])
@pytest.mark.parametrize("batch", [0, 1500])
def test_what_a_worker_left_is_here_afterwards(engine: Engine, tmp_path: Path, *, tree_form: bool, batch: int) -> None:
    """Whatever form it is told in, and by whichever way blobs come."""
    call = work(tmp_path)
    engine.tree_form, engine.batch = tree_form, batch
    leaves(engine, tmp_path)
    before = (tmp_path / "src/a/kept").stat()
    done = run(box(engine, tmp_path), call, tmp_path / "log", check=False)
    assert (done.status, done.stdout) == (4, b"out")
    assert (tmp_path / "log").read_text() == f"$ {call.text()}\nerr\n"
    assert sorted(str(each.relative_to(tmp_path)) for each in (tmp_path / "src").rglob("*")) == [
        *("src/a", "src/a/kept", "src/b", "src/new"),
    ]
    assert os.readlink(tmp_path / "src/b") == "a/kept"  # noqa: PTH115
    assert (tmp_path / "src/new").read_bytes() == b"new"
    assert (tmp_path / "src/new").stat().st_mode & 0o777 == 0o755
    after = (tmp_path / "src/a/kept").stat()
    assert (after.st_ino, after.st_mode & 0o777) == (before.st_ino, 0o755)  # what stayed was not fetched
    assert (tmp_path / "out/big").read_bytes() == b"x" * 5000
    assert (tmp_path / "out/empty").is_dir()
    assert (tmp_path / "cache/old").read_bytes() == b"old"
    assert ("Read" in engine.asked) is bool(batch)


def test_an_action_is_the_same_wherever_it_is_made(engine: Engine, tmp_path: Path) -> None:
    """So that its result is found again: no host path, user, time or cache is in it."""
    for name in ("one", "two"):
        call = work(tmp_path / name)
        (tmp_path / name / "cache" / name).write_text(name)
        os.utime(tmp_path / name / "src/a/kept", (len(name), 1))
        run(box(engine, tmp_path), call, tmp_path / "log")
    assert engine.asked.count("Execute") == 4
    assert len(engine.results) == 2  # the probe, and this one
    asked = command(call)
    assert [each.name for each in asked.environment_variables][:3] == ["A", "B", "HOME"]
    assert list(asked.output_paths) == ["../out", "../src"]
    assert {each.name: each.value for each in asked.platform.properties} == {"ISA": "x86-64", "OSFamily": "linux"}


def test_what_is_there_is_not_sent_again(engine: Engine, tmp_path: Path) -> None:
    one = remote(engine)
    for _ in range(2):
        call = work(tmp_path / "work")
        run(one.box("step", lambda: pytest.fail(), tmp_path / "log"), call, tmp_path / "log")
        sent, engine.asked = engine.asked, []
        shutil.rmtree(tmp_path / "work")
    assert sent == ["Execute"]
    assert [*one.report()] == [
        f"remote engine {engine.address}: 2 commands run, 1 known to its action cache, 0.0 MB sent, 0.0 MB received"
    ]


def test_an_input_root_is_what_a_command_is_shown(tmp_path: Path) -> None:
    root = Trees().root(work(tmp_path).mounts)
    names = {name: type(node).__name__ for name, node in root.walk()}
    assert [each for each in names if each.count("/") < 2] == [
        *("tmp", "sandkube", "sandkube/in", "sandkube/src", "sandkube/out", "sandkube/cache", "sandkube/zig"),
    ]
    assert root.at(("sandkube", "cache")).data == b""
    assert root.at(("sandkube", "in", "tool", "bin")).files["tool"].executable
    assert Folder().digest == Digest("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0)


@pytest.mark.parametrize("name", [b"\xff", "fifo"])
def test_what_no_input_root_can_hold_runs_here(
    engine: Engine, tmp_path: Path, name: bytes | str, capsys: pytest.CaptureFixture[str]
) -> None:
    call, here = work(tmp_path), Here()
    path = os.path.join(os.fsencode(tmp_path / "src"), os.fsencode(name))  # noqa: PTH118
    os.mkfifo(path)
    assert run(box(engine, tmp_path, here), call, tmp_path / "log").stdout == b"here"
    assert here.calls == [call]
    assert "step: workers cannot run a command of it, so that runs here: it is shown " in capsys.readouterr().err
    with pytest.raises(Impossible):
        read_folder(tmp_path / "src")


def test_absolute_links_run_here_where_an_engine_takes_none(engine: Engine, tmp_path: Path) -> None:
    call, here = work(tmp_path), Here()
    (tmp_path / "in/link").symlink_to("/etc")
    run(box(engine, tmp_path, here), call, tmp_path / "log")
    assert not here.calls
    engine.absolute_links = False
    run(box(engine, tmp_path, here), call, tmp_path / "log")
    assert here.calls == [call]


def test_a_failure_that_was_cached_is_tried_again(engine: Engine, tmp_path: Path) -> None:
    """It may have been the worker's."""
    call = work(tmp_path)
    codes = iter([0, 1, 0, 0])
    engine.run = lambda *_: api.ActionResult(exit_code=next(codes))
    assert run(box(engine, tmp_path), call, tmp_path / "log", check=False).status == 1
    codes = iter([0, 0])
    assert run(box(engine, tmp_path), call, tmp_path / "log", check=False).status == 0


def test_a_stream_that_breaks_is_taken_up_again(engine: Engine, tmp_path: Path) -> None:
    one = remote(engine)
    one.open()
    engine.cuts, engine.asked = 2, []
    engine.stages = [api.ExecutionStage.QUEUED, api.ExecutionStage.EXECUTING]
    run(one.box("step", lambda: pytest.fail(), tmp_path / "log"), work(tmp_path), tmp_path / "log")
    assert [each for each in engine.asked if "xec" in each] == ["Execute", "WaitExecution", "WaitExecution"]


def test_inputs_that_were_dropped_are_sent_again(engine: Engine, tmp_path: Path) -> None:
    one = remote(engine)
    one.open()
    response = api.ExecuteResponse()
    response.status.code = 9
    engine.ends = [response]
    run(one.box("step", lambda: pytest.fail(), tmp_path / "log"), work(tmp_path), tmp_path / "log")
    assert engine.asked.count("FindMissingBlobs") == 3


UNAVAILABLE, INTERNAL = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    "method", ["GetCapabilities", "FindMissingBlobs", "BatchUpdateBlobs", "Execute", "BatchReadBlobs", "Read", "Write"]
)
def test_a_fault_that_passes_costs_nothing(engine: Engine, tmp_path: Path, method: str) -> None:
    call = work(tmp_path)
    (tmp_path / "src/big").write_bytes(b"y" * 5000)
    engine.batch = 1500
    leaves(engine, tmp_path)
    engine.faults = {method: [UNAVAILABLE] * 2}
    assert run(box(engine, tmp_path), call, tmp_path / "log", check=False).status == 4
    assert engine.faults == {method: []}
    assert (tmp_path / "out/big").read_bytes() == b"x" * 5000


def test_a_transfer_that_breaks_in_the_middle_begins_anew(engine: Engine, tmp_path: Path) -> None:
    call = work(tmp_path)
    engine.batch = 1500
    leaves(engine, tmp_path)
    engine.faults = {"Read in the middle": [UNAVAILABLE]}
    run(box(engine, tmp_path), call, tmp_path / "log", check=False)
    assert (tmp_path / "out/big").read_bytes() == b"x" * 5000


SENTENCES = {
    UNAVAILABLE: "cannot be reached: {method} has a fault",
    grpc.StatusCode.UNAUTHENTICATED: "lets us not in: {method} has a fault",
    INTERNAL: "refuses: INTERNAL: {method} has a fault",
}


@pytest.mark.parametrize("code", SENTENCES)
@pytest.mark.parametrize("method", ["GetCapabilities", "FindMissingBlobs", "Execute", "BatchReadBlobs"])
def test_a_fault_that_stays_is_a_sentence(engine: Engine, tmp_path: Path, method: str, code: grpc.StatusCode) -> None:
    call = work(tmp_path)
    leaves(engine, tmp_path)
    engine.faults = {method: [code] * 4}
    with pytest.raises(RunRefused) as refused:
        run(box(engine, tmp_path), call, tmp_path / "log", check=False)
    assert refused.value.message == f"the remote engine {engine.address} {SENTENCES[code].format(method=method)}"


def test_nothing_listens_there(tmp_path: Path) -> None:
    with serving(Engine()) as one:
        pass
    with pytest.raises(RunRefused, match=f"the remote engine {one.address} cannot be reached: ") as refused:
        run(box(one, tmp_path), work(tmp_path), tmp_path / "log")
    assert "is it up; " in str(refused.value.hint)


@pytest.mark.parametrize("batch", [0, 100])
@pytest.mark.parametrize("twist", [lambda data: data[:-1], lambda data: data + b"!", lambda data: data[::-1] + b""])
def test_other_bytes_than_those_named_are_refused(engine: Engine, tmp_path: Path, twist: object, batch: int) -> None:
    call = work(tmp_path)
    engine.batch = batch
    leaves(engine, tmp_path)
    engine.twist = twist  # type: ignore[assignment]
    with pytest.raises(RunRefused, match="sent other bytes than it named: expected ") as refused:
        run(box(engine, tmp_path), call, tmp_path / "log", check=False)
    assert refused.value.hint == "nothing of it was used; run again, or without --remote"


def test_a_result_that_is_gone_is_a_sentence(engine: Engine, tmp_path: Path) -> None:
    call = work(tmp_path)
    leaves(engine, tmp_path, 0)
    one = box(engine, tmp_path)
    run(one, call, tmp_path / "log", check=False)
    del engine.blobs[Digest.of(b"new").hash]
    call = work(tmp_path / "again")
    with pytest.raises(RunRefused, match="does not have .*, which it names as a result: not found"):
        run(box(engine, tmp_path), call, tmp_path / "log", check=False)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "a\0b", "/etc"])
@pytest.mark.parametrize("kind", ["files", "symlinks", "directories"])
def test_names_that_lead_out_are_refused(engine: Engine, tmp_path: Path, name: str, kind: str) -> None:
    call = work(tmp_path)
    root = api.Directory()
    node = getattr(root, kind).add(name=name)
    if kind == "symlinks":
        node.target = "x"
    else:
        node.digest.CopyFrom(engine.put(b""))
    made = api.OutputDirectory(path="../src", tree_digest=engine.put(api.Tree(root=root).SerializeToString()))
    engine.run = lambda *_: api.ActionResult(output_directories=[made])
    with pytest.raises(RunRefused, match="names a tree as a result that cannot be: "):
        run(box(engine, tmp_path), call, tmp_path / "log")


@pytest.mark.parametrize("form", ["tree", "root"])
def test_a_tree_that_is_none_is_refused(engine: Engine, tmp_path: Path, form: str) -> None:
    made = api.OutputDirectory(path="../src")
    which = made.tree_digest if form == "tree" else made.root_directory_digest
    which.CopyFrom(engine.put(b"\xff\xff\xff"))
    engine.run = lambda *_: api.ActionResult(output_directories=[made])
    with pytest.raises(RunRefused, match="names a tree as a result that cannot be: "):
        run(box(engine, tmp_path), work(tmp_path), tmp_path / "log")


def test_an_engine_that_runs_nothing(engine: Engine, tmp_path: Path) -> None:
    engine.executes = False
    with pytest.raises(RunRefused, match="runs nothing"):
        run(box(engine, tmp_path), work(tmp_path), tmp_path / "log")


def test_workers_that_show_no_input_root_as_root(engine: Engine, tmp_path: Path) -> None:
    engine.run = lambda *_: api.ActionResult(exit_code=127)
    with pytest.raises(RunRefused, match="its workers do not show an input root as /"):
        run(box(engine, tmp_path), work(tmp_path), tmp_path / "log")


@pytest.mark.parametrize(("status", "here"), [(0, False), (2, True)])
def test_what_workers_lack_runs_here(
    engine: Engine, tmp_path: Path, status: int, *, here: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the recipe says what its commands need."""
    engine.run = lambda asked, _: api.ActionResult(exit_code=status if asked.arguments[0] == "/probe" else 0)
    sandbox = Here()
    one = remote(engine).box("step", lambda: contextlib.nullcontext(sandbox), tmp_path / "log", [USER_NAMESPACES])
    run(one, work(tmp_path), tmp_path / "log")
    assert bool(sandbox.calls) is here
    said = "that runs here: its recipe needs user namespaces, and workers have none"
    assert (said in capsys.readouterr().err) is here


def test_workers_with_a_network_are_warned_of(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.run = lambda *_: api.ActionResult(exit_code=1)
    remote(engine).open()
    assert f"warning: the remote engine {engine.address}: its workers reach a network; " in capsys.readouterr().err


def test_a_deadline_ends_the_wait_and_the_operation(engine: Engine) -> None:
    engine.silent, engine.stages = True, [api.ExecutionStage.QUEUED]
    one = remote(engine, {"SANDKUBE_REMOTE_TIMEOUT": "1"})
    with pytest.raises(RunRefused, match="did not end a command in time"):
        one.open()
    assert engine.cancelled == ["operations/0"]


def test_an_engine_that_falls_silent_is_noticed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "PULSE", 0.2)
    engine.silent, engine.stages = True, [api.ExecutionStage.QUEUED]
    engine.faults["GetCapabilities"] = []
    threading.Timer(1.0, lambda: engine.faults["GetCapabilities"].extend([UNAVAILABLE] * 9)).start()
    with pytest.raises(RunRefused, match="does not answer any more"):
        remote(engine).open()


@pytest.mark.parametrize("text", ["0", "x", "-1", "1.5", "²"])
def test_a_deadline_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="SANDKUBE_REMOTE_TIMEOUT takes a number of seconds from 1 on, not"):
        Remote(address.parse("grpc://127.0.0.1:1"), (), {"SANDKUBE_REMOTE_TIMEOUT": text})


def test_no_password_is_sent_where_all_can_read_it(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login bearer password secret\n")
    remote(engine, {"NETRC": str(tmp_path / "netrc")}).open()
    assert engine.shown == []
    secure = Remote(address.parse("grpcs://127.0.0.1:1"), (), {"NETRC": str(tmp_path / "netrc")})
    assert secure.engine.wire.metadata == [("authorization", "Bearer secret")]


@pytest.mark.parametrize(
    ("text", "target", "instance", "secure"),
    [
        ("grpc://example.org:50051", "dns:///example.org:50051", "", False),
        ("grpcs://example.org/team/main", "dns:///example.org:443", "team/main", True),
        ("grpc://[::1]:80/", "dns:///[::1]:80", "", False),
    ],
)
def test_addresses(text: str, target: str, instance: str, *, secure: bool) -> None:
    one = address.parse(text)
    assert (one.target, one.instance, one.secure) == (target, instance, secure)


@pytest.mark.parametrize(
    "text", ["", "example.org:1", "http://a:1", "grpc://", "grpc://a:0", "grpc://a:x", "grpc://a?b", "grpc://a\n:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UserError, match="is no address of a remote engine"):
        address.parse(text)


def test_a_credential_in_an_address_is_not_shown() -> None:
    with pytest.raises(UserError) as refused:
        address.parse("grpc://me:secret@example.org:1")
    assert "secret" not in str(refused.value)


def test_nothing_of_it_is_imported_unless_it_is_asked_for() -> None:
    code = (
        "import sys; from sandkube.cli import build, checkout, building, main; checkout.realiser(); "
        "print(sorted(each for each in sys.modules if each.split('.')[0] in ('grpc', 'google')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_grpcio_it_is_a_sentence() -> None:
    code = (
        "import sys; sys.modules['grpc'] = None; from sandkube.cli import checkout\n"
        "try: checkout.remote('grpc://127.0.0.1:1')\nexcept Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("hint: ./do installs requirements-remote.txt for it\n")


def test_stubs_are_those_of_the_protos(tmp_path: Path) -> None:
    """`python -m tests.stubs` makes them anew."""
    stubs.generate(tmp_path)
    made, kept = (
        {path.relative_to(base): path.read_text() for kind in ("*.py", "*.pyi") for path in base.rglob(kind)}
        for base in (tmp_path, stubs.REMOTE / "stubs")
    )
    assert made == kept
