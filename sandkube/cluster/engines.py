"""Images of a container engine that is there: docker or podman."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandkube.errors import UserError
from sandkube.image_files import Files, TarFiles
from sandkube.run import CommandFailed, program_path, run

ENGINES = ("docker", "podman")


@contextmanager
def saved(engine: str, image: str, scratch: Path) -> Iterator[Files]:
    """An engine's image as an archive below `scratch`, which goes at the end. Raises UserError."""
    program = shutil.which(engine, path=program_path())
    if program is None:
        raise UserError(f"{engine} is not here", hint="its archive, made elsewhere: ./do load-image FILE")
    with tempfile.TemporaryDirectory(dir=scratch) as folder, tempfile.TemporaryFile() as said:
        archive = Path(folder, "image.tar")
        try:
            words: list[str | Path] = [program, "image", "save", "--output", archive, "--", image]
            run(words, env=os.environ, cwd=Path("/"), log=said)
        except CommandFailed:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"{engine} does not give {image}: {''.join(last)}", hint=f"{engine} image ls") from None
        with archive.open("rb") as stream:
            yield TarFiles(stream, f"{engine}'s image {image}")
