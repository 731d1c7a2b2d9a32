"""The progress bars of transformers and of the hub's client, passed on to a callback.

Left alone they write to the terminal, over the run's own status.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Tell", "progress_passed_on"]

Tell = Callable[[str, float | None], None]
"""What is done now, and how much of it has been, from 0 to 1; None where that is not known."""


@contextlib.contextmanager
def progress_passed_on(tell: Tell) -> Iterator[dict[str, Any]]:
    """While the context is open, bars of this process call `tell` instead of being drawn. Gives
    the arguments with which `from_pretrained` passes on downloads too."""
    import transformers
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[misc]
        """A bar that draws nothing."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)  # the hub's client names its bars
            options |= {"file": io.StringIO(), "disable": False}
            super().__init__(*args, **options)

        def display(self, *_args: Any, **_options: Any) -> None:
            what = str(self.desc).rstrip(": ").lower() or "loading"
            tell(what, min(1.0, self.n / self.total) if self.total else None)

    logging = transformers.utils.logging
    hooked = hasattr(logging, "set_tqdm_hook")
    before = None
    if hooked:
        before = logging.set_tqdm_hook(lambda _make, args, options: Silent(*args, **options))
    try:
        yield {"tqdm_class": Silent} if hooked else {}
    finally:
        if hooked:
            logging.set_tqdm_hook(before)
