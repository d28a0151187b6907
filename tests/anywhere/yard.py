"""What the tests of this folder stand on: an image, a checkout with a finished build, engines that start when asked."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from sandkube.tree import remove_tree
from tests.anywhere import checkouts, engines, images
from tests.anywhere.checkouts import Checkout
from tests.anywhere.containers import DOCKER, PODMAN
from tests.anywhere.engines import Engine, Gvisor, NoEngine, Runtime
from tests.clones import ROOT

RESULT = ROOT / "outputs/result"
_MANNERS = {
    "docker": DOCKER,
    "podman": replace(PODMAN, mappings=engines.OF_ROOTLESS),
    "podman of root": PODMAN,
    "machine": DOCKER,
    "namespace": replace(DOCKER, mappings=((0, 0, 65536),)),
}
"""What engines do when nothing is said; `namespace` is a machine in a user namespace, whose limits are its own."""


def say(text: str) -> None:
    """A line for whoever watches the tests."""
    print(f"\n[anywhere] {text}", flush=True)


@dataclass
class Yard:
    """One session's folder."""

    folder: Path
    root: Path
    checkout: Checkout
    image: Path
    stack: contextlib.ExitStack
    started: dict[str, Engine] = field(default_factory=dict)

    def engine(self, kind: str) -> Engine:
        """The engine of a kind, started at its first use; where it cannot be, the same confinement made by hand."""
        if kind not in self.started:
            self.started[kind] = self._start(kind)
        return self.started[kind]

    def _start(self, kind: str) -> Engine:
        if kind == "gvisor":
            return Gvisor(self.folder / "gvisor", self.root, (RESULT / "gvisor/bin/runsc").resolve())
        starts: dict[str, Callable[[], contextlib.AbstractContextManager[Engine]]] = {
            "docker": lambda: engines.docker(self.folder / "docker", self.image),
            "podman": lambda: engines.podman(self.folder / "podman", self.image, engines.ROOTLESS),
            "podman of root": lambda: engines.podman(self.folder / "podman-of-root", self.image, 0),
        }
        if kind not in starts:
            return self.by_hand(kind)
        try:
            return self.stack.enter_context(starts[kind]())
        except NoEngine as error:
            say(f"{kind} cannot be used here, so its confinement is made by hand: {error}")
            return self.by_hand(kind)

    def by_hand(self, kind: str) -> Runtime:
        """The confinement of an engine, without it."""
        return Runtime(self.folder / "crun", self.root, _MANNERS[kind])


@contextlib.contextmanager
def yard() -> Iterator[Yard]:
    """Make everything below one folder that any user may enter, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="sk-", dir="/var/tmp"))  # short: sockets are in it
    try:
        folder.chmod(0o755)
        root, image = folder / "root", folder / "image.tar"
        images.make(root)
        machine = Runtime(folder / "crun", root, _MANNERS["machine"])
        checkout = checkouts.make(folder, machine, root)
        subprocess.run(["tar", "--create", f"--file={image}", f"--directory={root}", "."], check=True)
        with contextlib.ExitStack() as stack:
            yield Yard(folder, root, checkout, image, stack)
    finally:
        remove_tree(folder)
