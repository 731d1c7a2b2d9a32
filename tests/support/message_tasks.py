"""Tasks that misuse messages, and tasks that see what others get."""

from __future__ import annotations

import ctypes
import heapq
import threading
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flowrun.msgs import IntMsg, LatePublishError, Message, Shape, TextMsg
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig


class BagMsg(Message):
    items: list[int]
    things: dict[str, Any]
    row: Annotated[NDArray[np.float32], Shape("N")]


class Bag(Task):
    """A list, a dict and an array of its own, which it changes in each call, also after publishing."""

    class Config(TaskConfig):
        allocates: bool = False

    older: ClassVar[Any] = None
    """A view of the array that it published last."""

    def start(self, ctx: Context) -> None:
        self.items: list[int] = []
        self.row = np.zeros(3, np.float32)

    def process(self, ctx: Context, number: Input[IntMsg], bag: Output[BagMsg]) -> None:
        self.items.append(number.value)
        bag.items, bag.things = self.items, {"n": (number.value, np.float64(0.5))}
        row = bag.allocate("row", (3,)) if self.config.allocates else self.row
        row[:] = number.value
        bag.row = row
        Bag.older = row[:]
        bag.publish()
        self.items.append(-1)
        self.items.pop()
        if not self.config.allocates:
            row[:] = -1


class Sees(Task):
    """What came, in words, with the types of all that is in it."""

    def process(self, ctx: Context, bag: Input[BagMsg], out: Output[TextMsg]) -> None:
        inner = [type(value).__name__ for value in bag.things["n"]]
        out.value = f"{bag.items} {bag.things} {inner} {bag.row.tolist()}"
        out.publish()


class Appends(Task):
    def process(self, ctx: Context, bag: Input[BagMsg], out: Output[TextMsg]) -> None:
        bag.items.append(99)


class Pushes(Task):
    """C code, which asks no method of the list."""

    def process(self, ctx: Context, bag: Input[BagMsg], out: Output[TextMsg]) -> None:
        heapq.heappush(bag.items, -9)
        out.publish()


class Pokes(Task):
    """Does what a thread of `Bag` might: writes to what that has published."""

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[TextMsg]) -> None:
        if number.value == 1:
            Bag.older[:] = 7


class Torches(Task):
    """Writes to its input's memory, as a tensor that shares it does."""

    def process(self, ctx: Context, bag: Input[BagMsg], out: Output[TextMsg]) -> None:
        memory = (ctypes.c_char * bag.row.nbytes).from_address(bag.row.ctypes.data)
        np.frombuffer(memory, np.float32)[0] = 5
        out.publish()


class KeepsArray(Task):
    def start(self, ctx: Context) -> None:
        self.rows: list[NDArray[np.float32]] = []

    def process(self, ctx: Context, bag: Input[BagMsg], out: Output[TextMsg]) -> None:
        self.rows.append(bag.row[:2])
        out.value = str([int(row[0]) for row in self.rows])
        out.publish()

    def freeze(self) -> list[list[float]]:
        return [row.tolist() for row in self.rows]

    def thaw(self, state: list[list[float]]) -> None:
        self.rows = [np.array(row, np.float32) for row in state]


class KeepsMessage(Task):
    def start(self, ctx: Context) -> None:
        self.last: Any = None

    def process(self, ctx: Context, bag: Input[BagMsg], out: Output[TextMsg]) -> None:
        out.value = str(None if self.last is None else self.last.items)
        self.last = bag
        out.publish()


class KeepsCopy(Task):
    def start(self, ctx: Context) -> None:
        self.last: Any = None

    def process(self, ctx: Context, bag: Input[BagMsg], out: Output[TextMsg]) -> None:
        out.value = str(None if self.last is None else self.last.items)
        self.last = bag.copy()
        self.last.items.append(0)
        out.publish()


class Passes(Task):
    """Passes its input's array on, without a copy."""

    def process(self, ctx: Context, bag: Input[BagMsg], out: Output[BagMsg]) -> None:
        out.row, out.items, out.things = bag.row, bag.items, bag.things
        out.publish()


class Late(Task):
    """Publishes on another thread, after `process` has returned."""

    errors: ClassVar[list[str]] = []

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        if number.value == 1:
            self.kept = out, number.value
        elif number.value == 2:
            thread = threading.Thread(target=self.publish, name="its own")
            thread.start()
            thread.join()

    def publish(self) -> None:
        out, out.value = self.kept
        try:
            out.publish()
        except LatePublishError as error:
            self.errors.append(str(error))


class Absent(Task):
    """Whether its optional input is None."""

    def process(
        self, ctx: Context, a: Input[IntMsg], b: Input[IntMsg] | None, out: Output[TextMsg]
    ) -> None:
        out.value = "absent" if b is None else f"{b.value}"
        out.publish()


class Mute(Task):
    """Never publishes."""

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        return


class SetsInVain(Task):
    """Publishes nothing on its first output, and sets a field of the second after publishing it."""

    def process(
        self, ctx: Context, number: Input[IntMsg], first: Output[IntMsg], second: Output[IntMsg]
    ) -> None:
        first.value = 1
        second.value = 2
        second.publish()
        second.value = 3


class PushesAndLeaves(Task):
    """`Pushes`, and then raises what is no `Exception`."""

    def process(self, ctx: Context, bag: Input[BagMsg], out: Output[TextMsg]) -> None:
        heapq.heappush(bag.items, -9)
        raise SystemExit


class ListMsg(Message):
    """Holds no array."""

    items: list[int]


class Lists(Task):
    def process(self, ctx: Context, number: Input[IntMsg], items: Output[ListMsg]) -> None:
        items.items = [number.value]
        items.publish()


class SeesList(Task):
    def process(self, ctx: Context, items: Input[ListMsg]) -> None: ...
