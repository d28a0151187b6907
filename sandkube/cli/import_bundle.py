"""./do import: what another checkout exported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sandkube import log
from sandkube.app.options import FILES, option
from sandkube.app.verb import Verb
from sandkube.build.cache import bundle, settings
from sandkube.build.cache.keys import Keys
from sandkube.build.places import Places
from sandkube.build.store import Store
from sandkube.cli.building import prepared
from sandkube.cli.checkout import OUTPUTS, ROOT
from sandkube.errors import UserError

UNSIGNED = option("unsigned", False, "take what nobody has signed whom you trust, with a warning")


class Import(Verb):
    """./do import"""

    name = "import"
    doc_purpose = "take in what ./do export wrote elsewhere; no network is needed"
    doc_usage = "FILE [--unsigned]"
    doc_description = (
        "Records count that a trusted key has signed (./do key trust), or as many as the settings of some cache want; "
        "trees are hashed before they are in the store. "
        "Nothing is taken of a file with a record that does not count; what is taken with --unsigned is signed for "
        "nobody else, neither by ./do cache push nor by ./do export"
    )
    takes_words = True
    values = FILES
    cmd_options = (UNSIGNED,)

    def execute(self, params: Any, args: list[str]) -> int:
        """Check, take in."""
        if len(args) != 1:
            raise UserError("import takes one file", hint="./do help import")
        one, places = bundle.Bundle(Path(args[0])), Places.of(ROOT, os.environ)
        store = Store(OUTPUTS / "store")
        if params["unsigned"]:
            log.say(
                f"warning: whoever made {one.name} is believed, whether or not a trusted key has signed it; "
                "what is taken is not handed on to others"
            )
        signatures = max((each.signatures for each in settings.settings(os.environ)), default=1)
        with prepared(store, places.cache):
            keys = Keys(settings.folder(os.environ) / "keys")
            taken = bundle.take_in(one, store, keys, signatures=signatures, unsigned=params["unsigned"])
        signed = f", signed by {', '.join(taken.signers)}" if taken.signers else ""
        log.result(f"{one.name}: {taken.records} records{signed}; trees: {', '.join(taken.trees) or 'none'}")
        return 0
