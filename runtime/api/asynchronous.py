"""Waits for a run in a coroutine, without holding up its event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["begun", "finished", "on_a_thread"]

_T = TypeVar("_T")


def begun(call: Callable[[], _T]) -> Future[_T]:
    """`call` on a thread of its own. Neither a loop nor the program waits for it at its end, as they do
    for the threads of `asyncio.to_thread`: what a coroutine waits for may never come."""
    future: Future[_T] = Future()
    future.set_running_or_notify_cancel()  # so that nobody can cancel what has begun

    def work() -> None:
        try:
            found = call()
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            future.set_exception(error)
        else:
            future.set_result(found)

    threading.Thread(target=work, name="flowrun-await", daemon=True).start()
    return future


async def finished(future: Future[Any]) -> None:
    """Return when `future` has a result or an error, neither of which is taken. A cancelled coroutine
    leaves it as it is, to be waited for again."""
    import asyncio  # a program that has a loop has loaded it already

    wrapped = asyncio.wrap_future(future)
    wrapped.add_done_callback(lambda it: it.cancelled() or it.exception())  # raised elsewhere
    await asyncio.wait([wrapped])


async def on_a_thread(call: Callable[[], _T]) -> _T:
    """What `call` gives, or raises, on a thread. It goes on if the coroutine is cancelled."""
    future = begun(call)
    await finished(future)
    return future.result()
