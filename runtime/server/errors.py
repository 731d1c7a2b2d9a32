"""A request that cannot be answered, as a reply that says why; and a reply that cannot be ended."""

from __future__ import annotations

__all__ = ["ApiError", "ReplyBroken"]


class ApiError(Exception):
    """A request that cannot be answered, and the reply to it.

    status: the HTTP status code.
    wrapped: `{"Error": {"error": text}}` instead of `{"error": text}`: what clients expect where
        success is `{"Success": ...}`.
    """

    def __init__(self, status: int, text: str, *, wrapped: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.content = {"Error": {"error": text}} if wrapped else {"error": text}


class ReplyBroken(Exception):  # noqa: N818  # it has happened to the reply
    """The rest of a reply cannot be had. The connection is cut, so that its client does not take what it
    has got for the whole."""
