"""What steps run in: forms of the build sandbox and their order, why there is none, and steps without one."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandkube.build.box import CACHE, ENVIRONMENT, IN, OUT, SRC, Call, Mount
from sandkube.build.boxes import probe, refusal
from sandkube.build.boxes.bubblewrap import WHOLE, BoxFailed, Bubblewrap, Form, forms
from sandkube.build.boxes.refusal import Facts
from sandkube.build.boxes.unboxed import Unboxed
from sandkube.errors import RunRefused, UserError
from sandkube.run import CommandFailed
from tests import confined

ROOT = Path(__file__).resolve().parents[2]
WAYS = (
    "or bring outputs/store and outputs/result of a clone that is built (./do export-node packs a node there); "
    "or add --no-build-sandbox, which builds without one and marks what it makes"
)
OPTIONS = "give the container --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
REFUSED = {"user namespaces": errno.EPERM, "mounts": errno.EPERM}


def test_the_whole_form_comes_first_and_user_namespaces_go_last() -> None:
    found = list(forms(user=True, root=True))
    assert len(set(found)) == 16
    assert found[:3] == [WHOLE, Form(network=False), Form(host_name=False)]
    assert [each.user for each in found] == [True] * 8 + [False] * 8
    assert {each.user for each in forms(user=True, root=False)} == {True}
    assert {each.user for each in forms(user=False, root=True)} == {False}
    assert list(forms(user=False, root=False)) == []


def test_the_command_line() -> None:
    box = Bubblewrap(Path("/b"))
    mounts = [Mount(Path("/i"), f"{IN}/i"), Mount(Path("/s"), SRC, writable=True)]
    words = box.argv(Call(["/p", "x"], mounts, {"A": "1"}, SRC))
    text = " ".join(words)
    settings = " ".join(f"--setenv {name} {value}" for name, value in sorted(({**ENVIRONMENT, "A": "1"}).items()))
    assert text == (
        "/b --unshare-ipc --unshare-pid --unshare-uts --unshare-cgroup-try --die-with-parent --new-session --clearenv "
        "--cap-drop ALL --unshare-net --unshare-user --uid 1000 --gid 1000 --hostname sandkube --proc /proc --dev /dev "
        f"--perms 1777 --tmpfs /tmp --ro-bind /i /sandkube/in/i --bind /s /sandkube/src {settings} "
        "--chdir /sandkube/src -- /p x"
    )
    least = " ".join(Bubblewrap(Path("/b"), Form(False, False, False, False)).argv(Call(["/p"])))
    assert re.match(r"\S+ -I -S \S+/boxes/offline.py /b --unshare-ipc ", least)
    assert "--ro-bind /proc /proc --dev /dev" in least
    for word in ("--unshare-net", "--unshare-user", "--uid", "--hostname", "--proc"):
        assert f" {word} " not in least


def test_the_probe_is_a_program(tmp_path: Path) -> None:
    path = tmp_path / "probe"
    path.write_bytes(probe.PROGRAM)
    path.chmod(0o755)
    assert subprocess.run([path], check=False).returncode == 0


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (WHOLE, "build sandbox: whole"),
        (
            Form(proc=False, host_name=False),
            "build sandbox: without a /proc and a host name of its own, refused here; steps see the processes around "
            "them and know this machine's host name; outputs stay the same",
        ),
        (
            Form(user=False),
            "build sandbox: without a user namespace of its own, refused here; steps run as root without "
            "capabilities; outputs stay the same",
        ),
    ],
)
def test_a_form_is_described(form: Form, text: str) -> None:
    assert probe.describe(form) == text


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (
            Facts({"user namespaces": errno.ENOSPC}, {"user/max_user_namespaces": "0"}),
            "no build sandbox can be made: this machine allows no more user namespaces: user.max_user_namespaces is 0\n"
            f"  hint: as root of the machine: sysctl -w user.max_user_namespaces=10000; {WAYS}",
        ),
        (
            Facts({"user namespaces": errno.ENOSPC}, {"user/max_user_namespaces": "99"}),
            "no build sandbox can be made: this machine allows no more user namespaces: "
            "the limit user.max_user_namespaces is reached\n"
            f"  hint: as root of the machine: sysctl -w user.max_user_namespaces=10000; {WAYS}",
        ),
        (
            Facts(REFUSED, {"kernel/unprivileged_userns_clone": "0", "user/max_user_namespaces": "99"}),
            "no build sandbox can be made: this machine allows user namespaces to root only: "
            "kernel.unprivileged_userns_clone is 0\n"
            f"  hint: as root of the machine: sysctl -w kernel.unprivileged_userns_clone=1; {WAYS}",
        ),
        (
            Facts({"mounts": errno.EACCES}, {"kernel/apparmor_restrict_unprivileged_userns": "1"}),
            "no build sandbox can be made: this machine's AppArmor takes the powers in user namespaces away: "
            "kernel.apparmor_restrict_unprivileged_userns is 1\n"
            f"  hint: as root of the machine: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0; {WAYS}",
        ),
        (
            Facts(REFUSED, {"kernel/apparmor_restrict_unprivileged_userns": "1"}, True, "docker-default (enforce)"),
            "no build sandbox can be made: this container refuses user namespaces (Operation not permitted), "
            "mounts (Operation not permitted)\n"
            f"  hint: {OPTIONS} --security-opt apparmor=unconfined (docker), or start it with podman; {WAYS}",
        ),
        (
            Facts({"pivot_root": errno.EPERM}, {}, True),
            "no build sandbox can be made: this container refuses pivot_root (Operation not permitted)\n"
            f"  hint: {OPTIONS} (docker), or start it with podman; {WAYS}",
        ),
        (
            Facts(REFUSED, {}, chroot=True),
            "no build sandbox can be made: this is a chroot, and Linux gives no user namespaces in one\n"
            f"  hint: enter it with systemd-nspawn or as the root of a container; {WAYS}",
        ),
        (
            Facts({}, {}),
            "no build sandbox can be made: bubblewrap fails here, and nothing that it needs is refused: bwrap: odd\n"
            f"  hint: {WAYS.removeprefix('or ')}",
        ),
    ],
)
def test_a_refusal_names_cause_and_ways_out(facts: Facts, text: str) -> None:
    assert str(refusal.sentence(facts, "bwrap: odd")) == text


def test_only_root_has_hope_without_user_namespaces() -> None:
    facts = Facts({"user namespaces": errno.ENOSPC}, {})
    assert (facts.hopeless(root=True), facts.hopeless(root=False)) == (False, True)
    assert Facts({"pivot_root": errno.EPERM}, {}).hopeless(root=True)
    assert not Facts({}, {}).hopeless(root=False)


def test_what_a_place_refuses_is_found_by_trying(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import os; from pathlib import Path; from sandkube.build.boxes import refusal\n"
        f"print(sorted(refusal.find(Path({str(tmp_path)!r})).refused.items()))"
    )

    def found(*before: str) -> str:
        done = subprocess.run([*before, sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert found() == "[]"
    assert found(*confined.words(confined.NO_USER_NAMESPACES)) == f"[('user namespaces', {errno.ENOSPC})]"
    every = ("IPC and host name", "network", "process", "user")
    names = sorted([*(f"{each} namespaces" for each in every), "mounts", "pivot_root"])
    assert found(*confined.words(confined.NO_NAMESPACES)) == str([(each, errno.ENOSPC) for each in names])
    assert found(*confined.words(confined.DOCKER)) == str([(each, errno.EPERM) for each in names])


def test_a_box_that_does_not_start_is_no_failed_command(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho bwrap: No space left on device >&2\nexit 1\n")
    broken.chmod(0o755)
    with (tmp_path / "log").open("wb") as log, pytest.raises(BoxFailed) as failure:
        Bubblewrap(broken).run(Call(["/p"]), log=log, check=False)
    assert str(failure.value) == (
        "the build sandbox, which was there when this run began, could not be started: bwrap: No space left on device\n"
        "  hint: ./do doctor tells what this machine gives; run the same command again, finished steps are kept"
    )


def test_a_bubblewrap_that_may_not_run_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "bwrap").write_text("")
    with pytest.raises(RunRefused) as failure:
        probe.find(tmp_path / "bwrap", tmp_path, root=False)
    assert str(failure.value) == (
        f"{tmp_path}/bwrap may not be executed\n"
        "  hint: outputs/ must be on a file system that is not mounted noexec: clone elsewhere"
    )


def call(tmp_path: Path, script: str, mounts: list[Mount], **more: str) -> str:
    """Run a script of the shell unboxed, at SRC; what it printed."""
    with (tmp_path / "log").open("wb") as log:
        done = Unboxed().run(Call(["/bin/sh", "-c", script], mounts, more, SRC), log=log, capture=True)
    return done.stdout.decode()


def test_paths_inside_become_paths_of_the_host(tmp_path: Path) -> None:
    src, tool, other = tmp_path / "s", tmp_path / "t", tmp_path / "o"
    for folder in (src, tool, other):
        folder.mkdir()
    mounts = [Mount(tool, f"{IN}/go"), Mount(other, f"{IN}/go-client"), Mount(src, SRC, writable=True)]
    script = (
        f"echo -I{SRC}/a={SRC} {IN}/go/x {IN}/go-client {SRC}s /usr{IN}/none; pwd; echo $FLAGS; /usr/bin/env; umask"
    )
    lines = call(tmp_path, script, mounts, FLAGS=f"-L{IN}/go -L{OUT}").splitlines()
    assert lines[0] == f"-I{src}/a={src} {tool}/x {other} {SRC}s /usr{IN}/none"
    assert lines[1:3] == [str(src), f"-L{tool} -L{OUT}"]
    seen = dict(line.split("=", 1) for line in lines[3:-1])
    assert seen["HOME"] == seen["TMPDIR"]
    assert not Path(seen["HOME"]).exists()
    kept = {name: value for name, value in ENVIRONMENT.items() if value != "/tmp"}
    added = {"FLAGS": lines[2], "GODEBUG": "goindex=0", "PWD": str(src), "HOME": seen["HOME"], "TMPDIR": seen["HOME"]}
    assert {name: value for name, value in seen.items() if name != "_"} == kept | added


def test_a_mount_inside_of_another_becomes_a_link(tmp_path: Path) -> None:
    view, module, src = tmp_path / "view", tmp_path / "module", tmp_path / "s"
    for folder in (view / "a@v1", module, src):
        folder.mkdir(parents=True)
    (module / "go.mod").write_text("module a\n")
    mounts = [Mount(view, "/sandkube/mod"), Mount(module, "/sandkube/mod/a@v1"), Mount(src, SRC)]
    for _ in range(2):  # a builder may run two commands with the same mounts
        assert call(tmp_path, "/bin/cat /sandkube/mod/a@v1/go.mod", mounts) == "module a\n"


def test_compilers_keep_what_they_made_unboxed_apart(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    call(tmp_path, f": >{CACHE}/x", [Mount(cache, CACHE, writable=True), Mount(tmp_path, SRC)])
    assert list(cache.iterdir()) == []
    assert (tmp_path / "cache-unboxed/x").exists()


def test_blanks_are_refused_unboxed(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    with pytest.raises(UserError) as failure:
        call(tmp_path, ":", [Mount(tmp_path / "a b", SRC)])
    assert str(failure.value) == (
        f"--no-build-sandbox needs paths without blanks and quotation marks, not {tmp_path}/a b\n"
        "  hint: move the clone, or set XDG_CACHE_HOME"
    )


def test_a_command_that_fails_unboxed(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="^sh: exit status 3$"):
        call(tmp_path, "exit 3", [Mount(tmp_path, SRC)])


def test_nothing_of_the_boxes_is_in_keys() -> None:
    """Builders know `buildbox` only; a test of keys checks that their digests cover what they import."""
    for path in (ROOT / "sandkube/build/builders").glob("*.py"):
        assert "sandkube.build.boxes" not in path.read_text()
