"""What came of golden runs, as JUnit XML for the CI server, as Markdown for a pull request, as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

from flowrun.runtime.testbench.golden import Verdict
from flowrun.runtime.wording import counted

__all__ = ["as_json", "as_junit", "as_markdown", "headline"]

_MOST_OF_A_TEST = 20
"""Changes that a JUnit test case names."""
_MOST_OF_A_RUN = 10
"""Changes of a run that a comment names."""
_MOST_RUNS = 50
"""Runs that a comment's table names."""
_LONGEST_COMMENT = 60_000
"""Characters; GitHub takes 65,536."""
_LONGEST_VALUE = 200
_MARKS = {"differs": "\u274c", "failed": "\u26a0\ufe0f"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>()#+!|~@&-])")


def headline(verdicts: Sequence[Verdict]) -> str:
    """In one sentence, what came of all."""
    changed = sum(it.state == "differs" for it in verdicts)
    failed = sum(it.state == "failed" for it in verdicts)
    mended = sum(it.state == "mended" for it in verdicts)
    if not changed and not failed and not mended:
        return f"{counted(len(verdicts), 'recorded run')}: all identical"
    parts = [f"{mended:,} mended"] if mended else []
    if changed:
        parts.append(f"{changed:,} changed")
    if failed:
        parts.append(f"{failed:,} could not be replayed")
    return f"{counted(len(verdicts), 'recorded run')}: {', '.join(parts)}"


def as_junit(verdicts: Sequence[Verdict]) -> str:
    """JUnit XML, a test case for each run."""
    suite = ET.Element(
        "testsuite",
        name="flowrun ci",
        tests=str(len(verdicts)),
        failures=str(sum(it.state == "differs" for it in verdicts)),
        errors=str(sum(it.state == "failed" for it in verdicts)),
        skipped="0",
        time=f"{sum(it.replayed.took_s for it in verdicts):.3f}",
    )
    for verdict in verdicts:
        case = ET.SubElement(
            suite,
            "testcase",
            classname="flowrun.ci",
            name=_xml(verdict.run.name),
            time=f"{verdict.replayed.took_s:.3f}",
        )
        if verdict.is_fine:
            continue
        kind = "failure" if verdict.state == "differs" else "error"
        element = ET.SubElement(case, kind, message=_xml(verdict.summary))
        element.text = _xml(_in_full(verdict))
    whole = ET.Element("testsuites")
    whole.append(suite)
    ET.indent(whole)
    return ET.tostring(whole, encoding="unicode", xml_declaration=True) + "\n"


def _in_full(verdict: Verdict) -> str:
    changes = verdict.changes
    if not changes:
        first = verdict.replayed.report and verdict.replayed.report.first
        return verdict.replayed.error or str(first or "")
    texts = [
        f"{change}\n  and {count - 1:,} more like it" if count > 1 else str(change)
        for change, count in changes[:_MOST_OF_A_TEST]
    ]
    more = len(changes) - _MOST_OF_A_TEST
    return "\n".join([*texts, *([f"and {counted(more, 'other change')}"] if more > 0 else [])])


def _xml(text: str) -> str:
    """`text` without what XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


def as_markdown(verdicts: Sequence[Verdict], *, report: str | None = None) -> str:
    """A comment for a pull request: what changed, with both values, as much as fits.

    report: where the whole report is, a URL or a path.
    """
    other = [it for it in verdicts if not it.is_fine]
    lines = [f"### flowrun: {headline(verdicts)}", ""]
    if other:
        lines += ["| run | | graph | what came of it |", "|---|---|---|---|"]
    for verdict in other[:_MOST_RUNS]:
        graph = "as recorded" if verdict.run.graph is None else str(verdict.run.graph)
        cells = (verdict.run.name, _MARKS[verdict.state], graph, verdict.summary)
        lines.append("| " + " | ".join(_plain(_short(cell)) for cell in cells) + " |")
    lines.append("")
    if other and len(verdicts) > len(other):
        lines += [f"{len(verdicts) - len(other):,} more: as they should be.", ""]
    end = [f"[All differences, with pictures]({report})", ""] if report else []
    room = _LONGEST_COMMENT - len("\n".join([*lines, *end])) - _LONGEST_VALUE
    fits = 0
    for verdict in other:
        part = _details(verdict)
        room -= len("\n".join(part)) + 1
        if room < 0:
            break
        lines += part
        fits += 1
    if fits < len(other):
        rest = counted(len(other) - fits, "more run")
        lines += [f"The differences of {rest} do not fit here.", ""]
    return "\n".join([*lines, *end]).rstrip("\n") + "\n"


def _details(verdict: Verdict) -> list[str]:
    changes = verdict.changes
    if not changes:
        return []
    lines = [
        f"<details><summary>{_plain(verdict.run.name)}: {_plain(verdict.summary)}</summary>",
        "",
        "| cycle | | output | field | recorded | now |",
        "|---|---|---|---|---|---|",
    ]
    for change, count in changes[:_MOST_OF_A_RUN]:
        cells = [
            f"{change.cycle:,}",
            f"and {count - 1:,} more" if count > 1 else "",
            f"{change.task}.{change.port}" if change.port else change.task,
            change.field or "the message",
            change.recorded,
            change.replayed,
        ]
        lines.append("| " + " | ".join(_plain(_short(cell)) for cell in cells) + " |")
    more = len(changes) - _MOST_OF_A_RUN
    if more > 0:
        lines += ["", f"and {counted(more, 'other change')}"]
    return [*lines, "", "</details>", ""]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}\u2026"


def _plain(text: str) -> str:
    """`text` in one line, in which nothing is markup: what a model answers may say anything."""
    return (
        _MARKUP.sub(r"\\\1", " ".join(text.split()))
        .replace("\\&", "&amp;")
        .replace("\\<", "&lt;")
        .replace("\\@", "@\u200b")
    )


def as_json(verdicts: Sequence[Verdict]) -> str:
    """All of it, for programs."""
    return json.dumps([_json_of(verdict) for verdict in verdicts], indent=1) + "\n"


def _json_of(verdict: Verdict) -> dict[str, Any]:
    return {
        "run": verdict.run.name,
        "path": str(verdict.run.path),
        "graph": None if verdict.run.graph is None else str(verdict.run.graph),
        "state": verdict.state,
        "summary": verdict.summary,
        "error": verdict.replayed.error,
        "compared": verdict.compared,
        "differing": verdict.differing,
        "took_s": round(verdict.replayed.took_s, 3),
        "notes": verdict.replayed.notes,
        "differences": [
            {
                "cycle": pair.cycle,
                "time_ns": pair.time_ns,
                "task": pair.task,
                "port": pair.port,
                "field": pair.difference.field,
                "recorded": pair.difference.recorded,
                "now": pair.difference.replayed,
                "picture": None
                if pair.picture is None
                else {"topic": pair.picture.topic, "cycle": pair.picture.cycle},
            }
            for pair in verdict.replayed.pairs
            if pair.difference is not None
        ],
    }
