"""One machine builds and pushes; another user's empty clone fetches, and has a Running pod: no step runs there."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandkube.tree import remove_tree
from tests.clones import Clone, clone

NEEDED = ("bundle", "gvisor", "kubectl", "rootfs")
"""The trees of a cluster."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Shows a folder, as any web server does; connections stay open."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(pushed: tuple[Path, str]) -> Iterator[str]:
    """The folder, by HTTP on loopback."""
    handler = functools.partial(Quiet, directory=str(pushed[0]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def other() -> Iterator[Clone]:
    """A clone with an empty home, of another user where there is one, in a folder that all may read."""
    with tempfile.TemporaryDirectory(prefix="sandkube-other-", ignore_cleanup_errors=True) as base:
        Path(base).chmod(0o755)
        made = clone(Path(base), "other", user="nobody" if os.geteuid() == 0 else "")
        yield made
        remove_tree(made.folder)


def test_a_cluster_from_a_cache(here: Clone, pushed: tuple[Path, str], address: str, other: Clone) -> None:
    one = dataclasses.replace(other, env={"SANDKUBE_CACHE": address})
    one.do("key", "trust", pushed[1])
    try:
        said = one.do("run-cluster")
        assert "building, because" not in said
        assert sorted(re.findall(r"(\S+): fetched in \S+ \w{12} from http", said)) == sorted(NEEDED)
        assert re.search(r"cache http://\S+: 4 trees fetched \([\d.]+ MB\)$", said, re.MULTILINE)
        assert "pod Running" in said
    finally:
        one.do("stop-cluster")
    expected = here.outputs()
    assert one.outputs() == {name: expected[name] for name in NEEDED}
    assert {path.name for path in (one.folder / "outputs/store/trees").iterdir()} == set(one.outputs().values())
    assert one.steps("containerd") == {}
    assert one.outputs()["containerd"] == expected["containerd"]
