"""What a run of Kubernetes' own suite came to: results that add up over runs, a summary by SIG, a page for people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandkube.cluster.suite import INTERRUPTED, PASSED, SKIPPED, Spec, Total, read
from sandkube.decode import decoded
from sandkube.documents import parse_toml, read_file
from sandkube.errors import UserError
from sandkube.shapes import Text

KNOWN = Path("docs/conformance.toml")
PAGE = Path("docs/conformance.md")
_SIG = re.compile(r"\[(sig-[\w-]+)\]")
_LONG = 200  # characters of a cause
_HEAD = """# Conformance

Kubernetes' own suite (`e2e.test` of 1.34.2, the specs that are marked Conformance) against a cluster of two nodes, as
`./do conformance --page` wrote it down. `whose` says in whose hands the cause is; `docs/conformance.toml` holds the
causes of specs that are known not to pass, everything else comes from the runs.
"""


@dataclass(frozen=True, slots=True)
class Known:
    """A spec that is known not to pass: its full name, why, and whose that is."""

    spec: Text
    cause: Text
    whose: Text


@dataclass(frozen=True, slots=True)
class _Document:
    known: tuple[Known, ...] = ()


def known(root: Path) -> Mapping[str, Known]:
    """The specs that are known not to pass, by name. Raises UserError for a file that says it wrongly."""
    try:
        found = decoded(_Document, parse_toml(read_file(root / KNOWN, str(KNOWN))), str(KNOWN))
    except ValueError as error:
        raise UserError(f"{KNOWN}: {error}") from None
    return {each.spec: each for each in found.known}


def results(path: Path) -> Mapping[str, Spec]:
    """How each spec ended last, by name."""
    return {each.name: each for each in read(path) if not isinstance(each, Total)}


def passed(found: Mapping[str, Spec]) -> list[str]:
    """Names of the specs that passed."""
    return sorted(name for name, spec in found.items() if spec.state == PASSED)


def bad(found: Mapping[str, Spec]) -> list[Spec]:
    """The specs that did not pass, though they were run to their end."""
    return sorted(
        (each for each in found.values() if each.state not in (PASSED, SKIPPED, *INTERRUPTED)), key=lambda one: one.name
    )


def sig(name: str) -> str:
    """The special interest group that a spec belongs to."""
    match = _SIG.search(name)
    return match.group(1) if match else "other"


def cause(spec: Spec) -> str:
    """The first lines of what a failed spec said, as one."""
    text = " ".join(spec.message.split())
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def by_sig(found: Mapping[str, Spec]) -> list[tuple[str, int, int, int]]:
    """SIG, and how many of its specs passed, did not, and were left out or cut short; a last row for all."""
    counts: dict[str, Counter[str]] = {}
    for each in found.values():
        word = "passed" if each.state == PASSED else "other" if each.state in (SKIPPED, *INTERRUPTED) else "failed"
        for row in (sig(each.name), "~"):
            counts.setdefault(row, Counter())[word] += 1
    rows = sorted(counts.items())
    return [("all" if name == "~" else name, n["passed"], n["failed"], n["other"]) for name, n in rows]


def summary(found: Mapping[str, Spec], explained: Mapping[str, Known]) -> str:
    """Counts by SIG, then each spec that did not pass with its cause."""
    lines = [f"{'SIG':<22}{'passed':>8}{'failed':>8}{'not run':>9}"]
    lines += [f"{name:<22}{good:>8}{wrong:>8}{other:>9}" for name, good, wrong, other in by_sig(found)]
    for each in bad(found):
        why = explained.get(each.name)
        lines += ["", f"{each.state}: {each.name}", f"  {each.place}"] if each.place else ["", each.name]
        lines.append(f"  known: {why.cause} ({why.whose})" if why else f"  {cause(each)}")
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    plain = (each.replace("|", "\\|") for each in cells)
    return f"| {' | '.join(plain)} |"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(heads), _row(["---"] * len(heads)), *map(_row, rows)]


def _rows(found: Mapping[str, Spec], explained: Mapping[str, Known]) -> Iterable[tuple[str, str, str, str]]:
    for each in bad(found):
        why = explained.get(each.name)
        yield each.name, each.state, why.cause if why else cause(each), why.whose if why else "not decided"
    for name, why in sorted(explained.items()):
        if name not in found:
            yield name, "not run", why.cause, why.whose
    for each in sorted(found.values(), key=lambda one: one.name):
        if each.state in (PASSED, SKIPPED):
            yield each.name, each.state, cause(each), ""


def page(
    found: Mapping[str, Spec], explained: Mapping[str, Known], ran: Sequence[str], images: Sequence[tuple[str, str]]
) -> str:
    """The page: what was run, counts, a row for each spec, those that did not pass first, and one for each image."""
    lines = [_HEAD, f"Run: {', then '.join(f'`{each}`' for each in ran) or 'none yet'}.", ""]
    lines += _table(("SIG", "passed", "failed", "not run"), ([str(cell) for cell in row] for row in by_sig(found)))
    lines += ["", "## Specs", "", *_table(("spec", "result", "cause", "whose"), _rows(found, explained))]
    lines += ["", "## Images", "", "All are made here, from pinned sources; no registry is asked.", ""]
    lines += _table(("image", "what it is"), images)
    return "\n".join(lines) + "\n"
