"""What is no checkpoint, or one that wants to run code: refused in plain words, and nothing is asked."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from flowrun.tasks.embedded import MODEL_DIR
from flowrun.tasks.models.checkpoints import find_checkpoint, hub_failure
from flowrun.tasks.models.question import ModelError


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        find_checkpoint(str(path), Path())
    return str(caught.value).removeprefix(f"model '{path}': ")


def test_an_adapter_names_its_base_model(tmp_path: Path) -> None:
    said = {"base_model_name_or_path": "google/paligemma-3b-mix-224", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    (tmp_path / "adapter_model.safetensors").touch()
    advice = (
        "without that model's weights: load both with the package peft, and give the folder that "
        "`merge_and_unload()` and `save_pretrained` make"
    )
    assert refusal(tmp_path) == (
        f"{tmp_path} is an adapter (LoRA) for google/paligemma-3b-mix-224, {advice}"
    )
    (tmp_path / "adapter_config.json").write_text("[]")
    assert refusal(tmp_path) == f"{tmp_path} is an adapter (LoRA) for its base model, {advice}"


def test_a_gguf_file_is_for_llama_server(tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    file.touch()
    for path in (file, tmp_path):
        assert refusal(path) == (
            f"{file} is a GGUF file, which llama.cpp runs: start `llama-server -m small.gguf`, with "
            "the --mmproj file of its pictures, and ask it with backend: openai"
        )


def test_another_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert refusal(tmp_path / "model.safetensors") == (
        f"{tmp_path}/model.safetensors is a file; give the checkpoint folder, which holds a "
        "config.json"
    )


def test_a_repository_without_a_checkpoint() -> None:
    from huggingface_hub.errors import EntryNotFoundError

    error = EntryNotFoundError("404")
    assert hub_failure("some/lora", error, offline=None) == (
        "model 'some/lora': the repository holds no config.json, so it is no checkpoint of the "
        "transformers library; it may be an adapter (LoRA), to be merged into its base model, or "
        "GGUF files, which llama-server runs (backend: openai)"
    )


class Marks:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.mark)!r}, 'w')",))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_DIR, tmp_path / "model"))


def load(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    from flowrun.tasks.models.vlm import VisionLanguageModel

    def asks(*words: object) -> str:
        raise AssertionError(f"asked on the terminal: {words}")

    monkeypatch.setattr("builtins.input", asks)
    with pytest.raises(ModelError) as caught:
        VisionLanguageModel.load(checkpoint, device="cpu", dtype="float32", local_files_only=True)
    return str(caught.value).removeprefix(f"model '{checkpoint}': ")


OWN_CODE = (
    "its checkpoint brings Python code of its own, which flowrun never runs; choose one whose "
    "architecture the transformers library has, or run it on a model server and ask that with "
    "backend: openai"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (
            "config.json",
            {
                "model_type": "mine",
                "auto_map": {
                    "AutoConfig": "own.Mine",
                    "AutoModelForImageTextToText": "own.Mine",
                },
            },
        ),
        (
            "processor_config.json",
            {"processor_class": "Mine", "auto_map": {"AutoProcessor": "own.Mine"}},
        ),
    ],
)
def test_code_of_a_checkpoint_is_never_run(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, file: str, changes: dict[str, Any]
) -> None:
    mark = checkpoint / "mark"
    (checkpoint / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Mine: ...\n")
    said = json.loads((checkpoint / file).read_text()) if (checkpoint / file).exists() else {}
    (checkpoint / file).write_text(json.dumps(said | changes))
    assert load(checkpoint, monkeypatch) == OWN_CODE
    assert not mark.exists()


@pytest.mark.slow
def test_pickled_weights_run_nothing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkpoint / "model.safetensors").unlink()
    with zipfile.ZipFile(checkpoint / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Marks(checkpoint / "mark"), protocol=2))
        archive.writestr("archive/version", "3\n")
    assert load(checkpoint, monkeypatch) == (
        "its weights are pickled Python objects, which could run any code, and are not loaded; save "
        "them as .safetensors"
    )
    assert not (checkpoint / "mark").exists()
