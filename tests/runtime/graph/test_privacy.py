"""Warnings where pictures get out that a task is there to conceal."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.privacy import leaks
from flowrun.runtime.graph.read import parse_graph
from support import helpers

OFF = ", logging: {enabled: false}"


def graph(*, camera: str = OFF, tasks: str = "", cnx: str = "") -> str:
    return (
        "tasks:\n"
        f"- {{id: cam, type: support.pictures.Camera, config: {{limit: 2}}{camera}}}\n"
        "- {id: find, type: support.pictures.Find}\n"
        f"- {{id: blur, type: flowrun.tasks.blur.Blur}}\n{tasks}\n"
        "cnx:\n- {src: cam, dst: find, msg: ImageRgb8Msg}\n"
        "- {src: cam, dst: blur, msg: ImageRgb8Msg}\n- {src: find, dst: blur, msg: DetectionsMsg}\n"
        f"{cnx}\n"
    )


def warnings(tmp_path: Path, text: str) -> list[str]:
    plan = plan_graph(bind(parse_graph(text, path=tmp_path / "g.yaml", env={})))
    return [f"{it.where.line}: {it.message}" for it in leaks(plan)]


KEPT = (
    "the log keeps the pictures of task {!r} as they are before blur conceals what is in them; write "
    "logging: {{enabled: false}} for it: a replay then begins with what blur has made"
)
GIVEN = (
    "task {!r} gives away the pictures of task {!r} as they are before blur conceals what is in them; "
    "connect blur to it instead"
)


def test_a_camera_that_is_not_logged_and_not_shown_leaks_nothing(tmp_path: Path) -> None:
    for camera in (OFF, ", logging: {payload: none}"):
        assert warnings(tmp_path, graph(camera=camera)) == []
    everything_off = graph(camera="") + "logging: {enable_task_logging: false}"
    assert warnings(tmp_path, everything_off) == []


def test_a_camera_that_is_logged_leaks(tmp_path: Path) -> None:
    assert warnings(tmp_path, graph(camera="")) == [f"2: {KEPT.format('cam')}"]


def test_whoever_shows_the_pictures_leaks(tmp_path: Path) -> None:
    tasks = (
        "- {id: shows, type: flowrun.tasks.broadcast.BroadcastImage}\n"
        "- {id: after, type: flowrun.tasks.broadcast.BroadcastImage}"
    )
    cnx = (
        "- {src: cam, dst: shows, msg: ImageRgb8Msg}\n- {src: blur, dst: after, msg: ImageRgb8Msg}"
    )
    assert warnings(tmp_path, graph(tasks=tasks, cnx=cnx)) == [f"5: {GIVEN.format('shows', 'cam')}"]


def test_pictures_made_of_these_leak_too_and_others_do_not(tmp_path: Path) -> None:
    tasks = (
        "- {id: dark, type: support.pictures.Darken}\n"
        "- {id: shows, type: flowrun.tasks.broadcast.BroadcastImage}\n"
        "- {id: other, type: support.pictures.Camera}\n"
        "- {id: free, type: flowrun.tasks.broadcast.BroadcastImage}"
    )
    cnx = (
        "- {src: cam, dst: dark, msg: ImageRgb8Msg}\n- {src: dark, dst: shows, msg: ImageRgb8Msg}\n"
        "- {src: other, dst: free, msg: ImageRgb8Msg}"
    )
    assert warnings(tmp_path, graph(tasks=tasks, cnx=cnx)) == [
        f"5: {KEPT.format('dark')}",
        f"6: {GIVEN.format('shows', 'dark')}",
    ]


def test_what_the_concealed_pictures_are_made_of_leaks(tmp_path: Path) -> None:
    tasks = "- {id: dark, type: support.pictures.Darken}"
    text = graph(camera="", tasks=tasks, cnx="- {src: cam, dst: dark, msg: ImageRgb8Msg}")
    text = text.replace("{src: cam, dst: blur, msg", "{src: dark, dst: blur, msg")
    assert warnings(tmp_path, text) == [f"2: {KEPT.format('cam')}", f"5: {KEPT.format('dark')}"]


def test_pictures_that_were_concealed_once_leak_no_more(tmp_path: Path) -> None:
    tasks = "- {id: again, type: flowrun.tasks.blur.Blur}"
    cnx = "- {src: blur, dst: again, msg: ImageRgb8Msg}\n- {src: find, dst: again, msg: DetectionsMsg}"
    assert warnings(tmp_path, graph(tasks=tasks, cnx=cnx)) == []


def test_blur_needs_to_know_what_to_conceal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(graph().replace("- {src: find, dst: blur, msg: DetectionsMsg}\n", ""))
    assert main(["check", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"{path}:4:3: Blur does not know what to conceal: connect a task that finds it, such as "
        "DetectFaces or Detect\n"
    )


def test_check_and_a_run_at_its_start_warn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(graph(camera=""))
    assert main(["check", str(path)]) == 0
    said = capsys.readouterr()
    assert said.err == f"{path}:2:8: warning: {KEPT.format('cam')}\n"
    assert said.out == f"{path}: ok: 3 tasks, 3 connections\n"
    plan = plan_graph(bind(parse_graph(path.read_text(), path=path, env={})))
    helpers.record(plan, tmp_path / "run")
    with helpers.Log(tmp_path / "run") as log:
        lines = [it.fields["message"] for it in log.messages("/flowrun/log")]
    assert KEPT.format("cam") in lines
