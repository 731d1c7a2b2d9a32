"""Statistics of an episode's columns and colours, as LeRobot keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowrun.runtime.log.reader import Log

__all__ = ["color_stats", "joined", "stats_of"]

_LOOKED_AT = 50
"""Pictures of an episode of which the statistics of its colours are."""


def stats_of(values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    finite = values[np.isfinite(values)].astype(np.float64)
    finite = finite if finite.size else np.zeros(1)
    return {
        "min": np.array([finite.min()]),
        "max": np.array([finite.max()]),
        "mean": np.array([finite.mean()]),
        "std": np.array([finite.std()]),
        "count": np.array([len(values)]),
    }


def color_stats(log: Log, topic: str, cycles: Sequence[int]) -> dict[str, NDArray[Any]]:
    """Of the colours of some pictures, from 0 to 1, each of shape (3, 1, 1)."""
    step = max(1, len(cycles) // _LOOKED_AT)
    wanted = set(cycles[::step])
    parts = []
    for message in log.messages(topic, cycles[0], cycles[-1] + 1):
        if message.cycle in wanted:
            seen = message.fields["pixels"][::4, ::4].reshape(-1, 3) / 255
            parts.append(
                {
                    "min": seen.min(axis=0),
                    "max": seen.max(axis=0),
                    "mean": seen.mean(axis=0),
                    "std": seen.std(axis=0),
                    "count": np.array([1]),
                }
            )
    return {
        kind: value if kind == "count" else value.reshape(3, 1, 1)
        for kind, value in joined(parts).items()
    }


def joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The statistics of several parts together."""
    counts = np.array([int(it["count"][0]) for it in parts], np.float64)
    weights = counts / counts.sum()
    means = np.stack([it["mean"] for it in parts])
    shaped = weights.reshape(-1, *[1] * (means.ndim - 1))
    mean = (shaped * means).sum(axis=0)
    spread = np.stack([it["std"] for it in parts]) ** 2 + (means - mean) ** 2
    return {
        "min": np.stack([it["min"] for it in parts]).min(axis=0),
        "max": np.stack([it["max"] for it in parts]).max(axis=0),
        "mean": mean,
        "std": np.sqrt((shaped * spread).sum(axis=0)),
        "count": np.array([int(counts.sum())]),
    }
