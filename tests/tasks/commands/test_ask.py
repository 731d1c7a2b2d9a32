"""`flowrun ask`: one model, one picture, one answer; or what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import structlog
from PIL import Image

from flowrun.runtime.cli import main
from flowrun.tasks.ask import read_picture
from flowrun.tasks.drawing import color_of
from support.paths import MEDIA

SHAPES = MEDIA / "shapes.jpg"


@pytest.fixture(autouse=True)
def _logs_as_they_were():
    yield
    structlog.reset_defaults()


def ask(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["ask", *map(str, words)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


# -- answers -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_shipped_model_answers_about_the_shipped_picture(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, out, err = ask(capsys, "embedded", SHAPES)
    assert (status, err) == (0, "")
    answer, empty, *facts = out.splitlines()
    assert answer == (
        "a blue ring on the left, a yellow star in the middle and a purple star on the right"
    )
    assert empty == ""
    assert [line.split(maxsplit=1) for line in facts[:4]] == [
        ["model", "embedded (Idefics3ForConditionalGeneration)"],
        ["picture", f"{SHAPES}, 640x480"],
        ["prompt", "cap en"],
        ["tokens", "21"],
    ]
    assert [line.split()[::2] for line in facts[4:]] == [["latency", "ms"], ["load", "s"]]


@pytest.mark.slow
def test_boxes_in_an_answer_are_listed_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "found.png"
    words = ("embedded", SHAPES, "detect shapes", "--json", "--save", saved)
    status, out, _ = ask(capsys, *words)
    reply = json.loads(out)
    assert status == 0
    assert reply["response"].count("<loc") == 12
    assert (reply["tokens"] > 12, reply["latency_ms"] > 0, reply["load_s"] > 0) == (True,) * 3
    [scene] = json.loads((MEDIA / "shapes.json").read_text())["scenes"][2:3]
    found = {item["label"]: item for item in reply["detections"]}
    assert set(found) == {f"{item['color']} {item['shape']}" for item in scene["objects"]}
    pixels = read_picture(saved)
    assert pixels.shape == (480, 640, 3)
    for item in scene["objects"]:
        name = f"{item['color']} {item['shape']}"
        top, left, bottom, right = (
            edge * size for edge, size in zip(item["box"], (480, 640, 480, 640), strict=True)
        )
        box = found[name]["box"]
        np.testing.assert_allclose(box, [left, top, right, bottom], atol=12)
        assert (found[name]["score"], found[name]["class_id"]) == (None, None)
        edge = pixels[round(box[1]) + 20 : round(box[3]), round(box[0])]
        assert (edge == color_of(name, -1)).all()


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that sees two dogs, whatever the picture."""
    from transformers import YolosConfig, YolosForObjectDetection
    from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

    folder = tmp_path_factory.mktemp("detector")
    config = YolosConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        image_size=[32, 32],
        patch_size=8,
        num_detection_tokens=2,
        use_mid_position_embeddings=False,
        id2label={0: "cat", 1: "dog"},
    )
    model = YolosForObjectDetection(config)
    head = model.class_labels_classifier.layers[-1]
    head.weight.data.zero_()
    head.bias.data = head.bias.data.new_tensor([0.0, 3.0, 0.0])
    model.save_pretrained(folder)
    YolosImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64}).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_detector_tells_what_it_finds(
    detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "out.jpg"
    status, out, _ = ask(capsys, detector, SHAPES, "--save", saved)
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == "2 objects:"
    assert lines[1].split() == ["label", "score", "left", "top", "right", "bottom"]
    assert [line.split()[:2] for line in lines[2:4]] == [["dog", "0.91"]] * 2
    assert lines[5].split(maxsplit=1) == ["model", f"{detector} (YolosForObjectDetection)"]
    assert lines[-1].split(maxsplit=1) == ["saved", f"{saved}, with 2 boxes"]
    with Image.open(saved) as opened:
        assert (opened.format, opened.size) == ("JPEG", (640, 480))

    status, out, _ = ask(capsys, detector, SHAPES, "--labels", "cat")
    assert (status, out.splitlines()[0]) == (0, "no objects")
    status, out, _ = ask(capsys, detector, SHAPES, "--threshold", "0.95", "--json")
    assert (status, json.loads(out)["detections"]) == (0, [])
    status, _, err = ask(capsys, detector, SHAPES, "detect dog")
    assert (status, err) == (
        2,
        f"model '{detector}' is a detector (YolosForObjectDetection): it finds the classes it knows "
        "and takes no prompt; --labels chooses among them\n",
    )
    status, _, err = ask(capsys, detector, SHAPES, "--max-new-tokens", "5")
    assert (status, err) == (
        2,
        f"model '{detector}' is a detector (YolosForObjectDetection): --max-new-tokens has no "
        "meaning for it\n",
    )
    status, _, err = ask(capsys, detector, SHAPES, "--labels", "bird")
    assert (status, err) == (1, f"model '{detector}' knows no label 'bird'; its labels: cat, dog\n")


@pytest.mark.slow
def test_a_picture_that_a_model_cannot_take_is_no_traceback(
    detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (640, 3)).save(tmp_path / "strip.png")
    status, out, err = ask(capsys, detector, tmp_path / "strip.png")
    assert (status, out) == (1, "")
    assert err.startswith("the model failed on the picture: ValueError: Size must contain ")


# -- pictures ----------------------------------------------------------------------------------


def test_a_picture_is_turned_as_its_exif_says_and_is_rgb(tmp_path: Path) -> None:
    image = Image.new("RGBA", (30, 20), (255, 0, 0, 255))
    exif = image.getexif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    image.convert("RGB").save(tmp_path / "turned.jpg", exif=exif)
    image.save(tmp_path / "alpha.png")
    assert read_picture(tmp_path / "turned.jpg").shape == (30, 20, 3)
    assert read_picture(tmp_path / "alpha.png").tolist()[0][0] == [255, 0, 0]


def test_what_is_no_picture_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, cut = tmp_path / "notes.txt", tmp_path / "cut.jpg"
    text.write_text("a red circle")
    cut.write_bytes(SHAPES.read_bytes()[:5000])
    said = [ask(capsys, "embedded", path) for path in (tmp_path / "no.jpg", text, tmp_path, cut)]
    assert [(status, out) for status, out, _ in said] == [(2, "")] * 4
    assert [err for *_, err in said] == [
        f"no such picture: {tmp_path}/no.jpg\n",
        f"{text} is not a picture of a format that Pillow reads\n",
        f"cannot read the picture {tmp_path}: Is a directory\n",
        f"cannot read the picture {cut}: image file is truncated (2 bytes not processed)\n",
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("out.txt", "cannot write {0}/out.txt: its name must end in .jpg, .png or the like\n"),
        ("out", "cannot write {0}/out: its name must end in .jpg, .png or the like\n"),
        ("none/out.jpg", "cannot write {0}/none/out.jpg: no such folder: {0}/none\n"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_model_is_loaded(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(capsys, "no-such-model", SHAPES, "--save", tmp_path / name) == (
        2,
        "",
        said.format(tmp_path),
    )


# -- models and options ------------------------------------------------------------------------


def test_an_unknown_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "embeded", SHAPES) == (
        2,
        "",
        "unknown model 'embeded' (did you mean 'embedded'?); give 'embedded', a checkpoint folder, "
        "or a hub id such as 'google/paligemma-3b-mix-224'; flowrun models lists what is on this "
        "machine\n",
    )
    assert ask(capsys, tmp_path, SHAPES) == (
        1,
        "",
        f"model '{tmp_path}': the folder {tmp_path} holds no config.json\n",
    )


def test_offline_a_model_that_is_not_in_the_cache_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from huggingface_hub.constants import HF_HUB_CACHE

    assert ask(capsys, "nobody/nothing", SHAPES, "hello", "--offline") == (
        1,
        "",
        f"model 'nobody/nothing' is not in the cache {HF_HUB_CACHE}, and the network is not to be "
        "used; run `hf download nobody/nothing` once where there is a network, or give a folder\n",
    )


def test_a_model_that_wants_a_prompt_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert ask(capsys, tmp_path, SHAPES) == (
        2,
        "",
        f"model '{tmp_path}' needs a prompt, such as \"What is in the picture?\"\n",
    )
    assert ask(capsys, "embedded", SHAPES, "--threshold", "0.5") == (
        2,
        "",
        "model 'embedded' is no detector (Idefics3ForConditionalGeneration): --threshold has no "
        "meaning for it\n",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threshold", "1.5"], "argument --threshold: expected a number from 0 to 1; got '1.5'"),
        (["--threshold", "x"], "argument --threshold: expected a number from 0 to 1; got 'x'"),
        (
            ["--max-new-tokens", "0"],
            "argument --max-new-tokens: expected a whole number, 1 or more; got '0'",
        ),
        (["--device", "tpu"], "argument --device: expected auto, cpu, cuda or cuda:N; got 'tpu'"),
        (["--labels", ","], "argument --labels: expected labels, such as cat,dog"),
    ],
)
def test_a_wrong_option_says_what_is_right(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = ask(capsys, "embedded", SHAPES, *words)
    assert (status, err.splitlines()[-1]) == (
        2,
        f"flowrun ask: {said}; flowrun ask --help lists all",
    )
