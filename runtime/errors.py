"""Every error that a user can meet. Each text says what happened, where, and what to do instead.

What the code of a task raises is an error of that task, whatever it is: a library may call `sys.exit`,
raise `asyncio.CancelledError` or KeyboardInterrupt, or panic in Rust, and none of that ends the run by
itself. Only the user's own Ctrl-C passes, wherever it arrives. So each place that calls a task says::

    except BaseException as error:
        if is_users(error):
            raise
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flowrun.runtime.interrupts import is_users

__all__ = [
    "FlowrunError",
    "GraphError",
    "InternalError",
    "Location",
    "LogDamaged",
    "LogError",
    "LogFull",
    "LogInUse",
    "LogNotFound",
    "MessageMisused",
    "NoKey",
    "Problem",
    "RecordedError",
    "ReplayError",
    "TaskDefinitionError",
    "TaskError",
    "UsageError",
    "WrongReturnError",
    "text_of",
    "unwritable",
    "worded",
]


def worded(error: BaseException) -> str:
    """`Type: text` of an exception, also of one that cannot give its text."""
    return f"{type(error).__name__}: {text_of(error)}"


def text_of(value: object) -> str:
    """`str(value)`, or in angle brackets what that raised: `__str__` may be anybody's code."""
    try:
        return str(value)
    except BaseException as error:  # whatever a library raises
        if is_users(error):
            raise
        return f"<its text cannot be had: str() raised {type(error).__name__}>"


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place in a graph file, or in the program that makes the graph; line and column count from 1.

    file: the file, as an error text shows it. Where `line` is 0, something else that values come from,
        such as an option of the command line.
    included_at: the places that include the file, the nearest first; none for the graph's own file.
    """

    file: str
    line: int
    column: int
    included_at: tuple[Location, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def seen_from(self, other: Location) -> str:
        """The place in an error text about `other`: `on line 3` if both are in one file."""
        if self.line and (self.file, self.included_at) == (other.file, other.included_at):
            return f"on line {self.line}"
        return f"at {self}{self.chain}"

    @property
    def chain(self) -> str:
        """Where the file is included, for the end of an error text."""
        places = ", which is included at ".join(map(str, self.included_at))
        return f" (included at {places})" if places else ""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a graph file."""

    where: Location
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}{self.where.chain}"


class FlowrunError(Exception):
    """Base of all errors that flowrun raises for something a user can mend."""


class UsageError(FlowrunError, ValueError):
    """An invalid command or argument."""


class UnknownPort(UsageError):
    """No port of the graph has that name."""


class GraphError(FlowrunError):
    """A graph file has mistakes: all of them, in the file's order, one line each."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


class TaskDefinitionError(FlowrunError, TypeError):
    """A task class, or a function, whose declaration the runtime cannot use.

    of: the class or the function that is to be changed, where that is known.
    """

    def __init__(self, text: str, of: object = None) -> None:
        self.of = of
        super().__init__(text)


class TaskError(FlowrunError):
    """A task raised an exception, the cause.

    task_id: the task.
    cycle: the cycle in which it raised; None outside of cycles.
    phase: what it was doing, such as "process" or "start".
    cause: what it raised.
    """

    def __init__(
        self, task_id: str, *, cycle: int | None, phase: str, cause: BaseException
    ) -> None:
        self.task_id = task_id
        self.cycle = cycle
        self.phase = phase
        where = phase if cycle is None else f"{phase}, cycle {cycle}"
        super().__init__(f"task {task_id!r} failed in {where}: {worded(cause)}{_instead(cause)}")


def _instead(cause: BaseException) -> str:
    """What to do instead, where the cause says only what is wrong: Python, that `publish` takes no
    values; NumPy and OpenCV, that an array may not be written to."""
    text = text_of(cause)
    if isinstance(cause, TypeError) and text.startswith("Message.publish() "):
        return "; set the fields, then publish: out.value = ..., out.publish()"
    says_more = isinstance(cause, (AttributeError, FlowrunError, TypeError))  # these are our own
    if says_more or not ("read-only" in text or "readonly" in text):
        return ""
    return "; what a task gets is read-only: change a copy, such as image.pixels.copy()"


class WrongReturnError(TypeError):
    """A function of a task returned what nobody sees, or what cannot be kept.

    function: the function. It has returned, so that no traceback shows its place.
    """

    def __init__(self, function: Callable[..., object], text: str) -> None:
        self.function = function
        super().__init__(text)


class LogError(FlowrunError):
    """A log cannot be written or read: which file, at which byte."""


class LogNotFound(LogError):
    """There is no log there, or it does not hold what was asked for."""


class LogInUse(LogError):
    """The directory has a writer, or already holds a run."""


class LogFull(LogError, OSError):
    """There is no room for the log: on the disk, or within a quota; `errno` says which."""

    def __init__(self, text: str, code: int = errno.ENOSPC) -> None:
        super().__init__(text)
        self.errno = code


class LogDamaged(LogError):
    """The bytes are not a log, or have changed since they were written."""


def unwritable(text: str, cause: OSError) -> LogError:
    """The error for a log that cannot be written: `LogFull` if the disk or a quota is full."""
    if cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return LogFull(text, cause.errno)
    return LogError(text)


class NoKey(FlowrunError):
    """The key that signs the user's runs can neither be read nor made."""


class MessageMisused(FlowrunError):
    """A task changed a message that was published, or kept an input beyond its call of `process`.

    task_id: the task that did it.
    """

    def __init__(self, task_id: str, text: str) -> None:
        self.task_id = task_id
        super().__init__(text)


class ReplayError(FlowrunError):
    """A run cannot be replayed."""


class UntrustedRun(ReplayError):
    """A run that is not known to be the user's own, whose graph says what a replay runs.

    why: what is wrong with its signature.
    would_run: the code and the commands that its graph names, a sentence each.
    """

    def __init__(self, path: str, why: str, would_run: Sequence[str]) -> None:
        self.why = why
        self.would_run = tuple(would_run)
        super().__init__(
            f"{path}: {why}, so nothing that its graph names is run"
            + "".join(f"\n  {item}" for item in would_run)
            + "\nreplay it with a graph of your own, or say that you trust it"
        )


class RecordedError(Exception):
    """An error that a task raised in a recorded run, of which only the text and the place are known.

    place: see `events.Failed`.
    """

    def __init__(self, text: str, place: str = "") -> None:
        super().__init__(text)
        self.place = place


class InternalError(Exception):
    """A defect of flowrun itself; please report it with the text."""
