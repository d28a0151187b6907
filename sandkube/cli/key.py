"""./do key: whose records of shared caches count, and the keys that this user signs with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from sandkube import log
from sandkube.app.verb import Verb
from sandkube.build.cache import settings
from sandkube.build.cache.keys import Keys, parse
from sandkube.errors import UserError


def _new(keys: Keys, name: str) -> None:
    log.result(keys.new(name).text())
    log.say(f"{name} signs what is pushed from here; whoever is to use it runs ./do key trust with the line above")


def _trust(keys: Keys, text: str) -> None:
    keys.trust(one := parse(text))
    log.say(f"records that {one.name} signed count from now on")


def _revoke(keys: Keys, name: str) -> None:
    keys.revoke(name)
    log.say(f"records that {name} signed count no more; what was fetched before is in the store still")


_ACTIONS: Mapping[str, Callable[[Keys, str], None]] = {"new": _new, "trust": _trust, "revoke": _revoke}


def _list(keys: Keys) -> None:
    own = keys.own()
    for each in keys.trusted():
        log.result(f"{each.text()}  {'own, trusted' if each.name in own else 'trusted'}")
    for each in keys.revoked():
        log.result(f"{each.text()}  revoked")


class Key(Verb):
    """./do key"""

    name = "key"
    doc_purpose = "make keys for shared caches; say whose records count"
    doc_usage = "new NAME | trust NAME:BASE64 | list | revoke NAME"
    doc_description = (
        "What is pushed is signed with this user's own keys; what is fetched must be signed by a trusted one. "
        "Keys are in $XDG_CONFIG_HOME/sandkube/keys"
    )
    takes_words = True
    values = (*_ACTIONS, "list")
    cmd_options = ()

    def execute(self, _params: Any, args: list[str]) -> int:
        """Do one of these."""
        keys = Keys(settings.folder(os.environ) / "keys")
        match args:
            case ["list"]:
                _list(keys)
            case [("new" | "trust" | "revoke") as action, word]:
                _ACTIONS[action](keys, word)
            case _:
                raise UserError(f"key: what is {' '.join(args)!r}?" if args else "key: do what?", hint="./do help key")
        return 0
