"""Realising: what runs, why, and what is left alone. Real recipes of kinds that need no toolchain."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sandkube import log
from sandkube.build import code, failed, plan
from sandkube.build.decide import State, decide_all
from sandkube.build.derivation import key_of
from sandkube.build.explain import Change
from sandkube.build.lock import Pin
from sandkube.build.places import Places
from sandkube.build.realise import Realiser
from sandkube.build.store import Condition, DamagedRecord, Store
from sandkube.build.weights import FETCH, HEAVY, LIGHT
from sandkube.errors import RunRefused, StepFailed, UserError
from sandkube.tree import remove_tree, seal_of
from tests.odd import ODD, waits_for_nobody

ORDER = ("base", "middle", "top")


def project(root: Path) -> Path:
    """base (a local folder) -> middle (takes one of its two files) -> top (takes all of middle)."""
    (root / "recipes").mkdir(parents=True)
    (root / "native/base").mkdir(parents=True)
    (root / "native/base/used").write_text("used\n")
    (root / "native/base/unused").write_text("unused\n")
    (root / "recipes/base.toml").write_text('description = "x"\nsource = "local:native/base"\n[build]\nkind = "tree"\n')
    rootfs = 'description = "x"\n[build]\nkind = "rootfs"\n[[build.install]]\nfrom = "%s"\npath = "%s"\nto = "%s"\n'
    (root / "recipes/middle.toml").write_text(rootfs % ("base", "used", "etc/used"))
    (root / "recipes/top.toml").write_text(rootfs % ("middle", ".", "all"))
    return root


def run(root: Path) -> dict[str, str]:
    """Realise everything as doit would; name -> reason of the steps that ran."""
    places = Places(root, root / "outputs", root / "cache")
    one = plan.load(root)
    one = plan.Plan(root, one.recipes, {name: Pin("") for name in one.recipes})
    realiser = Realiser(one, places, Store(places.outputs / "store"))
    realiser.want(ORDER)
    ran = {}
    for name in ORDER:
        if not realiser.up_to_date(name):
            ran[name] = realiser.reasons[name]
            realiser.realise(name)
    return ran


def replace(victim: Path) -> None:
    """Damage one output alone: another file at that place, since outputs share files."""
    victim.parent.chmod(0o755)
    victim.unlink()
    victim.write_text("EVIL\n")


def hashes(root: Path) -> dict[str, str]:
    return {name: (root / "outputs/result" / name).resolve().name for name in ORDER}


def test_everything_then_nothing(tmp_path: Path) -> None:
    project(tmp_path)
    assert run(tmp_path) == dict.fromkeys(ORDER, "never built here")
    assert run(tmp_path) == {}
    assert (tmp_path / "outputs/result/top/all/etc/used").read_text() == "used\n"


def test_touching_runs_nothing(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    for path in [*tmp_path.glob("native/**/*"), *tmp_path.glob("recipes/*")]:
        path.touch()
    assert run(tmp_path) == {}


def test_early_cutoff(tmp_path: Path) -> None:
    """A change that does not reach `middle`'s bytes stops there, and says why each step ran."""
    project(tmp_path)
    run(tmp_path)
    (tmp_path / "native/base/unused").write_text("changed\n")
    assert run(tmp_path) == {"base": "the source changed", "middle": "input changed: base"}


def test_change_goes_all_the_way(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    (tmp_path / "native/base/used").write_text("changed\n")
    assert run(tmp_path) == {
        "base": "the source changed",
        "middle": "input changed: base",
        "top": "input changed: middle",
    }


def test_going_back_runs_nothing(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    (tmp_path / "native/base/used").write_text("changed\n")
    run(tmp_path)
    (tmp_path / "native/base/used").write_text("used\n")
    assert run(tmp_path) == {}


def test_same_bytes_in_another_folder(tmp_path: Path) -> None:
    first, second = project(tmp_path / "a"), project(tmp_path / "b/deep/er")
    run(first)
    run(second)
    assert hashes(first) == hashes(second)


def test_damaged_output_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project(tmp_path)
    run(tmp_path)
    before = hashes(tmp_path)
    victim = tmp_path / "outputs/result/base/used"
    replace(victim)
    assert run(tmp_path) == {"base": "what the store held was damaged"}
    assert f"output {before['base']} was damaged" in capsys.readouterr().err
    assert hashes(tmp_path) == before
    assert victim.read_text() == "used\n"


def test_damaged_record_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project(tmp_path)
    run(tmp_path)
    for path in (tmp_path / "outputs/store/records").iterdir():
        value = json.loads(path.read_text())
        if value["name"] == "middle":
            value["output"] = hashes(tmp_path)["top"]
            path.write_text(json.dumps(value))
    assert run(tmp_path) == {"middle": "what the store held was damaged"}
    assert "is damaged" in capsys.readouterr().err


def test_deleted_outputs_are_made_again(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    before = hashes(tmp_path)
    Store(tmp_path / "outputs/store").forget("0" * 64)
    from sandkube.tree import remove_tree

    remove_tree(tmp_path / "outputs/store/trees" / before["top"])
    assert run(tmp_path) == {"top": "its output is gone from the store"}
    assert hashes(tmp_path) == before


def test_changed_patch_and_option_are_named(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    recipe = tmp_path / "recipes/top.toml"
    recipe.write_text(recipe.read_text() + '\n[build.links]\n"x" = "y"\n')
    assert run(tmp_path) == {"top": "option changed: links"}


def unboxed(root: Path, *, whole: bool) -> Realiser:
    """A project in which `middle` and `top` run commands as far as the plan knows; nothing of it needs bubblewrap."""
    places = Places(root, root / "outputs", root / "cache")
    loaded = plan.load(root)
    loaded = plan.Plan(root, loaded.recipes, {name: Pin("") for name in loaded.recipes})
    return Realiser(loaded, places, Store(places.outputs / "store"), unboxed=not whole)


def test_what_was_made_without_the_build_sandbox_is_marked(tmp_path: Path) -> None:
    """Only steps that run commands are; an ordinary run takes none of them, another one without the sandbox all."""
    project(tmp_path)
    (tmp_path / "native/bubblewrap").mkdir()
    (tmp_path / "recipes/bubblewrap.toml").write_text(
        'description = "x"\nsource = "local:native/bubblewrap"\n[build]\nkind = "tree"\n'
    )
    for again in (False, True):
        one = unboxed(tmp_path, whole=False)
        for name in ("base", "bubblewrap", "middle", "top"):
            assert one.up_to_date(name) == again
            if not again:
                one.realise(name)
        assert {name: record.shareable for name, record in one.records.items()} == {
            "base": True,
            "bubblewrap": True,
            "middle": False,
            "top": False,
        }
    one = unboxed(tmp_path, whole=True)
    assert [one.up_to_date(name) for name in ("base", "bubblewrap", "middle")] == [True, True, False]
    assert one.reasons == {"middle": "built without the build sandbox"}


def test_the_mark_is_inside_of_the_sum(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.prepare()
    made = tmp_path / "store/staging/made"
    made.mkdir()
    record = store.commit("a", key_of({}), {}, made, unboxed=True)
    assert store.record(record.key) == record
    path = tmp_path / f"store/records/{record.key}.json"
    value = json.loads(path.read_text())
    del value["unboxed"]
    path.write_text(json.dumps(value))
    with pytest.raises(DamagedRecord):
        store.record(record.key)


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/sandkube"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/x"}, "/x/sandkube"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/sandkube"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": ".cache"}, "/home/me/.cache/sandkube"),
    ],
)
def test_where_the_cache_is(environment: dict[str, str], folder: str) -> None:
    assert Places.of(Path("/clone"), environment).cache == Path(folder)


HOMELESS = """\
import os, sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from sandkube.build.places import Places
os.setuid(int(sys.argv[1]))
for environment in ({}, {"HOME": "/"}): print(Places.of(Path("/clone"), environment).cache)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@pytest.mark.parametrize("user", ["54321", "65534"], ids=["unknown", "nobody, whose home is not there"])
def test_who_has_no_home_has_the_cache_in_outputs(user: str) -> None:
    words = [sys.executable, "-c", HOMELESS, user, *sys.path]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["/clone/outputs/cache/sandkube"] * 2


def test_a_cache_that_cannot_be_used_is_a_sentence_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    project(tmp_path)
    one = unboxed(tmp_path, whole=True)
    one.places = Places(tmp_path, tmp_path / "outputs", tmp_path / "file/sandkube")
    found = []
    for _ in range(2):  # steps that run at once get the same refusal
        with pytest.raises(RunRefused) as failure:
            one.realise("base")
        found.append(failure.value)
        assert found[0] is found[-1]
        assert str(failure.value) == (
            f"the cache folder {tmp_path}/file/sandkube cannot be used: Not a directory\n"
            "  hint: set XDG_CACHE_HOME to a folder that this user can write"
        )


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    places = Places(tmp_path, tmp_path, tmp_path / "cache")
    said = str(places.refused(OSError(errno.ENOSPC, "No space left on device")))
    assert re.fullmatch(
        rf"no space left on device: {tmp_path} has \d+ MB free\n"
        r"  hint: free some space there; a whole build takes 5 GB",
        said,
    )
    assert str(places.refused(PermissionError(errno.EACCES, "Permission denied", "/x"))) == "/x: Permission denied"
    assert places.refused(FileNotFoundError(errno.ENOENT, "No such file or directory", "/x")) is None


def realiser_of(root: Path) -> Realiser:
    loaded = plan.load(root)
    loaded = plan.Plan(root, loaded.recipes, {name: Pin("") for name in loaded.recipes})
    one = Realiser(loaded, Places(root, root / "outputs", root / "cache"), Store(root / "outputs/store"))
    one.weights.capacity = {FETCH: 1, LIGHT: 1, HEAVY: 1}
    return one


def test_a_tool_is_had_with_its_tree(tmp_path: Path) -> None:
    """Its record is enough of a step, but not of one whose output is to be run."""
    project(tmp_path)
    one = realiser_of(tmp_path)
    one.realise("base")
    remove_tree(one.output("base"))
    again = realiser_of(tmp_path)
    assert again.up_to_date("base")
    again.have("base")
    assert (again.output("base") / "used").is_file()


def test_a_source_that_is_edited_between_hashing_and_building(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saved while the step waits for a core, and taken back after: what is stored is one of the two, under its key."""
    project(tmp_path)
    used = tmp_path / "native/base/used"
    one = realiser_of(tmp_path)
    with one.weights.hold("base"):
        building = threading.Thread(target=one.realise, args=("base",))
        building.start()
        while one.reasons.get("base") is None:  # decided, so hashed; it cannot copy before it has a core
            pass
        used.write_text("saved meanwhile\n")
    building.join()
    assert (one.output("base") / "used").read_text() == "saved meanwhile\n"
    assert "local:native/base changed while it was hashed and copied" in capsys.readouterr().err
    used.write_text("used\n")
    assert run(tmp_path) == {"base": "the source changed", "middle": "never built here", "top": "never built here"}
    assert (tmp_path / "outputs/result/base/used").read_text() == "used\n"


def test_a_patch_that_is_edited_between_hashing_and_building(tmp_path: Path) -> None:
    project(tmp_path)
    patch = tmp_path / "patches/base/1.patch"
    patch.parent.mkdir(parents=True)
    text = "--- a/used\n+++ b/used\n@@ -1 +1 @@\n-used\n+%s\n"
    patch.write_text(text % "first")
    (tmp_path / "recipes/base.toml").write_text(
        'description = "x"\nsource = "local:native/base"\n[build]\nkind = "tree"\npatches = ["1.patch"]\n'
    )
    one = realiser_of(tmp_path)
    with one.weights.hold("base"):
        building = threading.Thread(target=one.realise, args=("base",))
        building.start()
        while one.reasons.get("base") is None:
            pass
        patch.write_text(text % "second")
    building.join()
    assert (one.output("base") / "used").read_text() == "second\n"
    patch.write_text(text % "first")
    assert run(tmp_path)["base"] == "patches changed"
    assert (tmp_path / "outputs/result/base/used").read_text() == "first\n"


def test_deciding_writes_says_and_removes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project(tmp_path)
    one = realiser_of(tmp_path)
    states = {each.name: each.state for each in decide_all(one.plan, one.store, ORDER)}
    assert states == {"base": State.MUST_RUN, "middle": State.WAITS, "top": State.WAITS}
    assert not one.places.outputs.exists()
    run(tmp_path)
    victim = tmp_path / "outputs/result/middle/etc/used"
    replace(victim)
    (one.store.root / "seals").chmod(0o755)
    before = everything(one.places.outputs)
    capsys.readouterr()
    decisions = {each.name: each for each in decide_all(one.plan, one.store, ORDER)}
    assert {name: each.state for name, each in decisions.items()} == {
        "base": State.UP_TO_DATE,
        "middle": State.DAMAGED,
        "top": State.WAITS,
    }
    assert decisions["top"].reason == "after middle"
    assert everything(one.places.outputs) == before
    assert capsys.readouterr() == ("", "")


def everything(folder: Path) -> list[tuple[Path, int, int, int]]:
    found = [(path, path.lstat()) for path in [folder, *sorted(folder.rglob("*"))]]
    return [(path, status.st_ino, status.st_size, status.st_ctime_ns) for path, status in found]


def test_a_decision_says_what_changed_from_what_to_what(tmp_path: Path) -> None:
    project(tmp_path)
    run(tmp_path)
    recipe = tmp_path / "recipes/top.toml"
    recipe.write_text(recipe.read_text() + '\n[build.links]\n"x" = "y"\n')
    one = realiser_of(tmp_path)
    (decision,) = (each for each in decide_all(one.plan, one.store, ["top"]) if each.name == "top")
    assert decision.changes == (Change("options", "links", {}, {"x": "y"}),)


def test_a_failed_step_leaves_its_folder_until_it_succeeds(tmp_path: Path) -> None:
    project(tmp_path)
    recipe = tmp_path / "recipes/base.toml"
    sound = recipe.read_text()
    recipe.write_text(sound + 'executable = ["nosuch"]\n')
    kept = tmp_path / "outputs/failed/base"
    for _ in range(2):  # one folder, whichever failure it was
        with pytest.raises(StepFailed) as failure:
            realiser_of(tmp_path).realise("base")
        assert failure.value.message == (
            f"base: recipes/base.toml: build.executable[0]: 'nosuch' matches nothing\n  folder: {kept}"
        )
        assert failure.value.hint == "mend recipes/base.toml, or what it names, and run ./do build base"
    assert (kept / "out/used").read_text() == "used\n"
    call = failed.load(kept, "base")
    assert (call.command, call.cwd) == ((), "/sandkube/src")
    assert [(each.host, each.inside) for each in call.mounts] == [
        (kept / "src", "/sandkube/src"),
        (kept / "out", "/sandkube/out"),
    ]
    assert list((tmp_path / "outputs/store/staging").iterdir()) == []
    recipe.write_text(sound)
    realiser_of(tmp_path).realise("base")
    assert not kept.exists()
    with pytest.raises(UserError, match="there is no failed step of base"):
        failed.load(kept, "base")


def with_busybox(root: Path, text: str) -> None:
    """`top` asks a busybox of its own, a script, for its applets."""
    (root / "native/busybox/bin").mkdir(parents=True)
    path = root / "native/busybox/bin/busybox"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    base = (root / "recipes/base.toml").read_text()
    (root / "recipes/busybox.toml").write_text(base.replace("native/base", "native/busybox"))
    top = (root / "recipes/top.toml").read_text()
    (root / "recipes/top.toml").write_text(top.replace('"rootfs"\n', '"rootfs"\napplets = "bin"\n'))


def test_a_failed_command_has_a_shell_and_a_failed_patch_has_not(tmp_path: Path) -> None:
    with_busybox(project(tmp_path), "exit 3")
    one = unboxed(tmp_path, whole=False)
    with pytest.raises(StepFailed, match=r"^top: busybox: exit status 3\n  command: ") as failure:
        one.realise("top")
    assert failure.value.hint == "./do shell top opens the build sandbox there; mend it and run ./do build top"
    (tmp_path / "patches/base").mkdir(parents=True)
    (tmp_path / "patches/base/x.patch").write_text("--- a/used\n+++ b/used\n@@ -1 +1 @@\n-no\n+yes\n")
    recipe = tmp_path / "recipes/base.toml"
    recipe.write_text(recipe.read_text() + 'patches = ["x.patch"]\n')
    with pytest.raises(StepFailed, match=r"^base: patches/base/x\.patch: does not apply:\n") as failure:
        realiser_of(tmp_path).realise("base")
    assert str(failure.value.hint).endswith("patch a product); mend it and run ./do build base")


def test_a_checkout_without_what_steps_run_in_says_so(tmp_path: Path) -> None:
    """As soon as a step runs a command, or fetches by the client; what is made without the sandbox is marked."""
    with_busybox(project(tmp_path), "echo ls")
    with pytest.raises(RunRefused, match=r"^no recipe 'bubblewrap', whose build sandbox steps run their commands in\n"):
        realiser_of(tmp_path).realise("top")
    one = unboxed(tmp_path, whole=False)
    assert not one.realise("top").shareable
    assert (one.output("top") / "bin/ls").is_symlink()
    with pytest.raises(UserError, match="^no recipe 'go-client'"):
        one.ask("base").go_client()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"command": [], "mounts": [{}], "env": {}, "cwd": ""}'])
def test_a_damaged_call_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "call.json").write_text(text)
    with pytest.raises(UserError, match=r"call\.json"):
        failed.load(tmp_path, "base")


def test_a_composition_shares_files_with_its_inputs(tmp_path: Path) -> None:
    """By hard links; inputs stay sealed, and a byte that is written to a file damages all outputs that have it."""
    project(tmp_path)
    run(tmp_path)
    one = realiser_of(tmp_path)
    base, middle = (tmp_path / "outputs/result" / name for name in ("base/used", "middle/etc/used"))
    assert base.stat().st_ino == middle.stat().st_ino
    outputs = hashes(tmp_path)
    seals = one.store.root / "seals"
    assert json.loads((seals / f"{outputs['middle']}.json").read_text()) == seal_of(one.store.tree(outputs["middle"]))
    base.chmod(0o644)
    base.write_text("EVIL\n")
    base.chmod(0o444)
    assert {one.store.inspect(each) for each in outputs.values()} == {Condition.DAMAGED}
    assert list(run(tmp_path)) == list(ORDER)
    assert hashes(tmp_path) == outputs
    assert (tmp_path / "outputs/result/top/all/etc/used").read_text() == "used\n"


@pytest.mark.parametrize("odd", ODD)
def test_a_log_that_is_no_file_is_made_anew(tmp_path: Path, odd: str) -> None:
    project(tmp_path)
    (tmp_path / "outputs/logs").mkdir(parents=True)
    path = tmp_path / "outputs/logs/base.log"
    ODD[odd](path)
    ODD[odd](tmp_path / "outputs/code.json")
    with waits_for_nobody():
        code.Known().use(tmp_path / "outputs/code.json")
        realiser_of(tmp_path).realise("base")
    assert path.is_file()
    assert not path.is_symlink()


@pytest.mark.parametrize("name", ["", "logs", "failed", "result", "store", "store/records", "store/trees"])
def test_a_file_where_a_folder_of_outputs_belongs_is_said(tmp_path: Path, name: str) -> None:
    """Before any work, and once for all steps; whoever only looks finds nothing there."""
    project(tmp_path)
    (path := tmp_path / "outputs" / name).parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    one = realiser_of(tmp_path)
    assert [each.state for each in decide_all(one.plan, one.store, ["base"])] == [State.MUST_RUN]
    with pytest.raises(UserError, match=f"^{path}: is no folder, where one belongs\n  hint: move it away") as refusal:
        one.realise("base")
    assert isinstance(refusal.value, RunRefused) == (name in ("logs", "failed", "result"))


def test_two_threads_that_want_one_step_make_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project(tmp_path)
    one = realiser_of(tmp_path)
    threads = [threading.Thread(target=one.realise, args=("base",)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    said = capsys.readouterr().err
    assert said.count("base: building, because: ") == 1
    assert "waiting" not in said
    assert not log._running
