"""What kubectl does with pods and what makes them; test_kubectl.py above has more, in every kind of sandbox."""

from __future__ import annotations

import json
import re
import select
from collections.abc import Iterator
from urllib.request import urlopen

import pytest

from tests.cluster.clients.conftest import IMAGE, NODE, Client, eventually, value


def pod_of(k: Client, selector: str) -> str:
    """One that is ready, and is not about to go."""
    found = json.loads(k("get", "pods", f"--selector={selector}", "--output=json"))["items"]
    ready = {"type": "Ready", "status": "True"}.items()
    return next(
        str(each["metadata"]["name"])
        for each in found
        if "deletionTimestamp" not in each["metadata"]
        and any(ready <= condition.items() for condition in each["status"]["conditions"])
    )


WORD = ".spec.template.spec.containers[0].env[0].value"


@pytest.fixture
def node(k: Client) -> Iterator[str]:
    """The node, which takes pods again afterwards."""
    yield NODE
    k("uncordon", NODE)
    k.run("taint", "node", NODE, "tests:NoSchedule-")


def test_rollout(k: Client, web: str) -> None:
    target = f"deployment/{web}"
    first = len(k("rollout", "history", target).strip().splitlines()) - 2
    k("set", "env", target, "WORD=second")
    k("annotate", target, "kubernetes.io/change-cause=another word")
    k("rollout", "status", target, "--timeout=60s")
    assert f"{first + 1}         another word" in k("rollout", "history", target)
    k("rollout", "pause", target)
    k("set", "env", target, "WORD=third")
    assert "cannot rollback a paused deployment" in k("rollout", "undo", target, status=1)
    assert len(k("rollout", "history", target).strip().splitlines()) - 2 == first + 1
    k("rollout", "resume", target)
    k("rollout", "status", target, "--timeout=60s")
    assert value(k, target, WORD) == "third"
    k("rollout", "undo", target, f"--to-revision={first + 1}")
    k("rollout", "restart", target)
    k("rollout", "status", target, "--timeout=60s")
    assert value(k, target, WORD) == "second"
    assert "restartedAt" in value(k, target, ".spec.template.metadata.annotations")


def test_cordon_drain_and_taint(k: Client, web: str, node: str) -> None:
    k("create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=2")
    eventually("no pod is counted", lambda: value(k, "pdb web", ".status.currentHealthy") == "2")
    drain = ("drain", node, "--pod-selector=app=web", "--ignore-daemonsets")
    said = k(*drain, "--timeout=2s", status=1)
    assert "Cannot evict pod as it would violate the pod's disruption budget" in said
    k("delete", "poddisruptionbudget", "web")
    assert f"node/{node} drained" in k(*drain, "--timeout=30s")
    assert value(k, f"node {node}", ".spec.unschedulable") == "true"
    k("wait", "pods", "--selector=app=web", "--for=condition=PodScheduled=false", "--timeout=30s")
    k("uncordon", node)
    k("rollout", "status", f"deployment/{web}", "--timeout=60s")
    k("cordon", node)
    k("taint", "node", node, "tests=yes:NoSchedule")
    k("uncordon", node)
    k("run", "refused", IMAGE, "--", "true")
    k("wait", "pod/refused", "--for=condition=PodScheduled=false", "--timeout=30s")
    assert "had untolerated taint" in k("events", "--for=pod/refused", "--types=Warning")
    k("taint", "node", node, "tests:NoSchedule-")
    k("wait", "pod/refused", "--for=condition=PodScheduled", "--timeout=30s")
    k("delete", "pod", "refused", "--now")


def test_debug(k: Client, web: str) -> None:
    """In a pod, in a copy of one, on the node."""
    pod = pod_of(k, "app=web")
    look = "ps | grep -q '[h]ttpd' && echo sees-the-server"
    k("debug", pod, IMAGE, "--target=test", "--container=look", "--profile=general", "--", "sh", "-c", look)
    ended = "jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0"
    k("wait", f"pod/{pod}", f"--for={ended}", "--timeout=30s")
    assert k("logs", pod, "--container=look") == "sees-the-server\n"
    k(
        "debug",
        pod,
        "--copy-to=copied",
        "--container=test",
        "--profile=general",
        "--",
        "sh",
        "-c",
        "echo a copy; exec sleep 999",
    )
    k("wait", "pod/copied", "--for=jsonpath={.status.phase}=Running", "--timeout=30s")
    assert k("logs", "copied") == "a copy\n"
    k("delete", "pod", "copied", "--now")
    said = k("debug", f"node/{NODE}", IMAGE, "--profile=sysadmin", "--", "cat", "/host/proc/sys/kernel/hostname")
    (name,) = re.findall(rf"node-debugger-{NODE}-\w+", said)
    k("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")
    assert k("logs", name) == f"{NODE}\n"
    k("delete", "pod", name)
    assert web


def test_run_and_attach(k: Client) -> None:
    said = k("run", "typed", IMAGE, "--stdin", "--rm", "--quiet", "--restart=Never", "--", "cat", stdin="typed here\n")
    assert said == "typed here\n"
    k(
        "run",
        "echo",
        IMAGE,
        "--stdin",
        "--attach=false",
        "--",
        "sh",
        "-c",
        "while read word; do echo got $word; done; sleep 99",
    )
    k("wait", "pod/echo", "--for=condition=Ready", "--timeout=30s")
    with k.popen("attach", "echo", "--stdin", "--quiet", stdin=-1) as process:
        assert process.stdin and process.stdout
        process.stdin.write("a word\n")
        process.stdin.flush()
        assert next(line for line in process.stdout if line.startswith("got")) == "got a word\n"
        process.terminate()
    k("delete", "pod", "echo", "--now")


def test_proxy(k: Client, web: str) -> None:
    with k.popen("proxy", "--port=0") as process:
        assert process.stdout
        address = process.stdout.readline().removeprefix("Starting to serve on ").strip()
        with urlopen(f"http://{address}/api/v1/namespaces/verbs", timeout=30) as answer:
            assert json.load(answer)["metadata"]["name"] == "verbs"
        with urlopen(f"http://{address}/api/v1/namespaces/verbs/services/{web}:80/proxy/", timeout=30) as answer:
            assert answer.read() == b"page\n"
        process.terminate()


def test_label_annotate_scale_and_autoscale(k: Client, web: str) -> None:
    k("label", "deployment", web, "colour=red")
    assert "already has a value" in k("label", "deployment", web, "colour=blue", status=1)
    k("label", "deployment", web, "colour=blue", "--overwrite")
    assert k("get", "deployments", "--selector=colour in (blue)", "--output=name") == f"deployment.apps/{web}\n"
    k("label", "deployment", web, "colour-")
    k("annotate", "deployment", web, "note=yes")
    k("annotate", "deployment", web, "note-")
    assert "Expected replicas to be 9, was 2" in k(
        "scale", "deployment", web, "--current-replicas=9", "--replicas=1", status=1
    )
    k("scale", f"deployment/{web}", "--replicas=3", "--timeout=60s")
    k("rollout", "status", f"deployment/{web}", "--timeout=60s")
    k("scale", f"deployment/{web}", "--replicas=2")
    k("autoscale", "deployment", web, "--min=2", "--max=3", "--cpu-percent=80")
    assert value(k, f"hpa {web}", ".spec.maxReplicas") == "3"
    k("delete", "hpa", web)
    k("set", "resources", f"deployment/{web}", "--requests=cpu=10m", "--dry-run=server")
    k("set", "image", f"deployment/{web}", "test=sandkube.local/test:1")


def test_ports_of_services(k: Client, web: str) -> None:
    for target in (f"service/{web}", f"deployment/{web}"):
        port = "80" if target.startswith("service") else "8080"
        with k.popen("port-forward", target, f":{port}") as process:
            assert process.stdout
            found = int(process.stdout.readline().partition("127.0.0.1:")[2].split()[0])
            with urlopen(f"http://127.0.0.1:{found}/", timeout=30) as answer:
                assert answer.read() == b"page\n"
            process.terminate()


def test_logs(k: Client, web: str) -> None:
    """Of the container before, of several pods, of a part, as they come."""
    assert sorted(set(k("logs", "--selector=app=web", "--container=test").split())) == ["serving"]
    assert re.fullmatch(
        r"(\[pod/web-\S+/test\] \S+Z serving\n){2}",
        k("logs", "--selector=app=web", "--container=test", "--prefix", "--timestamps"),
    )
    k("run", "ends", IMAGE, "--", "sh", "-c", "echo start $(cat /proc/sys/kernel/random/uuid); sleep 1; seq 5; exit 3")
    eventually(
        "it did not start again",
        lambda: value(k, "pod ends", ".status.containerStatuses[0].restartCount") not in ("", "0"),
    )
    before = k("logs", "ends", "--previous").splitlines()
    assert before[1:] == ["1", "2", "3", "4", "5"]
    assert k("logs", "ends", "--previous", "--tail=2") == "4\n5\n"
    with k.popen("logs", "ends", "--follow") as process:
        assert process.stdout
        assert select.select([process.stdout], [], [], 30)[0]
        again = process.stdout.readline()
        process.terminate()
    assert again.startswith("start ")
    assert again.strip() != before[0]
    k("delete", "pod", "ends", "--now")
    assert web


def test_usage(k: Client, web: str) -> None:
    eventually(
        "no usage", lambda: k.run("top", "pods", "--selector=app=web", "--no-headers").stdout.count("Mi") == 2, 90
    )
    assert re.search(rf"^{NODE} +\d+m +\d+% +\d+Mi +\d+%", k("top", "nodes"), re.MULTILINE)
    assert re.search(r"^web-\S+ +test +\d+m +\d+Mi", k("top", "pods", "--containers", "--no-headers"), re.MULTILINE)
    assert web
