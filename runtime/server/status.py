"""The state of a run in the words of the API."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowrun.runtime.server.watchable import Watchable

__all__ = ["Status", "jsonable"]


class Status:
    """What the API says about a run as a whole."""

    def __init__(self, run: Watchable) -> None:
        self.run = run

    @property
    def running(self) -> bool:
        return self.run.state() == "Running"

    def ended_text(self) -> str | None:
        """Why nothing more comes, or None while the run goes on."""
        match self.run.state():
            case "Running":
                return None
            case {"Error": text}:
                return f"the run of {self.run.name!r} has ended with an error: {text}"
            case _:
                return f"the run of {self.run.name!r} has ended"

    def pipeline(self) -> dict[str, Any]:
        return {"id": self.run.name, "status": self.run.state()}

    def report(self) -> dict[str, Any]:
        """The run's own report, who it is, and what may be set."""
        live = {task: list(keys) for task, keys in self.run.live_keys().items() if keys}
        report: dict[str, Any] = jsonable({**self.pipeline(), **self.run.report(), "live": live})
        return report


def jsonable(data: Any) -> Any:
    """The same data without NaN and infinity, which YAML has and JSON has not: they become text."""
    match data:
        case float() if not math.isfinite(data):
            return str(data)
        case dict():
            return {str(key): jsonable(value) for key, value in data.items()}
        case list() | tuple():
            return [jsonable(value) for value in data]
        case _:
            return data
