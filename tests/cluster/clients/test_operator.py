"""An operator with a kind of its own, and webhooks that judge its objects."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.clones import ROOT
from tests.cluster.clients.conftest import Client, eventually, manifest, value

CHART = ROOT / "tests/charts/operator"
KIND = "pages.tests.sandkube.local"


def a_page(name: str, text: str | None) -> str:
    spec = {} if text is None else {"text": text}
    return json.dumps(
        {"apiVersion": "tests.sandkube.local/v1", "kind": "Page", "metadata": {"name": name}, "spec": spec}
    )


@pytest.fixture(scope="module")
def installed(operator: Client, helm: Client, kubectl: Client) -> Iterator[None]:  # noqa: ARG001
    """The chart; helm leaves CRDs to people."""
    helm("install", "operator", CHART, "--wait", "--timeout=1m")
    yield
    helm("uninstall", "operator", "--wait")
    kubectl("delete", "crd", KIND)


@pytest.mark.usefixtures("installed")
def test_an_object_is_looked_after(kubectl: Client) -> None:
    """Its text comes to a ConfigMap, again if that is deleted, and both go together."""
    said = kubectl.run("create", "--filename=-", stdin=a_page("first", "hello"))
    assert said.stderr == "Warning: pages are for tests\n"
    kubectl("wait", "page/first", "--for=jsonpath={.status.configMap}=first", "--timeout=30s")
    assert value(kubectl, "configmap first", ".data.text") == "hello"
    before = value(kubectl, "configmap first", ".metadata.uid")
    kubectl("delete", "configmap", "first")
    kubectl("wait", "configmap/first", "--for=create", "--timeout=30s")
    assert value(kubectl, "configmap first", ".metadata.uid") != before
    kubectl("patch", "page", "first", "--type=merge", '--patch={"spec": {"text": "changed"}}')
    kubectl("wait", "configmap/first", "--for=jsonpath={.data.text}=changed", "--timeout=30s")
    assert kubectl("get", "pages", "--no-headers").split() == ["first", "changed"]
    kubectl("delete", "page", "first", "--cascade=foreground", "--wait")
    assert kubectl("get", "configmap", "first", "--ignore-not-found") == ""


@pytest.mark.usefixtures("installed")
def test_webhooks_judge_objects(kubectl: Client) -> None:
    kubectl("create", "--filename=-", stdin=a_page("empty", None))
    assert value(kubectl, "page empty", ".spec.text") == "nothing yet"
    said = kubectl("create", "--filename=-", stdin=a_page("bad", "a forbidden word"), status=1)
    assert 'admission webhook "validate.tests.sandkube.local" denied the request' in said
    assert 'the text "a forbidden word" is forbidden' in said
    kubectl("patch", "page", "empty", "--type=merge", '--patch={"spec": {"text": "forbidden"}}', status=1)
    said = kubectl("create", "--filename=-", stdin=a_page("long", "x" * 101), status=1)
    assert "spec.text: Too long: may not be more than 100 bytes" in said
    assert "What the page says" in kubectl("explain", "page.spec.text")
    kubectl("delete", "page", "empty")


def test_webhooks_on_this_machine_are_not_reached(kubectl: Client) -> None:
    """A server that listens here is not asked, and what it should judge is refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        hook = {
            "name": "here.tests.sandkube.local",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"url": f"https://127.0.0.1:{server.getsockname()[1]}/"},
            "objectSelector": {"matchLabels": {"judged": "here"}},
            "rules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
            ],
        }
        made = json.loads(manifest("ValidatingWebhookConfiguration", "here", webhooks=[hook]))
        made["apiVersion"] = "admissionregistration.k8s.io/v1"
        kubectl("create", "--filename=-", stdin=json.dumps(made))
        judged = json.loads(manifest("ConfigMap", "judged"))
        judged["metadata"]["labels"] = {"judged": "here"}

        def refusal() -> str:
            done = kubectl.run("create", "--filename=-", "--dry-run=server", stdin=json.dumps(judged))
            return done.stderr if done.returncode else ""

        eventually("the webhook does not count", lambda: "connection refused" in refusal(), 30)
        with pytest.raises(BlockingIOError):
            server.accept()
    kubectl("delete", "validatingwebhookconfiguration", "here")
