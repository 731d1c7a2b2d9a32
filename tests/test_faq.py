"""docs/faq.md quotes what flowrun says, and names commands and keys that there are."""

from __future__ import annotations

import re

import pytest

from flowrun.runtime import cli
from support.paths import ROOT

PAGE = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
SOURCES = "".join(
    path.read_text(encoding="utf-8")
    for top in ("runtime", "tasks")
    for path in sorted((ROOT / top).rglob("*.py"))
)
SAID = re.sub(r'"\s*f?"', "", SOURCES)
"""The sources, with texts that are written in several pieces in one."""

_VALUE = re.compile(r"\([^)]*\)|/dev/video0|[\d.]+:\d+|'[^']*'|\.\.\.|\b\d+(?:\.\d+)*\b")
"""What stands for something else in a quoted text."""


def quoted() -> list[str]:
    """The texts of the tables whose first column is "it says", and those in quotes."""
    tables = re.findall(r"^\| it says .*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    return [
        *(text for cell in cells for text in re.findall(r"`([^`]+ [^`]+)`", cell)),
        *re.findall(r'(?<=[ \n])"([a-z][^"]+)"', PAGE),
    ]


def test_texts_are_those_that_are_printed() -> None:
    pieces = [(it.strip(" ,;"), text) for text in quoted() for it in _VALUE.split(text)]
    named = [(piece, text) for piece, text in pieces if len(piece) > 8]
    assert len({text for _, text in named}) > 10
    assert [(piece, text) for piece, text in named if piece not in SAID] == []


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`flowrun ([^`]+)`", PAGE))))
def test_commands_are_those_of_flowrun(command: str) -> None:
    words = command.split()
    words = ["run", *words] if words[0] == "GRAPH" else words
    parser, _ = cli._parser(words[0])  # exits where there is no such verb
    if len(words) > 1:
        assert parser.parse_args(words).verb == words[0]
