"""What a shell completes."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.runtime import cli
from flowrun.runtime.cli import completion, main

argcomplete = pytest.importorskip("argcomplete")
BIN = Path(sys.executable).parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (
        "graphs/front.yaml",
        "graphs/notes.txt",
        "runs/front-1/0.mcap",
        "runs/back-2/0.mcap",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "own.py").write_text("class Mine(Task): ...\nclass MineMsg(Message): ...\n")
    return tmp_path


@pytest.fixture
def complete(folder, monkeypatch):
    """What fits a line, as the shell is told."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        monkeypatch.setenv("_ARGCOMPLETE", "1")
        monkeypatch.setenv("_ARGCOMPLETE_IFS", "\n")
        told = io.StringIO()

        def answer(parser, **options):
            finder = argcomplete.CompletionFinder()
            monkeypatch.setattr(os, "fdopen", None)  # it would write to descriptor 9
            finder(parser, exit_method=lambda _: None, output_stream=told, **options)

        monkeypatch.setattr(argcomplete, "autocomplete", answer)
        cli._complete()
        monkeypatch.undo()
        return sorted(it.strip() for it in told.getvalue().split("\n"))

    return ask


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ("flowrun sta", ["start-pipeline", "stats"]),
        ("flowrun do", ["doctor"]),
        ("flowrun graphs/", ["graphs/front.yaml"]),
        ("flowrun check g", ["graphs/"]),
        ("flowrun graphs/front.yaml --cyc", ["--cycles"]),
        ("flowrun replay runs/", ["runs/back-2", "runs/front-1"]),
        ("flowrun log info ru", ["runs/"]),
        ("flowrun log export --to pa", ["parquet"]),
        ("flowrun tasks Square", ["Square"]),
        ("flowrun tasks own.", ["own.Mine"]),
        ("flowrun messages own.", ["own.MineMsg"]),
        ("flowrun doctor --log-dir r", ["runs/"]),
        ("flowrun set --port 1 v", [""]),
        ("flowrun 'open", [""]),
    ],
)
def test_what_fits_is_offered(complete, line, fits):
    assert complete(line) == fits


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_put_where_the_shell_looks(shell, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_ARGCOMPLETE" in script
    assert main(["completion", shell, "--install"]) == 0
    place = tmp_path / completion._SHELLS[shell]
    assert place.read_text() == script
    assert f"wrote {place}" in capsys.readouterr().out
    if program := shutil.which(shell):
        subprocess.run([program, "-n", place], check=True)


@pytest.mark.long
def test_bash_completes(folder):
    done = subprocess.run(
        [
            "bash", "-c",
            'eval "$(flowrun completion bash)"; COMP_LINE="flowrun tasks VideoC"; '
            'COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; _python_argcomplete flowrun; echo "${COMPREPLY[@]}"',
        ],
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("VideoCapture", "")
