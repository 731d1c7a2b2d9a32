"""The state of a run in the words of the API."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flowrun.runtime.clock import monotonic_s

if TYPE_CHECKING:
    from flowrun.runtime.broadcast import Answer
    from flowrun.runtime.run.report import RunReport
    from flowrun.runtime.server.watchable import Watchable

__all__ = ["Status", "answer_json", "jsonable", "report_json"]


_RECENT_S = 0.5


class Status:
    """What the API says about a run as a whole."""

    def __init__(self, run: Watchable) -> None:
        self.run = run
        self._recent: dict[str, Any] = {}
        self._recent_until = 0.0

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
        """The run's own report, who it is, what its tasks show, and what may be and is set."""
        run = self.run
        run.ask_backends()
        report: dict[str, Any] = jsonable(
            {
                **self.pipeline(),
                **report_json(run.report()),
                "shows": {task: kind for task, kind in run.shows.items() if kind is not None},
                "channels": run.channels,
                "live": {task: keys for task, keys in run.live_keys().items() if keys},
                "settings": run.settings(),
                "may_run_again": run.may_run_again,
            }
        )
        return report

    def recent_report(self) -> dict[str, Any]:
        """The report, made once in a while for all streams: it costs a millisecond."""
        now = monotonic_s()
        if now >= self._recent_until:
            self._recent = self.report()
            self._recent_until = now + _RECENT_S
        return self._recent


def report_json(report: RunReport) -> dict[str, Any]:
    """A report in the words of the API: the fields of `RunReport`."""
    answer = report.last_answer
    return asdict(report) | {
        "last_answer": None
        if answer is None
        else {**answer_json(answer), "timestamp_nanos": answer.tov_ns}
    }


def answer_json(answer: Answer) -> dict[str, Any]:
    """An answer in the words of the API; its time has other names in other places."""
    return {
        "prompt": answer.prompt,
        "response": answer.response,
        "truncated": answer.truncated,
        "reasoning": answer.reasoning,
        "latency_ms": answer.latency_ms,
        "backend": answer.backend,
        "cycle": answer.cycle,
    }


def jsonable(data: Any) -> Any:
    """The same data without NaN and infinity, which YAML has and JSON has not: they become text."""
    match data:
        case float() if not math.isfinite(data):
            return str(data)
        case Mapping():
            return {str(key): jsonable(value) for key, value in data.items()}
        case list() | tuple():
            return [jsonable(value) for value in data]
        case _:
            return data
