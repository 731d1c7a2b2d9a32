"""`flowrun init`: the project that it writes passes what a user's own files would have to pass."""

from __future__ import annotations

import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.runtime.cli import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("options", [[], ["--detect"]])
def test_the_graph_of_a_new_project_is_right(here, options, capsys, monkeypatch):
    assert main(["init", "yard", *options]) == 0
    shown = capsys.readouterr()
    assert "  cd yard\n  flowrun yard.yaml    run it" in shown.out
    assert shown.err == ""
    monkeypatch.chdir(here / "yard")
    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith("yard.yaml: ok: ")
    monkeypatch.syspath_prepend(".")
    [path] = Path().glob("test_*.py")
    [test] = [it for name, it in runpy.run_path(path.name).items() if name.startswith("test_")]
    test()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--detect"]], ids=["", "detect"])
def test_its_files_pass_its_test_and_ruff(here, options):
    assert main(["init", "yard", *options]) == 0
    for command in (
        ["pytest", "-q", "-p", "no:cacheprovider"],
        ["ruff", "check", "--isolated", "."],
        ["ruff", "format", "--isolated", "--line-length=100", "--check", "."],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=here / "yard",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.long
@pytest.mark.slow
def test_it_runs_and_its_task_says_something(here, monkeypatch, capsys):
    assert main(["init", "yard"]) == 0
    monkeypatch.chdir(here / "yard")
    assert main(["yard.yaml", "--cycles", "3", "--plain", "--port", "-1"]) == 0
    capsys.readouterr()
    [run] = Path("runs").glob("yard-*")
    assert main(["log", "cat", str(run), "--topic", "/brightness/mean"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("is_file", [False, True])
def test_what_exists_is_not_touched(here, is_file, capsys):
    yard = here / "yard"
    if is_file:
        yard.write_text("mine")
    else:
        yard.mkdir()
    assert main(["init", "yard"]) == 2
    assert capsys.readouterr().err == "yard exists already; nothing was written\n"
    assert yard.read_text() == "mine" if is_file else list(yard.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "-", "häuser", "a/.b"])
def test_a_name_that_no_graph_can_have_is_refused(here, name, capsys):
    assert main(["init", "--", name]) == 2
    assert capsys.readouterr().err == (
        f"{name!r} does not end in a name of letters, digits, '-', '_' and '.', such as yard\n"
    )
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("camera", "address", "variables"),
    [
        ("rtsp://admin:a@b:c@10.0.0.1/s1",
         "rtsp://${CAM_USER}:${secret:CAM_PASSWORD}@10.0.0.1/s1", "CAM_USER CAM_PASSWORD"),
        ("https://cam.example/live?token=s3cret&size=2",
         "https://cam.example/live?token=${secret:CAM_TOKEN}&size=2", "CAM_TOKEN"),
    ],
)  # fmt: skip
def test_no_password_is_in_a_file(here, camera, address, variables, capsys, monkeypatch):
    assert main(["init", "yard", "--camera", camera]) == 0
    export = "export " + " ".join(f"{name}=..." for name in variables.split())
    assert export in capsys.readouterr().out
    assert export in (here / "yard" / "README.md").read_text()
    assert f'source_uri: "{address}"\n' in (here / "yard" / "yard.yaml").read_text()
    for name in variables.split():
        monkeypatch.setenv(name, "secret1234")
    assert main(["check", "yard/yard.yaml"]) == 0


def test_a_film_that_is_here_is_found_from_the_project(here):
    (here / "street.mp4").write_bytes(b"")
    assert main(["init", "sub/yard", "--camera", "street.mp4"]) == 0
    graph = (here / "sub" / "yard" / "yard.yaml").read_text()
    assert 'source_uri: "../../street.mp4"\n' in graph
    assert "loop" not in graph


def test_a_camera_that_is_not_there_is_mentioned(here, capsys):
    assert main(["init", "yard", "--camera", "no.mp4"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("\nwarning: it does not run yet:\nyard/yard.yaml:12:7: ")


@pytest.mark.parametrize(
    ("is_installed", "command"), [(True, "pytest"), (False, "pip install pytest && pytest")]
)
def test_what_tests_the_task_is_a_command_that_works(
    here, capsys, monkeypatch, is_installed, command
):
    """pytest does not come with flowrun."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: find(name) if is_installed or name != "pytest" else None,
    )
    assert main(["init", "yard"]) == 0
    assert f"\n  {command}    test the task\n" in capsys.readouterr().out
    assert main(["new-task", "FindFaces"]) == 0
    assert f"\n  {command} test_find_faces.py    test it\n" in capsys.readouterr().out
