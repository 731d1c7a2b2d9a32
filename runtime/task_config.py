"""The configuration of a task: a frozen model of its keys, of which some may change while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from flowrun.runtime.wording import listed, nearest

__all__ = ["Live", "LiveMarker", "TaskConfig"]

T = TypeVar("T")


class LiveMarker:
    """Marks a configuration value that may change while the graph runs."""


Live = Annotated[T, LiveMarker]
"""A configuration value that may change while the graph runs; see `Task.configure`."""


class TaskConfig(BaseModel):
    """Base of a task's `Config`: a frozen pydantic model that accepts no keys but its own, and no
    true or false where a number is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    if not TYPE_CHECKING:  # a checker would take every name for a key

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                keys = list(type(self).model_fields)
                raise AttributeError(
                    f"the config has no key {name!r}; keys: {listed(keys)}{nearest(name, keys)}"
                ) from None

    @model_validator(mode="wrap")
    @classmethod
    def _no_flag_is_a_number(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(data)
        wrong = list(_flags_as_numbers(data, made, ()))
        if wrong:
            raise ValidationError.from_exception_data(
                cls.__name__,
                [{"type": kind, "loc": path, "input": given} for path, kind, given in wrong],
            )
        return made


def _flags_as_numbers(
    given: Any, made: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], Literal["int_type", "float_type"], bool]]:
    """Each true and false of `given` that pydantic has made a number of: where, which kind of number,
    and what it was."""
    if isinstance(given, bool):
        if isinstance(made, (int, float)) and not isinstance(made, bool):
            yield path, "int_type" if isinstance(made, int) else "float_type", given
    elif isinstance(given, Mapping):
        for key, item in given.items():
            if isinstance(made, BaseModel):
                below = _field_of(made, key)
            else:
                below = made.get(key) if isinstance(made, Mapping) else None
            yield from _flags_as_numbers(item, below, (*path, key))
    elif isinstance(given, (list, tuple)) and isinstance(made, Sequence):
        for i, (item, below) in enumerate(zip(given, made, strict=False)):
            yield from _flags_as_numbers(item, below, (*path, i))


def _field_of(made: BaseModel, key: str) -> Any:
    """The field that `key`, its name or its alias, sets."""
    for name, info in type(made).model_fields.items():
        if key in (name, info.alias, info.validation_alias):
            return getattr(made, name)
    return None
