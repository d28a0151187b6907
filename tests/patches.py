"""Patches that tests and benchmarks make: of one line of a product's source."""

from __future__ import annotations

import re
import uuid

from tests.clones import Clone

NEW = uuid.uuid4().hex
"""A word that no build had before: the store remembers all of them."""
MAIL = """\
From: Test <test@localhost>
Date: Tue, 1 Jan 1980 00:00:00 +0000
Subject: [PATCH] a test

{body}
"""


def add_patch(one: Clone, recipe: str, diff: str) -> None:
    """Add a patch to a recipe of a clone."""
    folder = one.folder / "patches" / recipe
    folder.mkdir(exist_ok=True)
    (folder / "9999-test.patch").write_text(MAIL.format(body=diff))
    path = one.folder / "recipes" / f"{recipe}.toml"
    text = path.read_text()
    if "patches = [" not in text:
        text = text.replace('kind = "go"\n', 'kind = "go"\npatches = []\n')
    path.write_text(text.replace("patches = [", 'patches = ["9999-test.patch", ', 1))


def patch_source(one: Clone, recipe: str, file: str, old: str, new: str) -> None:
    """Add a patch to a Go recipe that puts `new` for the first `old` of a source file."""
    found = re.search(r'source = "go:(.*)@(.*)"', (one.folder / f"recipes/{recipe}.toml").read_text())
    assert found is not None
    source = one.home / ".cache/sandkube/gomod" / f"{found.group(1)}@{found.group(2)}" / file
    lines = source.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if old in line)
    hunk = [f"@@ -{at + 1} +{at + 1} @@", f"-{lines[at]}", f"+{lines[at].replace(old, new)}"]
    context = 3
    first, last = max(0, at - context), min(len(lines), at + context + 1)
    before, after = lines[first:at], lines[at + 1 : last]
    size = last - first
    hunk = [f"@@ -{first + 1},{size} +{first + 1},{size} @@", *(f" {line}" for line in before), *hunk[1:]]
    hunk += [f" {line}" for line in after]
    add_patch(one, recipe, "\n".join([f"--- a/{file}", f"+++ b/{file}", *hunk]))
