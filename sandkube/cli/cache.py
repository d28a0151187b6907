"""./do cache: what shared caches have of this checkout; pushing to them and fetching from them by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandkube import log
from sandkube.app.options import option
from sandkube.app.verb import Verb
from sandkube.build import plan
from sandkube.build.cache import upkeep
from sandkube.build.cache.folder import Folder
from sandkube.build.cache.shared import Shared
from sandkube.build.cache.threads import result
from sandkube.build.realise import Realiser
from sandkube.cli.building import known, prepared, push
from sandkube.cli.checkout import realiser
from sandkube.errors import UserError

DAYS = option("days", 30.0, "gc: how long something may be unused", metavar="N")


def _status(one: Realiser, shared: Shared, _names: Sequence[str]) -> int:
    steps = sorted(one.plan.recipes)
    there = known(one, steps)
    for place in shared.places:
        asked = [shared.threads.submit(place.asked, name, one.records[name].key) for name in there]
        found = sum(result(each) is not None for each in asked)
        how = "read and write" if place.setting.write else "read"
        log.result(f"{place.setting.address}: {how}; it has {found} of {len(steps)} steps")
    one.drain()
    return 0


def _push(one: Realiser, _shared: Shared, names: Sequence[str]) -> int:
    here, needed = push(one, names)
    log.say(f"{here} of {needed} steps were there to be pushed")
    return 0


def _pull(one: Realiser, _shared: Shared, names: Sequence[str]) -> int:
    one.want(names)
    there = {name: one.up_to_date(name) or one.fetch(name) for name in one.plan.in_order(names)}
    missing = sorted(name for name in one.wanted if not there[name])
    one.settle()
    one.drain()
    if missing:
        raise UserError(f"cache pull: in no cache: {', '.join(missing)}", hint="./do build makes them")
    return 0


def _folders(shared: Shared) -> list[tuple[str, Path]]:
    """The caches that are folders and may be written, by address. Raises UserError where there is none."""
    found = [
        (each.setting.address, each.cache.path)
        for each in shared.places
        if each.setting.write and isinstance(each.cache, Folder)
    ]
    if not found:
        raise UserError(
            "no cache is a folder that may be written, and servers clean up by themselves",
            hint="where the folder is: SANDKUBE_CACHE='file:///DIR?write'",
        )
    return found


def _collect(shared: Shared, days: float) -> int:
    for address, path in _folders(shared):
        freed = upkeep.collect(path, days)
        log.result(f"{address}: {freed.records} records and {freed.blobs} blobs removed, {freed.size / 1e6:.1f} MB")
    return 0


def _quarantine(shared: Shared) -> int:
    """The exit status: 1 where something was found."""
    status = 0
    for address, path in _folders(shared):
        for line in upkeep.quarantine(path):
            log.result(f"{address}: {line}")
            status = 1
    if status:
        log.say(f"what was damaged is in {upkeep.QUARANTINE}/ of its cache now; the next push gives it anew")
    return status


_ACTIONS: Mapping[str, Callable[[Realiser, Shared, Sequence[str]], int]] = {
    "status": _status,
    "push": _push,
    "pull": _pull,
}


class CacheVerb(Verb):
    """./do cache"""

    name = "cache"
    doc_purpose = "show what shared caches have, push to them, fetch from them, clean them up"
    doc_usage = "status | push [NAME ...] | pull [NAME ...] | gc [--days N] | quarantine"
    doc_description = (
        "Caches are named in SANDKUBE_CACHE or in $XDG_CONFIG_HOME/sandkube/config.toml. A build asks them by itself, "
        "and pushes what it made to those that may be written. gc removes from folders what nobody has "
        "pushed, or read as a folder, for so long (readers by HTTP leave no trace); "
        "quarantine reads all of them and puts aside what is damaged"
    )
    takes_words = True
    values = (*_ACTIONS, "gc", "quarantine")
    cmd_options = (DAYS,)

    def execute(self, params: Any, args: list[str]) -> int:
        """Do one of these."""
        if not args or args[0] not in self.values:
            raise UserError(f"cache: what is {args[0]!r}?" if args else "cache: do what?", hint="./do help cache")
        one = realiser()
        names = plan.choose(one.plan, args[1:])
        if args[0] not in ("push", "pull") and args[1:]:
            raise UserError(f"cache {args[0]} takes no name", hint="./do help cache")
        if one.shared is None:
            raise UserError("no cache is named", hint="set SANDKUBE_CACHE, such as SANDKUBE_CACHE=file:///DIR")
        if not params["days"] >= 0:  # nor NaN
            raise UserError("cache: --days takes a number from 0 on", hint="./do help cache")
        with prepared(one.store, one.places.cache):
            if args[0] == "gc":
                return _collect(one.shared, params["days"])
            if args[0] == "quarantine":
                return _quarantine(one.shared)
            return _ACTIONS[args[0]](one, one.shared, names)
