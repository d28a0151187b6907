"""The API of a cluster over one connection, for what kubectl is too slow for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from sandkube.cluster.api import connection


class Said(Protocol):
    """What a command said."""

    @property
    def stdout(self) -> bytes:
        """On its standard output."""


class Api:
    """A client with the certificate of a kubeconfig; not for several threads. `kubectl` is a Kubectl, or like one."""

    def __init__(self, kubectl: Callable[..., Said]) -> None:
        view = json.loads(kubectl("config", "view", "--raw", "--flatten", "--output=json").stdout)
        self._connection = connection(view["clusters"][0]["cluster"] | view["users"][0]["user"], 60)

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        """What the API answers; a body of PATCH is a merge patch. Raises AssertionError if that is an error."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {"Content-Type": kind})
        answer = self._connection.getresponse()
        said = answer.read()
        assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {said.decode()}"
        return json.loads(said)

    def watch(self, path: str) -> Iterator[Any]:
        """The events of a watch, whose query is in the path, until `close`."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        assert answer.status == 200, f"GET {path}: {answer.status} {answer.read().decode()}"
        return map(json.loads, answer)

    def close(self) -> None:
        """End the connection; the next request makes another."""
        self._connection.close()

    def get_status(self, path: str) -> int:
        """The status of a GET."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status
