"""Kubernetes' own suite: its processes, and what becomes of what they tell. A script stands for the suite."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandkube.build import recipe
from sandkube.cli import conformed
from sandkube.cli.conformed import Known
from sandkube.cluster.place import Place
from sandkube.cluster.pod import Kubectl
from sandkube.cluster.suite import Spec, Suite, Total, read, run
from sandkube.errors import Problems, UserError

PODS = Spec("[sig-node] Pods should be updated [Conformance]", "passed", 3.5)
TWO = Spec("[sig-architecture] should have two nodes | really", "failed", 0.1, "Expected\n    1\nto equal 2", "a.go:7")
GONE = Spec("[sig-node] Sysctls", "interrupted", 1.0, "Interrupted by User")
LEFT = Spec("[sig-cli] Kubectl", "skipped", 0.0, "Only for windows")
ALL = {each.name: each for each in (PODS, TWO, GONE, LEFT)}


@pytest.fixture
def kubectl(tmp_path: Path) -> Kubectl:
    return Kubectl(Path("/kubectl"), Place(tmp_path))


def suite(folder: Path, script: str, parallel: int = 1) -> Suite:
    """A suite whose program is a shell script; $told is the file that it tells to."""
    find = "for each; do case $each in --told=*) told=${each#--told=};; esac; done"
    for name in ("e2e.test", "ginkgo"):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{find}\n{script}\n")
        path.chmod(0o755)
    return Suite(programs=folder, folder=folder, parallel=parallel)


def told(one: Spec) -> str:
    return json.dumps({"name": one.name, "state": one.state, "seconds": one.seconds, "message": one.message})


def test_what_a_suite_tells_is_yielded(tmp_path: Path, kubectl: Kubectl) -> None:
    script = f"echo '{{\"total\":1}}' >> $told; echo '{told(PODS)}' >> $told; exit 1"
    assert [*run(suite(tmp_path, script), kubectl)] == [Total(1), PODS]


def test_a_second_run_yields_its_own_and_keeps_what_was_there(tmp_path: Path, kubectl: Kubectl) -> None:
    one = suite(tmp_path, f"echo '{told(PODS)}' >> $told")
    one.told.write_text(f"{told(TWO)}\n")
    assert [*run(one, kubectl)] == [PODS]
    assert [each.name for each in read(one.told) if isinstance(each, Spec)] == [TWO.name, PODS.name]


def test_a_half_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "specs.jsonl").write_text(f"{told(PODS)}\n{told(TWO)[:20]}")
    assert [*read(tmp_path / "specs.jsonl")] == [PODS]
    assert [*read(tmp_path / "none")] == []


def test_a_suite_that_never_began(tmp_path: Path, kubectl: Kubectl) -> None:
    with pytest.raises(UserError, match=re.escape("before its first spec\n  | no such cluster")):
        [*run(suite(tmp_path, "echo no such cluster >&2; exit 1"), kubectl)]


def _interrupted(one: Suite, kubectl: Kubectl, times: int) -> Iterator[Spec | Total]:
    """What is told by a suite that gets so many signals once it runs."""
    for each in run(one, kubectl):
        yield each
        if isinstance(each, Total):
            for _ in range(times):
                threading.Timer(0, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_an_interrupt_lets_the_suite_tell_how_it_ended(tmp_path: Path, kubectl: Kubectl) -> None:
    wait = "echo '{\"total\":2}' >> $told; while :; do sleep 0.05; done"
    one = suite(tmp_path, f"end() {{ echo '{told(GONE)}' >> $told; exit 1; }}\ntrap end INT\n{wait}")
    found = []
    with pytest.raises(KeyboardInterrupt):
        for each in _interrupted(one, kubectl, 1):
            found.append(each)
    assert found == [Total(2), GONE]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_kills_a_suite_that_does_not_heed_the_first(tmp_path: Path, kubectl: Kubectl) -> None:
    one = suite(tmp_path, "trap '' INT; echo '{\"total\":2}' >> $told; while :; do sleep 0.05; done")
    with pytest.raises(KeyboardInterrupt):
        [*_interrupted(one, kubectl, 2)]


def test_specs_that_are_left_out_and_chosen(tmp_path: Path, kubectl: Kubectl) -> None:
    one = Suite(tmp_path, tmp_path, focus=["a b"], skip=["c"], left_out=[PODS.name])
    words = one.argv(kubectl)
    assert words[0] == str(tmp_path / "e2e.test")
    assert {"--ginkgo.focus=a b", "--ginkgo.skip=c", "--ginkgo.label-filter=Conformance"} <= {*words}
    assert (tmp_path / "left-out.txt").read_text() == f"{PODS.name}\n"


def test_several_at_once_are_ginkgos_to_run(tmp_path: Path, kubectl: Kubectl) -> None:
    words = Suite(tmp_path, tmp_path, focus=["a"], parallel=4).argv(kubectl)
    at = words.index("--")
    assert words[0] == str(tmp_path / "ginkgo")
    assert words[at - 1] == str(tmp_path / "e2e.test")
    assert {"--procs=4", "--focus=a"} <= {*words[:at]}
    assert f"--told={tmp_path}/specs.jsonl" in words[at:]


def test_the_summary_counts_by_sig_and_gives_causes() -> None:
    assert conformed.by_sig(ALL) == [
        ("sig-architecture", 0, 1, 0),
        ("sig-cli", 0, 0, 1),
        ("sig-node", 1, 0, 1),
        ("all", 1, 1, 2),
    ]
    text = conformed.summary(ALL, {})
    assert text.endswith(f"failed: {TWO.name}\n  a.go:7\n  Expected 1 to equal 2")
    known = {TWO.name: Known(TWO.name, "there is one node", "ours")}
    assert conformed.summary(ALL, known).endswith("  known: there is one node (ours)")


def test_the_page_has_a_row_for_each_spec() -> None:
    known = {"[sig-apps] later": Known("[sig-apps] later", "waits for ten minutes", "gVisor")}
    text = conformed.page(ALL, known, ["./do a", "./do b"], [("pause:1", "The pause image.")])
    assert "\nRun: `./do a`, then `./do b`.\n" in text
    assert text.endswith("| image | what it is |\n| --- | --- |\n| pause:1 | The pause image. |\n")
    rows = text.split("| spec |")[1].split("\n\n")[0].splitlines()[2:]
    assert rows == [
        f"| {TWO.name.replace('|', chr(92) + '|')} | failed | Expected 1 to equal 2 | not decided |",
        "| [sig-apps] later | not run | waits for ten minutes | gVisor |",
        f"| {LEFT.name} | skipped | Only for windows |  |",
        f"| {PODS.name} | passed |  |  |",
    ]


def test_the_last_result_of_a_spec_counts(tmp_path: Path) -> None:
    again = Spec(TWO.name, "passed", 1.0)
    (tmp_path / "specs.jsonl").write_text(f"{told(TWO)}\n{told(PODS)}\n{told(again)}\n")
    found = conformed.results(tmp_path / "specs.jsonl")
    assert conformed.passed(found) == [TWO.name, PODS.name]
    assert conformed.bad(found) == []


def test_known_causes_are_read_strictly(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/conformance.toml").write_text('[[known]]\nspec = "x"\ncause = "y"\n')
    with pytest.raises(Problems, match="whose"):
        conformed.known(tmp_path)
    assert conformed.known(Path(__file__).resolve().parents[2]) is not None


def test_the_suites_file_system_is_the_nodes_but_for_its_images() -> None:
    root = Path(__file__).resolve().parents[2]
    loaded = recipe.load(root)
    mine, its = loaded["rootfs-e2e"].build, loaded["rootfs"].build
    other = [dataclasses.replace(each, from_="images") if each.from_ == "images-e2e" else each for each in mine.install]
    assert dataclasses.replace(mine, install=tuple(other)) == its
    assert {*loaded["images"].build.images} <= {*loaded["images-e2e"].build.images}
    names = [loaded[each].build.name for each in sorted(loaded) if each.startswith("image-e2e-")]
    assert all(name.rpartition("/")[0] in ("sandkube.local", "sandkube.local/e2e-test-images") for name in names)
    made = {name for name in loaded if name.startswith("image-e2e-")}
    assert made <= {*loaded["images-e2e"].build.images}
    assert all(loaded[name].optional for name in (*made, "rootfs-e2e", "bundle-e2e", "e2e", "e2e-programs", "nettools"))
