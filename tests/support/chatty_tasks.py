"""Tasks that say something other than by `ctx.log`."""

from __future__ import annotations

import logging
import logging.config
import threading
import warnings
from typing import Any, ClassVar

from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Input, Output, Task

LIB = logging.getLogger("some.lib")


class Chatty(Task):
    """Says something in each way, in the cycle of 1."""

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        if number.value == 1:
            self.say()
        out.publish()

    def say(self):
        logging.warning("root says %d", 1)  # noqa: LOG015
        LIB.error("a library says")
        LIB.info("below the level")
        LIB.warning("%d %d", 1)  # too few arguments
        warnings.warn("deprecated", stacklevel=1)
        for target in (self.beside, died):
            thread = threading.Thread(target=target, name="mine")
            thread.start()
            thread.join()

    def beside(self):
        LIB.warning("a thread says")


def died():
    raise OSError("the cable is out")


class Repeats(Task):
    """Says the same in every cycle, and something else besides."""

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        LIB.warning("again")
        LIB.warning("number %d", number.value)
        out.publish()


class Reconfigures(Task):
    """Takes all handlers of `logging` away."""

    run: ClassVar[Any] = None

    def start(self, ctx: Context) -> None:
        logging.config.dictConfig(
            {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}}
        )

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        Reconfigures.run.attend()
        LIB.warning("still heard")
        out.publish()


class Quiet(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None: ...
