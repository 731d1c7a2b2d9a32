"""`flowrun new-task`: what it writes passes what a user's own files would have to pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.runtime.cli import main


@pytest.mark.slow
def test_the_files_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-task", "FindFaces", "--dir", str(tmp_path)]) == 0
    task, test, graph = (
        tmp_path / name for name in ("find_faces.py", "test_find_faces.py", "find_faces.yaml")
    )
    assert capsys.readouterr().out == (
        f"wrote {task}, {test}, {graph}\n\n"
        f"  flowrun {graph}    run it\n"
        f"  pytest {test}    test it\n"
    )
    assert main(["check", str(graph)]) == 0
    assert capsys.readouterr().out == f"{graph}: ok: 3 tasks, 2 connections\n"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )


@pytest.mark.slow
def test_the_files_pass_ruff(tmp_path: Path) -> None:
    assert main(["new-task", "FindFaces", "--dir", str(tmp_path)]) == 0
    for tool in (
        ["ruff", "check", "--isolated", "."],
        ["ruff", "format", "--isolated", "--line-length=100", "--check", "."],
    ):
        shown = subprocess.run(
            [sys.executable, "-m", *tool],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == 0, shown.stdout


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "test_find_faces.py"
    mine.write_text("mine")
    assert main(["new-task", "FindFaces", "--dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{mine} exists already; nothing was written\n"
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "find_faces",
            "'find_faces' is not a name for a class, such as FindFaces (did you mean 'FindFaces'?)",
        ),
        ("2D", "'2D' is not a name for a class, such as FindFaces (did you mean 'D'?)"),
        ("../X", "'../X' is not a name for a class, such as FindFaces (did you mean 'X'?)"),
        ("é", "'é' is not a name for a class, such as FindFaces"),
        ("Counter", "'Counter' is a task that is installed already; choose another name"),
        (
            "Json",
            "'Json' would need a module 'json', which Python has already; "
            "choose another name, such as JsonTask",
        ),
        (
            "Numpy",
            "'Numpy' would need a module 'numpy', which Python has already; "
            "choose another name, such as NumpyTask",
        ),
        (
            "Conftest",
            "'Conftest' would need a module 'conftest', which Python has already; "
            "choose another name, such as ConftestTask",
        ),
        (
            "Class",
            "'Class' would need a module 'class', which Python has already; "
            "choose another name, such as ClassTask",
        ),
    ],
)
def test_a_name_that_would_not_work_is_refused(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-task", name, "--dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{said}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["new-task", "FindFaces", "--dir", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"cannot write to {tmp_path / 'file'}: File exists\n"
