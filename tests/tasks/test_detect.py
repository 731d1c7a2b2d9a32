"""`Detect` on tiny checkpoints of five families: its boxes, its labels, its errors."""

from __future__ import annotations

import io
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg
from flowrun.runtime.clock import LiveClock, ManualClock
from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.runtime.testing import run_task
from flowrun.tasks.detect import _MODELS, Detect
from flowrun.tasks.embedded import MODEL_DIR
from flowrun.tasks.models.detector import Found, ObjectDetector, Search
from flowrun.tasks.models.question import ModelError
from flowrun.tasks.models.shared import SharedModel
from support.helpers import START_NS

pytestmark = pytest.mark.slow  # importing torch and transformers alone takes seconds

LABELS = {
    "id2label": {0: "cat", 1: "dog", 2: "person"},
    "label2id": {"cat": 0, "dog": 1, "person": 2},
}
KNOWN_BOX = (0.4, 0.3, 0.2, 0.5)
"""Centre x, centre y, width, height in fractions of the picture: what `known` always answers."""


# -- tiny checkpoints --------------------------------------------------------------------------


def rt_detr(folder: Path, *, version: int = 1) -> None:
    """As it is initialized: the box heads' last layers are 0, so that each box is its anchor."""
    from transformers import (
        RTDetrConfig,
        RTDetrForObjectDetection,
        RTDetrResNetConfig,
        RTDetrV2Config,
        RTDetrV2ForObjectDetection,
    )
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    config_class, model_class = (
        (RTDetrConfig, RTDetrForObjectDetection)
        if version == 1
        else (RTDetrV2Config, RTDetrV2ForObjectDetection)
    )
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = config_class(
        backbone_config=backbone,
        encoder_in_channels=[16] * 3,
        decoder_in_channels=[16] * 3,
        encoder_hidden_dim=16,
        d_model=16,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        decoder_layers=2,
        num_queries=10,
        num_denoising=0,
        **LABELS,
    )
    model_class(config).save_pretrained(folder)
    RTDetrImageProcessorPil(size={"height": 64, "width": 96}).save_pretrained(folder)


def d_fine(folder: Path) -> None:
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    backbone = HGNetV2Config(
        stem_channels=[3, 8, 8],
        hidden_sizes=[16] * 4,
        stage_in_channels=[8, 16, 16, 16],
        stage_mid_channels=[8] * 4,
        stage_out_channels=[16] * 4,
        stage_num_blocks=[1] * 4,
        stage_numb_of_layers=[1] * 4,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = DFineConfig(
        backbone_config=backbone,
        encoder_in_channels=[16] * 3,
        decoder_in_channels=[16] * 3,
        encoder_hidden_dim=16,
        d_model=16,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        decoder_layers=2,
        num_queries=10,
        num_denoising=0,
        **LABELS,
    )
    DFineForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessorPil(size={"height": 64, "width": 96}).save_pretrained(folder)


def detr(folder: Path) -> None:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
    from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil

    backbone = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 8, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    config = DetrConfig(
        backbone_config=backbone,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
        **LABELS,
    )
    DetrForObjectDetection(config).save_pretrained(folder)
    DetrImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64}).save_pretrained(folder)


def yolos(folder: Path) -> Any:
    from transformers import YolosConfig, YolosForObjectDetection
    from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[32, 32],
        patch_size=8,
        num_detection_tokens=2,
        use_mid_position_embeddings=False,
        **LABELS,
    )
    model = YolosForObjectDetection(config)
    model.save_pretrained(folder)
    YolosImageProcessorPil(size={"shortest_edge": 32, "longest_edge": 64}).save_pretrained(folder)
    return model


def known(folder: Path) -> None:
    """A YOLOS whose last layers ignore the picture: a dog at `KNOWN_BOX`, twice."""
    import torch

    model = yolos(folder)
    box = torch.tensor(KNOWN_BOX)
    with torch.no_grad():
        for layer, bias in (
            (model.bbox_predictor.layers[-1], torch.log(box / (1 - box))),
            (model.class_labels_classifier.layers[-1], torch.tensor([0.0, 9.0, 0.0, 0.0])),
        ):
            layer.weight.zero_()
            layer.bias.copy_(bias)
    model.save_pretrained(folder)


FAMILIES: dict[str, Callable[[Path], Any]] = {
    "rt-detr": rt_detr,
    "rt-detr-v2": lambda folder: rt_detr(folder, version=2),
    "d-fine": d_fine,
    "detr": detr,
    "yolos": yolos,
    "known": known,
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of each family."""
    import torch

    folder = tmp_path_factory.mktemp("checkpoints")
    for name, make in FAMILIES.items():
        torch.manual_seed(0)
        make(folder / name)
    return folder


# -- running it --------------------------------------------------------------------------------


def frame(seed: int, size: tuple[int, int] = (48, 120)) -> ImageRgb8Msg:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    image = ImageRgb8Msg(pixels=pixels, frame_id=seed)
    image.publish(tov_ns=1000 + seed)
    return image


def detect(folder: Path, *frames: ImageRgb8Msg, **config: Any) -> list[DetectionsMsg]:
    given = {"device": "cpu", "threshold": 0.1, **config}
    outs = run_task(Detect, inputs=[{"image": f} for f in frames], config=given, graph_dir=folder)
    found: list[Any] = [out["detections"] for out in outs]
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_detects_the_same_twice(checkpoints: Path, family: str) -> None:
    once, twice = (
        detect(checkpoints, frame(1), frame(2, (90, 31)), model=family) for _ in range(2)
    )
    for first, second in zip(once, twice, strict=True):
        assert first.latency_ms > 0
        first.latency_ms = second.latency_ms = 0
        assert first.encode() == second.encode()
        assert first.count > 0
    assert [(f.frame_id, f.frame_cycle, f.tov_ns) for f in once] == [(1, 0, 1001), (2, 1, 1002)]
    assert [(f.width, f.height) for f in once] == [(120, 48), (31, 90)]


@pytest.mark.parametrize("family", ["rt-detr", "rt-detr-v2", "d-fine", "detr", "yolos"])
def test_detections_are_what_transformers_makes_of_the_same_logits(
    checkpoints: Path, family: str
) -> None:
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    folder = checkpoints / family
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForObjectDetection.from_pretrained(folder).eval()
    image = frame(3)
    with torch.inference_mode():
        inputs = processor(images=Image.fromarray(image.pixels), return_tensors="pt")
        outputs = model(**inputs)
        [theirs] = processor.post_process_object_detection(
            outputs, threshold=0.25, target_sizes=torch.tensor([[48, 120]])
        )
    [ours] = detect(checkpoints, image, model=family, threshold=0.25)
    order = torch.argsort(theirs["scores"], descending=True, stable=True)
    assert ours.count == len(order) > 0
    np.testing.assert_array_equal(ours.scores, theirs["scores"][order].numpy())
    np.testing.assert_array_equal(ours.class_ids, theirs["labels"][order].numpy())
    edges = np.array([120, 48, 120, 48], np.float32)
    np.testing.assert_array_equal(ours.boxes, theirs["boxes"][order].numpy().clip(0, edges))
    assert ours.labels == [LABELS["id2label"][int(k)] for k in theirs["labels"][order]]


@pytest.mark.parametrize("size", [(48, 120), (120, 48), (480, 640), (33, 57)])
def test_a_known_box_lies_where_it_should_in_frames_of_any_shape(
    checkpoints: Path, size: tuple[int, int]
) -> None:
    [found] = detect(checkpoints, frame(1, size), model="known")
    height, width = size
    x, y, w, h = KNOWN_BOX
    box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
    np.testing.assert_allclose(found.boxes, [box, box], rtol=1e-4)
    assert found.labels == ["dog", "dog"]
    assert found.class_ids.tolist() == [1, 1]
    assert (found.scores > 0.99).all()


@pytest.mark.parametrize("family", ["rt-detr", "rt-detr-v2"])
def test_boxes_of_rt_detr_lie_on_its_grid_of_anchors(checkpoints: Path, family: str) -> None:
    [found] = detect(checkpoints, frame(1, (480, 960)), model=family)
    sizes = found.boxes[:, 2:] - found.boxes[:, :2]
    # The model sees 96x64 pixels; anchors of stride s are 0.05 * s / 8 wide, a step of s apart.
    strides = np.rint(sizes[:, 0] / (0.05 * 960))
    assert set(strides) <= {1, 2, 4}
    np.testing.assert_allclose(sizes, np.outer(strides, (0.05 * 960, 0.05 * 480)), rtol=1e-3)
    steps = (found.boxes[:, :2] + sizes / 2) / (strides[:, None] * (80, 60)) - 0.5
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_the_surest_comes_first_and_the_threshold_holds(checkpoints: Path) -> None:
    [found] = detect(checkpoints, frame(1), model="rt-detr", threshold=0.0)
    assert found.count == 10
    assert (np.diff(found.scores) <= 0).all()
    middle = float(found.scores[5])
    [fewer] = detect(checkpoints, frame(1), model="rt-detr", threshold=middle)
    np.testing.assert_array_equal(fewer.scores, found.scores[found.scores > middle])


def test_only_the_labels_asked_for_are_given(checkpoints: Path) -> None:
    [found] = detect(checkpoints, frame(1), model="rt-detr", threshold=0)
    assert len(set(found.labels)) > 1
    kept = found.labels[-1]
    [only] = detect(checkpoints, frame(1), model="rt-detr", threshold=0, labels=[kept])
    assert only.labels == [label for label in found.labels if label == kept]


def test_labels_get_other_names(checkpoints: Path) -> None:
    [found] = detect(checkpoints, frame(1), model="known", labels={"dog": "hound", "cat": "cat"})
    assert (found.labels, found.class_ids.tolist()) == (["hound", "hound"], [1, 1])


def test_of_boxes_on_each_other_one_is_kept_if_asked(checkpoints: Path) -> None:
    assert detect(checkpoints, frame(1), model="known")[0].count == 2
    assert detect(checkpoints, frame(1), model="known", iou_threshold=0.5)[0].count == 1
    assert detect(checkpoints, frame(1), model="known", max_detections=1)[0].count == 1


def test_a_label_may_need_another_score(checkpoints: Path) -> None:
    def scores(**config: Any) -> list[tuple[str, float]]:
        [found] = detect(checkpoints, frame(1), model="rt-detr", **config)
        return list(zip(found.labels, found.scores.tolist(), strict=True))

    everything = scores(threshold=0.0)
    [label] = {name for name, _ in everything[:1]}
    least = sorted(score for name, score in everything if name == label)[-2]
    expected = [it for it in everything if it[0] != label or it[1] > least]
    assert {name for name, _ in expected} > {label}
    assert len(expected) < len(everything)
    assert scores(threshold=0.0, confidence={label: least}) == expected
    alone = [it for it in everything if it[0] == label]
    assert scores(threshold=1.0, confidence={label: 0.0}) == alone


@pytest.mark.parametrize(
    ("key", "value"), [("labels", ["dgo"]), ("labels", {"dgo": "x"}), ("confidence", {"dgo": 0.1})]
)
def test_an_unknown_label_is_reported_before_the_run(
    checkpoints: Path, key: str, value: object
) -> None:
    config = Detect.Config(model="known", **{key: value})
    assert list(Detect.check(config, checkpoints)) == [
        (
            key,
            "model 'known' knows no label 'dgo'; its labels: cat, dog, person (did you mean 'dog'?)",
        )
    ]


def test_nothing_found_is_a_message_too(checkpoints: Path) -> None:
    [found] = detect(checkpoints, frame(1), model="rt-detr", threshold=1)
    assert (found.count, found.boxes.shape, found.width) == (0, (0, 4), 120)


@pytest.mark.parametrize("family", ["rt-detr", "yolos"])
def test_no_size_of_picture_crashes(checkpoints: Path, family: str) -> None:
    # YOLOS keeps the aspect, and its processor refuses what is then less than a pixel high.
    sizes = [(1, 1), (7, 5), (3, 64), (64, 3)][: 4 if family == "rt-detr" else 2]
    found = detect(checkpoints, *(frame(1, size) for size in sizes), model=family, threshold=0)
    for (height, width), message in zip(sizes, found, strict=True):
        assert (message.boxes >= 0).all()
        assert (message.boxes <= (width, height, width, height)).all()


def test_half_precision_runs(checkpoints: Path) -> None:
    [found] = detect(checkpoints, frame(1, (480, 640)), model="known", dtype="bfloat16")
    x, y, w, h = KNOWN_BOX
    box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * (640, 480, 640, 480)
    np.testing.assert_allclose(found.boxes[0], box, atol=4)


# -- several tasks -----------------------------------------------------------------------------


def detector_of(checkpoints: Path, family: str) -> ObjectDetector:
    return ObjectDetector.load(
        checkpoints / family, device="cpu", dtype="float32", local_files_only=True
    )


@pytest.mark.parametrize("family", ["rt-detr", "rt-detr-v2", "d-fine", "detr", "yolos"])
def test_detections_of_a_batch_are_those_of_each_picture_alone(
    checkpoints: Path, family: str
) -> None:
    detector = detector_of(checkpoints, family)
    searches = [
        Search(frame(1).pixels, 0.0),
        Search(frame(2).pixels, 1.0),
        Search(frame(3).pixels, 0.0, frozenset([2])),
    ]
    alone = [detector.answers([search])[0] for search in searches]
    together = detector.answers(searches)
    assert together[0].labels
    assert not together[1].labels
    assert set(together[2].labels) <= {"person"}
    for one, found in zip(alone, together, strict=True):
        np.testing.assert_allclose(found.scores, one.scores, rtol=1e-4)
        assert sorted(found.labels) == sorted(one.labels)
        for box, label in zip(one.boxes, one.labels, strict=True):  # equally sure ones may swap
            near = np.abs(found.boxes - box).max(axis=1) < 1e-2
            assert label in [found.labels[i] for i in np.flatnonzero(near)]


def test_pictures_of_one_size_that_wait_are_looked_at_together(checkpoints: Path) -> None:
    detector = detector_of(checkpoints, "known")
    batches: list[list[tuple[int, ...]]] = []
    began, gate = threading.Event(), threading.Event()

    def answers(searches: Sequence[Search]) -> list[Found]:
        batches.append([search.pixels.shape for search in searches])
        if len(batches) == 1:
            began.set()
            assert gate.wait(20)
        return detector.answers(searches)

    shared = SharedModel(detector, answers)
    found: list[Found] = []
    wide, tall = (48, 120), (120, 48)

    def ask(size: tuple[int, int]) -> None:
        found.append(shared.answer(Search(frame(1, size).pixels, 0.5), max_batch=8))

    threads = [threading.Thread(target=ask, args=[size]) for size in (wide, wide, tall, wide)]
    threads[0].start()
    assert began.wait(20)
    for thread in threads[1:]:
        thread.start()
    while len(shared._waiting) < 3:
        threading.Event().wait(0.005)
    gate.set()
    for thread in threads:
        thread.join()
    assert [it.labels for it in found] == [["dog", "dog"]] * 4
    assert sorted(batches) == [[(48, 120, 3)], [(48, 120, 3)] * 2, [(120, 48, 3)]]


@pytest.mark.parametrize("max_batch", [1, 4])
def test_two_detectors_of_a_graph_share_one_model(
    checkpoints: Path, tmp_path: Path, max_batch: int
) -> None:
    config = f"{{model: {checkpoints}/known, device: cpu, max_batch: {max_batch}}}"
    text = f"""
tasks:
  - {{id: a, type: support.scene_tasks.Scenes}}
  - {{id: b, type: support.scene_tasks.Scenes}}
  - {{id: find_a, type: Detect, background: true, config: {config}}}
  - {{id: find_b, type: Detect, background: true, config: {config}}}
cnx:
  - {{src: a, dst: find_a, msg: ImageRgb8Msg}}
  - {{src: b, dst: find_b, msg: ImageRgb8Msg}}
logging: {{slab_size_mib: 4, section_size_mib: 1}}
"""
    plan = plan_graph(bind(parse_graph(text, path=tmp_path / "g.yaml", env={})))
    run = Run(plan, clock=LiveClock(), directory=tmp_path / "run", console=io.StringIO())
    try:
        assert run.run().error is None
    finally:
        structlog.reset_defaults()
    assert not _MODELS._entries
    with Log(tmp_path / "run") as log:
        lines = [line.fields for line in log.messages("/flowrun/log")]
        found = [it.fields for name in "ab" for it in log.messages(f"/find_{name}/detections")]
        report = Replay(log, env={}).run()
    assert [line["message"] for line in lines].count("model loaded") == 1
    places = [line["fields"] for line in lines if line["message"] == "computes on"]
    assert places == [{"where": "cpu float32"}] * 2
    assert len(found) >= 2
    assert all(it["labels"] == ["dog", "dog"] for it in found)
    pictures = 8
    assert report.first is None
    if max_batch == 1:
        assert (report.fed, report.compared) == (pictures, len(found))
    else:  # nobody knows any more who waited with whom
        assert (report.fed, report.compared) == (pictures + len(found), 0)
    assert not _MODELS._entries


# -- errors ------------------------------------------------------------------------------------


def failure(folder: Path, **config: Any) -> str:
    with pytest.raises(ModelError) as caught:
        detect(folder, frame(1), **config)
    return str(caught.value)


@pytest.mark.long
@pytest.mark.parametrize(
    ("type_name", "more", "cnx", "topic"),
    [
        ("Detect", "", "det", "/det/detections"),
        ("DetectBatch", ", inputs: [front]", "det.front", "/det/front_detections"),
    ],
)
def test_what_a_budget_leaves_out_is_in_the_log_and_its_replay_leaves_out_the_same(
    checkpoints: Path, tmp_path: Path, type_name: str, more: str, cnx: str, topic: str
) -> None:
    model = checkpoints / "known"
    text = f"""
tasks:
  - {{id: cam, type: support.scene_tasks.Scenes, config: {{limit: 8}}}}
  - {{id: det, type: {type_name}, config: {{model: {model}, budget: {{per_hour: 3}}{more}}}}}
cnx: [{{src: cam, dst: {cnx}, msg: ImageRgb8Msg}}]
logging: {{keyframe_interval: 2}}
"""
    plan = plan_graph(bind(parse_graph(text, path=tmp_path / "g.yaml", env={})))
    clock = ManualClock(START_NS, step_ns=700_000_000_000)  # an hour after the first three
    run = Run(plan, clock=clock, directory=tmp_path / "run")
    assert run.run().error is None
    assert run.report().tasks["det"].dropped_by == {"hourly budget": 3}
    with Log(tmp_path / "run") as log:
        assert [it.cycle for it in log.messages(topic)] == [0, 1, 2, 6, 7]
        for start in (0, 4):
            report = Replay(log).run(start=start)
            assert (report.first, report.differing) == (None, 0)
        control = [it.fields for it in log.messages("/flowrun/control")]
    assert [it["value"] for it in control if it["key"] == "hourly budget"] == [1, 1, 1]


def test_an_unknown_label_names_the_known_ones(checkpoints: Path) -> None:
    assert failure(checkpoints, model="rt-detr", labels=["cta"]) == (
        f"model '{checkpoints}/rt-detr' knows no label 'cta'; its labels: cat, dog, person "
        "(did you mean 'cat'?)"
    )


def test_a_model_of_another_kind_is_refused_by_its_architecture(tmp_path: Path) -> None:
    assert failure(tmp_path, model=str(MODEL_DIR)) == (
        f"model '{MODEL_DIR}' is no object detector: its architecture is "
        "Idefics3ForConditionalGeneration; it answers prompts: give it to Inference (and its boxes "
        "to ParseDetections)"
    )


def test_missing_folders_and_checkpoints_are_named(tmp_path: Path) -> None:
    assert failure(tmp_path, model="./mine").startswith(
        f"model './mine': no such folder: {tmp_path}/mine; "
    )
    (tmp_path / "mine").mkdir()
    assert failure(tmp_path, model="mine") == (
        f"model 'mine': the folder {tmp_path}/mine holds no config.json"
    )
    (tmp_path / "mine" / "config.json").write_text("{")
    assert failure(tmp_path, model="mine").startswith(
        f"cannot read {tmp_path}/mine/config.json: Expecting property name"
    )


def test_a_checkpoint_without_its_processor_or_weights_is_named(
    tmp_path: Path, checkpoints: Path
) -> None:
    for name in ("preprocessor_config.json", "model.safetensors"):
        shutil.copytree(checkpoints / "rt-detr", tmp_path / "mine", dirs_exist_ok=True)
        (tmp_path / "mine" / name).unlink()
        text = failure(tmp_path, model="mine")
        assert text.startswith(f"cannot load the model in {tmp_path}/mine: ")
        assert text.endswith(
            "; it must be a checkpoint folder as `save_pretrained` writes it, with its image "
            "processor"
        )
        assert "\n" not in text


def test_a_missing_package_is_named(tmp_path: Path, checkpoints: Path) -> None:
    """Older DETR checkpoints name a backbone of the timm package, which flowrun does not bring."""
    shutil.copytree(checkpoints / "detr", tmp_path / "mine")
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    config["backbone_config"] = {"model_type": "timm_backbone", "backbone": "resnet50"}
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    text = failure(tmp_path, model="mine")
    assert text.startswith(f"model '{tmp_path}/mine': ")
    assert "timm" in text
    assert "\n" not in text


def test_a_missing_model_folder_is_reported_at_its_place_in_the_graph_file(tmp_path: Path) -> None:
    assert list(Detect.check(Detect.Config(model="./mine"), tmp_path)) == [
        (
            "model",
            f"model './mine': no such folder: {tmp_path}/mine; give a checkpoint folder, or a hub id "
            "such as 'google/paligemma-3b-mix-224'",
        )
    ]
    assert list(Detect.check(Detect.Config(model="PekingU/rtdetr_r18vd"), tmp_path)) == []


def test_a_hub_id_that_is_not_in_the_cache_names_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    cache = constants.HF_HUB_CACHE
    assert failure(tmp_path, model="nobody/nothing", local_files_only=True) == (
        f"model 'nobody/nothing' is not in the cache {cache}, and the network is not to be used; "
        "run `hf download nobody/nothing` once where there is a network, or give a folder"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = failure(tmp_path, model="nobody/nothing")
    assert text.startswith(
        f"cannot load model 'nobody/nothing': it is not in the cache {cache}, and could not be "
        "downloaded ("
    )
    assert text.endswith("); check the id and the network, or give a folder")


def test_a_missing_gpu_is_named(checkpoints: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert failure(checkpoints, model="rt-detr", device="cuda:3") == (
        f"device 'cuda:3': torch {torch.__version__} sees no such GPU; GPUs: none; "
        "use device: cpu or auto, or a torch build with CUDA"
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"threshold": 1.5}, "threshold: Input should be less than or equal to 1; got 1.5"),
        (
            {"labels": []},
            "labels.tuple[str, ...]: Tuple should have at least 1 item after validation, not 0; got []"
            "\nlabels.dict[str,str]: Input should be a valid dictionary; got []",
        ),
    ],
)
def test_impossible_settings_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_task(Detect, inputs=[], config={"model": "a/b", **config})
    assert str(caught.value) == f"config of Detect: {message}"


def test_more_labels_than_one_reads_are_cut_short(checkpoints: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    shutil.copytree(checkpoints / "known", folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(k): f"thing{k}" for k in range(3)} | {"0": "x"}
    (folder / "config.json").write_text(json.dumps(config))
    model = ObjectDetector.load(folder, device="cpu", dtype="auto", local_files_only=True)
    model.names = {k: f"thing {k}" for k in range(91)}
    with pytest.raises(ModelError) as caught:
        model.class_ids(["zebra"])
    assert str(caught.value).endswith("thing 10, thing 11 and 79 more")
