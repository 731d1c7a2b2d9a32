"""Everything that the server may ask of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flowrun.msgs.message import Message
    from flowrun.runtime.broadcast import Broadcast, Shows
    from flowrun.runtime.run.observed import Observed
    from flowrun.runtime.run.report import RunReport

__all__ = ["Watchable"]


class Watchable(Protocol):
    """A run as seen from outside. The server calls it from its own thread, also after the run has
    ended: every method returns promptly and never waits for a cycle.
    """

    @property
    def name(self) -> str:
        """Name of the graph, which is the pipeline's id."""

    @property
    def directory(self) -> Path | None:
        """Where its log is; None if it keeps none."""

    @property
    def directories(self) -> tuple[Path, ...]:
        """Where its logs are, absolute: of each stretch that was recorded; none if it keeps none."""

    @property
    def broadcasts(self) -> Mapping[str, Broadcast]:
        """Task id -> where its items are, of all sinks and all tasks that show something."""

    @property
    def shows(self) -> Mapping[str, Shows | None]:
        """Task id -> what it offers to clients, of all tasks, in declaration order."""

    @property
    def channels(self) -> Mapping[str, int]:
        """Task id -> its channel number, of those that show pictures or answers."""

    def state(self) -> str | dict[str, str]:
        """`"Running"`, `"Stopped"` or `{"Error": text}`."""

    def graph(self) -> dict[str, Any]:
        """The resolved graph as data that JSON can hold, secrets masked."""

    def live_keys(self) -> Mapping[str, tuple[str, ...]]:
        """Task id -> the keys of its config that may change while the graph runs."""

    def settings(self) -> dict[str, dict[str, Any]]:
        """Task id -> the values in force of those keys, as data that JSON can hold."""

    def set_live(self, task_id: str, values: dict[str, Any]) -> None:
        """Check `values` and apply them at the next cycle's start. Raises `UsageError` naming the
        key and the valid ones, and then changes nothing.
        """

    def publish(self, port: str, fields: Mapping[str, Any], *, tov_ns: int | None) -> bool:
        """Publish a message on a port in the next cycle; False while too many wait for one. Raises
        `UnknownPort`, and `UsageError` naming a wrong field.
        """

    def ports(self) -> Mapping[str, type[Message]]:
        """The ports, `TASK.PORT`, on which `publish` does, and their messages."""

    def pause(self, source: str) -> bool:
        """Let nothing come from a source; False if that was asked last. Raises `UsageError` for a task
        that is no source, and for a source that has ended.
        """

    def mute(self, source: str) -> bool:
        """Drop what a source publishes; otherwise as `pause`."""

    def resume(self, source: str) -> bool:
        """End what `pause` or `mute` began; otherwise as `pause`."""

    def observe(self) -> Observed:
        """What its cycles bring from now on. Nothing is noted before the first call."""

    def record(self, on: bool) -> bool:  # noqa: FBT001
        """Stop the log, or begin it again; False if it is so already. Waits for the cycle that runs, and
        for the disk. Raises `UsageError`, or `LogError`, where that cannot be.
        """

    def report(self) -> RunReport:
        """How the run is doing."""

    def ask_backends(self) -> None:
        """Somebody looks: tasks may ask their models' servers whether they answer. Does not wait."""

    @property
    def may_run_again(self) -> bool:
        """Whether `run_again` does something: the run has ended, and its process stays."""

    def run_again(self) -> bool:
        """Ask for another run of the graph; False where nobody would run it."""

    def stop(self, reason: str) -> None:
        """Ask the run to end; does not wait until it has."""
