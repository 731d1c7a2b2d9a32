"""Settings -> the backend that they describe. Nothing is loaded here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.tasks.backends.backend import Backend
from flowrun.tasks.backends.local import LocalBackend
from flowrun.tasks.backends.openai import OpenAIBackend
from flowrun.tasks.backends.servers_health import ServersHealth
from flowrun.tasks.backends.settings import Device, Dtype, OpenAISettings, TransformersSettings
from flowrun.tasks.models.checkpoints import find_checkpoint
from flowrun.tasks.models.progress import Tell

if TYPE_CHECKING:
    import numpy as np
    from structlog.typing import FilteringBoundLogger

__all__ = ["make_backend", "make_embedded"]


def make_backend(
    settings: TransformersSettings | OpenAISettings,
    *,
    graph_dir: Path,
    max_batch: int,
    threads: int | None,
    log: FilteringBoundLogger,
    rng: np.random.Generator,
    tell: Tell,
    waits: bool,
    seen: ServersHealth | None = None,
    owner: str = "",
) -> Backend:
    """The backend of an entry of `backends:`. Raises `ModelError` for a folder that is missing.

    waits: whether a server that is starting, or loading its model, is waited for.
    seen: gets what questions show of each server.
    owner: shares models in this process with backends of the same owner alone.
    """
    if isinstance(settings, OpenAISettings):
        return OpenAIBackend(
            settings,
            graph_dir=graph_dir,
            log=log,
            rng=rng,
            tell=tell,
            waits=waits,
            max_batch=max_batch,
            seen=seen,
        )
    return LocalBackend(
        find_checkpoint(settings.model, graph_dir),
        device=settings.device,
        dtype=settings.dtype,
        local_files_only=settings.local_files_only,
        static_cache=settings.static_cache,
        max_batch=max_batch,
        threads=threads,
        log=log,
        tell=tell,
        owner=owner,
    )


def make_embedded(
    *,
    device: Device,
    dtype: Dtype,
    max_batch: int,
    threads: int | None,
    log: FilteringBoundLogger,
    tell: Tell,
    owner: str = "",
) -> Backend:
    """The model that ships with flowrun; `auto` is float32, on any device. owner: as in
    `make_backend`."""
    from flowrun.tasks.embedded import MODEL_DIR

    return LocalBackend(
        MODEL_DIR,
        device=device,
        dtype="float32" if dtype == "auto" else dtype,
        local_files_only=True,
        max_batch=max_batch,
        threads=threads,
        log=log,
        tell=tell,
        owner=owner,
    )
