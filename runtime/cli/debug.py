"""`flowrun debug RUN`: travel in time through a recorded run."""

from __future__ import annotations

import argparse
import ast
import cmd
import inspect
import json
import pdb  # noqa: T100  # the command's `pdb` runs it
import signal
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from flowrun.msgs.message import Message
from flowrun.runtime.cli import replay as replay_verb
from flowrun.runtime.cli.remote import fetched
from flowrun.runtime.cli.signals import Ended
from flowrun.runtime.errors import FlowrunError, LogError, UsageError, worded
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.wording import escaped, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from flowrun.runtime.replay.debugger import Breakpoint, Debugger
    from flowrun.runtime.task import Task

__all__ = ["add_parser", "run"]

_PICTURE_COLUMNS = 64


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "debug",
        description="Go through a recorded run forwards and backwards, look at messages and tasks, "
        "stop where a condition holds, and step into a task with pdb. `help` lists the commands.",
    )
    replay_verb.add_options(parser)
    parser.add_argument(
        "-c",
        "--command",
        action="append",
        metavar="COMMANDS",
        dest="commands",
        help="run these, separated by ';', and end; the first that fails ends it with status 1 "
        "(may be repeated)",
    )


def run(args: argparse.Namespace) -> int:
    """0, or 1 if one of the given commands failed."""
    from rich.console import Console

    from flowrun.runtime.graph.find import importable
    from flowrun.runtime.log.reader import Log
    from flowrun.runtime.replay.debugger import Debugger

    console = Console(highlight=False, soft_wrap=True, emoji=False)
    args.run = fetched(args.run, token=args.token)
    with ExitStack() as stack:
        log = stack.enter_context(Log(args.run))
        replay = replay_verb.prepare(args, log)
        stack.enter_context(importable(replay.plan.graph.spec.path.parent))
        stack.enter_context(replay)
        shell = _Shell(Debugger(replay), console)
        for note in ([log.loss] if log.loss else []) + replay.notes:
            console.print(one_line(f"note: {note}"), markup=False)
        if args.commands is not None:
            return shell.run_all([part for text in args.commands for part in text.split(";")])
        first, last = replay.cycle, replay.last_cycle
        console.print(
            escaped(f"{args.run}: cycles {first} to {last}; `help` lists the commands"),
            markup=False,
        )
        shell.run_interactively()
    return 0


class _TaskPdb(pdb.Pdb):
    """pdb that skips what calls the task, and first stops in its `process`."""

    def __init__(self, task: Task) -> None:
        super().__init__(skip=["flowrun.runtime.*"], nosigint=True)
        self._code = getattr(inspect.unwrap(type(task).process), "__code__", None)
        self.is_inside = False

    def stop_here(self, frame: FrameType) -> bool:
        self.is_inside = self.is_inside or frame.f_code is self._code
        return self.is_inside and super().stop_here(frame)

    def user_call(self, frame: FrameType, argument_list: None) -> None:
        """Do not stop at the call; stop at the first line."""

    def set_quit(self) -> None:
        self.set_continue()


class _Shell(cmd.Cmd):
    """The debugger's commands. `help` shows their docstrings."""

    doc_header = "Commands (help COMMAND says more; the first letters are enough):"

    def __init__(self, debugger: Debugger, console: Console) -> None:
        super().__init__()
        self._debugger = debugger
        self._replay = debugger.replay
        self._console = console
        self._watched: list[str] = []
        self._failed = False
        self._set_prompt()

    # -- running -------------------------------------------------------------------------------

    def run_interactively(self) -> None:
        """Read commands until `quit`, or the end of the input."""
        while True:
            try:
                self.cmdloop()
            except KeyboardInterrupt as interrupt:
                if isinstance(interrupt, Ended) and interrupt.number != signal.SIGINT:
                    raise
                self._say("interrupted")
                self._set_prompt()
                continue
            return

    def run_all(self, commands: list[str]) -> int:
        """Run the commands until one fails; returns the exit status."""
        for command in filter(None, map(str.strip, commands)):
            self._say(f"{self.prompt}{command}")
            if self.onecmd(command):
                break
            self._set_prompt()
            if self._failed:
                return 1
        return 0

    def onecmd(self, line: str) -> bool:
        self._failed = False
        try:
            return bool(super().onecmd(line))
        except FlowrunError as error:
            self._fail(str(error))
        return False

    def postcmd(self, stop: bool, line: str) -> bool:  # noqa: ARG002, FBT001  # cmd's own signature
        self._set_prompt()
        return stop

    def emptyline(self) -> bool:
        """Do nothing: an empty line is not a command."""
        return False

    def default(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        names = [name[3:] for name in self.get_names() if name.startswith("do_")]
        found = [name for name in names if name.startswith(word)]
        if line == "EOF":
            found = ["quit"]
        if len(found) == 1:
            if self.onecmd(f"{found[0]} {rest}"):
                self.cmdqueue.append("quit")
            return
        meant = found or sorted(name for name in names if name != "EOF")
        self._fail(
            f"{word!r}: {'which of these' if found else 'unknown command'}: {', '.join(meant)}"
        )

    # -- moving --------------------------------------------------------------------------------

    def do_step(self, argument: str) -> None:
        """step [N]: run the next task (N tasks) that has something to do."""
        for _ in range(_count(argument)):
            if self._debugger.step() is None:
                break
        self._show_place()

    def do_next(self, argument: str) -> None:
        """next [N]: run the rest of the cycle, or the next one (N of them)."""
        for _ in range(_count(argument)):
            if not self._debugger.next_cycle():
                break
        self._show_place()

    def do_back(self, argument: str) -> None:
        """back [N]: go back to the end of the cycle before (N cycles before)."""
        for _ in range(_count(argument)):
            if not self._debugger.back():
                self._say("this is the beginning")
                break
        self._show_place()

    def do_up(self, argument: str) -> None:
        """up [N]: go back a step (N steps): to before the task that ran last."""
        for _ in range(_count(argument)):
            if not self._debugger.step_back():
                self._say("this is the beginning")
                break
        self._show_place()

    def do_goto(self, argument: str) -> None:
        """goto WHERE: go to before a cycle (120), the first cycle at +12.5s of the run, or at a time
        (2026-03-01T08:15:02)."""
        from flowrun.runtime.cli.moments import first_cycle_at

        self._debugger.goto(first_cycle_at(self._replay.log, "goto", argument.strip()))
        self._show_place()

    def do_continue(self, _argument: str) -> None:
        """continue: run to the next breakpoint, or to the end."""
        self._show_hit(self._debugger.go_on(), "the end of the run")

    def do_reverse(self, _argument: str) -> None:
        """reverse: go back to the last breakpoint before here, or to the beginning."""
        self._show_hit(self._debugger.go_back(), "the beginning of the run")

    def do_break(self, argument: str) -> None:
        """break: list the breakpoints.
        break TASK: stop before a task.
        break TASK.PORT: stop when it publishes.
        break TASK.PORT.FIELD ~ 'text': stop when it publishes such a value; ~ and !~ search a regular
        expression, == != < <= > >= compare.
        break diff: stop at a message that differs from the recorded one."""
        if argument.strip():
            made = self._debugger.break_at(argument)
            self._say(f"breakpoint {made.number}: {made.text}")
            return
        for it in self._debugger.breakpoints.values():
            self._say(f"{it.number}: {it.text}")

    def do_delete(self, argument: str) -> None:
        """delete NUMBER: delete a breakpoint."""
        self._debugger.delete(_count(argument))

    # -- looking -------------------------------------------------------------------------------

    def do_where(self, _argument: str) -> None:
        """where: the cycle, its time, and which task is next."""
        self._show_place()

    def do_print(self, argument: str) -> None:
        """print: what the cycle's tasks have published so far.
        print TASK.PORT[.FIELD]: a message or a field; pictures are drawn if the terminal can.
        print EXPRESSION: in Python; it can use the tasks, by their ids, `replay` and `np`."""
        text = argument.strip()
        if not text:
            self._print_all()
            return
        try:
            value = self._debugger.value(text)
        except UsageError as error:
            value = self._evaluate(text, error)
        if isinstance(value, Message):
            self._print_message(text, value)
        else:
            self._say(_shown(value))
            if isinstance(value, np.ndarray):
                self._draw(value)

    def do_diff(self, _argument: str) -> None:
        """diff: the messages of this cycle that differ from the recorded ones."""
        for difference in self._replay.differences:
            self._say(str(difference))
        if not self._replay.differences:
            self._say("all as it was recorded")

    def do_watch(self, argument: str) -> None:
        """watch EXPRESSION: print it at every stop, as `print` does, such as tracker.total.
        watch: list the watched expressions and forget them."""
        if argument.strip():
            self._watched.append(argument.strip())
            self._show_watched()
            return
        self._say(", ".join(self._watched) or "nothing is watched")
        self._watched.clear()

    def do_save(self, argument: str) -> None:
        """save TASK.PORT FILE: write a message as JSON, a picture as .png or .jpg, an array as .npy."""
        output, _, name = argument.strip().partition(" ")
        if not name.strip():
            raise UsageError("save TASK.PORT FILE: name both")
        value = self._debugger.value(output)
        if value is None:
            raise UsageError(f"{output}: nothing was published in this cycle")
        path = Path(name.strip())
        try:
            _save(value, path)
        except OSError as error:
            raise LogError(f"{path}: cannot be written: {error}") from error
        self._say(f"{path}: {path.stat().st_size:,} bytes")

    def do_pdb(self, argument: str) -> None:
        """pdb [TASK]: run on until TASK, or the next task, has something to do, and step into its
        `process` with pdb; pdb's own `quit` lets it go on."""
        replay, task = self._replay, argument.strip()
        if task:
            replay.task(task)  # raises for an unknown id
            if task in replay.fed:
                raise UsageError(f"{task} is not run: its messages come from the log")
        debugger: _TaskPdb | None = None

        def around(task_id: str, call: Callable[[], None]) -> None:
            nonlocal debugger
            if task in ("", task_id):
                debugger = _TaskPdb(replay.task(task_id))
                debugger.runcall(call)
            else:
                call()

        replay.hook(around=around)
        try:
            # A background task is called in the cycle of its input; its result comes in another.
            while debugger is None or not debugger.is_inside:
                if self._debugger.step() is None:
                    self._fail(f"{task or 'no task'} does not run again")
                    return
        finally:
            replay.hook()
        self._show_place()

    def do_quit(self, _argument: str) -> bool:
        """quit: end."""
        return True

    # -- inside --------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self._console.print(escaped(text), markup=False)

    def _fail(self, text: str) -> None:
        self._failed = True
        self._console.print(escaped(text), markup=False, style="red")

    def _set_prompt(self) -> None:
        cycle, ran = self._debugger.place
        self.prompt = "(end) " if cycle is None else f"({cycle}{f'+{ran}' if ran else ''}) "

    def _show_place(self) -> None:
        replay = self._replay
        if replay.cycle is None:
            ended_by = replay.report.recorded_error
            self._say(
                "the end of the run" + (f", by the recorded error: {ended_by}" if ended_by else "")
            )
        else:
            offset_s = ((replay.time_ns or 0) - (replay.log.start_ns or 0)) / 1e9
            _, ran = self._debugger.place
            following = replay.next_task
            where = f"next: {following}" if following else "all tasks have run"
            if not ran:
                where = "begins"
            self._say(f"cycle {replay.cycle}, +{offset_s:.3f} s: {where}")
            self._show_watched()
        if replay.differences:
            tasks = dict.fromkeys(it.task for it in replay.differences)
            self._say(f"not as it was recorded: {', '.join(tasks)} (`diff` says more)")

    def _show_watched(self) -> None:
        for text in self._watched:
            try:
                value: Any = self._debugger.value(text)
            except UsageError as error:
                try:
                    value = self._evaluate(text, error)
                except FlowrunError as problem:
                    value = problem
            self._say(f"  {text} = {_shown(value)}")

    def _show_hit(self, hit: Breakpoint | None, end: str) -> None:
        if hit is not None:
            self._say(f"breakpoint {hit.number}: {hit.text}")
        elif self._replay.cycle is not None:
            self._say(end)
        self._show_place()

    def _evaluate(self, text: str, not_a_message: UsageError) -> Any:
        ids = [step.task.id for step in self._replay.plan.steps]
        known = {id_: self._replay.task(id_) for id_ in ids} | {"replay": self._replay}
        try:
            used = {it.id for it in ast.walk(ast.parse(text)) if isinstance(it, ast.Name)}
        except SyntaxError:
            used = set()
        if not used & known.keys():
            raise not_a_message
        try:
            return eval(text, {**known, "np": np})  # noqa: S307  # the user's own
        except BaseException as error:  # of a task's `__repr__`, say
            if is_users(error):
                raise
            raise UsageError(f"{text}: {worded(error)}") from None

    def _print_all(self) -> None:
        found = False
        for slot in self._replay.plan.slots:
            name = f"{slot.task_id}.{slot.port}"
            message = self._replay.message(name)
            if message is not None:
                found = True
                self._say(f"{name} = {message!r}")
        if not found:
            self._say("nothing was published in this cycle yet")

    def _print_message(self, name: str, message: Message) -> None:
        fields = dict(message.all_fields())
        try:
            was = self._replay.recorded(name)
        except UsageError:
            was = None
        self._say(f"{name}, of {message.tov_ns / 1e9:.3f} s")
        for key, value in fields.items():
            line = f"  {key} = {_shown(value)}"
            before = None if was is None else was.all_fields().get(key)
            if was is not None and _shown(before) != _shown(value):
                line += f"   (recorded: {_shown(before)})"
            self._say(line)
        for value in fields.values():
            self._draw(value)

    def _draw(self, value: Any) -> None:
        """A picture, two pixels a character."""
        is_picture = isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3
        if not is_picture or value.shape[2] != 3 or not value.size or not self._console.is_terminal:
            return
        from rich.color import Color
        from rich.segment import Segment, Segments
        from rich.style import Style

        height, width = value.shape[:2]
        columns = min(_PICTURE_COLUMNS, self._console.width, width)
        rows = max(2, round(height * columns / width) // 2 * 2)
        small = value[np.arange(rows) * height // rows][:, np.arange(columns) * width // columns]
        segments = []
        for upper, lower in zip(small[::2], small[1::2], strict=True):
            for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
                style = Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom))
                segments.append(Segment("▀", style))
            segments.append(Segment.line())
        self._console.print(Segments(segments))


def _count(argument: str) -> int:
    text = argument.strip() or "1"
    if not text.isdigit() or not int(text):
        raise UsageError(f"{text!r}: expected a number above 0")
    return int(text)


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size > 64:
        return f"<{value.dtype} {list(value.shape)}, {value.min()} to {value.max()}>"
    text = repr(value)
    return text if len(text) <= 1000 else f"{text[:1000]}…"


def _save(value: Any, path: Path) -> None:
    fields = dict(value.all_fields()) if isinstance(value, Message) else {"value": value}
    arrays = [item for item in fields.values() if isinstance(item, np.ndarray)]
    if path.suffix in (".png", ".jpg", ".jpeg"):
        from PIL import Image

        pictures = [item for item in arrays if item.ndim == 3 and item.shape[2] == 3 and item.size]
        if not pictures:
            raise UsageError(f"{path}: there is no picture in it; save it as .json")
        Image.fromarray(np.ascontiguousarray(pictures[0])).save(path)
    elif path.suffix == ".npy":
        if not arrays:
            raise UsageError(f"{path}: there is no array in it; save it as .json")
        np.save(path, arrays[0])
    elif path.suffix == ".json":
        path.write_text(json.dumps(fields, default=_plain, indent=1) + "\n")
    else:
        raise UsageError(f"{path}: expected a name ending in .json, .png, .jpg or .npy")


def _plain(item: Any) -> Any:
    return item.tolist() if isinstance(item, np.ndarray) else str(item)
