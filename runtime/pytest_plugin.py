"""pytest loads this by itself where flowrun is installed: the fixture `assert_replays`.

Importing it costs nothing: what it needs is loaded by the first test that asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

__all__ = ["assert_replays"]


@pytest.fixture
def assert_replays(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Replay a recorded run with the present code, and assert that every message is as recorded.

    Like `flowrun.runtime.testing.assert_replays`, but relative paths start in the test file's folder.
    """
    return partial(_assert_replays, request.path.parent)


def _assert_replays(
    folder: Path, run: Path | str, *, graph: Path | str | None = None, **options: Any
) -> None:
    __tracebackhide__ = True
    from flowrun.runtime.testing import assert_replays as replayed

    replayed(folder / run, graph=None if graph is None else folder / graph, **options)
