"""Registries of the distribution project on loopback, with TLS."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandkube.archive import unpack_deb
from sandkube.build.lock import File
from sandkube.build.places import Places
from sandkube.build.sources import Source, blobs, deb
from tests.certificates import Certificates
from tests.registries import PASSWORD, USER
from tests.small import ROOT

SOURCE = Source("deb", "docker-registry", "2.8.2+ds1-1")
PINNED = File(
    "docker-registry_2.8.2+ds1-1_amd64.deb",
    "a9bd06c0e006854608f8469b4371743f40604ad90975532bb3b7ceeb72fe2913",
    4954916,
    "pool/main/d/docker-registry/docker-registry_2.8.2+ds1-1_amd64.deb",
    "bookworm",
    "main",
    "e56a894ce3aaf688756bd88fe282c3114e829ce9",
)
HTPASSWD = f"{USER}:$2b$04$f6rloaNdYUt17dg22.si2ubxPkdtENWDirV2XdhHJpo7hANn0vNHe\n"
"""PASSWORD by bcrypt."""
AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def debians(into: Path) -> Path:
    """Version 2, Debian's program, fetched as a recipe's source is."""
    cache = Places.of(ROOT, os.environ).cache
    deb.fetch("docker-registry", SOURCE, (PINNED,), cache)
    unpack_deb(blobs.path_of(cache, PINNED.sha256), into, name=PINNED.name)
    return into / "usr/bin/docker-registry"


@dataclass
class Running:
    """A registry that listens on a port of loopback with TLS."""

    program: Path
    config: Path
    process: subprocess.Popen[str]
    port: int

    def collect(self) -> str:
        """Remove what no tag holds; what was said."""
        words = [str(self.program), "garbage-collect", "--delete-untagged", str(self.config)]
        done: str = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return done

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def started(program: Path, folder: Path, made: Certificates, auth: Mapping[str, Any]) -> Iterator[Running]:
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": "127.0.0.1:0", "tls": {"certificate": str(made.server), "key": str(made.key)}},
        "auth": auth,
    }
    path = folder / "registry.yml"
    path.write_text(json.dumps(config))
    with subprocess.Popen(
        [program, "serve", path], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as one:
        assert one.stderr is not None
        try:
            said: list[str] = []
            for line in one.stderr:
                said.append(line)
                if found := re.search(r"listening on 127\.0\.0\.1:(\d+), tls", line):
                    break
            else:
                pytest.fail("".join(said))
            reader = threading.Thread(target=one.stderr.read)
            reader.start()
            yield Running(program, path, one, int(found[1]))
        finally:
            one.kill()
        reader.join()
