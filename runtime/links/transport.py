"""What carries messages between processes. Every call returns at once; callbacks come on threads of the
transport, and MUST NOT block."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

__all__ = ["Query", "Sample", "Transport"]


class Sample(NamedTuple):
    """One message that came."""

    key: str
    payload: bytes
    attachment: bytes


class Query(Protocol):
    """A question that waits for its answer: any number of replies, then `finish`. From any thread."""

    @property
    def parameters(self) -> bytes: ...

    def reply(self, payload: bytes, attachment: bytes) -> None:
        """Give one part of the answer. It may be lost."""

    def finish(self) -> None:
        """There are no more replies."""


class Transport(Protocol):
    """One process's end."""

    def put(self, key: str, payload: bytes, attachment: bytes) -> None:
        """Send a message to whoever subscribes to `key`. Never waits: what cannot be sent is dropped."""

    def subscribe(self, key: str, on_sample: Callable[[Sample], None]) -> None:
        """Have `on_sample` called with each message of `key`."""

    def serve(self, key: str, on_query: Callable[[Query], None]) -> None:
        """Answer the questions about `key`."""

    def query(
        self,
        key: str,
        parameters: bytes,
        on_reply: Callable[[Sample], None],
        on_done: Callable[[], None],
        *,
        timeout_s: float,
    ) -> None:
        """Ask who serves `key`. `on_done` is called once, after the last reply or `timeout_s`."""

    def declare_alive(self, key: str) -> None:
        """Let others see this process for as long as it lives."""

    def watch_alive(self, key: str, on_change: Callable[[bool], None]) -> None:
        """Have `on_change` called when a process that declared `key` comes or goes."""

    def close(self, *, timeout_s: float) -> None:
        """End it. No callback comes afterwards."""
