"""A request that cannot be answered, and how that is said."""

from __future__ import annotations

__all__ = ["ApiError"]


class ApiError(Exception):
    """A reply that says why there is no other.

    status: of HTTP.
    wrapped: `{"Error": {"error": text}}` instead of `{"error": text}`: what clients expect where
        success is `{"Success": ...}`.
    """

    def __init__(self, status: int, text: str, *, wrapped: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.content = {"Error": {"error": text}} if wrapped else {"error": text}
