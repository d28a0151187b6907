"""The API of a cluster over one connection, for what cannot wait until kubectl has started, which takes 0.15 s.

The connection ends with the cluster: its other end is the supervisor's, or the node's.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import select
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sandkube.cluster.deadline import Deadline
from sandkube.cluster.place import Place, needs_running
from sandkube.errors import UserError

_FIELD = re.compile(
    r"^\s+(server|certificate-authority-data|client-certificate-data|client-key-data): (\S+)$", re.MULTILINE
)
"""The lines of the node's kubeconfig (native/node/pki) that say where and who."""
_AGAIN = (http.HTTPStatus.GONE, http.HTTPStatus.TOO_MANY_REQUESTS)
_FAREWELL = 5.0  # seconds for a supervisor to end after its sandbox


class Api:
    """A client as the administrator; not for several threads. Each call raises UserError."""

    def __init__(self, one: Place, deadline: Deadline) -> None:
        self._place, self._deadline = one, deadline
        self._connection: http.client.HTTPSConnection | None = None

    def post(self, path: str, body: object) -> None:
        """Make an object."""
        with self._faults(f"POST {path}"):
            self._answer("POST", path, json.dumps(body)).read()

    def watch(self, path: str) -> Iterator[dict[str, Any]]:
        """The events of a watch, whose query is in the path, until the server ends it, in whatever way."""
        with self._faults(f"GET {path}"):
            answer = self._answer("GET", path)
            for line in answer:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    self._ended(event["object"])
                    answer.read()
                    return
                yield event
                self._in_time()

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()

    def _ended(self, status: Mapping[str, Any]) -> None:
        """Heed the Status that ends a watch: it may be asked for again, after a while, or is refused."""
        if status["code"] < http.HTTPStatus.INTERNAL_SERVER_ERROR and status["code"] not in _AGAIN:
            raise UserError(f"cluster {self._place.name}: {status['message']}")
        self._wait(status.get("details", {}).get("retryAfterSeconds", 0))

    def _wait(self, seconds: float) -> None:
        """As long as the server says, within the deadline; the cluster's end is not waited over."""
        left = self._deadline.left()
        self._await_end(seconds if left is None else min(seconds, left))

    def _answer(self, method: str, path: str, body: str | None = None) -> http.client.HTTPResponse:
        """What is said to a request, which is made again for as long as the server has no time for it."""
        while True:
            opened = self._connection = self._connection or self._connect()
            self._in_time()
            opened.request(method, path, body, {"Content-Type": "application/json"})
            answer = opened.getresponse()
            if 200 <= answer.status < 300:
                return answer
            said, later = answer.read(), answer.headers.get("Retry-After", "")
            if answer.status != http.HTTPStatus.TOO_MANY_REQUESTS or not later.isdecimal():
                raise UserError(f"cluster {self._place.name}: {_reason(said)}")
            self._wait(int(later))

    def _connect(self) -> http.client.HTTPSConnection:
        found = dict(_FIELD.findall(self._place.kubeconfig.read_text()))
        made = connection(found, self._deadline.left(), self._place.folder)
        made.connect()
        return made

    def _in_time(self) -> None:
        left = self._deadline.left()
        if left == 0:
            raise TimeoutError
        if self._connection is not None:
            self._connection.sock.settimeout(left)

    def _await_end(self, seconds: float) -> None:
        """The supervisor's end, for some seconds. Raises UserError if it does not run."""
        with self._place.supervisor() as supervisor:
            select.select([supervisor], [], [], seconds)

    @contextmanager
    def _faults(self, call: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise UserError(
                f"{call}: cluster {self._place.name} gave no answer in {self._deadline.seconds:.0f} s",
                hint=f"./do logs --name {self._place.name} apiserver shows more; --timeout gives it longer",
            ) from None
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            self._await_end(_FAREWELL)  # the connection breaks first, then the supervisor says why the cluster ended
            needs_running(self._place)
            raise UserError(f"{call}: cluster {self._place.name}: {error!r}") from None


def connection(
    fields: Mapping[str, str], timeout: float | None, scratch: Path | None = None
) -> http.client.HTTPSConnection:
    """To the server of a kubeconfig with its certificates, by the fields of its cluster and its user; not made yet.

    The key is in a file below `scratch` for a moment: ssl(3) takes none from memory.
    """
    address = urlsplit(fields["server"])
    authority = base64.b64decode(fields["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        pair = [Path(name, each) for each in ("certificate", "key")]
        for path, field in zip(pair, ("client-certificate-data", "client-key-data"), strict=True):
            path.touch(mode=0o600)
            path.write_bytes(base64.b64decode(fields[field]))
        context.load_cert_chain(*map(str, pair))
    return http.client.HTTPSConnection(str(address.hostname), address.port, context=context, timeout=timeout)


def _reason(answer: bytes) -> str:
    """What a Status says; the text, where it is none."""
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.decode(errors="replace").strip()
