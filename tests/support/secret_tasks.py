"""A task that tells its secrets wherever it can."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import Field

from flowrun.msgs import IntMsg, TextMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig


class Leaks(Task):
    class Config(TaskConfig):
        name: str = ""
        uri: str = ""
        password: str = ""
        headers: dict[str, str] = Field(default_factory=dict)

    def start(self, ctx: Context) -> None:
        self._tell(ctx)

    def process(self, ctx: Context, number: Input[IntMsg], text: Output[TextMsg]) -> None:
        text.value = self.config.name
        text.publish()
        self._tell(ctx)
        raise OSError(f"{number.value}: cannot log in: {self._known()}, {self._known()!r}")

    def freeze(self) -> Any:
        return {"known": self._known(), "in": [f"<{text}>" for text in self._known()], "b": b"x"}

    def thaw(self, state: Any) -> None: ...

    def _tell(self, ctx: Context) -> None:
        ctx.log.warning(f"logs in as {self._known()}", who=self._known(), config=self.config)
        try:
            raise ValueError(self.config.uri)
        except ValueError:
            ctx.log.exception("refused")

    def _known(self) -> list[str]:
        config = self.config
        _, _, password = urlsplit(config.uri).netloc.rpartition("@")[0].partition(":")
        return [config.uri, config.password, password, unquote(password), *config.headers.values()]


class Names(Leaks):
    """Says its name only."""

    def start(self, ctx: Context) -> None: ...

    def process(self, ctx: Context, number: Input[IntMsg], text: Output[TextMsg]) -> None:
        text.value = self.config.name
        text.publish()
