"""Real builds of real products: what runs, why, and what does not."""

from __future__ import annotations

import json
import re
import shutil

from tests.clones import ROOT, Clone
from tests.patches import NEW, patch_source

NOTHING = re.compile(r"nothing to do: \d+ steps are up to date")


def test_second_build_runs_nothing(here: Clone) -> None:
    assert NOTHING.search(here.do("build"))


def test_neither_times_nor_place_count(here: Clone, twin: Clone) -> None:
    for path in (*(here.folder / "recipes").iterdir(), *(here.folder / "native").rglob("*")):
        path.touch()
    assert NOTHING.search(here.do("build"))
    assert NOTHING.search(twin.do("build"))
    built = twin.outputs()
    assert built == {name: each for name, each in here.outputs().items() if name in built}  # not what is optional


def test_patched_string_rebuilds_what_contains_it(twin: Clone) -> None:
    twin.do("build")
    before = twin.outputs()
    patch_source(twin, "containerd", "cmd/containerd/main.go", '"containerd: %s', f'"containerd {NEW}: %s')
    ran = twin.steps()
    assert ran == {
        "containerd": "patches changed",
        "rootfs": "input changed: containerd",
        "bundle": "input changed: rootfs",
        "node-packed": "input changed: bundle, rootfs",
        "wheel": "input changed: node-packed",
    }
    assert before["containerd"] != twin.outputs()["containerd"]


def test_patched_comment_stops_at_the_binary(twin: Clone) -> None:
    twin.do("build")
    patch_source(
        twin, "containerd", "cmd/containerd/main.go", "Licensed under the Apache", f"Licensed {NEW} the Apache"
    )
    said = twin.do("build")
    assert "containerd: building, because: patches changed" in said
    assert "containerd: done" in said
    assert "same bytes as before" in said
    assert "rootfs: building" not in said


def test_damaged_output_is_named_and_mended(twin: Clone) -> None:
    """So is the root file system, which has its program by a hard link."""
    twin.do("build")
    before = twin.outputs()
    program = (twin.folder / "outputs/result/podnet").resolve() / "bin/podnet"
    program.chmod(0o755)
    program.write_bytes(program.read_bytes()[:-1] + b"!")
    said = twin.do("build")
    for name in ("podnet", "rootfs"):
        assert f"{name}: building, because: what the store held was damaged" in said
    assert twin.outputs() == before
    assert "nothing to do" in twin.do("build")


def test_damaged_record_is_named_and_mended(twin: Clone) -> None:
    twin.do("build", "podnet")
    key = (ROOT / "outputs/store/last/podnet").read_text().strip()
    record = ROOT / f"outputs/store/records/{key}.json"
    data = json.loads(record.read_text())
    data["output"] = "0" * 64
    record.chmod(0o644)
    record.write_text(json.dumps(data))
    said = twin.do("build", "podnet")
    assert "damaged" in said
    assert "podnet: building" in said


def test_damaged_lock_is_refused(twin: Clone) -> None:
    path = twin.folder / "lock.json"
    path.write_text(path.read_text()[:-100])
    said = twin.do("build", status=1)
    assert "lock.json: not valid JSON" in said
    assert "./do lock" in said


def test_damaged_module_is_named_and_fetched_again(twin: Clone) -> None:
    shutil.rmtree(twin.folder / "outputs/store", ignore_errors=True)
    (module,) = (twin.home / ".cache/sandkube/gomod/github.com/vishvananda").glob("netns@v0.0.5")
    (module / "README.md").write_text("changed\n")
    (twin.folder / "outputs/store").unlink()
    said = twin.do("build", "podnet")
    assert "cached module github.com/vishvananda/netns@v0.0.5 was damaged" in said
    assert (module / "README.md").read_text() != "changed\n"
