"""Trees on this machine: nothing here follows a symbolic link below its root, or leaves that root.

A root is a folder of ours, reached as the caller names it. Names below it are relative, with `/` between their parts,
and may come from anybody: a recipe, an archive, somebody's tree. Each part is opened in the folder of the one before it
(openat(2) with O_NOFOLLOW), so that a link on the way is refused wherever it points. What a name or a tree cannot be is
a `Refused`: one sentence about that name. What the machine refuses stays an OSError.
"""

from sandkube.tree.names import (
    DEPTH,
    Refused,
    aim_of,
    check_name,
    chmod,
    create,
    discard,
    kind_of,
    link,
    make_folder,
    open_file,
    parts_of,
    read,
    rename,
    status,
    write,
)
from sandkube.tree.whole import (
    PIECE,
    TIME,
    check_links,
    copy,
    drop_empty_folders,
    glob,
    normalise,
    remove_tree,
    seal_of,
    walk,
)

__all__ = [
    "DEPTH",
    "PIECE",
    "Refused",
    "TIME",
    "aim_of",
    "check_links",
    "check_name",
    "chmod",
    "copy",
    "create",
    "discard",
    "drop_empty_folders",
    "glob",
    "kind_of",
    "link",
    "make_folder",
    "normalise",
    "open_file",
    "parts_of",
    "read",
    "remove_tree",
    "rename",
    "seal_of",
    "status",
    "walk",
    "write",
]
