"""What `./do bench` is asked for, and what it calls growth."""

from __future__ import annotations

import pytest

from bench.__main__ import asked
from bench.boots import slow
from bench.figures import FIGURES, faults, grows
from sandkube.errors import UserError


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), ("", [])),
        (("cache",), ("cache", [])),
        (("boots",), ("boots", [])),
        (("boots", "3"), ("boots", [3])),
        (("soak", "60", "7"), ("soak", [60, 7])),
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
