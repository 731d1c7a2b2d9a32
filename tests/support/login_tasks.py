"""A task whose settings hold keys: alone, in a list, in a mapping."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SecretStr, field_validator

from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Output, Task, TaskConfig


class Login(TaskConfig):
    key: SecretStr | None = None
    user: str = ""
    pin: SecretStr | None = Field(default=None, validation_alias="PIN")


class Keyed(Task):
    """A source that logs in somewhere."""

    class Config(TaskConfig):
        login: Login = Login()
        logins: dict[str, Login] = Field(default_factory=dict)
        keys: list[SecretStr] = Field(default_factory=list)
        command: list[str] = Field(default_factory=list)
        notes: dict[str, Any] = Field(default_factory=dict)

        @field_validator("keys", mode="before")
        @classmethod
        def _one_or_several(cls, keys: Any) -> Any:
            return [keys] if isinstance(keys, str) else keys

    def process(self, ctx: Context, out: Output[IntMsg]) -> None:
        ctx.finish()
