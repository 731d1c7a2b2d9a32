"""What an input is: a message whose fields are read as usual, and that refuses all that changes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, SupportsIndex

from numpy.typing import NDArray

from flowrun.msgs.fields import Buffer

__all__ = ["ReadOnly"]


class ReadOnly:
    """Mixed into the class of a message's view: fields are read as usual; setting one is an error."""

    __slots__ = ()

    def __init__(self, **_fields: Any) -> None:
        raise TypeError("a view is made by its message")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"inputs are read-only: cannot set {type(self).__name__}.{name}; "
            "copy() the message, or publish the new value on an output"
        )

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    def publish(self, *, tov_ns: SupportsIndex | None = None) -> NoReturn:  # noqa: ARG002
        raise AttributeError(f"an input cannot be published: {type(self).__name__}")

    # These change fields without setting an attribute.

    def allocate(self, name: str, shape: tuple[int, ...]) -> NoReturn:  # noqa: ARG002
        self.__setattr__(name, None)

    def hand_over(self, name: str, array: NDArray[Any]) -> NoReturn:  # noqa: ARG002
        self.__setattr__(name, None)

    def clear(self) -> NoReturn:
        self._refuse("clear")

    def fill(self, other: object) -> NoReturn:  # noqa: ARG002
        self._refuse("fill")

    def load(self, data: Buffer) -> NoReturn:  # noqa: ARG002
        self._refuse("load")

    def restore(self, fields: Mapping[str, Any], *, tov_ns: int) -> NoReturn:  # noqa: ARG002
        self._refuse("restore")

    def _refuse(self, method: str) -> NoReturn:
        raise AttributeError(f"inputs are read-only: cannot {method} a {type(self).__name__}")
