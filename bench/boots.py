"""`./do bench boots [COUNT]`: fifty boots in a row, or so many; all whole, and none takes twice the median."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from bench.built import cluster
from sandkube.cluster.pod import Kubectl

COUNT = 50


def lacks(kubectl: Kubectl) -> list[str]:
    """What a cluster that says that it is up does not have yet."""
    wanted = {
        "a ready node": ("nodes", '{.items[*].status.conditions[?(@.type=="Ready")].status}'),
        "the API's endpoint": ("endpointslices/kubernetes", "{.endpoints[*].addresses[*]}"),
        "the account of pods": ("serviceaccounts/default", "{.metadata.name}"),
        "its authority": ("configmaps/kube-root-ca.crt", "{.metadata.name}"),
    }
    said = {
        what: kubectl("get", *words[:1], "--ignore-not-found", f"--output=jsonpath={words[1]}").stdout.decode()
        for what, words in wanted.items()
    }
    return [what for what, text in said.items() if text in ("", "False", "Unknown")]


def slow(seconds: Sequence[float]) -> list[str]:
    """A sentence for each boot above twice the median."""
    median = statistics.median(seconds)
    return [
        f"boot {at} took {each:.2f} s, the median is {median:.2f} s"
        for at, each in enumerate(seconds, 1)
        if each > 2 * median
    ]


def run(count: int) -> list[str]:
    """Boot, look, stop, again; print; what is wrong."""
    taken, wrong = [], []
    for at in range(1, count + 1):
        began = time.monotonic()
        with cluster("bench-boots") as kubectl:
            taken.append(time.monotonic() - began)
            wrong += [f"boot {at} lacks {each}" for each in lacks(kubectl)]
        print(f"{at:3}  {taken[-1]:6.2f} s", flush=True)
    print(f"{count} boots: best {min(taken):.2f} s, median {statistics.median(taken):.2f} s, worst {max(taken):.2f} s")
    return wrong + slow(taken)
