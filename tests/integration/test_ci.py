"""`./do ci`, and the pipelines of CI services that call it."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sandkube.run import base_environment, network_environment
from tests.clones import ROOT, Clone, clone

ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"


def test_a_push_without_a_key(here: Clone, tmp_path: Path) -> None:
    config = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "SANDKUBE_CACHE": f"file://{tmp_path}/cache?write"}
    one = dataclasses.replace(here, env={"GITHUB_STEP_SUMMARY": str(tmp_path / "page"), **config})
    assert "no key to sign with" in one.do("ci", "--tests", "none", status=1)
    assert not (tmp_path / "cache").exists()
    assert "| push | failed |" in (tmp_path / "page").read_text()


def test_the_whole_pipeline(pushed: tuple[Path, str], tmp_path: Path) -> None:
    """In a clean clone, from one cache and to another: all but the tests, which are run already as this one is."""
    caches = {"SANDKUBE_CACHE": f"file://{pushed[0]} file://{tmp_path}/cache?write"}
    one = clone(tmp_path, "clean", env={"GITHUB_STEP_SUMMARY": str(tmp_path / "page"), **caches})
    one.do("key", "trust", pushed[1])
    one.do("key", "new", "mine")
    assert not (one.folder / "outputs").exists()
    said = one.do("ci", "--tests", "none")
    assert "all passed: outputs/ci/summary.md" in said
    folder = one.folder / "outputs/ci"
    page = (folder / "summary.md").read_text()
    assert (tmp_path / "page").read_text() == page
    assert re.findall(r"^\| (\w+) \| passed \|", page, re.MULTILINE) == ["lint", "build", "boot", "push"]
    assert re.search(r"^\| rootfs \| fetched from file:", page, re.MULTILINE)
    assert "building, because" not in said
    assert re.search(r"^\| ready \| [\d.]+ \|$", page, re.MULTILINE)
    cases = ElementTree.parse(folder / "junit.xml").findall(".//testcase")
    assert [case.get("name") for case in cases] == ["lint", "build", "boot", "push"]
    assert (tmp_path / "cache/ac").is_dir()
    assert len(list(folder.glob("*.whl"))) == 1
    assert "ci" not in one.result("status")


def test_what_fails_is_in_the_summary(here: Clone) -> None:
    """A stage that fails ends the pipeline; what it said, and what was not run, are told."""
    here.do("ci", "--tests", "nonsense", status=1)
    broken = dataclasses.replace(here, env={"SANDKUBE_CACHE": "nonsense"})
    broken.do("ci", "--tests", "none", status=1)
    page = (here.folder / "outputs/ci/summary.md").read_text()
    assert "| build | failed |" in page
    assert "| boot | not run |" in page
    assert "'nonsense' is of no kind that is known" in page
    cases = ElementTree.parse(here.folder / "outputs/ci/junit.xml").findall(".//testcase")
    assert [[each.tag for each in case] for case in cases] == [[], ["failure"], ["skipped"]]


@pytest.fixture(scope="module")
def actionlint(here: Clone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The linter of GitHub's workflows, built by the project's own Go."""
    base = tmp_path_factory.mktemp("actionlint")
    go = here.folder / "outputs/result/go-client/go/bin/go"
    own = {"GOBIN": str(base), "GOPATH": str(base / "go"), "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local"}
    env = {**base_environment(base), **network_environment(base), **own, "CGO_ENABLED": "0"}
    subprocess.run([go, "install", ACTIONLINT], cwd=base, env=env, check=True)
    return base / "actionlint"


def test_the_workflow_is_sound(actionlint: Path) -> None:
    done = subprocess.run(
        [actionlint, "-shellcheck=", "-pyflakes=", ROOT / "ci/github.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    text = (ROOT / "ci/github.yml").read_text()
    used = re.findall(r"uses: (\S+)", text)
    assert used
    assert [each for each in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", each)] == []
    check = text.partition("  check:")[2].partition("  push:")[0]
    assert "secrets." not in check


def test_the_templates_call_commands_that_there_are() -> None:
    for name in ("github.yml", "gitlab.yml"):
        called = set(
            re.findall(
                r"\./do (\S+)",
                "\n".join(
                    line for line in (ROOT / "ci" / name).read_text().splitlines() if not line.lstrip().startswith("#")
                ),
            )
        )
        assert called == {"ci", "key"}
    assert os.access(ROOT / "do", os.X_OK)
