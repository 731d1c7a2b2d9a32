"""What replies hold, as the API's description says it."""

# No `from __future__ import annotations`: FastAPI reads the annotations.

from typing import Literal

from pydantic import BaseModel, Field

from flowrun.runtime.serve.pipeline import Restart
from flowrun.runtime.server.bodies import Pipeline

__all__ = ["Health", "Listed"]


class Listed(Pipeline):
    """A graph of the folder."""

    phase: Literal["stopped", "starting", "running", "stopping", "failed", "waiting"] = Field(
        description="starting: its server does not answer yet; waiting: it is started again soon."
    )
    pid: int | None = Field(description="Its process, while it runs.")
    restart: Restart
    restarts: int = Field(description="How often it was started again by itself.")
    next_start_s: float | None = Field(description="In how many seconds it is, if it is.")
    parts: dict[str, str] = Field(
        description="Of a graph with partitions, what has become of each: started, started again, "
        "ended, failed: why."
    )


class Health(BaseModel):
    """Whether the pipelines are as somebody wanted them."""

    status: Literal["ok", "degraded"]
    why: str = Field(description="Which are not, and why.")
    running: list[str]
