"""Loading a checkpoint of the transformers library, whatever it is for: the device, the type of the
numbers, and why it cannot be loaded, in plain words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowrun.tasks.backends.backend import ModelError
from flowrun.tasks.checkpoints import first_line, hub_failure

__all__ = ["loading", "pick_device"]


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


@contextmanager
def loading(checkpoint: Path | str, *, device: str, parts: str, local: bool) -> Iterator[Any]:
    """Gives transformers, kept from writing to the terminal. What it raises in the context comes out
    as a `ModelError`.

    parts: what a checkpoint folder must hold beside the weights. local: whether the network is not
    to be used.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield transformers
    except torch.OutOfMemoryError as error:
        raise ModelError(f"model {str(checkpoint)!r} does not fit into {device}") from error
    except ImportError as error:
        raise ModelError(f"model {str(checkpoint)!r}: {first_line(error)}") from error
    except Exception as error:
        if isinstance(checkpoint, Path):
            raise ModelError(
                f"cannot load the model in {checkpoint}: {first_line(error)}; it must be a "
                f"checkpoint folder as `save_pretrained` writes it, with its {parts}"
            ) from error
        offline = "local_files_only is true" if local else None
        raise ModelError(hub_failure(checkpoint, error, offline=offline)) from error
