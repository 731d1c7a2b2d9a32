"""What a checkpoint is before it is loaded: its architecture, its size, its place.

Only JSON files and file sizes are read: no torch, no transformers. The hub's cache is read through
`huggingface_hub`, which knows where it is and which of its files are complete.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from flowrun.tasks.embedded import MODEL_DIR
from flowrun.tasks.models.installed import need_packages
from flowrun.tasks.models.question import ModelError

__all__ = [
    "Checkpoint",
    "architecture_of",
    "config_of",
    "embedded",
    "find_checkpoint",
    "first_line",
    "folder_in_hub_cache",
    "hub_cache_path",
    "hub_failure",
    "in_folder",
    "in_hub_cache",
    "is_cached",
    "task_of",
]

_PAUSES_S = (1.0, 2.0)
"""Between tries to reach the hub."""

TaskName = Literal["Inference", "Detect"]

_WEIGHTS = ("*.safetensors", "*.bin")
_TEXT_OUT = ("ForConditionalGeneration", "ForCausalLM", "ForImageTextToText")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_NO_DETECTOR = ("GroundingDino", "OmDet", "Owl")
"""Object detectors that need a text saying what to look for, which `Detect` does not give."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on this machine.

    name: what a graph's `model:` and `flowrun ask` take.
    task: which task it is for, None where that is not known.
    architecture: the model class that its configuration names, "" for none.
    size_bytes: of its files, including those behind links.
    complete: whether it has weights.
    path: its folder.
    """

    name: str
    task: TaskName | None
    architecture: str
    size_bytes: int
    complete: bool
    path: Path


def task_of(config: dict[str, Any]) -> TaskName | None:
    """Which task a checkpoint with this `config.json` is for, None where that is not known."""
    architecture = architecture_of(config)
    if architecture.endswith("ForObjectDetection") and not architecture.startswith(_NO_DETECTOR):
        return "Detect"
    if "vision_config" in config and architecture.endswith(_TEXT_OUT):
        return "Inference"
    return None


def architecture_of(config: dict[str, Any]) -> str:
    """The model class that a `config.json` names, "" where it names none."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def embedded() -> Checkpoint:
    """The checkpoint that ships with flowrun."""
    return replace(in_folder(MODEL_DIR)[0], name="embedded")


def find_checkpoint(model: str, folder: Path) -> Path | str:
    """What `model` means: a checkpoint folder (relative ones start at `folder`), or a hub id."""
    path = folder / Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"model {model!r}: {_what_else(path)}")
        return path
    if path.exists():
        raise ModelError(f"model {model!r}: {_what_else(path)}")
    if model.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(model):
        raise ModelError(
            f"model {model!r}: no such folder: {path}; give a checkpoint folder, or a hub id "
            "such as 'google/paligemma-3b-mix-224'"
        )
    return model


def _what_else(path: Path) -> str:
    """What a file, or a folder without a config.json, is instead of a checkpoint, and what to do."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    if any(file.name == "adapter_config.json" for file in files):
        return _adapter(path)
    gguf = next((file for file in files if file.suffix == ".gguf"), None)
    if gguf is not None:
        return (
            f"{gguf} is a GGUF file, which llama.cpp runs: start `llama-server -m {gguf.name}`, with "
            "the --mmproj file of its pictures, and ask it with backend: openai"
        )
    if path.is_file():
        return f"{path} is a file; give the checkpoint folder, which holds a config.json"
    return f"the folder {path} holds no config.json"


def _adapter(folder: Path) -> str:
    try:
        said = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base = str(said["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        base = "its base model"
    return (
        f"{folder} is an adapter (LoRA) for {base}, without that model's weights: load both with the "
        "package peft, and give the folder that `merge_and_unload()` and `save_pretrained` make"
    )


def in_folder(folder: Path) -> list[Checkpoint]:
    """The checkpoint that `folder` is, or those that are folders in it. `ModelError` for neither."""
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise ModelError(f"{folder}: {what}")
    if (folder / "config.json").is_file():
        return [_checkpoint(str(folder), folder, _read_config(folder))]
    found = [
        _checkpoint(str(inner), inner, _read_config(inner))
        for inner in sorted(folder.iterdir())
        if (inner / "config.json").is_file()
    ]
    if not found:
        raise ModelError(
            f"{folder}: no checkpoint: neither it nor a folder in it holds a config.json"
        )
    return found


def in_hub_cache() -> Iterator[Checkpoint]:
    """The checkpoints of the hub's cache, by id; each in the revision used last."""
    need_packages("listing the models of the hub's cache")
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        return
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read the cache {hub_cache_path()}: {first_line(error)}"
        ) from error
    for repo in sorted(cache.repos, key=lambda repo: repo.repo_id.lower()):
        revisions = sorted(repo.revisions, key=lambda revision: revision.last_modified)
        if repo.repo_type == "model" and revisions:
            newest = revisions[-1]
            config = {}
            if (newest.snapshot_path / "config.json").is_file():
                config = _read_config(newest.snapshot_path)
            yield _checkpoint(repo.repo_id, newest.snapshot_path, config)


def hub_cache_path() -> str:
    """The folder of the hub's cache, as `HF_HOME` and `HF_HUB_CACHE` set it."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return HF_HUB_CACHE


def config_of(checkpoint: Path | str, *, local_files_only: bool) -> dict[str, Any]:
    """The `config.json` of a checkpoint folder, or of a hub id, which may be downloaded.

    `ModelError` says in plain words why there is none.
    """
    if isinstance(checkpoint, Path):
        return _read_config(checkpoint)
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(checkpoint, "config.json")
    if isinstance(cached, str):
        return _read_config(Path(cached).parent)
    try:
        if not local_files_only:
            _connect(checkpoint)
        file = hf_hub_download(checkpoint, "config.json", local_files_only=local_files_only)
    except Exception as error:
        offline = "the network is not to be used" if local_files_only else None
        raise ModelError(hub_failure(checkpoint, error, offline=offline)) from error
    return _read_config(Path(file).parent)


def is_cached(checkpoint: Path | str) -> bool:
    """Whether a hub id's configuration, and at least some of its weights, are in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(checkpoint, Path):
        return False
    cached = try_to_load_from_cache(checkpoint, "config.json")
    if not isinstance(cached, str):
        return False
    return any(any(Path(cached).parent.glob(pattern)) for pattern in _WEIGHTS)


def folder_in_hub_cache(model: str) -> Path | None:
    """The folder of a hub id in the hub's cache; None where it is not there, or is no hub id."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    try:
        cached = try_to_load_from_cache(model, "config.json")
    except ValueError:
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _connect(model: str) -> None:
    """Raise if the hub cannot be connected to. Its own client tries seven times, which takes 24 s
    without a network. A slow answer is left to that client."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    for pause_s in (*_PAUSES_S, None):
        try:
            get_hf_file_metadata(hf_hub_url(model, "config.json"))
        except Exception as error:
            # Of httpx or httpx2, as the client's version has it.
            if type(error).__name__ not in ("ConnectError", "ConnectTimeout"):
                return
            if pause_s is None:
                raise
            time.sleep(pause_s)
        else:
            return


def hub_failure(model: str, error: Exception, *, offline: str | None) -> str:
    """Why the hub's `model` could not be loaded, and what to do.

    offline: why the hub was not asked; None if it was.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    cache = hub_cache_path()
    causes = (error, error.__cause__, error.__context__)
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return (
            f"model {model!r} is gated: accept its licence at https://huggingface.co/{model}, then "
            "run `hf auth login`"
        )
    if any(
        isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError)
        for cause in causes
    ):
        return (
            f"model {model!r}: the repository holds no config.json, so it is no checkpoint of the "
            "transformers library; it may be an adapter (LoRA), to be merged into its base model, or "
            "GGUF files, which llama-server runs (backend: openai)"
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return f"model {model!r}: the hub has no such model, or you must run `hf auth login`"
    if offline is not None:
        return (
            f"model {model!r} is not in the cache {cache}, and {offline}; run "
            f"`hf download {model}` once where there is a network, or give a folder"
        )
    return (
        f"cannot load model {model!r}: it is not in the cache {cache}, and could not be downloaded "
        f"({first_line(error)}); check the id and the network, or give a folder"
    )


def first_line(error: Exception) -> str:
    """The first line of an error's text, without its full stop."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _checkpoint(name: str, folder: Path, config: dict[str, Any]) -> Checkpoint:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Checkpoint(
        name=name,
        task=task_of(config),
        architecture=architecture_of(config),
        size_bytes=sum(path.stat().st_size for path in files),
        complete=any(path.match(pattern) for path in files for pattern in _WEIGHTS),
        path=folder,
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise ModelError(f"cannot read {path}: it holds no map")
    return config
