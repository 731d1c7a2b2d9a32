"""`flowrun models`: what is on this machine, and which task it is for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.cli import main
from flowrun.tasks.models.checkpoints import task_of
from support.paths import MEDIA

FLOWRUN = Path(sys.executable).parent / "flowrun"


def checkpoint(folder: Path, architecture: str, *, weights: int = 1000, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture], **config}))
    if weights:
        (folder / "model.safetensors").write_bytes(bytes(weights))
    return folder


def cached(cache: Path, repo: str, architecture: str, *, weights: int, **config: Any) -> None:
    """As `huggingface_hub` lays out its cache: blobs, and snapshots of links to them."""
    home = cache / f"models--{repo.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    made = checkpoint(home / "snapshots" / commit, architecture, weights=weights, **config)
    (home / "blobs").mkdir()
    for number, path in enumerate(sorted(made.iterdir())):
        blob = home / "blobs" / str(number)
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)


def listed(*words: object, cache: Path) -> str:
    """What a fresh process prints: the hub's library reads where its cache is when it is imported."""
    done = subprocess.run(
        [FLOWRUN, "models", *map(str, words)],
        env=os.environ | {"HF_HUB_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "hub"
    cached(
        folder,
        "google/paligemma-3b-mix-224",
        "PaliGemmaForConditionalGeneration",
        weights=5_000_000,
        vision_config={},
    )
    cached(folder, "PekingU/rtdetr_r18vd", "RTDetrForObjectDetection", weights=0)
    cached(folder, "bert/bert", "BertModel", weights=2000)
    return folder


def test_the_hubs_cache_and_folders_are_listed(cache: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    checkpoint(mine / "yolos", "YolosForObjectDetection")
    checkpoint(mine / "smol", "Idefics3ForConditionalGeneration", vision_config={})
    lines = listed(mine, cache=cache).splitlines()
    assert [line.split(maxsplit=3) for line in lines[:-2]] == [
        ["model", "task", "architecture", "size"],
        ["embedded", "Inference", "Idefics3ForConditionalGeneration", "3.6 MB"],
        ["bert/bert", "-", "BertModel", "2.0 kB"],
        ["google/paligemma-3b-mix-224", "Inference", "PaliGemmaForConditionalGeneration", "5.0 MB"],
        ["PekingU/rtdetr_r18vd", "Detect", "RTDetrForObjectDetection", "47 bytes, no weights"],
        [f"{mine}/smol", "Inference", "Idefics3ForConditionalGeneration", "1.1 kB"],
        [f"{mine}/yolos", "Detect", "YolosForObjectDetection", "1.0 kB"],
    ]
    assert lines[-2:] == ["", f"in the hub's cache, {cache}: 3"]


def test_json_holds_sizes_and_paths(cache: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine", "YolosForObjectDetection")
    rows = {row["model"]: row for row in json.loads(listed(folder, "--json", cache=cache))}
    assert rows[str(folder)] == {
        "model": str(folder),
        "task": "Detect",
        "architecture": "YolosForObjectDetection",
        "size_bytes": 1000 + (folder / "config.json").stat().st_size,
        "complete": True,
        "path": str(folder),
    }
    assert rows["PekingU/rtdetr_r18vd"]["complete"] is False
    assert rows["bert/bert"]["task"] is None
    assert Path(rows["bert/bert"]["path"], "config.json").is_file()


def test_without_a_cache_the_shipped_model_is_listed(tmp_path: Path) -> None:
    lines = listed(cache=tmp_path / "none").splitlines()
    assert lines[1].split()[:2] == ["embedded", "Inference"]
    assert lines[-1] == f"in the hub's cache, {tmp_path}/none: none"


def test_a_folder_without_a_checkpoint_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("[]")
    (tmp_path / "empty").mkdir()
    assert [
        main(["models", str(tmp_path / name)]) for name in ("none", "file", "empty", "bad")
    ] == [1] * 4
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}/none: no such folder",
        f"{tmp_path}/file: not a folder",
        f"{tmp_path}/empty: no checkpoint: neither it nor a folder in it holds a config.json",
        f"cannot read {tmp_path}/bad/config.json: it holds no map",
    ]


@pytest.mark.parametrize(
    ("config", "task"),
    [
        ({"architectures": ["DFineForObjectDetection"]}, "Detect"),
        ({"architectures": ["OwlViTForObjectDetection"]}, None),  # wants words
        ({"architectures": ["CLIPModel"], "vision_config": {}}, None),
        ({"architectures": ["LlamaForCausalLM"]}, None),
        ({"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}}, "Inference"),
        ({"architectures": []}, None),
        ({"architectures": "LlavaForConditionalGeneration"}, None),
        ({}, None),
    ],
)
def test_the_config_says_which_task_a_model_is_for(
    config: dict[str, Any], task: str | None
) -> None:
    assert task_of(config) == task


@pytest.mark.long
def test_a_model_in_the_cache_is_loaded_without_asking_the_hub(tmp_path: Path) -> None:
    """Asking took 5 minutes where there was no network: a retry with pauses for each file."""
    from flowrun.tasks.embedded import MODEL_DIR

    home = tmp_path / "models--some--shapes"
    shutil.copytree(MODEL_DIR, home / "snapshots" / "0123")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0123")
    picture = MEDIA / "shapes.jpg"
    done = subprocess.run(
        [FLOWRUN, "ask", "some/shapes", picture, "cap en"],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "a yellow star in the middle" in done.stdout
