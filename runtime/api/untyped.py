"""What flows through a connection of which no message was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowrun.msgs.message import Message
from flowrun.runtime.graph.declared import Item
from flowrun.runtime.graph.ports import Port

__all__ = ["Found", "Untyped"]


@dataclass(frozen=True, slots=True)
class Found:
    """One end of a connection as it was given.

    port: None where only the task was given.
    ports: those that it may be; none where they are not known.
    is_only: whether the task has no others of their direction.
    """

    task: str
    port: str | None
    ports: tuple[Port, ...]
    is_only: bool

    def said(self, chosen: Port | None = None) -> str:
        """What a graph file says: with the port, where the task has several."""
        port = self.port
        if port is None and chosen is not None and not self.is_only:
            port = chosen.name
        return self.task if port is None else f"{self.task}.{port}"


@dataclass(frozen=True, slots=True, eq=False)
class Untyped:
    """A connection of which no message was given."""

    item: Item
    src: Found
    dst: Found

    def find(self, classes: dict[tuple[str, str], type[Message]], *, guess: bool) -> bool:
        """Set what flows through it, if that is known: where one output fits one input.

        classes: of the ports that take any message, by task and type variable; a class that this
            connection tells is added.
        guess: whether to take the class of an end that has one port, where no pair fits or several do:
            `bind` then says what is wrong.
        """
        pairs = [
            (output, input_, made, taken)
            for output in self.src.ports
            for input_ in self.dst.ports
            for made in (_class_of(self.src, output, classes),)
            for taken in (_class_of(self.dst, input_, classes),)
            if made is None or taken is None or issubclass(made, taken)
        ]
        message: type[Message] | None = None
        if len(pairs) == 1:
            output, input_, made, taken = pairs[0]
            message = made or taken
            self.item.said["src"], self.item.said["dst"] = (
                self.src.said(output),
                self.dst.said(input_),
            )
            if message is not None:
                for end, port in (self.src, output), (self.dst, input_):
                    if port.variable:
                        classes.setdefault((end.task, port.variable), message)
        elif guess:
            for end in (self.src, self.dst):
                if len(end.ports) == 1 and message is None:
                    message = _class_of(end, end.ports[0], classes)
        if message is None:
            return False
        self.item.given = message
        return True


def _class_of(
    end: Found, port: Port, classes: Mapping[tuple[str, str], type[Message]]
) -> type[Message] | None:
    """The class of a port's messages; None where it is not known yet."""
    return classes.get((end.task, port.variable)) if port.variable else port.message_type
