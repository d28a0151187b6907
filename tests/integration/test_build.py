"""Real builds of real products: what runs, why, and what does not."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from pathlib import Path

from tests.clones import ROOT, Clone

NEW = uuid.uuid4().hex
"""A word that no build had before: the store remembers all of them."""
NOTHING = re.compile(r"nothing to do: \d+ steps are up to date")
MAIL = """\
From: Test <test@localhost>
Date: Tue, 1 Jan 1980 00:00:00 +0000
Subject: [PATCH] a test

{body}
"""


def test_second_build_runs_nothing(here: Clone) -> None:
    assert NOTHING.search(here.do("build"))


def test_neither_database_nor_times_nor_place_count(here: Clone, twin: Clone) -> None:
    (here.folder / "outputs/.doit.db").unlink(missing_ok=True)
    for path in (*(here.folder / "recipes").iterdir(), *(here.folder / "native").rglob("*")):
        path.touch()
    assert NOTHING.search(here.do("build"))
    assert NOTHING.search(twin.do("build"))
    assert twin.outputs() == here.outputs()


def add_patch(one: Clone, recipe: str, diff: str) -> None:
    """Add a patch to a recipe of a clone."""
    folder = one.folder / "patches" / recipe
    folder.mkdir(exist_ok=True)
    (folder / "9999-test.patch").write_text(MAIL.format(body=diff))
    path = one.folder / "recipes" / f"{recipe}.toml"
    text = path.read_text()
    if "patches = [" not in text:
        text = text.replace('kind = "go"\n', 'kind = "go"\npatches = []\n')
    path.write_text(text.replace("patches = [", 'patches = ["9999-test.patch", ', 1))


def test_patched_string_rebuilds_what_contains_it(twin: Clone) -> None:
    twin.do("build")
    before = twin.outputs()
    patch_source(twin, "containerd", "cmd/containerd/main.go", '"containerd: %s', f'"containerd {NEW}: %s')
    ran = twin.steps()
    assert ran == {
        "containerd": "patches changed",
        "rootfs": "input changed: containerd",
        "bundle": "input changed: rootfs",
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


def patch_source(one: Clone, recipe: str, file: str, old: str, new: str) -> None:
    """Add a patch to a Go recipe that puts `new` for the first `old` of a source file."""
    found = re.search(r'source = "go:(.*)@(.*)"', (one.folder / f"recipes/{recipe}.toml").read_text())
    assert found is not None
    source = one.home / ".cache/sandkube/gomod" / f"{found.group(1)}@{found.group(2)}" / file
    lines = source.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if old in line)
    hunk = [f"@@ -{at + 1} +{at + 1} @@", f"-{lines[at]}", f"+{lines[at].replace(old, new)}"]
    context = 3
    first, last = max(0, at - context), min(len(lines), at + context + 1)
    before, after = lines[first:at], lines[at + 1 : last]
    size = last - first
    hunk = [f"@@ -{first + 1},{size} +{first + 1},{size} @@", *(f" {line}" for line in before), *hunk[1:]]
    hunk += [f" {line}" for line in after]
    add_patch(one, recipe, "\n".join([f"--- a/{file}", f"+++ b/{file}", *hunk]))


def test_damaged_output_is_named_and_mended(twin: Clone) -> None:
    twin.do("build", "podnet")
    before = twin.outputs()["podnet"]
    program = (twin.folder / "outputs/result/podnet").resolve() / "bin/podnet"
    program.chmod(0o755)
    program.write_bytes(program.read_bytes()[:-1] + b"!")
    said = twin.do("build", "podnet")
    assert "damaged" in said
    assert "podnet: building, because: what the store held was damaged" in said
    assert twin.outputs()["podnet"] == before


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
    assert "lock.json: damaged" in said
    assert "./do lock" in said


def test_damaged_module_is_named_and_fetched_again(twin: Clone, tmp_path: Path) -> None:
    shutil.rmtree(twin.folder / "outputs/store", ignore_errors=True)
    (module,) = (twin.home / ".cache/sandkube/gomod/github.com/vishvananda").glob("netns@v0.0.5")
    (module / "README.md").write_text("changed\n")
    (twin.folder / "outputs/store").unlink()
    said = twin.do("build", "podnet")
    assert "cached module github.com/vishvananda/netns@v0.0.5 was damaged" in said
    assert (module / "README.md").read_text() != "changed\n"
