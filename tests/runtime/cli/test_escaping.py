"""Nothing that a message, a name, a log line or an error holds is a command to the terminal."""

from __future__ import annotations

import json
import os
import pty
import unicodedata
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from flowrun.runtime.cli import main
from flowrun.runtime.printing import print_table, print_text
from flowrun.runtime.wording import escaped, one_line

TITLE = "\x1b]0;owned\x07"
CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x1b\\"
HOSTILE = (
    f"{TITLE}{CLIPBOARD}\x1b[2J\x9b31m\x90q\x9c\u202egnp\u2066\u2028\x85\b\r\x7f\x00\nfake: ok\t"
)
FINE = "grüße 你好 🙂 👩‍👩‍👧 🇩🇪 שלום a\u0301"


def is_safe(text: str) -> bool:
    return not any(
        (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t")
        or "\u202a" <= char <= "\u202e"
        or "\u2066" <= char <= "\u2069"
        or char in "\u2028\u2029"
        for char in text
    )  # fmt: skip


@given(st.text() | st.text("\x00\x07\x08\x1b[];m\x85\x9b\u202e\u2066\ud800aé🙂\u200d\n\t\r"))
def test_no_text_commands_a_terminal(text: str) -> None:
    shown, line = escaped(text), one_line(text)
    assert is_safe(shown)
    assert is_safe(line)
    assert "\n" not in line
    assert "\t" not in line
    assert shown.count("\n") == text.count("\n")
    assert escaped(shown) == shown
    kept = "".join(char for char in text if is_safe(char) and char not in "\u061c\u200e\u200f")
    assert "".join(char for char in escaped(kept)) == kept
    assert json.loads(escaped(json.dumps([text], ensure_ascii=False))) == [text]


def test_all_scripts_and_emoji_stay() -> None:
    assert escaped(FINE) == one_line(FINE) == FINE


@pytest.fixture(autouse=True)
def _logs_as_they_were():
    yield
    structlog.reset_defaults()


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A graph of a hostile name, whose task says hostile things in every way that it has."""
    folder = tmp_path / f"r{HOSTILE.replace('/', '').replace(chr(0), '')}"
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = folder / "g\x1b[31m\u202e.yaml"
    path.write_text(
        "tasks:\n"
        "  - {id: n, type: support.helpers.Numbers, config: {limit: 3}}\n"
        "  - id: evil\n"
        "    type: support.hostile_tasks.Hostile\n"
        "    on_error: skip\n"
        f"    config: {{text: {escaped(json.dumps(HOSTILE + FINE, ensure_ascii=False))}}}\n"
        "cnx: [{src: n, dst: evil, msg: IntMsg}]\n"
        "logging: {slab_size_mib: 1, section_size_mib: 1}\n",
        encoding="utf-8",
    )
    return path


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int | None = 0) -> str:
    found = main([*words])
    shown = capsys.readouterr()
    assert status is None or found == status, shown
    text = shown.out + shown.err
    assert is_safe(text), words
    return text


def test_no_verb_passes_on_a_command(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, str(graph), "--plain", "--log-dir", "runs")
    assert FINE in text
    [run] = (str(path) for path in Path("runs").iterdir() if path.is_dir())
    for words in (
        "log info", "log info --json", "log ls", "log ls --json", "log cat", "log cat --json",
        "log check", "log export --to jsonl --topic /n/number", "log recover",
    ):  # fmt: skip
        log, verb, *options = words.split()
        said(capsys, log, verb, run, *options)
    said(capsys, "plan", str(graph))
    assert said(capsys, "log", "diff", run, run).startswith("7 messages identical")
    lines = said(capsys, "log", "cat", run, "--topic", "/evil/text").rstrip("\n").split("\n")
    assert len(lines) == 2
    assert all(FINE in line for line in lines)
    found = said(capsys, "log", "cat", run, "--json", "--topic", "/evil/text").split("\n")
    assert json.loads(found[0])["fields"]["value"] == f"0{HOSTILE}{FINE}"
    said(capsys, "replay", run)
    said(capsys, "replay", run, "--set", f"evil.text=x{TITLE}", status=1)
    said(capsys, "debug", run, "-c", "next; print; print evil.text; print evil.config; diff")
    said(capsys, "debug", run, "-c", f"break {TITLE}", status=1)
    said(capsys, "check", str(graph))


def test_no_error_passes_on_a_command(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = graph.read_text()
    graph.write_text(text.replace("limit", "lim\\x1bit").replace("3}", '"\\e]0;x\\a"}'))
    said(capsys, "check", str(graph), status=2)
    graph.write_text(text.replace("on_error: skip", "on_error: stop"))
    said(capsys, str(graph), "--plain", "--no-log", status=1)
    for words in (
        [HOSTILE], ["log", "info", TITLE], ["log", HOSTILE], ["check", CLIPBOARD],
        ["replay", CLIPBOARD], [str(graph), f"--{TITLE}"], ["log", "diff", TITLE, TITLE],
    ):  # fmt: skip
        said(capsys, *(word.replace("\0", "") for word in words), status=None)


def test_data_in_a_pipe_are_as_they_are_and_on_a_terminal_escaped(
    graph: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main([str(graph), "--plain", "--log-dir", "runs"])
    [run] = (str(path) for path in Path("runs").iterdir() if path.is_dir())
    words = ["log", "export", run, "--topic", "/evil/text", "--to"]
    capsys.readouterr()
    assert main([*words, "csv"]) == 0
    assert f"0{HOSTILE}{FINE}" in capsys.readouterr().out
    assert main([*words, "jsonl"]) == 0
    fields = json.loads(capsys.readouterr().out.split("\n")[0])["fields"]
    assert fields["value"] == f"0{HOSTILE}{FINE}"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for kind in ("csv", "jsonl"):
        shown = said(capsys, *words, kind)
        assert FINE in shown


def test_a_table_on_a_terminal_is_escaped() -> None:
    leader, follower = pty.openpty()
    with (
        os.fdopen(follower, "w", encoding="utf-8") as terminal,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("sys.stdout", terminal)
        print_table(("", ""), [("name", f"{CLIPBOARD}{FINE}\nnext")])
        print_text(TITLE)
    shown = os.read(leader, 4096).decode().replace("\r\n", "\n")
    os.close(leader)
    assert is_safe(shown)
    assert r"\u001b]52" in shown
    assert r"\nnext" in shown
