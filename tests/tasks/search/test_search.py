"""Recorded pictures found by texts and pictures: by the shipped model, and by random ones like CLIP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowrun.runtime.cli import main
from flowrun.runtime.testbench.hashes import Hashes
from flowrun.tasks.embedded.training.scenes import HELD_OUT_SEEDS, caption, draw, make_scene
from flowrun.tasks.models.question import ModelError
from flowrun.tasks.search import build
from flowrun.tasks.search.describing import Describer, chosen_model
from support.held import held
from support.helpers import plan_of, record
from support.in_process import spread_here

SCENES = [make_scene(seed) for seed in HELD_OUT_SEEDS[:8]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A folder with a run of held-out scenes, seconds apart, and the number of each third picture, said
    by a task; and its index."""
    folder = tmp_path_factory.mktemp("search")
    plan = plan_of(
        folder,
        f"c=scene_tasks.Scenes(limit: {len(SCENES)}); a=dataset_tasks.Says@every: 3",
        "c > a: ImageRgb8Msg",
    )
    _, result = record(plan, folder / "runs" / "drawn", step_ns=2_000_000_000)
    assert result.error is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(build, "spread", spread_here([]))
        assert main(["search", str(folder / "runs"), "circle", "--json"]) == 0
    return folder / "runs"


@pytest.fixture
def here(monkeypatch, tmp_path) -> list[int]:
    """Do the work of the worker processes in this one; the pictures that each piece gave."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done: list[int] = []
    monkeypatch.setattr(build, "spread", spread_here(done))
    return done


@pytest.fixture
def runs(recorded, tmp_path) -> Path:
    return shutil.copytree(recorded, tmp_path / "runs")


def found(capsys, *words: object) -> list[dict]:
    status = main(["search", *map(str, words), "--json"])
    answer: list[dict] = json.loads(capsys.readouterr().out)
    assert status == (0 if answer else 1)
    return answer


def test_a_text_finds_the_scene_and_what_was_answered_in_the_run(runs, here, capsys):
    for number in (2, 5):
        first = found(capsys, runs, caption(SCENES[number]))[0]
        assert (first["cycle"], first["task"], first["score"]) == (number, "c", 1.0)
        assert first["text"] == caption(SCENES[number])
    [first, *_] = found(capsys, runs, "frame 3")
    assert (first["cycle"], first["task"], first["text"]) == (3, "a", "frame 3")
    assert first["view"] == "http://127.0.0.1:3000/?run=drawn&cycle=3"
    assert first["run"] == str(runs / "drawn")
    assert first["thumbnail"].startswith("data:image/jpeg;base64,/9j/")
    assert found(capsys, runs, "forklift") == []


def test_a_picture_finds_the_scene_that_it_shows(runs, here, capsys, tmp_path):
    for number in (1, 6):
        other = draw(SCENES[number], noise_seed=9)
        Image.fromarray(other).resize((200, 150)).save(tmp_path / "query.jpg", quality=60)
        [first, *_] = found(capsys, runs, tmp_path / "query.jpg")
        assert (first["cycle"], first["task"]) == (number, "c")
        assert 0.9 < first["score"] <= 1.0001


def test_what_is_indexed_is_not_indexed_again_until_there_is_more(runs, here, capsys):
    found(capsys, runs, "circle")
    found(capsys, runs / "drawn", "square")
    assert here == []
    shutil.copytree(runs / "drawn", runs / "other")
    [run] = {
        it["run"] for it in found(capsys, runs, "frame 3")
    }  # a copy's pictures are the same ones
    assert Path(run).name in ("drawn", "other")
    assert len(here) == 1
    shutil.rmtree(runs / "drawn")
    assert {it["run"] for it in found(capsys, runs, "frame 3")} == {str(runs / "other")}
    found(capsys, runs, "circle", "--rebuild")
    assert len(here) == 2


def test_a_run_that_cannot_be_read_is_left_out_of_the_search(runs, here, capsys):
    shutil.copytree(runs / "drawn", runs / "torn")
    (runs / "torn" / "log_0000.mcap").write_bytes(b"no log")
    assert main(["search", str(runs), "circle", "--json"]) == 0
    printed = capsys.readouterr()
    assert {Path(it["run"]).name for it in json.loads(printed.out)} == {"drawn"}
    assert printed.err.startswith(f"note: left out: {runs}/torn/log_0000.mcap: ")
    assert main(["search", str(runs / "torn"), "circle"]) == 1
    assert capsys.readouterr().err.startswith(f"{runs}/torn/log_0000.mcap: ")


def test_a_damaged_index_says_how_it_is_made_again(runs, here, capsys):
    [path] = (runs / ".search").glob("*.sqlite")
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode = DELETE")
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    assert main(["search", str(runs), "circle"]) == 2
    assert capsys.readouterr().err == (
        f"{path}: it is damaged: database disk image is malformed; --rebuild makes the index again\n"
    )
    assert main(["search", str(runs), "circle", "--rebuild"]) == 0


def test_pictures_like_the_last_are_left_out_but_for_other_sampling(runs, here, capsys):
    database = lambda: max((runs / ".search").glob("*.sqlite"), key=lambda it: it.stat().st_mtime)  # noqa: E731
    for words, count in (((), 8), (("--differ", "255"), 1), (("--every", "100"), 3)):
        found(capsys, runs, "circle", *words)
        with closing(sqlite3.connect(database())) as file:
            assert file.execute("SELECT COUNT(*) FROM pictures").fetchone() == (count,), words


def test_the_page_has_the_pictures_and_no_markup_of_others(runs, here, capsys, tmp_path):
    report = tmp_path / "found.html"
    assert main(["search", str(runs), "<b>frame 0</b>", "--report", str(report)]) == 0
    out = capsys.readouterr().out
    assert "frame 0" in out
    assert "8 pictures of 1 run searched; `flowrun view RUN --cycle N` shows the moment" in out
    page = report.read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;frame 0&lt;/b&gt;" in page
    assert page.count('<img src="data:image/jpeg;base64,') == page.count("<li>") > 0
    assert "?run=drawn&amp;cycle=0" in page


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["x.png"], "x.png: there is no such picture"),
        (["x", "-n", "0"], "--count 0: expected 1 or more"),
        (["x", "--every", "nan"], "--every nan: expected 0 or more"),
        (["x", "--report", "x.pdf"], "--report x.pdf: expected a name ending in .html"),
        ([" "], "the text to search for is empty"),
    ],
)
def test_what_cannot_be_asked_is_said(runs, here, capsys, words, error):
    assert main(["search", str(runs), *words]) in (1, 2)
    assert capsys.readouterr().err.strip() == error


def tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"[PAD]": 0, "[UNK]": 1, "[EOS]": 2, "red": 3, "circle": 4, "blue": 5, "square": 6}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", eos_token="[EOS]"
    ).save_pretrained(folder)


SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def random_checkpoint(kind: str, folder: Path) -> Path:
    """A checkpoint of two towers with random weights, as `save_pretrained` writes it."""
    import torch
    import transformers

    torch.manual_seed(5)
    text = {**SMALL, "vocab_size": 7, "max_position_embeddings": 12, "eos_token_id": 2,
            "bos_token_id": 1, "pad_token_id": 0}  # fmt: skip
    picture = {**SMALL, "image_size": 32, "patch_size": 8}
    if kind == "clip":
        config = transformers.CLIPConfig(
            text_config={**text, "projection_dim": 12},
            vision_config={**picture, "projection_dim": 12},
            projection_dim=12,
        )
        transformers.CLIPModel(config).save_pretrained(folder)
        images = transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
    elif kind == "siglip":
        config = transformers.SiglipConfig(
            text_config={**text, "projection_size": 16}, vision_config=picture
        )
        transformers.SiglipModel(config).save_pretrained(folder)
        images = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    else:
        config = transformers.Dinov2Config(**SMALL, image_size=32, patch_size=8)
        transformers.Dinov2Model(config).save_pretrained(folder)
        images = transformers.BitImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
    images.save_pretrained(folder)
    if kind != "dinov2":
        tokenizer(folder)
    return folder


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2"])
def test_a_checkpoint_of_other_models_is_loaded_and_searched(
    runs, here, capsys, tmp_path, monkeypatch, kind
):
    folder = random_checkpoint(kind, tmp_path / kind)
    model = chosen_model(str(folder), None, Hashes(None))
    assert (model.prompt, model.knows_texts) == (None, kind != "dinov2")
    describer = Describer(model, threads=1)
    pictures = describer.vectors([draw(it) for it in SCENES])
    assert np.allclose(np.linalg.norm(pictures, axis=1), 1)
    Image.fromarray(draw(SCENES[4])).save(tmp_path / "query.png")
    [first, *_] = found(capsys, runs, tmp_path / "query.png", "--model", folder)
    assert (first["cycle"], round(first["score"], 3)) == (4, 1.0)
    assert describer.words(draw(SCENES[0])) == ""
    vector = describer.text("red circle")
    if kind == "dinov2":
        assert vector is None
        assert found(capsys, runs, "red circle", "--model", folder) == []
        return
    assert vector is not None
    nearest = int(np.argmax(pictures @ vector))
    hits = found(capsys, runs, "red circle", "--model", folder)
    assert (len(hits), hits[0]["cycle"]) == (len(SCENES), nearest)
    assert round(hits[0]["score"], 3) == round(float(pictures[nearest] @ vector), 3)
    # What was answered counts as much as what is near.
    assert 3 in [it["cycle"] for it in found(capsys, runs, "frame 3", "-n", "2", "--model", folder)]


def test_what_is_no_model_of_pictures_is_named(tmp_path):
    folder = tmp_path / "detector"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["RTDetrForObjectDetection"]}')
    with pytest.raises(ModelError) as caught:
        chosen_model(str(folder), None, Hashes(None))
    assert str(caught.value) == (
        f"model '{folder}' (RTDetrForObjectDetection) finds objects, and describes no pictures; give a "
        "model such as 'google/siglip2-base-patch16-224'"
    )
    clip = random_checkpoint("clip", tmp_path / "clip")
    with pytest.raises(ModelError) as caught:
        chosen_model(str(clip), "what?", Hashes(None))
    assert str(caught.value) == f"model '{clip}' (CLIPModel) answers no prompt"


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_was_indexed_before_it_was_ended_is_kept(tmp_path, number, monkeypatch):
    plan = plan_of(tmp_path, "c=scene_tasks.Scenes(limit: 32)")
    record(plan, tmp_path / "runs" / "drawn", step_ns=2_000_000_000)
    words = ["search", str(tmp_path / "runs"), "circle", "--json", "--processes", "1"]
    command = held("flowrun.tasks.search.build", *words)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ}) as process:
        while process.poll() is None and not _indexed(tmp_path):
            time.sleep(0.1)  # it needs the processor
        process.send_signal(number)
        assert process.wait(60) == (130 if number == signal.SIGINT else -9)
    before = _indexed(tmp_path)
    assert 0 < before < 32
    done: list[int] = []
    monkeypatch.setattr(build, "spread", spread_here(done))
    assert main(words) == 0
    assert len(done) == 1
    with closing(sqlite3.connect(_database(tmp_path))) as file:
        assert file.execute("SELECT COUNT(*), COUNT(DISTINCT cycle) FROM pictures").fetchone() == (
            32,
            32,
        )


def _database(folder: Path) -> Path | None:
    return next((folder / "runs" / ".search").glob("*.sqlite"), None)


def _indexed(folder: Path) -> int:
    """The number of pictures in an index that others fill."""
    path = _database(folder)
    if path is None:
        return 0
    with closing(sqlite3.connect(path)) as file:
        try:
            [(count,)] = file.execute("SELECT COUNT(*) FROM pictures")
        except sqlite3.Error:
            return 0
    return int(count)
