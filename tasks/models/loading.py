"""Loading a checkpoint of the transformers library, whatever it is for: the device, the type of the
numbers, and why it cannot be loaded, in plain words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

from flowrun.tasks.models.checkpoints import first_line, hub_failure, is_cached
from flowrun.tasks.models.question import ModelError

__all__ = ["ONLY_DATA", "cache_first", "loading", "pick_device", "pick_dtype"]

T = TypeVar("T")

ONLY_DATA = {"trust_remote_code": False}
"""For every `from_pretrained`: no code of a checkpoint is run. Left out, transformers asks on the
terminal."""


def cache_first(checkpoint: Path | str, *, local: bool, load: Callable[..., T]) -> T:
    """`load(local=True)`, which must not use the network, if `local` says so or the model is in the
    hub's cache; otherwise, or if that fails, `load(local=False)`.

    The hub is not asked whether it has a newer revision of what is in the cache: that took 5 minutes
    without a network, and a run would not know which weights it gets.
    """
    if not local and is_cached(checkpoint):
        with contextlib.suppress(ModelError):
            return load(local=True)
    return load(local=local)


def pick_device(wanted: str) -> str:
    """The torch device that `wanted` (auto, cpu, cuda, cuda:N) means. `ModelError` lists the GPUs."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda" if count else "cpu"
    if wanted == "cpu" or int(wanted.partition(":")[2] or 0) < count:
        return wanted
    have = ", ".join(f"cuda:{i}" for i in range(count)) or "none"
    raise ModelError(
        f"device {wanted!r}: torch {torch.__version__} sees no such GPU; GPUs: {have}; "
        "use device: cpu or auto, or a torch build with CUDA"
    )


def pick_dtype(wanted: str, device: str) -> str:
    """The torch type that `wanted` means for an image-text model on `device`; auto: bfloat16 on a GPU
    and on a CPU that computes in it, else float32.
    """
    import torch

    if wanted != "auto":
        return wanted
    # A CPU without these instructions takes several times as long for bfloat16. Before torch 2.11
    # there is no public way to ask.
    capable = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    has_it = any(capable.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))  # bf16: of Arm
    return "bfloat16" if device.startswith("cuda") or has_it else "float32"


@contextmanager
def loading(checkpoint: Path | str, *, device: str, parts: str, local: bool) -> Iterator[Any]:
    """Gives the transformers library, kept from writing to the terminal. What it raises in the
    context becomes a `ModelError`.

    parts: what a checkpoint folder must hold besides the weights.
    local: whether the network must not be used.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield transformers
    except torch.OutOfMemoryError as error:
        raise ModelError(f"model {str(checkpoint)!r} does not fit into {device}") from error
    except UnpicklingError as error:
        raise ModelError(
            f"model {str(checkpoint)!r}: its weights are pickled Python objects, which could run any "
            "code, and are not loaded; save them as .safetensors"
        ) from error
    except ImportError as error:
        raise ModelError(f"model {str(checkpoint)!r}: {first_line(error)}") from error
    except Exception as error:
        if "custom code" in str(error) or "trust_remote_code" in str(error):
            raise ModelError(
                f"model {str(checkpoint)!r}: its checkpoint brings Python code of its own, which "
                "flowrun never runs; choose one whose architecture the transformers library has, or "
                "run it on a model server and ask that with backend: openai"
            ) from error
        if isinstance(checkpoint, Path):
            raise ModelError(
                f"cannot load the model in {checkpoint}: {first_line(error)}; it must be a "
                f"checkpoint folder as `save_pretrained` writes it, with its {parts}"
            ) from error
        offline = "local_files_only is true" if local else None
        raise ModelError(hub_failure(checkpoint, error, offline=offline)) from error
