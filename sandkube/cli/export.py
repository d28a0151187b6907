"""./do export: what was built, with all that is known of how, in one file."""

from __future__ import annotations

import os
from typing import Any

from sandkube import log
from sandkube.app.options import RECIPES, option
from sandkube.app.verb import Verb
from sandkube.build import plan
from sandkube.build.cache import bundle, settings
from sandkube.build.cache.keys import Keys
from sandkube.cli import checkout
from sandkube.cli.building import prepared
from sandkube.errors import UserError, one_line

UNSIGNED = option("unsigned", False, "sign nothing, for those who have no key")


class Export(Verb):
    """./do export"""

    name = "export"
    doc_purpose = "write outputs and the records of all that they need into one file"
    doc_usage = "NAME [NAME ...] FILE [--unsigned]"
    doc_description = (
        "./do import takes it into another checkout, where ./do build of these names then runs no step and needs no "
        "network. It is signed with this user's own keys (./do key)"
    )
    takes_words = True
    values = RECIPES
    cmd_options = (UNSIGNED,)
    needs_products = True

    def execute(self, params: Any, args: list[str]) -> int:
        """Build, write."""
        if len(args) < 2:
            raise UserError("export takes names and a file", hint="for example ./do export bundle bundle.tar")
        target = checkout.check_target(args[-1], "products.tar")
        one = checkout.realiser()
        names = plan.choose(one.plan, args[:-1])
        one.want(names)
        whole = frozenset(one.wanted)  # a build wants more: what its steps are made from and with
        if failed := self.home.make(params, names):
            return failed
        records = {name: one.records[name] for name in one.plan.in_order(names)}
        keys = Keys(settings.folder(os.environ) / "keys")
        with prepared(one.store, one.places.cache):
            bundle.write(target, records, whole, one.store, keys, unsigned=params["unsigned"])
        size = target.stat().st_size / 1e6
        log.result(f"{one_line(args[-1])}: {size:.1f} MB; elsewhere: ./do import {one_line(target.name)}")
        return 0
