"""Data that stay, with a stand-in for runsc: what is left at each end, and who removes it."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster import programs as made_programs
from sandkube.cluster import start, stop
from sandkube.cluster.in_place import InPlace
from sandkube.cluster.place import Place, place
from sandkube.cluster.sandbox import Sandbox
from sandkube.cluster.status import row
from sandkube.errors import UserError
from tests.unit.fake_runsc import BOOTS, WAITS, programs
from tests.unit.test_cluster_life import processes, state_of, wait_end

ROOT = Path(__file__).resolve().parents[2]
ENDS_IN_ORDER = """\
data = spec["mounts"][-1]["source"]
def end(*_):
    with open(data + "/ended", "a") as file:
        file.write("in order\\n")
    sys.exit(0)
signal.signal(signal.SIGPWR, end)
"""


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Place]:
    yield (made := place(tmp_path, "a"))
    if made.folder.exists():
        stop.delete(made)


def boot(one: Place, scenario: str = ENDS_IN_ORDER + BOOTS + WAITS, *, keep: bool = True) -> list[dict[str, Any]]:
    with one.lock():
        return list(start.start(one, programs(one.folder.parents[1] / "bundle", scenario), keep=keep))


def left(one: Place) -> set[str]:
    return {path.name for path in one.folder.iterdir()}


def ended(one: Place) -> str:
    path = one.data / "ended"
    return path.read_text() if path.exists() else ""


def test_the_sandbox_gets_the_folder(one: Place) -> None:
    boot(one)
    spec = json.loads((one.folder / "bundle/config.json").read_text())
    assert spec["process"]["args"] == ["node", "--keep"]
    mount = {"destination": "/var/kept", "source": str(one.data), "type": "bind", "options": ["rbind", "rw"]}
    assert spec["mounts"] == [mount]
    assert one.data.stat().st_mode & 0o777 == 0o700
    confined = Sandbox(Path("/runsc"), one.runsc, "c", "confined").run(made_programs.bundle(one), 1)
    assert confined[confined.index(str(one.data)) - 1] == "--write"


def test_the_node_looks_where_the_folder_is() -> None:
    assert f'"{made_programs.KEPT}"' in (ROOT / "native/node/boot/kept.go").read_text()
    assert f'path = "{made_programs.KEPT.removeprefix("/")}"' in (ROOT / "recipes/rootfs.toml").read_text()
    assert f'"$root{made_programs.KEPT}"' in (ROOT / "native/starter/sandkube").read_text()


def test_nothing_is_kept_unasked(one: Place) -> None:
    boot(one, BOOTS + WAITS, keep=False)
    assert json.loads((one.folder / "bundle/config.json").read_text())["mounts"] == []
    assert (one.kept, row(one).kept) == (False, False)
    stop.stop(one)
    assert not one.folder.exists()


def test_it_ends_in_order_and_comes_back(one: Place) -> None:
    boot(one)
    (one.data / "file").write_text("text")
    port = state_of(one).port
    stop.stop(one)
    assert ended(one) == "in order\n"
    assert processes(one) == []
    assert left(one) == {"data", "settings.json", "state.json"}
    assert (row(one).state, row(one).kept, row(one).address) == ("stopped", True, "")
    assert row(one).reason == (
        "its data stay; ./do run-cluster --name a starts it again, ./do delete-cluster --name a ends it"
    )
    boot(one, keep=False)
    assert (one.data / "file").read_text() == "text"
    assert state_of(one).port == port


def test_now_pulls_the_plug(one: Place) -> None:
    boot(one)
    stop.stop(one, now=True)
    assert ended(one) == ""
    assert (left(one), row(one).state) == ({"data", "settings.json", "state.json"}, "stopped")


def test_now_while_it_ends_in_order(one: Place) -> None:
    """A pod that takes an hour to end is in the way of nobody who pulls the plug."""
    boot(one, "signal.signal(signal.SIGPWR, lambda *_: None)\n" + BOOTS + "while True: signal.pause()\n")
    stopper = threading.Thread(target=stop.stop, args=(one,))
    stopper.start()
    stop.stop(one, now=True)
    stopper.join(60)
    assert not stopper.is_alive()
    assert (processes(one), row(one).state) == ([], "stopped")


def test_a_node_that_cannot_be_asked_is_ended(one: Place) -> None:
    boot(one)
    (one.runsc / "pid").write_text("none")
    stop.stop(one)
    assert (ended(one), processes(one), row(one).state) == ("", [], "stopped")


def test_stopping_twice(one: Place) -> None:
    boot(one)
    for _ in range(2):
        stop.stop(one)
        assert (left(one), row(one).state) == ({"data", "settings.json", "state.json"}, "stopped")


def test_what_is_left_when_it_is_killed(one: Place) -> None:
    boot(one)
    state = state_of(one)
    os.kill(state.pid, signal.SIGKILL)
    wait_end(state.pid)
    assert row(one).state == "killed"
    assert row(one).reason.endswith("starts it again, ./do delete-cluster --name a ends it")
    stop.stop(one)
    assert (left(one), row(one).state, processes(one)) == ({"data", "settings.json", "state.json"}, "stopped", [])


def test_a_damaged_state(one: Place) -> None:
    boot(one)
    (one.folder / "state.json").write_text("{")
    stop.stop(one)
    assert (left(one), row(one).state, processes(one)) == ({"data", "settings.json", "state.json"}, "stopped", [])


@pytest.mark.parametrize("earlier", [False, True])
def test_leaving_early_takes_what_was_made_just_now(one: Place, earlier: bool) -> None:
    if earlier:
        boot(one)
        stop.stop(one)
    made = programs(one.folder.parents[1] / "bundle", BOOTS + WAITS)
    with one.lock():
        events = start.start(one, made, keep=True)
        assert next(events)["stage"] == "mounts"
        with pytest.raises(KeyboardInterrupt):
            events.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert one.kept == one.folder.exists() == earlier
    assert processes(one) == []


def test_delete_takes_all(one: Place) -> None:
    boot(one)
    closed = one.data / "pods/closed"
    closed.mkdir(parents=True)
    (closed / "file").write_text("")
    (one.data / "link").symlink_to(ROOT)
    closed.chmod(0)
    stop.delete(one)
    assert (one.folder.exists(), processes(one)) == (False, [])
    assert (ROOT / "README.md").exists()
    with pytest.raises(UserError, match=re.escape("there is no cluster a")):
        stop.delete(one)


def test_in_place(one: Place) -> None:
    """The script has the folder from its first words."""
    words = InPlace(one.folder, ("--fix=x=on",), str(one.data)).run(Path("/"), 1)
    assert words[1:] == ["run", f"--data={one.data}", "--with-parent", "--fix=x=on"]
    assert InPlace(one.folder).run(Path("/"), 1)[1:] == ["run", "--with-parent"]
