"""`Join`: messages of several tasks that belong to one time."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, NonNegativeFloat, PositiveInt

from flowrun.msgs.message import Message
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.tasks.named_inputs import InputNames, batched_pairs

__all__ = ["Join"]

M = TypeVar("M", bound=Message)
_NS_PER_MS = 1_000_000


class Join(Task):
    """Bring messages of several tasks together that belong to one time, though they come in different
    cycles and at different rates.

    The first of `inputs` leads. Each of its messages is joined with the message of every other input
    whose time (`tov_ns`) is nearest, the earlier one of two, if it is at most `tolerance_ms` away. What
    belongs together is published in one cycle, on `<name>_joined` for each name, each message with its
    own time. A message of an input that does not lead may be joined several times, or never.

    Which one is nearest is known when each other input has given a message of the same time or later:
    a message waits for that. Each cycle publishes one set at most; what waits when the sources end is
    not published. An input whose times go back by more than `tolerance_ms` has started over: what
    waited of it is left out.

    The log has what is joined once more, pictures as pixels: `logging: {payload: none}` leaves them
    out, and a replay joins them again.
    """

    class Config(TaskConfig):
        inputs: Annotated[InputNames, Field(min_length=2)]
        """The names of the inputs: letters, digits and '_'. The first one leads."""
        tolerance_ms: NonNegativeFloat = 50.0
        """How far apart the times of messages that are joined may be."""
        unmatched: Literal["drop", "pass"] = "drop"
        """What happens to a message of the first input that lacks one of another input. drop: it is left
        out; pass: it is published with those that there are."""
        buffer: PositiveInt = 32
        """How many messages of each input wait at most. Of the first input, one more makes the oldest go
        on with what there is; of another, the oldest is left out."""

    example_config = MappingProxyType({"inputs": ["left", "right"]})

    def __init__(self, config: TaskConfig) -> None:
        super().__init__(config)
        self._waiting = [_Waiting() for _ in self.config.inputs]

    def process(self, ctx: Context, *joined: Input[M] | Output[M]) -> None:
        del ctx
        pairs = batched_pairs(joined)
        tolerance_ns = round(self.config.tolerance_ms * _NS_PER_MS)
        for waiting, (message, _) in zip(self._waiting, pairs, strict=True):
            if message is not None:
                waiting.add(message, tolerance_ns)
        leading, *others = self._waiting
        for other in others:
            other.keep_newest(self.config.buffer)
        while leading.times:
            at_ns = leading.times[0]
            is_full = len(leading.times) > self.config.buffer
            if not is_full and not all(other.knows(at_ns) for other in others):
                return
            found = [
                leading.take_first(),
                *(other.nearest(at_ns, tolerance_ns) for other in others),
            ]
            for other in others:
                other.forget_before(at_ns)
            if None not in found or self.config.unmatched == "pass":
                for (_, output), message in zip(pairs, found, strict=True):
                    if message is not None:
                        message.publish_on(output)
                return

    def freeze(self) -> Any:
        return [waiting.freeze() for waiting in self._waiting]

    def thaw(self, state: Any) -> None:
        self._waiting = [_Waiting.thawed(it) for it in state]


@dataclass(slots=True)
class _Kept:
    """A message that is kept, or its bytes in a keyframe."""

    tov_ns: int
    message: Message | bytes

    def publish_on(self, output: Message) -> None:
        if isinstance(self.message, bytes):
            output.load(self.message)
        else:
            output.fill(self.message)
        output.publish(tov_ns=self.tov_ns)

    def freeze(self) -> Any:
        data = self.message
        if not isinstance(data, bytes):
            data = b"".join(bytes(part) for part in data.encode())
        return [self.tov_ns, data]


@dataclass(slots=True)
class _Waiting:
    """The messages of one input that wait, the oldest first.

    newest_ns: the latest time that came since the input started (over).
    """

    times: list[int] = field(default_factory=list)
    kept: list[_Kept] = field(default_factory=list)
    newest_ns: int | None = None

    def add(self, message: Message, tolerance_ns: int) -> None:
        tov_ns = message.tov_ns
        if self.newest_ns is not None and tov_ns < self.newest_ns - tolerance_ns:
            self.times, self.kept, self.newest_ns = [], [], None
        at = bisect_right(self.times, tov_ns)
        self.times.insert(at, tov_ns)
        self.kept.insert(at, _Kept(tov_ns, message.copy()))
        self.newest_ns = tov_ns if self.newest_ns is None else max(self.newest_ns, tov_ns)

    def knows(self, at_ns: int) -> bool:
        """Whether nothing nearer to `at_ns` is to come."""
        return self.newest_ns is not None and self.newest_ns >= at_ns

    def nearest(self, at_ns: int, tolerance_ns: int) -> _Kept | None:
        end = bisect_right(self.times, at_ns)
        near = self.kept[max(end - 1, 0) : end + 1]
        found = min(near, key=lambda it: abs(it.tov_ns - at_ns), default=None)
        return None if found is None or abs(found.tov_ns - at_ns) > tolerance_ns else found

    def take_first(self) -> _Kept:
        del self.times[0]
        return self.kept.pop(0)

    def keep_newest(self, count: int) -> None:
        del self.times[:-count], self.kept[:-count]

    def forget_before(self, at_ns: int) -> None:
        """Let go of what is further from `at_ns`, and all later times, than another that is kept."""
        end = max(bisect_right(self.times, at_ns) - 1, 0)
        del self.times[:end], self.kept[:end]

    def freeze(self) -> Any:
        return [self.newest_ns, [it.freeze() for it in self.kept]]

    @classmethod
    def thawed(cls, state: Any) -> _Waiting:
        newest_ns, kept = state
        return cls([tov_ns for tov_ns, _ in kept], [_Kept(*it) for it in kept], newest_ns)
