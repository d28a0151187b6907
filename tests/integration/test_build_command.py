"""`./do build` and what stands around it, in a small checkout: statuses, streams, what the machine refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from sandkube.files import locked
from tests.small import FAILS, RECIPES, Said, Small, small


@pytest.fixture
def one(tmp_path: Path) -> Small:
    return small(tmp_path / "one")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, Said]:
    """A checkout, and what was said as it was built."""
    made = small(tmp_path_factory.mktemp("built") / "one")
    return made, made.do("build")


@pytest.fixture
def built(first: tuple[Small, Said]) -> Small:
    """A checkout that is built; no test changes it."""
    return first[0]


def test_progress_is_for_people(first: tuple[Small, Said]) -> None:
    one, said = first
    assert (said.status, said.out) == (0, "")
    assert said.steps() == dict.fromkeys(("base", "middle", "top"), "never built here")
    again = one.do("build")
    assert (again.status, again.out) == (0, "")
    assert re.fullmatch(r"nothing to do: 3 steps are up to date \(\d+\.\d\d s\)\n", again.err)


def test_list_is_a_result(one: Small) -> None:
    said = one.do("list")
    assert said.out.splitlines() == [
        "base    A folder of this repository.",
        "middle  Takes from base.",
        "top     Takes from middle.",
    ]
    one.do("build", "middle")
    said = one.do("list", "--status")
    assert [line.split()[:2] for line in said.out.splitlines()] == [["base", "up"], ["middle", "up"], ["top", "must"]]
    base, _, top = json.loads(one.do("list", "--json").out)
    assert base == {
        "name": "base",
        "description": "A folder of this repository.",
        "state": "up to date",
        "because": "",
        "output": (one.folder / "outputs/result/base").resolve().name,
    }
    assert (top["state"], top["because"], top["output"]) == ("must run", "never built here", None)


def test_a_dry_run_says_what_would_run_and_writes_nothing(one: Small, built: Small) -> None:
    said = one.do("build", "--dry-run")
    assert said.out.splitlines() == [
        "base: would run, because: never built here",
        "middle: may run after base",
        "top: may run after middle",
    ]
    assert said.err.splitlines()[-1] == "at most 3 of 3 steps would run"
    assert not (one.folder / "outputs").exists()
    said = built.do("build", "--dry-run")
    assert (said.out, said.err.splitlines()[-1]) == ("", "nothing to do: 3 steps are up to date")


def test_info_tells_what_is_known(built: Small) -> None:
    known = json.loads(built.do("info", "middle", "--json").out)
    assert known["state"] == "up to date"
    assert known["inputs"] == ["base"]
    assert (built.folder / known["folder"]).name == known["output"]
    text = built.do("info", "middle").out
    assert f"key      {known['key']}\n" in text
    said = built.do("info", "midle")
    assert (said.status, said.out) == (1, "")
    assert "no recipe 'midle' (did you mean middle?)" in said.err


def test_a_shell_needs_a_failed_step(built: Small) -> None:
    said = built.do("shell", "base")
    assert (said.status, said.out) == (1, "")
    assert said.err.splitlines() == [
        "error: there is no failed step of base",
        "  hint: ./do build base makes it; a step that fails leaves its folder",
    ]


def test_doit_keeps_no_file(built: Small) -> None:
    assert sorted(path.name for path in (built.folder / "outputs").iterdir()) == [
        "code.json",
        "durations.json",
        "logs",
        "result",
        "store",
    ]


def test_a_step_that_fails_leaves_the_others_when_asked_to(tmp_path: Path) -> None:
    """`fails` comes first by name; what needs it is not tried, and that is said."""
    recipes = {**RECIPES, "fails": FAILS, "after": RECIPES["top"].replace("middle", "fails")}
    one = small(tmp_path / "one", recipes)
    stopped = one.do("build", "fails", "top", "--jobs", "1")
    assert (stopped.status, stopped.out) == (1, "")
    assert "error: fails: " in stopped.err
    assert "bug" not in stopped.err
    assert not (one.folder / "outputs/result/top").exists()
    gone_on = one.do("build", "--keep-going")
    assert gone_on.status == 1
    assert "not tried, since what they need failed: after\n" in gone_on.err
    assert (one.folder / "outputs/result/top").exists()


def test_a_bug_in_a_step_is_marked_as_one(one: Small) -> None:
    path = one.folder / "sandkube/build/builders/rootfs.py"
    path.write_text(path.read_text().replace("    compose(job", "    raise ZeroDivisionError\n    compose(job"))
    said = one.do("build")
    assert said.status == 2
    assert "ZeroDivisionError" in said.err
    assert "this is a bug of Sandkube, nothing that you did" in said.err


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_jobs_says_how_many_steps_are_in_flight(jobs: str, tmp_path: Path) -> None:
    """Each step waits until as many as asked are there; one more would be told."""
    names = [f"each-{number}" for number in range(6)]
    one = small(tmp_path / "one", dict.fromkeys(names, RECIPES["base"]))
    path = one.folder / "sandkube/cli/tasks.py"
    count = (
        "import threading as _t\n_now = []\n_meet = _t.Barrier(%s)\n_old = _realise\n"
        "def _realise(name: str) -> TaskFailed | None:\n"
        "    _now.append(name)\n    _meet.wait(20)\n    print(len(_now), flush=True)\n    _meet.wait(20)\n"
        "    result = _old(name)\n    _now.remove(name)\n    _meet.wait(20)\n    return result\n"
    )
    path.write_text(path.read_text() + count % jobs)
    said = one.do("build", "--jobs", jobs)
    assert said.status == 0, said.err
    assert set(said.out.split()) == {jobs}


def in_mounts(one: Small, script: str) -> Small:
    """The checkout in a mount namespace, in which a script has changed what is mounted."""
    users = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    before = ["unshare", *users, "--mount", "/bin/sh", "-c", f'{script}\nexec "$@"', "sh"]
    if subprocess.run([*before, "true"], cwd=one.folder, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine refuses mount namespaces")
    return dataclasses.replace(one, before=before)


READ_ONLY = "mount --bind . . && mount -o remount,ro,bind . && cd ."


def sentence(said: Said) -> str:
    """What a command ended with, that the user can mend: no traceback, no second message."""
    assert said.status == 1, said
    assert "Traceback" not in said.err
    (found,) = re.findall(r"^error: .*(?:\n  .*)*", said.err, re.MULTILINE)
    return str(found).removeprefix("error: ")


def test_on_a_full_disk(one: Small) -> None:
    (one.folder / "native/base/used").write_bytes(os.urandom(3_000_000))
    full = in_mounts(one, "mkdir -p outputs; mount -t tmpfs -o size=2m none outputs")
    assert re.search(r"No space left on device", sentence(full.do("build")), re.IGNORECASE)


@pytest.mark.parametrize("words", ["build", "build base --keep-going", "build --dry-run", "build nosuch"])
def test_events_on_a_full_disk(words: str, one: Small) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        run = subprocess.run(
            one.argv(*words.split(), "--json"),
            cwd=one.folder,
            env=one.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    told = "no recipe 'nosuch'" if "nosuch" in words else "standard output: No space left on device"
    assert (run.returncode, "Traceback" in run.stderr) == (1, False)
    assert run.stderr.count(f"error: {told}\n") == run.stderr.count("error: ") == 1


def test_on_a_disk_that_a_source_fills(one: Small) -> None:
    (one.folder / "native/base/used").write_bytes(os.urandom(3_000_000))
    full = in_mounts(one, "mkdir -p outputs/store; mount -t tmpfs -o size=2m none outputs/store")
    said = sentence(full.do("build", "base"))
    assert re.fullmatch(r"base: no space left on device: .* MB free\n  hint: free some space there; .*", said)
    assert not (one.folder / "outputs/failed").exists()


def test_a_failed_step_of_a_store_on_another_disk(one: Small) -> None:
    (one.folder / "recipes/fails.toml").write_text(FAILS)
    other = in_mounts(one, "mkdir -p outputs/store; mount -t tmpfs none outputs/store")
    assert "no such file 'missing' in that input" in sentence(other.do("build", "fails"))
    assert sorted(path.name for path in (one.folder / "outputs/failed/fails").iterdir()) == [
        "call.json",
        "out",
        "src",
        "work",
    ]


@pytest.mark.parametrize(
    ("words", "lacks"),
    [("run-cluster", "bundle"), ("export-node x.tar.gz", "bundle"), ("doctor --here", "bubblewrap")],
)
def test_commands_name_the_recipe_that_they_lack(words: str, lacks: str, one: Small) -> None:
    assert sentence(one.do(*words.split())).startswith(f"no recipe '{lacks}'")


def test_lock_names_the_client_that_it_lacks(one: Small) -> None:
    (one.folder / "recipes/g.toml").write_text(RECIPES["base"].replace("local:native/base", "go:example.org/x@v1.0.0"))
    assert sentence(one.do("lock")).startswith("no recipe 'go-client'")


def test_a_machine_without_threads_or_memory_is_told(one: Small) -> None:
    """By stacks that are larger than all memory: with little memory alone CPython itself may crash as it ends."""
    tight = dataclasses.replace(one, before=["prlimit", "--as=4000000000", "--stack=8000000000"])
    assert re.match(r"this machine (refuses another thread|has no more memory)", sentence(tight.do("build")))


def read_only(one: Small) -> Small:
    return in_mounts(one, f"{READ_ONLY}; cd {shlex.quote(str(one.folder))}")


def test_in_a_checkout_that_may_only_be_read(one: Small, built: Small) -> None:
    fresh = read_only(one)
    assert "outputs cannot be used: " in sentence(fresh.do("build"))
    assert fresh.do("list").status == 0
    assert fresh.do("status").status == 0
    assert read_only(built).do("build").err.startswith("nothing to do: 3 steps are up to date ")


@pytest.mark.parametrize(
    ("setting", "folder"),
    [({"HOME": "/dev/null"}, "/dev/null/.cache/sandkube"), ({"XDG_CACHE_HOME": "/proc/none"}, "/proc/none/sandkube")],
    ids=["HOME", "XDG_CACHE_HOME"],
)
def test_with_a_cache_that_cannot_be(one: Small, setting: Mapping[str, str], folder: str) -> None:
    odd = dataclasses.replace(one, env={**one.env, **setting})
    assert re.fullmatch(
        rf"the cache folder {folder} cannot be used: [\w ]+\n"
        r"  hint: set XDG_CACHE_HOME to a folder that this user can write",
        sentence(odd.do("build")),
    )


def test_where_outputs_is_a_link_to_nothing(one: Small) -> None:
    (one.folder / "outputs").symlink_to("nowhere")
    assert sentence(one.do("build")).startswith(f"{one.folder}/outputs: is no folder, where one belongs\n")
    for words in (["status"], ["stop-cluster"], ["logs"]):
        said = one.do(*words)
        assert said.status == (0 if words == ["status"] else 1)
        assert "Traceback" not in said.err


def test_where_outputs_is_a_file(one: Small) -> None:
    (one.folder / "outputs").touch()
    assert sentence(one.do("build")).startswith(f"{one.folder}/outputs: is no folder, where one belongs\n")
    for words in (["list", "--status"], ["info", "base"], ["build", "--dry-run"], ["status"]):
        assert one.do(*words).status == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_in_another_users_checkout(one: Small) -> None:
    """Read it they can, wherever it stands, and the Python that runs this too."""
    one.do("build", "base")
    reads = [f"--{each}-caps=+dac_read_search" for each in ("inh", "ambient")]
    other = dataclasses.replace(one, before=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *reads])
    assert "outputs cannot be used: " in sentence(other.do("build"))
    assert other.do("list").status == 0


def test_head_gets_what_it_wants(one: Small) -> None:
    """A pipe that is closed early ends the command without a word, whichever stream it is; finished steps are kept."""
    for streams in ("", "2>&1"):
        script = f"exec 3>&1; {{ {shlex.join(one.argv('build'))} {streams}; echo $? >&3; }} | head -0"
        done = subprocess.run(
            ["/bin/sh", "-c", script], cwd=one.folder, env=one.environment(), capture_output=True, text=True, check=True
        )
        assert "Traceback" not in done.stderr
        assert "BrokenPipe" not in done.stderr
        assert done.stdout in ("141\n", "0\n")
    assert one.do("build").status == 0


def test_waiting_for_another_build_is_said_and_ctrl_c_ends_it(one: Small) -> None:
    key = json.loads(one.do("info", "base", "--json").out)["key"]
    one.do("build")
    (one.folder / "outputs/store/records" / f"{key}.json").unlink()
    with locked(one.folder / "outputs/store/locks" / key), one.popen("build", "base") as process:
        assert process.stderr is not None
        assert process.stderr.readline().endswith(" base: waiting for another command that builds it\n")
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert said == "interrupted; what is finished is kept, run the same command again to go on\n"


def happened(said: Said) -> list[dict[str, object]]:
    """The events that a command told, each a JSON object in a line of its own."""
    return [json.loads(line) for line in said.out.splitlines()]


def test_json_tells_every_event_and_people_nothing(one: Small) -> None:
    would = one.do("build", "--dry-run", "--json", "middle")
    assert [each["step"] for each in happened(would) if each["event"] == "step-would-run"] == ["base", "middle"]
    said = one.do("build", "--json")
    assert (said.status, said.err) == (0, "")
    events = happened(said)
    assert [each["step"] for each in events if each["event"] == "step-started"] == ["base", "middle", "top"]
    assert [each["reason"] for each in events if each["event"] == "step-started"] == ["never built here"] * 3
    outputs = {each["step"]: each["output"] for each in events if each["event"] == "step-finished"}
    result = one.folder / "outputs/result"
    assert outputs == {name: (result / name).resolve().name for name in ("base", "middle", "top")}
    assert (events[-1]["event"], events[-1]["ran"], events[-1]["kept"]) == ("built", 3, 0)
    doing = [each["doing"] for each in events if each["event"] == "step-does" and each["step"] == "top"]
    assert [each for each in doing if "another command" not in str(each)] == [
        *("waiting to fetch", "fetching", "waiting for a core", "building"),
    ]


def test_json_tells_what_failed_and_so_do_people_hear(tmp_path: Path) -> None:
    said = small(tmp_path / "one", {**RECIPES, "fails": FAILS}).do("build", "--json", "fails")
    assert said.status == 1
    (failed,) = [each for each in happened(said) if each["event"] == "failed"]
    assert (failed["step"], failed["bug"]) == ("fails", False)
    assert said.err == f"{failed['text']}\n"
