"""What an evaluation found: as text, as Markdown, as JSON, and as a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowrun.runtime.atomic import whole_file
from flowrun.runtime.wording import counted, one_line
from flowrun.tasks.evaluation.evaluate import RECORDING, Evaluation
from flowrun.tasks.evaluation.scores import shown
from flowrun.tasks.evaluation.standings import Comparison, Standing

__all__ = ["as_json", "as_markdown", "as_text", "changed", "write_report"]

_MOST_SENTENCES = 12
_MOST_IN_MARKDOWN = 30


def as_text(found: Evaluation) -> str:
    """For a terminal."""
    rows = _rows(found)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [_about(found), ""]
    lines += [
        "  ".join(
            cell.ljust(width) if at == 1 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines += ["", *_sentences(found)]
    lines += [f"note: {one_line(note)}" for note in found.notes]
    return "\n".join(lines)


def as_markdown(found: Evaluation) -> str:
    """For a pull request, or a wiki."""
    rows = _rows(found)
    table = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    table.insert(1, "|" + "---|" * len(rows[0]))
    lines = ["# " + _about(found), "", *table, "", *(f"- {it}" for it in _sentences(found))]
    differing = list(changed(found))
    if differing:
        against = "the recorded answer" if found.by == RECORDING else "the right answer"
        lines += ["", f"## Where answers differ from {against}", ""]
        lines += [f"| run | cycle | task | by | {against} | answer |", "|---|---|---|---|---|---|"]
        for it in differing[:_MOST_IN_MARKDOWN]:
            cells = it["run"], it["cycle"], it["task"], it["variant"], it["right"], it["answer"]
            lines.append(f"| {' | '.join(_cell(str(cell)) for cell in cells)} |")
        if len(differing) > _MOST_IN_MARKDOWN:
            lines += ["", f"and {len(differing) - _MOST_IN_MARKDOWN:,} more"]
    lines += ["", *(f"Note: {_cell(note)}" for note in found.notes)]
    return "\n".join(lines).rstrip() + "\n"


def as_json(found: Evaluation, *, command: str) -> dict[str, Any]:
    """All of it, with each changed answer."""
    by_recording = found.by == RECORDING
    return {
        "command": command,
        "runs": [
            {"run": it.name, "path": str(it.path), "graph": it.graph, "answers": len(it.asked)}
            for it in found.runs
        ],
        "answers": len(found.asked),
        "by": found.by,
        "known": found.known,
        "asked": found.made,
        "standings": [
            {**asdict(it), "share": it.share, "rank": place}
            for place, it in enumerate(found.standings, 1)
        ],
        "comparisons": [
            {**asdict(it), "unlikely": it.is_unlikely, "text": it.said(by_recording=by_recording)}
            for it in found.comparisons
        ],
        "changed": list(changed(found)),
        "notes": found.notes,
    }


def changed(found: Evaluation) -> Iterator[dict[str, Any]]:
    """Each answer that is not the right one."""
    for name in [*found.answers]:
        if name == RECORDING and found.by == RECORDING:
            continue
        for at, asked in enumerate(found.asked):
            score, truth, answer = found.scores[name][at], found.truths[at], found.answers[name][at]
            if score is None or score.right or truth is None:
                continue
            run = found.runs[asked.run]
            yield {
                "run": run.name,
                "path": str(run.path),
                "cycle": asked.cycle,
                "time_ns": asked.time_ns,
                "offset_s": (asked.time_ns - run.begin_ns) / 1e9,
                "task": asked.asking.name,
                "camera": asked.asking.camera,
                "picture": {"topic": asked.picture.topic, "cycle": asked.picture.cycle},
                "variant": name,
                "prompt": answer.get("prompt", ""),
                "right": shown(asked.asking.kind, truth.fields) if not truth.is_wrong else "",
                "wrong": shown(asked.asking.kind, truth.fields) if truth.is_wrong else "",
                "answer": shown(asked.asking.kind, answer),
                "score": score.near,
            }


def write_report(found: Evaluation, path: Path, *, command: str) -> None:
    """Write a report: .html, .json or .md. `LogError` if it cannot be written."""
    if path.suffix == ".json":
        text = json.dumps(as_json(found, command=command), indent=1) + "\n"
    elif path.suffix == ".md":
        text = as_markdown(found)
    else:
        from flowrun.runtime.replay.page import Board
        from flowrun.tasks.evaluation.answers_page import page_of  # which decodes pictures

        heads, *lines = _rows(found)
        board = Board(heads, lines, _sentences(found))
        text = page_of(found, board, lead=f"{_about(found)}.", command=command).text()
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def _about(found: Evaluation) -> str:
    against = "the recorded answers" if found.by == RECORDING else "what is labelled as right"
    kept = (
        f", {found.known:,} of {found.known + found.made:,} from the cache" if found.known else ""
    )
    return (
        f"{counted(len(found.asked), 'answer')} of {counted(len(found.runs), 'run')}, compared with "
        f"{against}{kept}"
    )


def _rows(found: Evaluation) -> list[tuple[str, ...]]:
    """The heads of the leaderboard's columns, and its rows."""
    fails = any(it.failed for it in found.standings)
    is_same = len({it.scored for it in found.standings}) < 2
    by = "agrees" if found.by == RECORDING else "right"
    heads = ["#", "", by, *([] if is_same else ["of"]), "95 %", "score", "median", "p99", "tokens"]
    heads += ["failed"] * fails
    cells = (
        _cells(place, it, fails=fails, is_same=is_same)
        for place, it in enumerate(found.standings, 1)
    )
    return [tuple(heads), *cells]


def _cells(place: int, it: Standing, *, fails: bool, is_same: bool) -> tuple[str, ...]:
    """fails: whether some have failed. is_same: whether as many answers of each are judged."""
    cells = [
        f"{place}",
        it.name,
        f"{it.share:.1%}" if it.scored else "-",
        *([] if is_same else [f"{it.scored:,}"]),
        f"{it.low:.0%}-{it.high:.0%}",
        f"{it.near:.3f}",
        "-" if it.p50_ms is None else f"{it.p50_ms:,.0f} ms",
        "-" if it.p99_ms is None else f"{it.p99_ms:,.0f} ms",
        "-" if it.tokens is None else f"{it.tokens:.1f}",
    ]
    return tuple(cells + ([f"{it.failed:,}"] if fails else []))


def _sentences(found: Evaluation) -> list[str]:
    sure = [it for it in found.comparisons if it.is_unlikely]
    others = [it for it in found.comparisons if not it.is_unlikely]
    chosen: Sequence[Comparison] = (sure + others)[:_MOST_SENTENCES]
    said = [f"{it.said(by_recording=found.by == RECORDING)}." for it in chosen]
    count = len(found.comparisons)
    if count > len(chosen):
        said.append(f"{count - len(chosen):,} more comparisons: .json has all.")
    if count > 1:
        said.append(f"Each p is corrected for {count:,} comparisons (Holm).")
    return said


def _cell(text: str) -> str:
    return one_line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
