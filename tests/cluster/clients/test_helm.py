"""Helm: a chart with a database is installed, tested, upgraded, rolled back and removed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.clones import ROOT
from tests.cluster.clients.conftest import Client

CHART = ROOT / "tests/charts/guestbook"
PAGE = "http://guestbook/cgi-bin/page"


@pytest.fixture(scope="module")
def release(helm: Client, kubectl: Client) -> Iterator[str]:
    """The chart, installed; and a claim that goes with it, which charts leave behind."""
    yield helm("install", "guestbook", CHART, "--wait", "--timeout=2m", "--output=json")
    if "guestbook" in helm("list", "--short"):
        helm("uninstall", "guestbook", "--wait")
    kubectl("delete", "pvc", "data-guestbook-database-0", "--ignore-not-found")


def page(kubectl: Client) -> list[str]:
    """What the guestbook says to a pod."""
    return kubectl("exec", "guestbook-database-0", "--", "wget", "-q", "-O", "-", PAGE).splitlines()


def revisions(helm: Client) -> list[tuple[int, str]]:
    return [(each["revision"], each["status"]) for each in json.loads(helm("history", "guestbook", "--output=json"))]


def test_the_chart_is_sound(helm: Client, kubectl: Client) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, ROOT / "tests/charts/operator")
    more = ("--set=autoscaling.enabled=true", "--set=ingress.enabled=true", "--skip-tests")
    made = helm("template", "tried", CHART, *more)
    said = kubectl("apply", "--dry-run=server", "--filename=-", stdin=made)
    assert len(said.splitlines()) == 7, said


def test_install_waits_for_claim_and_pods(release: str, helm: Client, kubectl: Client) -> None:
    found = json.loads(release)
    assert (found["info"]["status"], found["version"]) == ("deployed", 1)
    claim = json.loads(kubectl("get", "pvc", "data-guestbook-database-0", "--output=json"))
    assert claim["status"]["phase"] == "Bound"
    assert claim["spec"]["storageClassName"] == "local-path"
    assert page(kubectl) == ["Welcome"]
    assert "STATUS: deployed" in helm("status", "guestbook")


def test_its_own_test_passes(release: str, helm: Client, kubectl: Client) -> None:  # noqa: ARG001
    said = helm("test", "guestbook", "--logs", "--timeout=1m")
    assert "Phase:          Succeeded" in said
    assert "helm was here" in said
    assert page(kubectl) == ["Welcome", "helm was here"]
    kubectl("delete", "pod", "guestbook-answers")


def test_upgrade_and_rollback_keep_the_data(release: str, helm: Client, kubectl: Client) -> None:  # noqa: ARG001
    before = page(kubectl)[1:]
    helm("upgrade", "guestbook", CHART, "--set=greeting=Hi,replicas=2", "--wait", "--timeout=2m")
    assert page(kubectl) == ["Hi", *before]
    assert kubectl("get", "deployment", "guestbook", "--output=jsonpath={.status.readyReplicas}") == "2"
    assert json.loads(helm("get", "values", "guestbook", "--output=json")) == {"greeting": "Hi", "replicas": 2}
    helm("rollback", "guestbook", "1", "--wait", "--timeout=2m")
    assert page(kubectl) == ["Welcome", *before]
    assert revisions(helm) == [(1, "superseded"), (2, "superseded"), (3, "deployed")]


def test_an_upgrade_that_fails_is_rolled_back(release: str, helm: Client, kubectl: Client) -> None:  # noqa: ARG001
    """Its pod would want more than there is."""
    options = ("--set=cpu=1000", "--atomic", "--timeout=10s")
    said = helm("upgrade", "guestbook", CHART, *options, status=1)
    assert "release guestbook failed, and has been rolled back due to atomic being set" in said
    assert page(kubectl)[0] == "Welcome"
    assert [each[1] for each in revisions(helm)][-2:] == ["failed", "deployed"]


def test_uninstall_leaves_the_claim(release: str, helm: Client, kubectl: Client) -> None:  # noqa: ARG001
    helm("uninstall", "guestbook", "--cascade=foreground", "--wait", "--timeout=1m")
    assert helm("list", "--all", "--short") == ""
    names = "statefulsets,deployments,services,configmaps,pods"
    assert "guestbook" not in kubectl("get", names, "--output=name")
    assert "data-guestbook-database-0" in kubectl("get", "pvc", "--output=name")
