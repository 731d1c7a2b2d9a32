"""Whether the packages that run models are installed: they come with the extra `models`."""

from __future__ import annotations

from flowrun.runtime.extras import missing
from flowrun.tasks.models.question import ModelError

__all__ = ["need_packages", "packages_missing"]

_PACKAGES = ("torch", "transformers")


def packages_missing(what: str) -> str | None:
    """What to install so that `what` can run a model; None where all is there. Loads nothing."""
    return missing(what, _PACKAGES, extra="models")


def need_packages(what: str) -> None:
    """`ModelError` says what to install so that `what` can run a model, where that is missing."""
    text = packages_missing(what)
    if text is not None:
        raise ModelError(text)
