"""Some of Kubernetes' own suite, by the command that people have: specs of every SIG, named in conformance.txt.

Its programs and images take some ten minutes to build where nobody has; `-m "not conformance"` leaves it out.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sandkube.cli import conformed
from sandkube.cluster.suite import Spec, read
from tests.clones import ROOT, Clone

NAMES = (Path(__file__).parent / "conformance.txt").read_text().splitlines()
FOLDER = ROOT / "outputs/conformance"

pytestmark = pytest.mark.conformance


def focus(names: list[str]) -> list[str]:
    """Options that choose exactly these specs."""
    return [f"--focus={re.escape(each)}$" for each in names]


@pytest.fixture(scope="module")
def ran(here: Clone) -> str:
    """What the command says of all the named specs."""
    return here.result("conformance", "--parallel", "4", *focus(NAMES))


def test_specs_of_every_sig_pass(ran: str) -> None:
    found = conformed.results(FOLDER / "specs.jsonl")
    assert [each.name for each in conformed.bad(found)] == []
    assert conformed.passed(found) == sorted(NAMES)
    assert re.search(rf"^all +{len(NAMES)} +0 +0$", ran, re.MULTILINE)


def test_the_report_is_what_ci_services_read(ran: str) -> None:  # noqa: ARG001
    cases = ElementTree.parse(FOLDER / "junit_01.xml").getroot().iter("testcase")
    names = [each.get("name", "") for each in cases if each.get("status") == "passed"]
    assert sorted(each.removeprefix("[It] ") for each in names if each.startswith("[It] ")) == sorted(NAMES)


def test_what_passed_is_left_out_of_the_next_run(ran: str, here: Clone) -> None:  # noqa: ARG001
    """Of these two the first has passed; the second was not asked for before."""
    other = "[sig-node] Pods should be updated [NodeConformance] [Conformance]"
    text = here.result("conformance", "--resume", *focus([NAMES[0], other]))
    assert re.search(rf"^all +{len(NAMES) + 1} +0 +0$", text, re.MULTILINE)
    last = [each.name for each in read(FOLDER / "specs.jsonl") if isinstance(each, Spec)]
    assert last[-1] == other
    assert last.count(NAMES[0]) == 1


def test_no_cluster_is_left(ran: str) -> None:  # noqa: ARG001
    assert not (ROOT / "outputs/clusters/conformance").exists()
    said = subprocess.run([ROOT / "do", "status"], capture_output=True, text=True, check=True)
    assert "conformance" not in said.stdout
