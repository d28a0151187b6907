"""Receive: bring a folder of this machine to the state in which a worker left it.

Who says how that is is not believed: names are checked, every blob is hashed, and nothing follows a symbolic link.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError

from sandkube import tree
from sandkube.build.remote.cas import Blobs
from sandkube.build.remote.merkle import Digest, File, Folder
from sandkube.build.remote.stubs.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from sandkube.errors import RunRefused
from sandkube.run import go_on

Node = File | str | Folder


def output_folder(blobs: Blobs, said: api.OutputDirectory) -> Folder:
    """An output folder as a worker described it, in either form of REAPI. Raises RunRefused."""
    where = f"the remote engine {blobs.wire.address.text}"

    def asked(digest: Digest) -> api.Directory:
        return api.Directory.FromString(blobs.whole(digest))

    try:
        if not said.tree_digest.hash:
            return _folder(asked(Digest.said(said.root_directory_digest)), asked)
        message = api.Tree.FromString(blobs.whole(Digest.said(said.tree_digest)))
        children = {Digest.of(each.SerializeToString(deterministic=True)): each for each in message.children}
        return _folder(message.root, children.__getitem__)
    except (tree.Refused, LookupError, DecodeError) as fault:
        raise RunRefused(f"{where} names a tree as a result that cannot be: {fault}") from None


def _folder(message: api.Directory, get: Callable[[Digest], api.Directory], depth: int = 0) -> Folder:
    go_on()
    names = [
        *(each.name for each in message.files),
        *(each.name for each in message.symlinks),
        *(each.name for each in message.directories),
    ]
    for name in names:
        tree.check_name(name)
    if len(set(names)) < len(names) or depth > tree.DEPTH:
        raise tree.Refused("two of one name" if depth <= tree.DEPTH else "folders too far in each other")
    folders = {each.name: _folder(get(Digest.said(each.digest)), get, depth + 1) for each in message.directories}
    files = {each.name: File(Digest.said(each.digest), each.is_executable, None) for each in message.files}
    return Folder(files, {each.name: each.target for each in message.symlinks}, folders)


def _stays(mine: Node | None, other: Node | None) -> bool:
    """Whether what has one name before and after is the same, but for what is in a folder and for a file's mode."""
    if isinstance(mine, File) and isinstance(other, File):
        return mine.digest == other.digest
    if isinstance(mine, Folder) or isinstance(other, Folder):
        return isinstance(mine, Folder) and isinstance(other, Folder)
    return mine == other


def apply(blobs: Blobs, root: Path, before: Folder, after: Folder) -> None:
    """Change a folder from one state to another; what is the same in both stays as it is. Raises RunRefused."""
    old, new = dict(before.walk()), dict(after.walk())
    for name in sorted(old, reverse=True):  # what is in a folder before the folder
        if not _stays(old[name], new.get(name)):
            tree.remove_tree(root / name)
    came = {name: node for name, node in new.items() if not _stays(old.get(name), node)}
    for name, node in came.items():
        if isinstance(node, Folder):
            tree.make_folder(root, name)
        elif isinstance(node, str):
            tree.link(root, name, node)
    _fetch(blobs, root, {name: node for name, node in came.items() if isinstance(node, File)})
    for name, node in new.items():
        mine = old.get(name)
        if (
            name not in came
            and isinstance(node, File)
            and isinstance(mine, File)
            and mine.executable != node.executable
        ):
            tree.chmod(root, name, 0o755 if node.executable else 0o644)


def _fetch(blobs: Blobs, root: Path, files: Mapping[str, File]) -> None:
    users: dict[Digest, list[str]] = {}
    for name, file in files.items():
        users.setdefault(file.digest, []).append(name)
    for digest, data in blobs.fetch(each for each in users if blobs.is_small(each)):
        for name in users[digest]:
            tree.write(root, name, data, executable=files[name].executable)
    for digest in (each for each in users if not blobs.is_small(each)):
        for name in users[digest]:
            with tree.create(root, name, executable=files[name].executable) as sink:
                blobs.save(digest, sink)
