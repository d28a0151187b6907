"""./do load-image: put images into clusters."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sandkube import images, log
from sandkube.app.options import ALL, FILES, NAME, option
from sandkube.app.verb import Verb
from sandkube.cluster.engines import ENGINES, saved
from sandkube.cluster.images import load
from sandkube.cluster.place import Place, running_places
from sandkube.errors import UserError
from sandkube.events import Sending
from sandkube.image_files import Files, archive, folder_or_archive

FROM = option(
    "from", "", f"take images of an engine that is here: {' or '.join(ENGINES)}", metavar="ENGINE", values=ENGINES
)
TAG = option("tag", "", "the image's name in the cluster, where a file holds one image", metavar="NAME:VERSION")
_EVERY = 2.0
"""Seconds between two lines on how much is sent."""


class LoadImage(Verb):
    """./do load-image"""

    name = "load-image"
    doc_purpose = "put images into a cluster"
    doc_usage = "FILE ... | - | --from ENGINE IMAGE ... [--tag NAME:VERSION] [--name NAME | --all]"
    doc_description = (
        "FILE is an archive of docker save or podman save, an OCI layout as an archive or a folder, or - for standard "
        "input. All images of a file that have names are loaded, or none; the names are printed"
    )
    takes_words = True
    values = FILES
    cmd_options = (NAME, ALL, FROM, TAG)
    excluding = (("name", "all"),)

    def execute(self, params: Any, words: list[str]) -> int:
        """Load each."""
        engine = params["from"]
        if engine and engine not in ENGINES:
            raise UserError(f"load-image: what is {engine!r}?", hint=f"--from takes {' or '.join(ENGINES)}")
        if not words:
            raise UserError(f"load-image: which {'image' if engine else 'file'}?", hint=self._help)
        clusters = running_places(self.home.outputs, params["name"], every=params["all"])
        for word in words:
            with saved(engine, word, self.home.outputs) if engine else self._opened(word) as files:
                _load(images.held(files, params["tag"]), clusters)
        return 0

    @contextmanager
    def _opened(self, word: str) -> Iterator[Files]:
        scratch = self.home.outputs
        if word == "-" and sys.stdin.isatty():
            raise UserError("standard input is a terminal, no image", hint="docker save IMAGE | ./do load-image -")
        with ExitStack() as opened:
            with log.running("load-image", f"reading {'standard input' if word == '-' else word}"):
                if word == "-":
                    files = opened.enter_context(archive(sys.stdin.buffer, "standard input", scratch))
                else:
                    files = opened.enter_context(folder_or_archive(Path(word), scratch))
            yield files


def _load(held: images.Held, clusters: Sequence[Place]) -> None:
    names: dict[str, None] = {}
    for one in clusters:
        began = told = time.monotonic()

        def tell(sent: int, size: int, cluster: str = one.name) -> None:
            nonlocal told
            if time.monotonic() - told > _EVERY:
                told = time.monotonic()
                log.tell(Sending(cluster, sent, size))

        with log.running(f"cluster {one.name}", "loading"):
            loaded, sent = load(one, held, tell)
        what = "had it already" if sent is None else f"{sent / 1e6:.1f} MB in {time.monotonic() - began:.1f} s"
        log.say(f"cluster {one.name}: {held.files.name}: {what}")
        names |= dict.fromkeys(name for each in loaded for name in each.names)
    log.result("\n".join(names))
