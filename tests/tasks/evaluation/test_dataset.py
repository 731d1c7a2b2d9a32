"""Recorded pictures and answers as data sets: pixels, boxes, words, and what labels say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.shadows import compared
from flowrun.runtime.recorded.labels import Label
from flowrun.tasks.commands import dataset as command
from flowrun.tasks.evaluation.dataset import write_dataset
from support.damaged import Chunk, remux
from support.dataset_tasks import sum_of
from support.films import draw
from support.helpers import plan_of, record
from support.oriented import film

CYCLES = 5


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Pictures of 16x12, a box and an answer for each."""
    folder = tmp_path_factory.mktemp("dataset")
    plan = plan_of(
        folder,
        f"c=pictures.Camera(width: 16, height: 12, limit: {CYCLES}); "
        "d=dataset_tasks.Finds; a=dataset_tasks.Says",
        "c > d: ImageRgb8Msg; c > a: ImageRgb8Msg",
    )
    _, result = record(plan, folder / "run")
    assert result.error is None
    return folder / "run"


def label(cycle: int, task: str, word: str, expected: object = "") -> Label:
    return Label(cycle, task, word, expected, "", 0, 0)


def test_coco_holds_boxes_and_the_pixels_that_the_task_saw(run, tmp_path):
    written = write_dataset([run], tmp_path / "out", "coco", labels={})
    assert (written.pictures, written.answers, written.boxes) == (CYCLES, 2 * CYCLES, CYCLES)
    found = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert [it["name"] for it in found["categories"]] == ["square"]
    with Log(run) as log:
        pixels = [it.pixels for it in log.frames("/c/image")]
    for image, seen in zip(found["images"], pixels, strict=True):
        assert (image["width"], image["height"], image["camera"]) == (16, 12, "c")
        with Image.open(tmp_path / "out" / "data" / image["file_name"]) as file:
            assert np.array_equal(np.asarray(file), seen)
    first = found["annotations"][0]
    assert first["bbox"] == [2.0, 0.0, 8.0, 12.0]  # cut where the picture ends
    assert (first["image_id"], first["category_id"], first["area"]) == (1, 1, 96.0)
    assert first["score"] == pytest.approx(0.5)
    captions = json.loads((tmp_path / "out" / "captions.json").read_text())["annotations"]
    assert [it["caption"] for it in captions] == [f"frame {k}" for k in range(CYCLES)]


def lossless(size: tuple[int, int], pixel_format: str, path: Path) -> Path:
    """A film of noise that moves, without loss, whatever the format of its pixels."""
    width, height = size
    noise = np.random.default_rng(7).integers(0, 255, (height, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "ffv1", rate=10, width=width, height=height, pix_fmt=pixel_format
        )
        for number in range(6):
            picture = np.roll(noise, 3 * number, 1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode(None))
    return path


def of_two_sizes(path: Path) -> Path:
    bare = path.with_suffix(".h264")
    for size in ((64, 48), (128, 96)):
        one = draw(path.with_name("one.h264"), size=size, frames=6)
        with bare.open("ab") as both:
            both.write(one.read_bytes())

    def count(chunks: list[Chunk]) -> None:
        chunks[:] = [replace(it, pts=k, dts=k) for k, it in enumerate(chunks)]

    remux(bare, path, count)
    return path


@pytest.mark.parametrize(
    ("make", "name", "shapes"),
    [
        pytest.param(partial(film, orientation=6), "a.mp4", {(320, 192)}, id="rotated"),
        pytest.param(partial(film, orientation=4), "a.mp4", {(192, 320)}, id="mirrored"),
        pytest.param(partial(film, aspect=Fraction(4, 3)), "a.mkv", {(192, 320)}, id="aspect"),
        pytest.param(partial(lossless, (51, 37), "yuv420p"), "a.mkv", {(37, 51)}, id="odd"),
        pytest.param(partial(lossless, (64, 48), "gray"), "a.mkv", {(48, 64)}, id="gray"),
        pytest.param(partial(lossless, (64, 48), "yuv420p10le"), "a.mkv", {(48, 64)}, id="10 bits"),
        pytest.param(partial(lossless, (33, 21), "bgr0"), "a.mkv", {(21, 33)}, id="rgb"),
        pytest.param(of_two_sizes, "a.mkv", {(48, 64), (96, 128)}, id="size changes"),
    ],
)
def test_pictures_of_all_kinds_of_films_have_the_pixels_that_the_task_saw(
    make, name, shapes, tmp_path
):
    path = make(path=tmp_path / name)
    plan = plan_of(
        tmp_path,
        f"c=VideoCapture(source_uri: '{path}', realtime: false); a=dataset_tasks.Sums",
        "c > a: ImageRgb8Msg",
    )
    _, result = record(plan, tmp_path / "run")
    assert result.error is None
    write_dataset([tmp_path / "run"], tmp_path / "coco", "coco", labels={})
    write_dataset([tmp_path / "run"], tmp_path / "hf", "hf", labels={})
    captions = json.loads((tmp_path / "coco" / "captions.json").read_text())
    said = {it["image_id"]: it["caption"] for it in captions["annotations"]}
    assert len(said) == len(captions["images"]) >= 6
    assert {(it["height"], it["width"]) for it in captions["images"]} == shapes
    for image in captions["images"]:
        with Image.open(tmp_path / "coco" / "data" / image["file_name"]) as file:
            pixels = np.asarray(file)
        assert sum_of(pixels) == said[image["id"]]
        assert (image["height"], image["width"]) == pixels.shape[:2]
    lines = (tmp_path / "hf" / "train" / "metadata.jsonl").read_text().splitlines()
    for row in map(json.loads, lines):
        with Image.open(tmp_path / "hf" / "train" / row["file_name"]) as file:
            assert sum_of(np.asarray(file)) == row["response"]
    assert len(lines) == len(said)


def test_hugging_face_gets_a_row_for_each_picture(run, tmp_path):
    write_dataset([run], tmp_path / "out", "hf", labels={})
    lines = (tmp_path / "out" / "train" / "metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["response"] for row in rows] == [f"frame {k}" for k in range(CYCLES)]
    assert rows[1]["prompt"] == "which?"
    assert rows[1]["objects"]["category"] == ["square"]
    assert all((tmp_path / "out" / "train" / row["file_name"]).exists() for row in rows)


def test_scores_that_nobody_gave_are_left_out_for_hugging_face(tmp_path):
    plan = plan_of(
        tmp_path,
        f"c=pictures.Camera(width: 16, height: 12, limit: {CYCLES}); a=dataset_tasks.Says",
        "c > a: ImageRgb8Msg",
    )
    record(plan, tmp_path / "run")
    boxes = [label(1, "a", "wrong", "<loc0000><loc0000><loc0512><loc0512> square")]
    write_dataset([tmp_path / "run"], tmp_path / "out", "hf", labels={tmp_path / "run": boxes})
    lines = (tmp_path / "out" / "train" / "metadata.jsonl").read_text().splitlines()
    assert all(set(json.loads(line)["objects"]) == {"bbox", "category"} for line in lines)


def test_labels_say_what_is_right(run, tmp_path):
    labels = {
        run: [label(1, "a", "wrong", "frame one"), label(2, "a", "right"), label(3, "d", "wrong")]
    }
    write_dataset([run], tmp_path / "right", "hf", labels=labels, only="labelled")
    lines = (tmp_path / "right" / "train" / "metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["cycle"], row["response"]) for row in rows] == [(1, "frame one"), (2, "frame 2")]
    written = write_dataset([run], tmp_path / "wrong", "coco", labels=labels, only="wrong")
    assert (written.pictures, written.boxes) == (2, 1)
    one = write_dataset([run], tmp_path / "one", "coco", labels={}, tasks=["a"])
    assert (one.answers, one.boxes) == (CYCLES, 0)


SHADOWED = """
tasks:
  - {id: c, type: support.pictures.Camera, config: {limit: 4}}
  - {id: vlm, type: support.shadow_tasks.Answers, config: {shadow: {prompt: no, hangs: false}}}
cnx:
  - {src: c, dst: vlm, msg: ImageRgb8Msg}
"""


@pytest.mark.parametrize("form", ["coco", "hf"])
def test_disagreements_alone_are_written_with_what_the_shadow_said(tmp_path, form):
    plan = plan_graph(bind(parse_graph(SHADOWED, path=tmp_path / "g.yaml", env={})))
    _, result = record(plan, tmp_path / "run")
    assert result.error is None
    with Log(tmp_path / "run") as log:
        [both] = compared(log)
    expected = {it.frame_cycle: (it.said, it.shadow_said) for it in both.disagreed}
    assert expected
    out = tmp_path / "out"
    written = write_dataset([tmp_path / "run"], out, form, labels={}, only="disagreements")
    assert (written.pictures, written.answers) == (len(expected), len(expected))
    if form == "coco":
        found = json.loads((out / "captions.json").read_text())
        cycles = [it["cycle"] for it in found["images"]]
        said = [(it["caption"], it["shadow"]) for it in found["annotations"]]
    else:
        rows = list(map(json.loads, (out / "train" / "metadata.jsonl").read_text().splitlines()))
        cycles = [it["cycle"] for it in rows]
        said = [(it["response"], it["shadow"]) for row in rows for it in row["answers"]]
    assert dict(zip(cycles, said, strict=True)) == expected
    whole = write_dataset([tmp_path / "run"], tmp_path / "all", form, labels={})
    assert (whole.pictures, whole.answers) == (4, 4)  # a shadow's answers are none of a task's


def test_copies_of_a_run_do_not_write_over_each_other(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    written = write_dataset([run, tmp_path / "copy"], tmp_path / "out", "coco", labels={})
    assert written.pictures == len(list((tmp_path / "out" / "data").iterdir())) == 2 * CYCLES


def test_boxes_that_are_no_numbers_are_left_out(run, tmp_path):
    wrong = label(
        1, "d", "wrong", {"boxes": [["nan", 0, 4, 4], [9, 9, 1, 2]], "labels": ["a", "b"]}
    )
    write_dataset([run], tmp_path / "out", "coco", labels={run: [wrong]}, only="labelled")
    text = (tmp_path / "out" / "labels.json").read_text()
    assert "NaN" not in text
    assert [it["bbox"] for it in json.loads(text)["annotations"]] == [[1.0, 2.0, 8.0, 7.0]]


def test_what_cannot_be_written_is_refused_and_leaves_nothing(run, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="there is there already; name a new folder"):
        write_dataset([run], tmp_path / "there", "hf", labels={})
    with pytest.raises(UsageError, match="there are no answers that are labelled in"):
        write_dataset([run], tmp_path / "out", "hf", labels={}, only="labelled")
    with pytest.raises(UsageError, match="no task 'x' that answers about pictures; there are: "):
        write_dataset([run], tmp_path / "out", "hf", labels={}, tasks=["x"])
    assert [it.name for it in tmp_path.iterdir()] == ["there"]


def test_the_command_says_what_it_wrote(run, tmp_path, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    given = ["dataset", str(run), "--to", "fiftyone", "-o", str(tmp_path / "out")]
    assert command.run(parser.parse_args(given)) == 0
    assert (
        f"out: {CYCLES} pictures, {2 * CYCLES} answers, {CYCLES} boxes" in capsys.readouterr().out
    )
