"""The confinement that is made by hand, where an engine cannot be started, is that of the engine."""

from __future__ import annotations

import pytest

from tests.anywhere.containers import USER, Container
from tests.anywhere.engines import Engine, Runtime, run
from tests.anywhere.yard import Yard

FACTS = (
    ("grep", "-E", "^(Cap|NoNewPrivs|Seccomp)", "/proc/self/status"),
    ("cat", "/proc/self/uid_map"),
    ("unshare", "--user", "true"),
    ("unshare", "--mount", "true"),
    ("unshare", "--user", "--mount", "true"),
    ("chroot", "/", "true"),
    ("head", "-c1", "/proc/kcore", "/proc/timer_list"),
    ("sh", "-c", "echo 0 2>&1 >/proc/sys/kernel/panic"),
    ("sh", "-c", "ls /sys/firmware; mkdir /sys/x 2>&1"),
    ("sh", "-c", "echo $HOME; id -u"),
)


@pytest.mark.parametrize("user", [0, USER], ids=["root", "user"])
@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_by_hand_is_as_the_engine_has_it(yard: Yard, kind: str, user: int) -> None:
    engine = yard.engine(kind)
    if isinstance(engine, Runtime):
        pytest.skip("the engine cannot be started here: everything is made by hand, as a line above says")
    plan = [list(words) for words in FACTS]
    both: tuple[Engine, Engine] = (engine, yard.by_hand(kind))
    seen = [run(each, Container(user=user), yard.checkout.folder, plan).done for each in both]
    for real, made in zip(*seen, strict=True):
        assert (made.words, made.status, made.said) == (real.words, real.status, real.said)
