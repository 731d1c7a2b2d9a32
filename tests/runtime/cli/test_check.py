"""`flowrun check`."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from support.paths import ROOT


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_right_graph_is_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "graphs/minimal.yaml", "graphs/caterpillar.yaml"]) == 0
    assert capsys.readouterr().out == (
        "graphs/minimal.yaml: ok: 3 tasks, 2 connections\n"
        "graphs/caterpillar.yaml: ok: 17 tasks, 16 connections\n"
    )


def test_one_is_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "g.yaml"
    path.write_text("tasks: [{id: a, type: Counter}]")
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok: 1 task, 0 connections\n"


def test_every_file_is_checked_and_every_mistake_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(
        "tasks:\n  - {id: a, type: Counter, config: {limit: -1}}\n  - {id: b, type: Print}\n"
    )
    assert main(["check", str(path), "graphs/minimal.yml", "graphs/minimal.yaml"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "graphs/minimal.yaml: ok: 3 tasks, 2 connections\n"
    first, second, third = shown.err.splitlines()
    assert first == f"{path}:2:37: 'limit' of task 'a' must be at least 0; got -1"
    assert second == (
        f"{path}:3:10: input 'b.number' (IntMsg) is not connected; outputs that fit: a.count"
    )
    assert third.startswith("graph file not found: graphs/minimal.yml; graphs holds ")
    assert third.endswith(" (did you mean 'minimal.yaml'?)")


def test_a_cycle_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(
        "tasks:\n  - {id: a, type: PassBool}\n  - {id: b, type: PassBool}\n"
        "cnx:\n  - {src: a, dst: b, msg: BoolMsg}\n  - {src: b, dst: a, msg: BoolMsg}\n"
    )
    assert main(["check", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"{path}:5:5: cycle: a -> b -> a; a task cannot feed itself in a cycle: leave one of these "
        "connections out (what a task needs of earlier cycles, it keeps itself)\n"
    )


def test_a_graph_for_another_machine_needs_nothing_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "g.yaml"
    cameras = "".join(
        f"  - {{id: cam{i}, type: VideoCapture, config: {{source_uri: {uri}}}}}\n"
        for i, uri in enumerate(("/dev/video987", "there.mp4"))
    )
    path.write_text(f"tasks:\n{cameras}")
    assert main(["check", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"{path}:2:45: no such device: /dev/video987" in said
    assert f"{path}:3:45: no such video file" in said
    assert main(["check", "--elsewhere", str(path)]) == 0
    assert main(["plan", str(path)]) == 0
    assert "cam0" in capsys.readouterr().out
    path.write_text(f"tasks:\n{cameras.replace('source_uri', 'sauce')}")
    assert main(["check", "--elsewhere", str(path)]) == 2
    assert "unknown key 'sauce'" in capsys.readouterr().err


def test_without_a_name_every_graph_of_the_folder_is_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 2
    assert capsys.readouterr().err == f"no .yaml file in {tmp_path}; name the graphs to check\n"
    for name in ("b.yml", "a.yaml"):
        (tmp_path / name).write_text("tasks: [{id: n, type: Counter}]\n")
    assert main(["check"]) == 0
    assert capsys.readouterr().out == (
        "a.yaml: ok: 1 task, 0 connections\nb.yml: ok: 1 task, 0 connections\n"
    )


def test_of_a_folder_every_graph_is_checked(tmp_path, capsys):
    graph = "tasks:\n  - {id: a, type: Counter, config: {limit: 1}}\n"
    (tmp_path / "b.yaml").write_text(graph)
    (tmp_path / "a.yml").write_text(graph)
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        f"{tmp_path}/a.yml: ok: 1 task, 0 connections\n"
        f"{tmp_path}/b.yaml: ok: 1 task, 0 connections\n"
    )


def test_a_folder_without_graphs_is_named(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path} is a folder; it has no .yaml file\n"


def test_of_many_files_twenty_are_listed(tmp_path, capsys):
    for number in range(30):
        (tmp_path / f"g{number:02}.yaml").touch()
    assert main(["check", str(tmp_path / "g31.yaml")]) == 2
    names = ", ".join(f"g{number:02}.yaml" for number in range(20))
    assert capsys.readouterr().err.startswith(
        f"graph file not found: {tmp_path}/g31.yaml; {tmp_path} holds {names} and 10 more (did you "
    )
