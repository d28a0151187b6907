"""The launcher: its two walls, death with its parent, and a sentence where the machine refuses."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sandkube.cluster import enter, sandbox
from sandkube.errors import UserError
from tests import confined as places

ROOT = Path(__file__).resolve().parents[2]
PREFIX = [sys.executable, "-I", "-S", enter.__file__]


def launch(*words: str, parent: int = 0) -> subprocess.CompletedProcess[str]:
    words = ("namespaces", str(parent), *words)
    return subprocess.run([*PREFIX, *words], capture_output=True, text=True, check=False)


def forbidden(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the launcher where namespaces are forbidden."""
    command = [*places.words(places.NO_NAMESPACES), *PREFIX, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_program_is_root_of_its_own_mounts() -> None:
    code = "import os; print(os.geteuid(), os.readlink('/proc/self/ns/mnt'))"
    user, mounts = launch(sys.executable, "-c", code).stdout.split()
    assert user == "0"
    assert mounts != str(Path("/proc/self/ns/mnt").readlink())


def test_its_mounts_stay_inside(tmp_path: Path) -> None:
    code = f"import ctypes; assert ctypes.CDLL(None).mount(b't', {os.fsencode(tmp_path)!r}, b'tmpfs', 0, None) == 0"
    done = launch(sys.executable, "-c", f"{code}; open({str(tmp_path / 'x')!r}, 'w')")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_ends_at_once_when_its_parent_is_gone() -> None:
    assert launch("/bin/sh", "-c", "exit 5", parent=os.getpid()).returncode == 5
    assert launch("/bin/sh", "-c", "exit 5", parent=1 << 22).returncode == 137


def test_a_missing_program_is_a_sentence() -> None:
    assert launch("/no/such").stderr == "/no/such: No such file or directory\n"


def test_a_machine_that_forbids_namespaces() -> None:
    done = forbidden("namespaces", "0", "/bin/true")
    assert (done.returncode, done.stderr) == (
        enter.REFUSED,
        "no namespaces for the sandbox: user namespace: No space left on device\n",
    )


CHOOSE = """\
from sandkube.cluster import sandbox
from sandkube.errors import UserError
try: print(sandbox.refused())
except UserError as error: print(error)
"""


def test_what_a_place_refuses_is_found_out_without_a_trace() -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    assert sandbox.refused() == ""
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_where_namespaces_are_forbidden() -> None:
    command = [*places.words(places.NO_NAMESPACES), sys.executable, "-c", CHOOSE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "user namespaces: No space left on device\n", done.stderr


# Refuses one system call, by its number; 155 is pivot_root(2): as Docker's profile for a root with CAP_SYS_ADMIN,
# which allows mounts.
WITHOUT = """\
import ctypes, struct, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def rule(code, jt, jf, k): return struct.pack("HBBI", code, jt, jf, k)
program = rule(0x20, 0, 0, 0) + rule(0x15, 0, 1, int(sys.argv[1]))
program += rule(6, 0, 0, 0x00050001) + rule(6, 0, 0, 0x7FFF0000)  # SECCOMP_RET_ERRNO, EPERM; SECCOMP_RET_ALLOW
buffer = ctypes.create_string_buffer(program)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, ctypes.byref(Program(4, ctypes.addressof(buffer)))) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


def without(call: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command where a system call is refused."""
    command = [sys.executable, "-c", WITHOUT, str(call), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_where_only_the_root_cannot_be_changed() -> None:
    assert without(155, sys.executable, "-c", CHOOSE).stdout == "pivot_root: Operation not permitted\n"


def test_where_nothing_may_be_traced_no_sandbox_runs() -> None:
    assert without(101, sys.executable, "-c", CHOOSE).stdout == (
        "no sandbox can run here: processes may not be traced (Operation not permitted)\n"
        "  hint: allow it: docker run --cap-add SYS_PTRACE, or a kernel.yama.ptrace_scope of 1 or 0\n"
    )


def test_what_a_place_gives_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "refused", lambda: "")
    assert sandbox.choose("") == ("modern", "")
    assert sandbox.choose("legacy") == ("legacy", "")
    monkeypatch.setattr(sandbox, "refused", lambda: "mount: Operation not permitted")
    kind, said = sandbox.choose("")
    assert kind == "confined"
    assert said.startswith("no namespaces here (mount: Operation not permitted): the sandbox is confined. ")
    assert sandbox.choose("confined-legacy")[0] == "confined-legacy"


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("modern", "--sandbox confined needs none"),
        ("legacy", "--sandbox confined-legacy needs none"),
        ("legacy-9p", "--sandbox confined or confined-legacy needs none"),
    ],
)
def test_a_kind_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, wanted: str, hint: str) -> None:
    monkeypatch.setattr(sandbox, "refused", lambda: "mount: Operation not permitted")
    with pytest.raises(UserError) as caught:
        sandbox.choose(wanted)
    assert str(caught.value) == (
        f"--sandbox {wanted} needs namespaces, and this place refuses them (mount: Operation not permitted)\n"
        f"  hint: {hint}"
    )


def confined(code: str, *reach: str) -> subprocess.CompletedProcess[str]:
    """Run Python code behind the wall of a confined sandbox, with what Python needs and `reach`."""
    own = ("--execute", "/usr", "--execute", "/lib", "--execute", "/lib64", "--execute", sys.base_prefix)
    words = [*PREFIX, "confined", "0", *own, "--read", "/proc", *reach, sys.executable, "-I", "-S", "-c", code]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_behind_the_wall_no_privilege_is_gained() -> None:
    for words in (("confined", "0"), ("confined", "0", "--execute", "/")):
        done = subprocess.run(
            [*PREFIX, *words, "/bin/grep", "NoNewPrivs", "/proc/self/status"], capture_output=True, text=True
        )
        assert re.fullmatch(r"NoNewPrivs:\s+1\n", done.stdout), done.stderr


needs_landlock = pytest.mark.skipif(enter.landlock() == 0, reason="this kernel has no Landlock, or it is off")


@needs_landlock
def test_behind_the_wall_are_the_files_that_were_named(tmp_path: Path) -> None:
    for name in ("mine", "read", "written"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    code = f"""
def tried(path, mode):
    try:
        with open(path, mode) as file:
            return file.read() if mode == "r" else str(file.write("x"))
    except OSError as error:
        return error.strerror
for name in ("mine", "read", "written"):
    print(name, tried("{tmp_path}/" + name + "/file", "r"), tried("{tmp_path}/" + name + "/new", "w"), sep=": ")
"""
    done = confined(code, "--read", str(tmp_path / "read"), "--write", str(tmp_path / "written"), "--read", "/nowhere")
    assert done.stdout.splitlines() == [
        "mine: Permission denied: Permission denied",
        "read: read: Permission denied",
        "written: written: 1",
    ], done.stderr


@needs_landlock
def test_behind_the_wall_nobody_else_is_traced_or_signalled() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"""
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def tried(what):
    try:
        return what()
    except OSError as error:
        return error.strerror
def attach():
    if libc.ptrace(16, {os.getpid()}, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
print(tried(attach))
print({enter.landlock()} < 6 or tried(lambda: os.kill({os.getpid()}, 0)))
print({enter.landlock()} < 4 or tried(lambda: socket.create_connection(("127.0.0.1", {port}))))
"""
        done = confined(code)
    said = ["Operation not permitted", "Operation not permitted", "Permission denied"]
    expected = [said[0], said[1] if enter.landlock() >= 6 else "True", said[2] if enter.landlock() >= 4 else "True"]
    assert done.stdout.splitlines() == expected, done.stderr
