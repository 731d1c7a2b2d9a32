"""A run in a coroutine: it is awaited, entered and read without holding up the event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.api.graph import Graph
from flowrun.runtime.api.received import Messages
from flowrun.runtime.api.running import LiveRun
from flowrun.runtime.errors import TaskError
from flowrun.runtime.task import task
from flowrun.tasks.basic import Counter, Square
from support.helpers import until

LIMIT_S = 60


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@task
def fails(number: IntMsg) -> IntMsg:
    raise ValueError(f"no {number.value}")


def squares(limit: int | None = 5) -> Graph:
    g = Graph("squares")
    g.connect(g.add(Counter, config={"limit": limit, "rate_hz": 200}), g.add(Square))
    return g


@asynccontextmanager
async def paused(run: LiveRun) -> AsyncIterator[None]:
    """Nothing comes within the block."""
    run.pause()
    await asyncio.to_thread(until, lambda: run.report().tasks["counter"].state == "paused")
    yield
    run.resume()


async def values_until_none_comes(messages: Messages) -> list[int]:
    found: list[int] = []
    while True:
        try:
            found.append((await asyncio.wait_for(anext(messages), 0.05)).value)
        except TimeoutError:
            return found


def test_messages_are_read_while_other_coroutines_run():
    async def main() -> tuple[list[int], int]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        async with squares().start() as run:
            found = [it.value async for it in run.messages("square")]
        counting.cancel()
        return found, turns

    found, turns = asyncio.run(main())
    assert found == [0, 1, 4, 9, 16]
    assert turns > 5


def test_a_run_is_awaited():
    async def main() -> int:
        return (await squares().start()).cycles

    assert asyncio.run(main()) == 5


def test_a_block_that_is_left_ends_the_run_and_its_error_passes():
    async def main() -> LiveRun:
        with pytest.raises(RuntimeError, match="mine"):
            async with squares(None).start() as run:
                raise RuntimeError("mine")
        return run

    assert asyncio.run(main()).has_ended


def test_what_ends_the_run_is_raised_where_it_is_awaited(caplog):
    async def main() -> None:
        g = Graph("g")
        g.connect(g.add(Counter), g.add(fails))
        run = g.start()
        with pytest.raises(TaskError, match="ValueError: no 0"):
            await run
        with pytest.raises(TaskError, match="ValueError: no 0"):
            [it async for it in run.messages("fails")]

    asyncio.run(main())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_no_message_is_lost_by_a_wait_that_was_given_up():
    async def main() -> list[int]:
        async with squares(None).start() as run:
            messages = run.messages("square")
            found = [(await anext(messages)).value]
            async with paused(run):
                found += await values_until_none_comes(messages)
            found += [(await anext(messages)).value for _ in range(3)]
        return found

    found = asyncio.run(main())
    assert found == [n * n for n in range(len(found))]


@pytest.mark.parametrize("keep", [None, 1])
def test_a_reader_that_was_given_up_does_not_keep_the_program(keep):
    async def main() -> LiveRun:
        run = squares(None).start()
        async with paused(run):
            messages = run.messages("square", keep=keep)
            await values_until_none_comes(messages)
        return run

    run = asyncio.run(asyncio.wait_for(main(), LIMIT_S))
    assert not run.has_ended
    run.stop()
    run.wait(LIMIT_S)


def test_an_await_that_was_given_up_leaves_the_run():
    async def main() -> LiveRun:
        run = squares(None).start()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 0.05)
        return run

    run = asyncio.run(main())
    assert not run.has_ended
    run.stop()
    assert run.wait(LIMIT_S).reason == "stop()"
