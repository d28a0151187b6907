"""What people at a terminal see while steps run."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from sandkube.cli.live import View, last_line
from sandkube.events import Downloading, Failed, Noted, StepDoes, StepFinished, StillRunning
from tests.small import Small, small

LONG = "x" * 200


def console(width: int = 60, height: int = 20) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def rows(view: View, screen: Console) -> list[str]:
    """What the view draws below the lines."""
    other = console(screen.width, screen.height)
    other.print(view.rows())
    assert isinstance(other.file, io.StringIO)
    return other.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [20, 60])
def test_running_steps_have_a_line_each_that_fits(width: int, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"first\n\x1b[31m{LONG}\x1b[0m\r\n\n")
    screen = console(width)
    view = View(screen)
    view.take(StepDoes("runc", "building", str(tmp_path / "log")), 0)
    view.take(StepDoes("go", "fetching", None), 0)
    drawn = rows(view, screen)
    view.close()
    assert [line.split()[0] for line in drawn] == ["go", "runc"]
    assert "\x1b" not in "".join(drawn)
    assert max(map(len, drawn)) <= width
    assert width == 20 or drawn[1].startswith("  runc building 0s  xxx")


def test_what_ended_is_gone_and_its_line_stays() -> None:
    screen = console()
    view = View(screen)
    for name in ("a", "b"):
        view.take(StepDoes(name, "building", None), 0)
    view.take(StepFinished("a", 1.0, "abcdef0123456789", same=False), 1)
    view.take(Failed("b", "error: b: no", bug=False), 1)
    view.take(Noted("c", "[bold]asking again"), 1)
    view.take(StillRunning(()), 9)
    drawn = rows(view, screen)
    view.close()
    assert drawn in ([], [""])
    stream = screen.file
    assert isinstance(stream, io.StringIO)
    for line in ("a: done in 1.0s: abcdef012345", "error: b: no", "c: [bold]asking again"):
        assert line in stream.getvalue()
    assert "still running" not in stream.getvalue()


def test_a_download_has_a_rate_and_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    screen = console()
    view = View(screen)
    view.take(StepDoes("go", "fetching", None), 0)
    view.take(Downloading("go", "there", 1_000_000, 9_000_000), 0)
    assert rows(view, screen) == ["  go fetching 0s  1.0 of 9.0 MB"]
    now = 102.0
    view.take(Downloading("go", "there", 5_000_000, 9_000_000), 2)
    assert rows(view, screen) == ["  go fetching 2s  5.0 of 9.0 MB, 2.0 MB/s, 2s left"]
    view.close()


def test_no_more_lines_than_fit() -> None:
    screen = console(height=6)
    view = View(screen)
    for number in range(9):
        view.take(StepDoes(f"s{number}", "building", None), 0)
    drawn = rows(view, screen)
    view.close()
    assert (len(drawn), drawn[-1]) == (4, "  and 6 more")


def test_the_last_line_of_a_log_that_is_not_there() -> None:
    assert last_line(None) == last_line("/no/such") == ""


def at_a_terminal(one: Small, **env: str) -> str:
    """All that `./do build` writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        one.argv("build"), cwd=one.folder, env={**one.environment(), **env}, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while block := os.read(ours, 1 << 16):
                said += block
        except OSError:  # EIO: the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0, said
    return said.decode()


def test_at_a_terminal(tmp_path: Path) -> None:
    plain = at_a_terminal(small(tmp_path / "dumb"), TERM="dumb")
    assert "\x1b" not in plain
    shown = at_a_terminal(small(tmp_path / "view"), TERM="xterm", NO_COLOR="1")
    assert "\x1b[2K" in shown, "lines are drawn anew"
    assert not re.search(r"\x1b\[[\d;]*3\dm", shown), "no colour"
    for said in (plain, shown):
        assert re.search(r"top: done in \d+\.\d+s: [0-9a-f]{12}", said)
        assert "3 steps ran, 0 were up to date" in said
    assert at_a_terminal(Small(tmp_path / "view", small(tmp_path / "x").env), TERM="xterm").startswith("nothing to do")
