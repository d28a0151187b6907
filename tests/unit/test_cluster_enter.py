"""The launcher: namespaces of its own, death with its parent, and a sentence where the machine refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sandkube.cluster import enter

PREFIX = [sys.executable, "-I", "-S", enter.__file__]

# Root of a user namespace that may make no other, then without powers: as on a machine that forbids both.
FORBIDDEN = """\
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
user, group = os.geteuid(), os.getegid()
assert libc.unshare(0x10000000) == 0
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
    open(f"/proc/self/{name}", "w").write(text)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
assert libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS: exec gives the powers of root back otherwise
for each in range(41):
    libc.prctl(24, each, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.argv[1], sys.argv[1:])
"""


def launch(*words: str, parent: int = 0) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PREFIX, str(parent), *words], capture_output=True, text=True, check=False)


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
    words = [sys.executable, "-c", FORBIDDEN, *PREFIX, "0", "/bin/true"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        enter.REFUSED,
        "no namespaces for the sandbox: user namespace: No space left on device\n",
    )
