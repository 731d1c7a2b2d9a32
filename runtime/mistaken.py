"""Errors for what a program does with something that it takes for a run: they say what to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

__all__ = ["TakenForRun"]


class TakenForRun:
    """Base of a class with whose objects programs do what only a run can: await it, enter it, iterate
    over it. To a type checker it has none of these methods."""

    __slots__ = ()
    _is: ClassVar[str]
    """What such an object is, and is not."""

    if not TYPE_CHECKING:

        def _refuse(self, instead: str) -> NoReturn:
            raise TypeError(f"{self._is}; write: {instead}")

        def __await__(self) -> NoReturn:
            self._refuse("result = await graph.start()")

        def __enter__(self) -> NoReturn:
            self._refuse("with graph.start() as run: ...")

        def __exit__(self, *_: Any) -> None: ...

        async def __aenter__(self) -> NoReturn:
            self._refuse("async with graph.start() as run: ...")

        async def __aexit__(self, *_: Any) -> None: ...

        def __iter__(self) -> NoReturn:
            self._refuse("run = graph.start(); for message in run.messages('task.port'): ...")

        def __aiter__(self) -> NoReturn:
            self._refuse("run = graph.start(); async for message in run.messages('task.port'): ...")
