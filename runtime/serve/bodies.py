"""What replies hold, as the API's description says it."""

# No `from __future__ import annotations`: FastAPI reads the annotations.

from typing import Literal

from pydantic import Field

from flowrun.runtime.serve.pipeline import Restart
from flowrun.runtime.server.bodies import Pipeline

__all__ = ["Listed"]


class Listed(Pipeline):
    """A graph of the folder."""

    phase: Literal["stopped", "starting", "running", "stopping", "failed", "waiting"] = Field(
        description="starting: its server does not answer yet; waiting: it is started again soon."
    )
    pid: int | None = Field(description="Its process, while it runs.")
    restart: Restart
    restarts: int = Field(description="How often it was started again by itself.")
    next_start_s: float | None = Field(description="In how many seconds it is, if it is.")
