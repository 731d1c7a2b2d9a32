"""Small generic messages, for tests, benches and first tasks."""

from __future__ import annotations

from typing import Any

from flowrun.msgs.message import Message

__all__ = ["BoolMsg", "BytesMsg", "FloatMsg", "IntMsg", "TextMsg", "ValuesMsg"]


class BoolMsg(Message):
    """One truth value.

    value: true or false.
    """

    value: bool


class IntMsg(Message):
    """One integer of at most 64 bits.

    value: from -2^63 to 2^64 - 1; what it counts, its task says.
    """

    value: int


class FloatMsg(Message):
    """One number.

    value: 64 bits; its unit, its task says.
    """

    value: float


class TextMsg(Message):
    """One text.

    value: Unicode, of any length.
    """

    value: str


class BytesMsg(Message):
    """Opaque bytes.

    value: of any length; a task that reads them knows what they are.
    """

    value: bytes


class ValuesMsg(Message):
    """Values by name.

    value: what JSON has: texts, numbers, true and false, null, lists and mappings of these.
    """

    value: dict[str, Any]
