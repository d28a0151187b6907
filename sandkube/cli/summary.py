"""What a pipeline leaves for people and machines: a page in Markdown, and JUnit's XML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from sandkube.events import Event, Said, StageReached, StepFinished, StepPulled


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a pipeline: how it ended, after so many seconds. `fault` is a sentence; empty for a good end."""

    name: str
    seconds: float
    fault: str = ""
    skipped: bool = False

    @property
    def word(self) -> str:
        """How it ended."""
        return "not run" if self.skipped else "failed" if self.fault else "passed"


def _plain(text: str) -> str:
    """Text that XML and Markdown can hold: no colours, no control characters, no half of a surrogate pair."""
    return re.sub(r"\x1b\[[0-9;]*m|[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    return [f"| {line} |" for line in lines]


def steps(events: Iterable[Event], sizes: Mapping[str, int]) -> list[tuple[str, str, str, str]]:
    """Name, what became of it, seconds and megabytes of each step whose tree is here; `sizes` in bytes."""
    became: dict[str, tuple[str, str]] = {}
    for event in events:
        match event:
            case StepFinished(step, seconds, _, same):
                became[step] = ("built, same bytes" if same else "built", f"{seconds:.1f}")
            case StepPulled(step, seconds, _, address):
                became[step] = (f"fetched from {address}", f"{seconds:.1f}")
    return [
        (name, *became.get(name, ("up to date", "")), f"{sizes[name] / 1e6:.1f}" if name in sizes else "")
        for name in sorted({*became, *sizes})
    ]


def markdown(stages: Sequence[Stage], events: Sequence[Event], sizes: Mapping[str, int]) -> str:
    """The page."""
    lines = [
        "# Sandkube",
        "",
        *_table(("stage", "", "seconds"), ((s.name, s.word, f"{s.seconds:.1f}") for s in stages)),
    ]
    for stage in stages:
        if stage.fault:
            lines += ["", f"**{stage.name}**", "", "```", _plain(stage.fault), "```"]
    lines += ["", *_table(("step", "", "seconds", "MB"), steps(events, sizes))]
    told = dict.fromkeys(event.text for event in events if isinstance(event, Said))
    notes = [text for text in told if text.startswith(("cache ", "critical path", "warning: "))]
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    boot = [(event.stage, f"{event.inside:.2f}") for event in events if isinstance(event, StageReached)]
    lines += ["", *_table(("boot", "seconds in the sandbox"), boot)] if boot else []
    return "\n".join(lines) + "\n"


def junit(stages: Sequence[Stage]) -> bytes:
    """One test case a stage."""
    suites = ElementTree.Element("testsuites")
    failed, skipped = (str(sum(flags)) for flags in zip(*((bool(s.fault), s.skipped) for s in stages), strict=True))
    suite = ElementTree.SubElement(
        suites, "testsuite", name="sandkube", tests=str(len(stages)), failures=failed, skipped=skipped
    )
    for stage in stages:
        case = ElementTree.SubElement(suite, "testcase", classname="ci", name=stage.name, time=f"{stage.seconds:.3f}")
        if stage.skipped:
            ElementTree.SubElement(case, "skipped")
        elif fault := _plain(stage.fault):
            ElementTree.SubElement(case, "failure", message=fault.splitlines()[0]).text = fault
    written: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return written
