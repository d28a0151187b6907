"""./do vendor: all that builds fetch, in a folder for those who have no network."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from sandkube import log
from sandkube.app.options import FILES
from sandkube.app.verb import Verb
from sandkube.build.cache.folder import Folder
from sandkube.build.realise import Realiser
from sandkube.build.sources.parts import Part, Parts, parts_of
from sandkube.build.sources.settings import client_environment
from sandkube.cli import checkout
from sandkube.cli.building import prepared
from sandkube.errors import UserError, one_line
from sandkube.files import sweep_old
from sandkube.run import CommandFailed, go_on, run

WHEELS = "wheels"


def _is_there(name: str, folder: Folder, kind: Parts, part: Part) -> bool:
    """Whether the folder has a file, with its bytes: it may have been there before, and is what others build from."""
    if not folder.has_source(part.name):
        return False
    if kind.is_sound(part.name, folder.path / "sources" / part.name):
        return True
    log.step(name, f"{part.label} was damaged in the folder; it is put there anew")
    return False


def _vendor(one: Realiser, name: str, folder: Folder) -> set[str]:
    """Put the files of a recipe's source into the folder; their names."""
    ask, found = one.ask(name), set()
    with log.running(name, "fetching"):
        one.supply.bring(ask)
    with log.running(name, "copying"):
        for kind in parts_of(ask):
            for part in kind.all():
                go_on()
                found.add(part.name)
                if _is_there(name, folder, kind, part):
                    continue
                with tempfile.TemporaryDirectory() as temporary:
                    path = kind.at_hand(part, Path(temporary))
                    if path is None:
                        raise UserError(
                            f"{name}: {part.label} is gone from the cache {one.places.cache}, or damaged there",
                            hint="remove that folder, or what is in it of this, and run it again",
                        )
                    folder.put_source(part.name, path)
    return found


def _fetch_wheels(folder: Path) -> None:
    """The packages that ./do itself is made of, as pip takes them from a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "pip", "download", "--require-hashes", "--only-binary", ":all:", "--no-deps"]
    argv += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--dest", str(folder)]
    with tempfile.TemporaryDirectory() as temporary, tempfile.TemporaryFile() as sink:
        env = client_environment(Path(temporary))
        try:
            run([*argv, "--requirement", str(checkout.ROOT / "requirements.txt")], env=env, cwd=checkout.ROOT, log=sink)
        except CommandFailed:
            sink.seek(0)
            said = sink.read().decode(errors="replace").strip().splitlines() or ["no word from pip"]
            raise UserError(
                f"vendor: pip could not fetch the packages of ./do itself: {said[-1]}",
                hint="is a package index reachable? PIP_INDEX_URL, PIP_CERT and proxy variables are honoured",
            ) from None


class Vendor(Verb):
    """./do vendor"""

    name = "vendor"
    doc_purpose = "put the sources of all recipes into a folder, for builds without a network"
    doc_usage = "DIR"
    doc_description = (
        "It is a cache of sources: SANDKUBE_CACHE=file:///DIR ./do build --offline takes them from there, in any "
        "clone. What is in the folder already stays, unless it is damaged"
    )
    takes_words = True
    values = FILES
    cmd_options = ()

    def execute(self, _params: Any, args: list[str]) -> int:
        """Fetch, copy."""
        if len(args) != 1:
            raise UserError("vendor takes one folder", hint="./do help vendor")
        checkout.check_online("vendor")
        target = Path(args[0]).absolute()
        if target.exists() and not target.is_dir():
            raise UserError(f"{one_line(args[0])} is no folder")
        one = checkout.realiser()
        names = [name for name in sorted(one.plan.recipes) if one.plan.recipes[name].origin]
        sweep_old(target / "sources", "tmp*")  # of a command that was killed
        with prepared(one.store, one.places.cache):
            if "go-client" in one.plan.recipes:
                one.have("go-client")
            count = len({each for name in names for each in _vendor(one, name, Folder(target))})
            if (checkout.ROOT / "requirements.txt").is_file():
                _fetch_wheels(target / WHEELS)
            one.drain()
        log.say(f"{count} files of {len(names)} sources; elsewhere, with this folder, and without a network:")
        wheels = f"PIP_FIND_LINKS={shlex.quote(str(target / WHEELS))} "
        log.result(f"{wheels}SANDKUBE_CACHE={shlex.quote(target.as_uri())} ./do build --offline")
        return 0
