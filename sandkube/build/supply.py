"""Where a step's sources come from: this user's cache, the caches that people share, upstream; or not that."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube import log
from sandkube.build.cache.push import Pusher
from sandkube.build.cache.stock import Stock
from sandkube.build.sources import KINDS, Ask, go
from sandkube.build.sources.parts import Part, Parts, parts_of
from sandkube.errors import UserError, told
from sandkube.run import go_on

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Supply:
    """How sources are had in this run."""

    stock: Stock
    pusher: Pusher | None = None
    offline: bool = False

    def bring(self, ask: Ask) -> None:
        """Have all pinned bytes of a source in this user's cache, checked. Raises UserError, HashMismatch."""
        absent = []
        if self.offline or self.stock:
            for each in parts_of(ask):
                absent += [(each, part) for part in self._from_caches(ask.recipe, each)]
        if absent and self.offline:
            self._refuse(ask, [part for _, part in absent])
        KINDS[ask.source.kind].fetch(ask)
        if ask.pin.modules:
            go.fetch_modules(ask.go_client(), ask.pin.modules, cache=ask.cache, name=ask.recipe)
        self._give(ask, absent)

    def give(self, ask: Ask) -> None:
        """Give what this user's cache has of a source to the caches that lack it, in the background."""
        self._give(ask, [(each, part) for each in parts_of(ask) for part in each.all()])

    def _give(self, ask: Ask, parts: Sequence[tuple[Parts, Part]]) -> None:
        if parts and self.pusher and self.stock.writable():
            self.pusher.behind(ask.recipe, lambda: _give_all(self.stock, parts))

    def _from_caches(self, recipe: str, parts: Parts) -> Sequence[Part]:
        """Take what the shared caches have; what is lacking then."""
        lacking = parts.lacking()
        if not lacking or not self.stock:
            return lacking
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            wanted = [(each.name, each.limit) for each in dict.fromkeys(lacking)]
            got = dict(self.stock.find_all(wanted, Path(temporary), parts.is_sound))
            if not got:
                return lacking
            log.step(recipe, f"{len(got)} of {len(wanted)} files of its source are in a cache")
            try:
                parts.take(got)
            except (UserError, OSError) as error:
                if self.offline:
                    raise
                log.step(recipe, f"{told(error)}; they are fetched anew")
        return parts.lacking()

    def _refuse(self, ask: Ask, lacking: Sequence[Part]) -> None:
        labels = list(dict.fromkeys(each.label for each in lacking))
        more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
        raise UserError(
            f"{ask.recipe}: offline, and no cache has {', '.join(labels[:_SHOWN])}{more}",
            hint="./do vendor DIR, where there is a network, puts all sources into a folder; here "
            "SANDKUBE_CACHE=file:///DIR names it",
        )


def _give_all(stock: Stock, parts: Sequence[tuple[Parts, Part]]) -> None:
    for kind, part in parts:
        go_on()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            stock.give(part.name, functools.partial(kind.at_hand, part, Path(temporary)))
