"""`./do bench soak [SECONDS] [SEED]`: a cluster that works for an hour, or so long, and what it takes meanwhile.

Each round makes a namespace with pods, Services and config maps, does all kinds of harm in an order of its own, deletes
the namespace, and tells the figures of the cluster at rest. The datastore is compacted every five minutes by itself.
Left out: garbage collection of images, which the node turns off; another time of day, which a sandbox has from the
machine.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import built
from bench.figures import FIGURES, faults, inside, sample
from sandkube.cluster.pod import Kubectl
from sandkube.cluster.processes import with_words
from sandkube.errors import UserError
from sandkube.run import base_environment
from tests.api import Api

SECONDS = 3600
PODS = 4  # started after each harm
PATIENCE = 120.0
SETTLING = 60.0
STOPPED = 4.0  # seconds that the sandbox stands still
BETWEEN_DEATHS = 45.0  # five within two minutes end the node
SERVE = "mkdir /w; echo page >/w/index.html; httpd -p 8080 -h /w; trap 'exit 0' TERM; sleep 2147483647 & wait"
CHATTY = "p=$(printf %0180d 0); i=0; while [ $i -lt 24000 ]; do echo $i $p; i=$((i+1)); done; exec sleep 2147483647"


class Wrong(Exception):
    """What the cluster did not bear."""


def _pod(name: str, command: str) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": "sandkube.local/test:1",
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", command],
    }
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    return {"metadata": {"name": name, "labels": {"app": "soak"}}, "spec": spec}


class Soak:
    """Rounds in one cluster; `counts` says what was done."""

    def __init__(self, kubectl: Kubectl, seed: int) -> None:
        self.kubectl, self.random = kubectl, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.before = sample(kubectl)
        self.samples: list[dict[str, float]] = []
        self._died: dict[str, float] = {}
        self._namespace = ""
        self._names: list[str] = []
        self._pods = 0
        self._api: Api | None = None

    @property
    def harms(self) -> tuple[Callable[[], None], ...]:
        """All kinds of it."""
        cuts = (self.cut_exec, self.cut_forward, self.stop_sandbox, self.fill_log)
        return (*cuts, self.kill_containerd, self.kill_traffic)

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Ask over one connection; a new one where that has ended."""
        for last in (False, True):
            try:
                self._api = self._api or Api(self.kubectl)
                return self._api(method, path, body)
            except (OSError, http.client.HTTPException):
                self.close()
                if last:
                    raise
        return None

    def close(self) -> None:
        """End the connection."""
        if self._api:
            self._api.close()
        self._api = None

    def until(self, what: str, holds: Callable[[], object]) -> None:
        """Wait for it. Raises Wrong."""
        end = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > end:
                raise Wrong(f"{what}: not within {PATIENCE:.0f} s")
            time.sleep(0.2)

    @property
    def done(self) -> str:
        """What was done until now."""
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())

    @property
    def _base(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}"

    def start_pods(self, *commands: str) -> None:
        """Have them Running. Raises Wrong for one that failed."""
        for command in commands:
            self._names.append(f"pod-{self._pods}")
            self._pods += 1
            self.api("POST", f"{self._base}/pods", _pod(self._names[-1], command))

        def run() -> bool:
            found = {
                each["metadata"]["name"]: each["status"] for each in self.api("GET", f"{self._base}/pods")["items"]
            }
            for name in self._names:
                state = found.get(name, {"phase": "gone"})
                if state["phase"] in ("Failed", "gone") or any(
                    each["restartCount"] for each in state.get("containerStatuses", ())
                ):
                    raise Wrong(f"pod {name} did not go on: {state}")
            return all(state["phase"] == "Running" for state in found.values())

        self.until("pods Running", run)
        self.counts["container starts"] += len(commands)

    def cut_exec(self) -> None:
        """Kill kubectl in the middle of a session that talks."""
        words = ["exec", f"--namespace={self._namespace}", self.random.choice(self._names), "--"]
        argv = self.kubectl.argv(*words, "sh", "-c", "while echo x; do sleep 0.05; done")
        with subprocess.Popen(argv, env=base_environment(self.kubectl.place.folder), stdout=subprocess.PIPE) as session:
            assert session.stdout is not None
            if session.stdout.readline() != b"x\n":
                raise Wrong("an exec session says nothing")
            session.kill()

    def cut_forward(self) -> None:
        """Kill kubectl with a connection through it."""
        words = ["port-forward", f"--namespace={self._namespace}", f"pod/{self.random.choice(self._names)}", ":8080"]
        environment = base_environment(self.kubectl.place.folder)
        with subprocess.Popen(self.kubectl.argv(*words), env=environment, stdout=subprocess.PIPE, text=True) as forward:
            assert forward.stdout is not None
            found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", forward.stdout.readline())
            if not found:
                raise Wrong("a port is not forwarded")
            with socket.create_connection(("127.0.0.1", int(found[1])), 20) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n")
                forward.kill()

    def kill_containerd(self) -> None:
        """As a crash would."""
        self._kill("containerd", "$(pidof containerd)")

    def kill_traffic(self) -> None:
        """What serves Services and names; it does again."""
        its = "grep -q traffic /proc/$each/cmdline && echo $each"
        self._kill("traffic", f"$(for each in $(pidof sandkube-node); do {its}; done)")
        name = "nslookup -type=a kubernetes.default.svc.cluster.local 10.96.0.10"
        self.until("names", lambda: "10.96.0.1\n" in inside(self.kubectl, f"{name}; true"))

    def _kill(self, what: str, pids: str) -> None:
        """Not too often: who ends again and again ends the node."""
        if time.monotonic() < self._died.get(what, -BETWEEN_DEATHS) + BETWEEN_DEATHS:
            return
        inside(self.kubectl, f"kill -KILL {pids}")
        self._died[what] = time.monotonic()
        self.counts[f"deaths of {what}"] += 1

    def stop_sandbox(self) -> None:
        """Stop all of it, and let it go on."""
        processes = [*with_words(f"--root={self.kubectl.place.runsc}")]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for each in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, number)
            if number == signal.SIGSTOP:
                time.sleep(STOPPED)
        self.until("the API after a stop", lambda: self.kubectl("get", "--raw=/readyz").stdout == b"ok")

    def fill_log(self) -> None:
        """Write more than the kubelet keeps of a log, and see it rotated: it looks every ten seconds."""
        self.start_pods(CHATTY)
        name = f"/var/log/pods/{self._namespace}_{self._names.pop()}_*/c"
        self.until("a log's rotation", lambda: int(inside(self.kubectl, f"ls {name} | wc -l")) > 1)

    def _objects(self) -> None:
        for at in range(20):
            self.api("POST", f"{self._base}/configmaps", {"metadata": {"name": f"map-{at}"}, "data": {"x": "y" * 500}})
        for at in range(4):
            spec = {"selector": {"app": "soak"}, "ports": [{"port": 80 + at, "targetPort": 8080}]}
            self.api("POST", f"{self._base}/services", {"metadata": {"name": f"service-{at}"}, "spec": spec})
        for at in range(20):
            self.api("PATCH", f"{self._base}/configmaps/map-{at}", {"data": {"x": str(at)}})
        for at in range(0, 20, 2):
            self.api("DELETE", f"{self._base}/configmaps/map-{at}")
        self.counts["objects"] += 24

    def _gone(self) -> bool:
        assert self._api is not None
        return self._api.get_status(self._base) == 404

    def round(self) -> dict[str, float]:
        """Everything once; the figures after it."""
        self.counts["rounds"] += 1
        self._namespace, self._names = f"soak-{self.counts['rounds']}", []
        self.api("POST", "/api/v1/namespaces", {"metadata": {"name": self._namespace}})
        self.until("an account", lambda: self.api("GET", f"{self._base}/serviceaccounts")["items"])
        self._objects()
        self.start_pods(*[SERVE] * PODS)
        for harm in self.random.sample(self.harms, len(self.harms)):
            harm()
            if not harm.__name__.startswith("kill"):
                self.counts[harm.__name__.replace("_", " ")] += 1
            self.start_pods(*[SERVE] * PODS)
            for name in [self._names.pop(0) for _ in range(PODS)]:
                self.api("DELETE", f"{self._base}/pods/{name}")
        self.api("DELETE", f"/api/v1/namespaces/{self._namespace}")
        self.until("the end of a namespace", self._gone)
        self.samples.append(self._rest())
        return self.samples[-1]

    def _rest(self) -> dict[str, float]:
        """The figures when what is counted is back where it was before the first round, or does not come back."""
        end = time.monotonic() + SETTLING
        while True:
            found = sample(self.kubectl)
            if time.monotonic() > end or all(
                found[name] <= self.before[name] + FIGURES[name].slack for name in ("veths", "mounts", "processes")
            ):
                return found
            time.sleep(1)

    def rounds(self, seconds: float) -> Iterator[dict[str, float]]:
        """One after the other, for so long."""
        end = time.monotonic() + seconds
        while not self.samples or time.monotonic() < end:
            yield self.round()


def run(kubectl: Kubectl, seconds: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Soak a cluster, print each round; what is wrong, and what was done."""
    with contextlib.closing(Soak(kubectl, seed)) as soak:
        return _run(soak, seconds, seed), soak.counts


def _run(soak: Soak, seconds: int, seed: int) -> list[str]:
    began = time.monotonic()
    print(f"soaking for {seconds} s, seed {seed}", flush=True)
    print("   TIME  " + "  ".join(f"{name:>11}" for name in FIGURES), flush=True)
    try:
        for found in soak.rounds(seconds):
            line = "  ".join(f"{found[name]:>11.0f}" for name in FIGURES)
            print(f"{time.monotonic() - began:6.0f}s  {line}", flush=True)
    except (Wrong, UserError, AssertionError) as error:  # the last: what the API answered
        return [f"{error} (after {soak.done})", *faults(soak.samples)]
    print(f"done: {soak.done}")
    return [*faults(soak.samples)]


def main(outputs: Path, seconds: int, seed: int) -> int:
    """Soak a cluster of this checkout's products in a folder, for tests."""
    with built.cluster("soak", outputs=outputs) as kubectl:
        wrong, _ = run(kubectl, seconds, seed)
    print("\n".join(wrong or ["nothing is wrong"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
