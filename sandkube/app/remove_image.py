"""./do remove-image: take images from clusters."""

from __future__ import annotations

from typing import Any

from sandkube import log
from sandkube.app.options import ALL, NAME
from sandkube.app.verb import Verb
from sandkube.cluster.images import remove
from sandkube.cluster.place import running_places
from sandkube.errors import UserError


class RemoveImage(Verb):
    """./do remove-image"""

    name = "remove-image"
    doc_purpose = "take images from a cluster"
    doc_usage = "IMAGE ... [--name NAME | --all]"
    doc_description = "IMAGE is a name or an id. One of several names of an image goes alone; what a pod uses stays"
    takes_words = True
    cmd_options = (NAME, ALL)
    excluding = (("name", "all"),)

    def execute(self, params: Any, words: list[str]) -> int:
        """Remove each."""
        if not words:
            raise UserError("remove-image: which image?", hint="./do images lists them")
        for one in running_places(self.home.outputs, params["name"], every=params["all"]):
            for word in words:
                remove(one, word)
                log.say(f"cluster {one.name}: {word} is removed")
        return 0
