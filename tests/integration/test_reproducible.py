"""Two clones in different folders, by different users, with other umask, zone, language and home: the same bytes."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.clones import Clone, clone


@pytest.fixture
def stranger() -> Iterator[Clone]:
    """A clone of an ordinary user with everything else, and nothing built or fetched."""
    base = Path(tempfile.mkdtemp(prefix="sandkube-elsewhere-"))
    base.chmod(0o755)
    env = {"TZ": "Pacific/Chatham", "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8"}
    yield clone(base, "elsewhere", user="nobody", env=env, umask=0o077)
    for path in base.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(base)


def test_every_output_is_the_same(here: Clone, stranger: Clone) -> None:
    ours = here.outputs()
    stranger.do("build")
    theirs = stranger.outputs()
    table = Table("OUTPUT", "HERE", "ELSEWHERE", "", box=None)
    for name in sorted(ours | theirs):
        one, other = ours.get(name, "missing"), theirs.get(name, "missing")
        table.add_row(name, one[:32], other[:32], "same" if one == other else "DIFFERENT")
    Console(width=100).print(table)
    assert theirs == {name: ours[name] for name in theirs}
    assert "bundle" in theirs
    assert "images" in theirs
    said = stranger.do("run-cluster")
    assert re.search(r"^test-100-final +1/1 +Running ", said, re.MULTILINE), "the main command, as an ordinary user"
    stranger.do("stop-cluster")
