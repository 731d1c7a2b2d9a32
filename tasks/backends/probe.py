"""Asks a server for its models, apart from the questions that it gets: whether it is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowrun.tasks.addresses import is_this_machine
from flowrun.tasks.backends.openai import OpenAIBackend
from flowrun.tasks.backends.servers_health import ServersHealth
from flowrun.tasks.backends.settings import OpenAISettings

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["ServerProbe"]

_NEAR_S = 5.0
_FAR_S = 60.0
"""Somebody may pay for a server elsewhere, and have a limited number of requests."""


class ServerProbe:
    """See `Probe`; of a farm, one that answers is enough. It starts no server.

    seen: gets what each server shows.
    """

    def __init__(
        self,
        settings: OpenAISettings,
        *,
        log: FilteringBoundLogger,
        seen: ServersHealth | None = None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._seen = seen
        self._asked: OpenAIBackend | None = None

    @property
    def every_s(self) -> float:
        return _NEAR_S if all(map(is_this_machine, self._settings.urls)) else _FAR_S

    def ask(self) -> None:
        import numpy as np

        # Not the task's own client, which one thread at a time may use, nor its random numbers.
        self._asked = client = OpenAIBackend(
            self._settings,
            graph_dir=Path(),
            log=self._log,
            rng=np.random.default_rng(0),
            seen=self._seen,
        )
        try:
            client.probe()
        finally:
            self._asked = None
            client.close()

    def cancel(self) -> None:
        asked = self._asked
        if asked is not None:
            asked.cancel()
