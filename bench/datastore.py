"""`./do bench datastore`: what clients wait for that have to know the newest, and what the datastore takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing

from rich.console import Console
from rich.table import Table

from bench.built import cluster
from tests.api import Api

SETTLING = 20.0  # seconds after a boot, which are controllers' starts
MANY = 300  # namespaces
MAPS = "/api/v1/namespaces/default/configmaps"
LISTED = "/api/v1/namespaces/default/podtemplates"


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _row(table: Table, what: str, found: list[float], note: str = "") -> None:
    table.add_row(what, f"{min(found) * 1000:.1f} ms", f"{statistics.median(found) * 1000:.1f} ms", note)


def _lists(api: Api, table: Table) -> None:
    api("POST", MAPS, {"metadata": {"name": "bench"}})
    writes, close, apart = [], [], []
    for at in range(20):
        writes.append(_seconds(lambda at=at: api("PATCH", f"{MAPS}/bench", {"data": {"at": str(at)}})))  # type: ignore[misc]
        close.append(_seconds(lambda: api("GET", LISTED)))
    for at in range(20):
        api("PATCH", f"{MAPS}/bench", {"data": {"at": f"again {at}"}})
        apart.append(_seconds(lambda: api("GET", LISTED)))
        time.sleep(0.2)
    _row(table, "patch a config map", writes)
    _row(table, "then list another kind, one after the other", close)
    _row(table, "then list another kind, at leisure", apart, "aim: 20 ms")
    _row(table, "list that kind without a write", [_seconds(lambda: api("GET", LISTED)) for _ in range(20)])


def _gone(api: Api, prefix: str) -> None:
    while any(
        each["metadata"]["name"].startswith(prefix)
        for each in api("GET", "/api/v1/namespaces?resourceVersion=0")["items"]
    ):
        time.sleep(0.05)


def _namespaces(api: Api, names: list[str]) -> float:
    for name in names:
        api("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    time.sleep(3)

    def delete() -> None:
        for name in names:
            api("DELETE", f"/api/v1/namespaces/{name}")
        _gone(api, "bench-")

    return _seconds(delete)


def main() -> None:
    """Measure and print."""
    table = Table("WHAT", "BEST", "MEDIAN", "", box=None)
    with cluster("bench-datastore") as kubectl, closing(Api(kubectl)) as api:
        time.sleep(SETTLING)
        _lists(api, table)
        _row(table, "delete an empty namespace", [_namespaces(api, [f"bench-{at}"]) for at in range(5)], "aim: 1 s")
        many = _namespaces(api, [f"bench-{at}" for at in range(MANY)])
        table.add_row(f"delete {MANY} empty namespaces", f"{many:.1f} s", "", "aim: 30 s")
    Console(width=130).print(table)
