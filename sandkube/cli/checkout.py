"""This checkout: its folders, and what a run knows of its steps."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from sandkube import log, machine
from sandkube.build import code, plan, recipe, spec
from sandkube.build.cache import settings
from sandkube.build.cache.keys import Keys
from sandkube.build.cache.push import Pusher
from sandkube.build.cache.shared import Shared
from sandkube.build.cache.stock import Stock
from sandkube.build.places import Places
from sandkube.build.realise import Realiser
from sandkube.build.recipe import Recipe
from sandkube.build.remote import address
from sandkube.build.remote.kind import COMPILERS, Remote
from sandkube.build.store import Store
from sandkube.build.supply import Supply
from sandkube.errors import UserError, one_line
from sandkube.later import later

ROOT = Path(__file__).resolve().parents[2]
worker = later("sandkube.build.remote.worker")  # and so grpcio, which is installed for it alone
OUTPUTS = ROOT / "outputs"
OFFLINE = "SANDKUBE_OFFLINE"


def offline() -> bool:
    """Whether the network is not to be opened, as the variable or an option of this command says."""
    return os.environ.get(OFFLINE, "") not in ("", "0")


def check_online(verb: str) -> None:
    """Raises UserError for a command that is of no use without the network."""
    if offline():
        raise UserError(f"{verb}: offline, and it is about what the network has", hint=f"unset {OFFLINE}")


def check_target(given: str, example: str) -> Path:
    """The path of a file that is to be written. Raises UserError where there can be none."""
    target, shown = Path(given).absolute(), one_line(given)
    if target.is_dir():
        raise UserError(f"{shown} is a folder", hint=f"for example {shown.rstrip('/')}/{example}")
    if target.exists() and not target.is_file():
        raise UserError(f"{shown} is no regular file, and would be replaced by one")
    if not target.parent.is_dir():
        raise UserError(f"{one_line(target.parent)}: there is no such folder")
    return target


def warn_of_unused(recipes: Mapping[str, Recipe]) -> None:
    """Name the files beside recipes and patches that nothing reads."""
    for each in recipe.unused(ROOT, recipes):
        log.say(f"warning: {each}")


@functools.cache
def realiser() -> Realiser:
    """The one Realiser of this process. Raises UserError for wrong recipes or a lock that does not match them."""
    places = Places.of(ROOT, os.environ)
    loaded = plan.load(ROOT)
    warn_of_unused(loaded.recipes)
    plan.check_lock(spec.check(loaded.recipes, loaded.lock, ROOT))
    code.KNOWN.use(places.outputs / "code.json")
    caches, home = settings.settings(os.environ), settings.folder(os.environ)
    if offline():
        caches = tuple(each for each in caches if each.local)
    shared, store = Shared(caches, Keys(home / "keys")) if caches else None, Store(places.outputs / "store")
    pusher = Pusher(shared, store.signed) if shared else None
    supply = Supply(Stock(shared), pusher, offline())
    return Realiser(loaded, places, store, shared=shared, pusher=pusher, supply=supply)


def remote(named: str) -> Remote | None:
    """The engine that an option names, else the variable; None where neither does. Raises UserError, RunRefused."""
    text = named or os.environ.get(address.VARIABLE, "")
    if not text:
        return None
    parsed = address.parse(text)
    if offline():
        raise UserError(f"--remote: offline, and {parsed.text} is reached by the network", hint=f"unset {OFFLINE}")
    one = realiser()
    try:
        found: Remote = worker.Remote(parsed, (one.store.root / "trees", one.places.cache / "gomod"))
    except ImportError as error:
        raise UserError(f"--remote: {error}", hint="./do installs requirements-remote.txt for it") from None
    machine.use_compilers(COMPILERS)
    return found


class OutputsRefused(UserError):
    """Nothing can be written in outputs/."""


def outputs_refused(error: OSError) -> OutputsRefused:
    """The sentence for an outputs/ that cannot be used."""
    return OutputsRefused(
        f"the folder {ROOT / 'outputs'} cannot be used: {error.filename}: {error.strerror}",
        hint="outputs/ and all in it must belong to the user who builds; or clone into a folder of your own",
    )
