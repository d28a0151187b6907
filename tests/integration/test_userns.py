"""userns gives root without the right to mount a user namespace in which it may."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandkube.cluster import cgroups
from sandkube.cluster.processes import tree_of
from sandkube.errors import UserError
from tests.confinement import CAPABILITIES, Confinement
from tests.sanitized import path_of, program

PROGRAM = path_of("userns")
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may map every user")


def userns(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(program("userns")), *words], capture_output=True, text=True, timeout=30)


def in_sh(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return userns(*options, "--", "/bin/sh", "-c", script)


@NEEDS_ROOT
def test_root_of_it_may_mount_and_numbers_stay(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 1234, 4321)
    maps = "cat /proc/self/uid_map /proc/self/gid_map"
    done = in_sh(f"stat -c '%u %g' {tmp_path}/file; {maps}; mount -t tmpfs x {tmp_path} && ls {tmp_path}")
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [["1234", "4321"], *[["0", "0", "4294967294"]] * 2]
    assert (tmp_path / "file").exists(), "the mount is seen inside only"


@NEEDS_ROOT
def test_where_there_are_fewer_numbers_these_stay() -> None:
    """In a container that is in a user namespace itself."""
    done = Confinement(users=True).run(str(PROGRAM), "/bin/cat", "/proc/self/uid_map", "/proc/self/gid_map")
    assert [line.split() for line in done.stdout.splitlines()] == [["0", "0", "1"]] * 2, done.stderr


@NEEDS_ROOT
@pytest.mark.parametrize("where", ["here", "apart"])
def test_a_trial_leaves_everything_as_it_was(where: str, tmp_path: Path) -> None:
    show = "cat /proc/self/mountinfo /proc/sys/net/ipv4/ip_forward; ls -A {}; find /sys/fs/cgroup -type d | sort"
    show = f"{show.format(tmp_path)}; ip -details link || cat /proc/net/dev"
    done = Confinement().run("/bin/sh", "-c", f"{show}; echo ==; {PROGRAM} --try={where} {tmp_path}; echo ==; {show}")
    before, said, after = done.stdout.split("==\n")
    assert (before, said) == (after, "")


@NEEDS_ROOT
def test_the_right_to_mount_is_not_all() -> None:
    done = Confinement((*CAPABILITIES, "SYS_ADMIN")).run(str(PROGRAM), "--try=here", "/tmp")
    assert (done.returncode, done.stderr) == (125, "no right to change the network: Operation not permitted\n")


def test_a_lock_is_that_of_the_open_file(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        numbers = [file.fileno() for file in (first, second)]

        def lock(number: int) -> int:
            return subprocess.run([str(PROGRAM), "--lock", str(number)], pass_fds=numbers, check=False).returncode

        assert [lock(number) for number in numbers] == [0, 125]
        first.close()
        numbers.pop(0)
        assert lock(second.fileno()) == 0


@NEEDS_ROOT
def test_its_network_is_empty_but_for_a_socket_of_ours() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        str(PROGRAM),
        "--listen",
        f"7:{port}",
        "--",
        "/bin/sh",
        "-c",
        "grep -c : /proc/net/dev; echo up; read -r end",
    ]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["1\n", "up\n"], "lo and nothing else"
        assert str(Path(f"/proc/{process.pid}/fd/7").readlink()).startswith("socket:")
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            taken = userns("--listen", f"7:{port}", "--", "/bin/true")
        process.communicate("\n")
    said = taken.stderr.replace("already ", "")  # the word of another libc
    assert (taken.returncode, said) == (125, f"userns: 127.0.0.1:{port}: Address in use\n")


FIRST = (str(PROGRAM), "--first")
WAITS = "echo up; while :; do sleep 0.1; done"


@contextmanager
def started(*words: str, given: Sequence[int] = ()) -> Iterator[subprocess.Popen[str]]:
    """A program that has said that it is up."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, pass_fds=given) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()


def ends(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        assert select.select([descriptor], [], [], 20)[0], f"{pid} goes on"
        os.close(descriptor)


@NEEDS_ROOT
def test_the_first_process_is_alone() -> None:
    show = "echo $$; mount -t proc proc /proc && echo /proc/[0-9]*; hostname there && hostname; grep -c : /proc/net/dev"
    done = userns("--first", "--", "/bin/sh", "-c", f"mount --make-rprivate /; {show}; exit 3")
    first, processes, name, devices = done.stdout.splitlines()
    assert (first, "/proc/1" in processes.split(), name, devices, done.returncode) == ("1", True, "there", "1", 3)
    assert len(processes.split()) == 1
    assert socket.gethostname() != "there"
    assert userns("--first", "/nowhere").returncode == 127
    assert in_sh("kill -KILL $$", "--first").returncode == 0, (
        "the first process is not killed by those of its namespace"
    )


@NEEDS_ROOT
def test_all_of_it_ends_with_it_and_with_the_one_beside_it(tmp_path: Path) -> None:
    orphan = f"sleep 1000 & {WAITS}"
    for victim in ("first", "beside", "parent"):
        with (tmp_path / "note").open("w+") as note:
            words = [*FIRST, f"--note={note.fileno()}", "--", "/bin/sh", "-c", orphan]
            if victim == "parent":
                script = f'exec 7>"$0"; {PROGRAM} --first --note 7 --parent $$ -- /bin/sh -c "$1"; :'
                words = ["/bin/sh", "-c", script, str(tmp_path / "note"), orphan]
            with started(*words, given=[note.fileno()]) as process:
                first = int((tmp_path / "note").read_text())
                below = [pid for pid in tree_of(process.pid) if pid != process.pid]
                assert len(below) >= 2, "the shell, and one that sleeps"
                os.kill(first if victim == "first" else process.pid, signal.SIGKILL)
                for pid in below:
                    ends(pid)
                assert process.wait() == (137 if victim == "first" else -signal.SIGKILL)


@NEEDS_ROOT
def test_another_program_beside_it(tmp_path: Path) -> None:
    with (tmp_path / "note").open("w+") as note:
        words = [*FIRST, "--users", f"--note={note.fileno()}", "--", "/bin/sh", "-c", f"hostname there; {WAITS}"]
        with started(*words, given=[note.fileno()]):
            first = (tmp_path / "note").read_text().strip()
            done = in_sh(
                "hostname; mount -t proc proc /proc && readlink /proc/self/ns/user; exit 4", f"--beside={first}"
            )
            its = Path(f"/proc/{first}/ns/user").readlink()
    assert (done.returncode, done.stdout.splitlines()) == (4, ["there", str(its)]), done.stderr


@NEEDS_ROOT
def test_a_signal_is_passed_on_and_one_that_is_not_heeded_kills() -> None:
    with started(*FIRST, "--", "/bin/sh", "-c", f"trap 'exit 5' TERM; {WAITS}") as process:
        process.terminate()
        assert process.wait(20) == 5
    with started(
        *FIRST, "--", "/bin/sh", "-c", WAITS
    ) as process:  # which the kernel gives no signal that it does not catch
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGKILL
    with started(*FIRST, "--", "/bin/sh", "-c", f"trap 'echo no' TERM; {WAITS}") as process:
        process.terminate()
        assert process.stdout is not None
        assert process.stdout.readline() == "no\n"
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGKILL


@NEEDS_ROOT
def test_its_cgroups_are_removed_with_those_below() -> None:
    try:
        made = cgroups.make(f"sandkube-test-{os.getpid()}")
    except UserError as error:
        pytest.skip(str(error))
    options = [f"--cgroup={folder}" for folder in made.values()]
    memory = next(folder for name, folder in made.items() if name in ("memory", "unified"))
    try:
        with started(*FIRST, *options, "--", "/bin/sh", "-c", f"cat /proc/self/cgroup >&2; {WAITS}") as process:
            assert list(cgroups.processes(memory))
            (memory / "inner/most").mkdir(parents=True)
            process.terminate()
            process.wait(20)
        assert not [folder for folder in made.values() if folder.exists()]
    finally:
        cgroups.remove(made.values())


@NEEDS_ROOT
def test_status_and_signals_are_the_programs() -> None:
    assert in_sh("exit 3").returncode == 3
    assert in_sh("kill -TERM $$").returncode == -signal.SIGTERM
    words = [str(PROGRAM), "/bin/sh", "-c", "echo up; exec sleep 60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


@NEEDS_ROOT
def test_an_ordinary_user_is_told_what_is_refused() -> None:
    descriptor = os.open(PROGRAM, os.O_RDONLY)  # which may be below a folder that is closed to others
    words = [f"/proc/self/fd/{descriptor}", "/bin/true"]
    done = subprocess.run(words, pass_fds=[descriptor], user=65534, capture_output=True, text=True, timeout=30)
    os.close(descriptor)
    assert done.returncode == 125
    assert done.stderr.startswith("userns: ")
    assert done.stderr.endswith(": Operation not permitted\n")


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ([], 125, "userns: no program is named; --help tells more\n"),
        (["--listen", "7:", "x"], 125, "userns: --listen wants DESCRIPTOR:PORT; --help tells more\n"),
        (["--listen", "7:65536", "x"], 125, "userns: --listen wants DESCRIPTOR:PORT; --help tells more\n"),
        (["--listen", "-1:1", "x"], 125, "userns: --listen wants DESCRIPTOR:PORT; --help tells more\n"),
        (["--try=there", "/"], 125, "userns: --try wants apart, here or within; --help tells more\n"),
        (["--try=here"], 125, "userns: one folder is wanted; --help tells more\n"),
        (["--cgroups"], 125, "userns: one folder is wanted; --help tells more\n"),
        (["--lock", "x"], 125, "userns: --lock wants DESCRIPTOR; --help tells more\n"),
        (["--nonsense"], 125, "userns: --help tells more\n"),
        pytest.param(["/no/program"], 127, "userns: /no/program: No such file or directory\n", marks=NEEDS_ROOT),
        pytest.param(["/proc"], 126, "userns: /proc: Permission denied\n", marks=NEEDS_ROOT),
    ],
)
def test_own_errors(words: list[str], status: int, text: str) -> None:
    done = userns(*words)
    assert (done.returncode, done.stderr.endswith(text)) == (status, True), done.stderr
    assert userns("--help").stdout.startswith("Usage: userns")
