"""Small generic messages, for tests, benches and first tasks."""

from __future__ import annotations

from flowrun.msgs.message import Message

__all__ = ["BoolMsg", "BytesMsg", "FloatMsg", "IntMsg", "TextMsg"]


class BoolMsg(Message):
    """One truth value."""

    value: bool


class IntMsg(Message):
    """One integer of at most 64 bits."""

    value: int


class FloatMsg(Message):
    """One number."""

    value: float


class TextMsg(Message):
    """One text."""

    value: str


class BytesMsg(Message):
    """Opaque bytes."""

    value: bytes
