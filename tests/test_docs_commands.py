"""flowrun takes each `flowrun ...` of the docs, and of the comments of graphs that ship: the verb, its
options and their values, and the graphs of the project that it names."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from flowrun.runtime import cli
from support.paths import ROOT

_ANY_NUMBER = {"N": "1", "CYCLE": "1", "PORT": "3000"}
"""Words that stand for a number."""
_INCOMPLETE = re.compile("the following arguments are required|expected one argument")
_PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "tasks/embedded/model/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "runtime").rglob("*.md")),
]
_FILES = sorted((ROOT / "graphs").rglob("*.yaml")) + sorted((ROOT / "graphs").rglob("*.py"))


def shown(page: str) -> list[str]:
    """The command lines of the fenced blocks of a page."""
    found = []
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        lines = re.sub(r"\\\n\s*", "", block).splitlines()
        if kind == "console":
            found += [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        elif kind == "sh":
            found += lines
    return found


def quoted(page: str) -> list[str]:
    """What is quoted within a sentence, which may leave out arguments."""
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    found = (" ".join(text.split()) for text in re.findall(r"`(flowrun [^`]+)`", prose))
    return [text.removesuffix(" ...") for text in found]


def of_comments(text: str) -> list[str]:
    """The command lines that comments show, each alone on a line or quoted."""
    comments = [it.strip() for it in re.findall(r"^#(.*)$", text, re.MULTILINE)]
    alone = [re.split(r" {3,}", it)[0] for it in comments]
    return [it for it in alone if re.match(r"(\w+=\S* )*flowrun \S*[/.]", it)] + re.findall(
        r"`(flowrun [^`]+)`", " ".join(comments)
    )


def words_of(line: str) -> list[list[str]]:
    """The arguments of each flowrun of a command line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";&|"):
            commands.append([])
        elif commands[-1] or not re.match(r"\w+=", word):  # else the environment of a command
            commands[-1].append(word)
    return [
        [_ANY_NUMBER.get(it, it) for it in words[1:]]
        for words in commands
        if words[:1] == ["flowrun"]
    ]


def options(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a verb and of all that it is divided into."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*map(options, action.choices.values()))
    return found


def wrong(words: list[str], capsys: pytest.CaptureFixture[str], *, whole: bool) -> str:
    """What flowrun says of a command that it does not take; "" if it takes it."""
    try:
        verb, rest = ("run", words) if words[0] == "GRAPH" else cli._verb(words)
        if verb is None:
            return ""
        parser, _ = cli._parser(verb)
        parser.parse_args([verb, *rest])
    except SystemExit as error:
        said = capsys.readouterr().err
        if not error.code or (not whole and _INCOMPLETE.search(said)):
            named = {it.partition("=")[0] for it in words if it.startswith("-")}
            return ", ".join(f"no option {it}" for it in sorted(named - options(parser)))
        return said
    except cli.UsageError as error:
        return str(error)
    graphs = [it for it in words if re.match(r"(graphs|docs)/.*\.yaml$", it)]
    return ", ".join(f"no file {it}" for it in graphs if not (ROOT / it).exists())


@pytest.mark.parametrize("path", [*_PAGES, *_FILES], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_those_of_flowrun(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        lines = [(line, True) for line in shown(text)] + [(line, False) for line in quoted(text)]
    else:
        lines = [(line, False) for line in of_comments(text)]
    refused = {}
    for line, whole in lines:
        for words in words_of(line):
            if words and (said := wrong(words, capsys, whole=whole)):
                refused[line] = said
    assert refused == {}


def test_most_of_the_commands_are_found() -> None:
    texts = [path.read_text(encoding="utf-8") for path in _PAGES]
    lines = [line for text in texts for line in shown(text) + quoted(text)]
    assert len([words for line in lines for words in words_of(line)]) > 150
    found = [
        words
        for path in _FILES
        for line in of_comments(path.read_text())
        for words in words_of(line)
    ]
    assert len(found) > 10


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("flowrun replai RUN", "unknown command 'replai' (did you mean 'replay'?)"),
        ("flowrun log cat RUN --topik /cam", "unknown option '--topik'"),
        ("flowrun graphs/nowhere.yaml --cycles 3", "no file graphs/nowhere.yaml"),
        ("flowrun dataset --oonly labelled", "no option --oonly"),
    ],
)  # fmt: skip
def test_a_command_that_is_not_one_is_noticed(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [words] = words_of(line)
    assert said in wrong(words, capsys, whole=False)
