"""What `./do bench` is asked for, what it calls growth, and how it tells figures beside their aims."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.table import Table

from bench import aims
from bench.__main__ import asked
from bench.aims import Aim, part
from bench.boots import slow
from bench.built import product
from bench.compared import Measured, told
from bench.figures import FIGURES, faults, grows
from bench.subjects import spent
from sandkube.errors import UserError
from tests.clones import ROOT


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), ("", [])),
        (("cache",), ("cache", [])),
        (("boots",), ("boots", [])),
        (("boots", "3"), ("boots", [3])),
        (("soak", "60", "7"), ("soak", [60, 7])),
        (("figures", "1", "1000"), ("figures", [1, 1000])),
    ],
)
def test_what_is_asked_for(words: tuple[str, ...], wanted: tuple[str, list[int]]) -> None:
    assert asked(words) == wanted


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("boot",), "bench: there is no measurement 'boot'"),
        (("boots", "0"), "bench: COUNT of boots is a whole number above 0, not '0'"),
        (("boots", "2", "3"), "bench: boots takes COUNT, not 2 3"),
        (("soak", "1h"), "bench: SECONDS of soak is a whole number above 0, not '1h'"),
        (("soak", "60", "-1"), "bench: SEED of soak is a whole number above 0, not '-1'"),
        (("figures", "0"), "bench: ROUNDS of figures is a whole number above 0, not '0'"),
        (("figures", "1", "2", "3"), "bench: figures takes ROUNDS CHURN, not 1 2 3"),
        (("cache", "1"), "bench: cache takes nothing more, not 1"),
    ],
)
def test_what_there_is_not(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        asked(words)
    assert raised.value.message == sentence


@pytest.mark.parametrize(
    ("values", "counted", "wanted"),
    [
        ([100 + 10 * at for at in range(12)], False, True),
        ([100, 150, 190, 200, 202, 201, 203, 202, 201, 204, 203, 202], False, False),  # it warms up
        ([100, 101, 99, 100, 160, 161, 160, 159, 160, 161, 160, 162], False, False),  # a step
        ([200 - 10 * at for at in range(12)], False, False),
        ([100, 130, 190], False, False),  # too few to tell of what warms up
        ([2, 3, 9], True, True),
        ([2, 9, 3], True, False),
        ([2], True, False),
        ([], True, False),
    ],
)
def test_growth(values: list[float], wanted: bool, counted: bool) -> None:
    assert grows(values, 5, counted=counted) is wanted


def test_faults_name_the_figure() -> None:
    still = dict.fromkeys(FIGURES, 10.0)
    samples = [still | {"mounts": 100.0 + 10 * at, "log ahead": 30.0} for at in range(9)]
    assert list(faults([still] * 9)) == []
    assert list(faults(samples)) == [
        "mounts goes on growing: 100, 110, 120, 130, 140, 150, 160, 170, 180",
        "log ahead is 30 MB, 24 is the most: 30, 30, 30, 30, 30, 30, 30, 30, 30",
    ]


def test_slow_boots() -> None:
    assert slow([2.0, 2.1, 4.5, 1.9, 4.0]) == ["boot 3 took 4.50 s, the median is 2.10 s"]
    assert slow([3.0]) == []


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [
        ([3, 1, 2], 0.5, 2),
        ([4, 1, 2, 3], 0.5, 2.5),
        ([*range(100, 0, -1)], 0.99, 99),
        ([5, 7], 0.99, 7),
        ([5], 0.99, 5),
    ],
)
def test_medians_and_percentiles(values: list[float], share: float, wanted: float) -> None:
    assert part(values, share) == wanted


def test_figures_beside_their_aims() -> None:
    """What is at its aim holds to it; what was not measured does not pass for that."""
    found = {
        ("whole", "ours"): [1.9, 2.0, 9.0],
        ("whole", "bare"): [1.0, 1.0, 1.2],
        ("whole", "kwok"): [2.5],
        ("later", "ours"): [0.5] * 98 + [1.3, 1.4],
        ("later", "kwok"): [0.1],
        ("memory", "ours"): [281.0],
        ("memory with system pods", "ours"): [600.0],
        ("churned", "ours"): [-3.0],
        ("quota whole", "ours"): [40.0],
    }
    rows = {row[0]: row[1:] for row in aims.rows(found)}
    assert list(rows) == [aim.what for aim in aims.AIMS]
    assert rows["command to node Ready and whole"] == ("2.00 s", "2.00 s", "met", "1.00 s", "2.50 s")
    ratio = ("2.00 times", "1.50 times", "missed", "", "2.50 times")
    assert rows["the same, measured by the bare control plane's first answer"] == ratio
    assert rows["later pods, create to Running, p50"][:3] == ("0.50 s", "0.60 s", "met")
    assert rows["later pods, create to Running, p99"] == ("1.30 s", "1.20 s", "missed", "", "0.10 s")
    assert rows["idle memory one minute after Ready"] == ("281 MB", "280 MB", "missed", "", "")
    assert rows["idle memory with system pods"] == ("600 MB", "", "", "", "")
    assert rows["after many pods came and went, ten minutes later: more memory by"][:3] == ("-3 %", "15 %", "met")
    assert rows["0.25 core: command to node Ready and whole"] == ("40.00 s", "boots", "met", "", "")
    for missing in ("command to acceptance pod Running", "idle CPU, of a core"):
        assert (rows[missing][0], rows[missing][2]) == ("", "not measured")


def test_a_whole_table_without_a_measurement() -> None:
    table = aims.table({})
    assert table.row_count == len(aims.AIMS)
    assert {row[3] for row in aims.rows({})} == {"not measured"}


def test_the_aims_are_of_one_kind_each() -> None:
    assert len({(aim.key, aim.share) for aim in aims.AIMS}) == len(aims.AIMS)
    assert Aim("", "", math.inf).told(1.006) == "1.01 s"
    assert Aim("", "", 1, "MB").told(345.6) == "346 MB"


def test_stages_are_in_the_order_of_their_medians() -> None:
    boots = [{"b": 2.0, "a": 1.0, "c": 3.0}, {"b": 4.0, "a": 0.5}, {"a": 3.0, "b": 3.5}]
    assert list(aims.stages(boots)) == [
        ("a", "0.50 s", "1.00 s", "3.00 s"),
        ("c", "3.00 s", "3.00 s", "3.00 s"),
        ("b", "2.00 s", "3.50 s", "4.00 s"),
    ]


def test_all_that_was_measured_is_told() -> None:
    """A table of stages for each that booted, the figures, and why some were not measured."""
    measured = Measured()
    measured.boots["ours"] += [{"apiserver": 1.0, "whole": 2.0}, {"apiserver": 1.2, "whole": 2.2}]
    measured.boots["bare"] += [{"datastore": 0.5, "whole": 1.0}]
    measured.notes.append("under 0.25 core: no cgroup")
    tables = [each for each in told(measured) if isinstance(each, Table)]
    assert [each.row_count for each in tables] == [2, 2, len(aims.AIMS)]
    assert [each.columns[0].header for each in tables] == ["STAGES OF OURS", "STAGES OF BARE", "FIGURE"]
    assert [*told(measured)][-1] == "under 0.25 core: no cgroup"


def test_what_is_not_built_is_named(tmp_path: Path) -> None:
    made = tmp_path / "outputs/result/etcd/bin/etcd"
    with pytest.raises(UserError) as raised:
        product("etcd/bin/etcd", tmp_path)
    assert (raised.value.message, raised.value.hint) == ("bench: etcd is not built", "./do build etcd")
    made.parent.mkdir(parents=True)
    made.touch()
    assert product("etcd/bin/etcd", tmp_path) == made


def test_time_of_a_process_and_of_its_children() -> None:
    before = spent(os.getpid())
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    alone = spent(os.getpid())
    assert 0.05 <= alone - before < 5
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    with subprocess.Popen([sys.executable, "-c", busy]) as child:
        pass
    assert spent(os.getpid()) - alone >= 0.15
    assert spent(child.pid) == 0


def test_it_needs_no_package_of_the_tests() -> None:
    """Only `./do test` and its like have those."""
    code = "import sys; sys.modules |= dict.fromkeys(['pytest', 'hypothesis']); import bench.__main__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
