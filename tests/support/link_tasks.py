"""A source in place of the one on which messages of other processes appear."""

from __future__ import annotations

from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Output, Task, TaskConfig


class FromElsewhere(Task):
    """Never publishes."""

    class Config(TaskConfig):
        partition: str
        instance: str = "0"

    config: Config
    picture_codecs = ("packets", "raw", "zstd", "ffv1")

    def process(self, ctx: Context, origin: Output[IntMsg]) -> None:
        """Nothing comes."""
