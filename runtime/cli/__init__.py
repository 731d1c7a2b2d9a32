"""The command `flowrun`: one module per verb, imported only when that verb is used. Verbs that need the
tasks are in `flowrun.tasks.commands`.

Other packages offer verbs as entry points of the group `flowrun.commands`. Each is a module with
`add_parser(verbs)` and `run(args) -> int`, like the modules here. Unlike them, it gives its parser the
line of help that `flowrun --help` shows, and should import little before `run`.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import faulthandler
import functools
import importlib
import io
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from flowrun.runtime.cli import completion
from flowrun.runtime.cli.failures import print_error, say
from flowrun.runtime.cli.signals import Ended, exit_status, listening
from flowrun.runtime.errors import FlowrunError, GraphError, UsageError
from flowrun.runtime.printing import print_text
from flowrun.runtime.wording import counted, escaped, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["main"]

_VERBS = {
    "run": "run a graph (also: flowrun GRAPH.yaml)",
    "up": "run all partitions of a graph on this machine, each in a process of its own",
    "simulate": "try a graph's partitions on a network that fails, by seeds",
    "demo": "run a graph that ships with flowrun, and open its page",
    "init": "write a new project: a graph, a task, its test, a README",
    "check": "check graph files, and list everything that is wrong with them",
    "plan": "show in which order a graph runs, as text or as a picture",
    "tasks": "list the task types, or describe one: ports, config, an example",
    "messages": "list the message types, or describe one: fields, an example",
    "schema": "print the JSON Schema of graph files, for editors",
    "new-task": "write a new task, its test and a graph that uses it",
    "view": "show recorded runs in a browser",
    "top": "show how a run is doing while it runs",
    "replay": "run a recorded log again, and compare every message",
    "ci": "replay the golden runs of a folder, and say what a change does to them",
    "bisect": "find the commit, or the value, that changes what a recorded run gives",
    "debug": "travel in time through a recorded run",
    "eval": "compare models and prompts on recorded frames",
    "search": "find recorded pictures by a text or a picture",
    "dataset": "write recorded pictures and answers as a data set",
    "alerts": "try alerts on recorded runs, and make their clips",
    "runs": "list recorded runs: graph, when, how long, answers, errors, size",
    "label": "say which recorded answers are wrong, and what is right",
    "log": "look into a log: info, ls, cat, check, recover, export, diff",
    "serve": "serve the graphs of a folder: clients start and stop them",
    "pipeline": "list, start, stop, restart the graphs of a server, print one",
    "inference": "print the next answer of a run, change its prompt",
    "ask": "ask a model about a picture",
    "models": "list the models on this machine",
    "set": "change values of a task while its graph runs: TASK KEY=VALUE",
    "publish": "publish a message on a port while its graph runs: TASK.PORT JSON",
    "recording": "turn the log of a run on and off",
    "completion": "let a shell complete flowrun: bash, zsh, fish",
    "doctor": "say what this machine has, what it lacks, and what to do",
    "stats": "print what the machine of a server is, and how busy",
    "start-pipeline": "start a graph of a server: NAME HOST PORT",
    "stop-pipeline": "stop a graph of a server: NAME HOST PORT",
}
_MODULES = {
    "messages": "catalog",
    "start-pipeline": "pipeline",
    "stop-pipeline": "pipeline",
    "tasks": "catalog",
}
"""The modules of verbs that have none of their own name."""
_NEED_TASKS = frozenset({"alerts", "ask", "dataset", "doctor", "eval", "models", "search"})
"""Verbs whose modules are in `flowrun.tasks.commands`."""
_GROUP = "flowrun.commands"

_BROKEN_PIPE = 128 + 13
"""The exit status that a shell gives a command ended by SIGPIPE, as in `cat big.txt | head -1`."""
# fmt: off
_OF_THE_MACHINE = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EIO, errno.EISDIR, errno.ELOOP,
    errno.EMFILE, errno.ENAMETOOLONG, errno.ENODEV, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR,
    errno.ENOTEMPTY, errno.EPERM, errno.EROFS, errno.ETXTBSY,
}
# fmt: on
"""Errors of a file that say by themselves what is wrong: a traceback would add nothing."""
_NO_MEMORY = "no more memory: see `ulimit -v`, and the limits of the container"
_NO_FILES = "no more open files: see `ulimit -n`"
_LACKS = {
    errno.ENOMEM: _NO_MEMORY,
    errno.EMFILE: _NO_FILES,
    errno.ENFILE: "no more open files: all programs together have as many as the system allows",
}
_NO_THREAD = "can't start new thread"
"""So Python says it; its class is shared by all sorts of errors."""
_NO_THREADS = (
    "no more threads: see `ulimit -u`, and the limits of the container (--pids-limit) or of the "
    "service (TasksMax)"
)

_THREADS_END_S = 2.0
"""Seconds that the interpreter may wait for threads of tasks at its end."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name), and return the exit status: 0; 1 if
    something failed; 2 for a wrong command line or graph file; 130 after Ctrl-C, 143 after SIGTERM, 129
    after SIGHUP; 141 if the reader of stdout went away.

    Without `argv` this is the process's own command, which ends with that status: at once if a task's
    call was left running, and soon if a thread of a task was.
    """
    _offered.cache_clear()  # something may have been installed since, in a notebook
    status = _status(argv)
    if argv is None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            # What libraries do at the end of Python would show a traceback of a KeyboardInterrupt.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if _left_computing():
            _end_now(status)
        _bound_the_end(status)
    return status


def _end_now(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _left_computing() -> bool:
    """Whether a task's call goes on. The interpreter would end its thread inside the library that
    computes, which aborts the process (torch: "terminate called without an active exception", status
    134)."""
    return any(
        thread.daemon and thread.name.startswith("flowrun-") for thread in threading.enumerate()
    )


def _bound_the_end(status: int) -> None:
    """Let the interpreter end pools of threads and wait for other threads, but not for ever."""
    if len(_waited_for()) > 0:
        timer = threading.Timer(_THREADS_END_S, _end_without_threads, (status,))
        timer.daemon = True
        timer.start()


def _waited_for() -> list[threading.Thread]:
    """The threads that the interpreter waits for at its end."""
    main_thread = threading.main_thread()
    return [it for it in threading.enumerate() if not it.daemon and it is not main_thread]


def _end_without_threads(status: int) -> None:
    names = [repr(thread.name) for thread in _waited_for()]
    if names:
        say(
            f"flowrun: ends without waiting for {counted(len(names), 'thread')}: {', '.join(names)}"
        )
        _end_now(status)


def _status(argv: list[str] | None) -> int:
    if argv is None and completion.ASKED in os.environ:
        try:
            _complete()
        except Exception:  # noqa: BLE001  # the shell would show it in the middle of the user's line
            os._exit(1)
    if argv is None:
        _open_outputs()
        faulthandler.enable(2)  # a library that crashes the process: which line called it
    _print_anything()
    try:
        with listening():
            status = _dispatch(sys.argv[1:] if argv is None else argv)
            if sys.stdout is not None and not sys.stdout.closed:  # by a task
                sys.stdout.flush()
        return status
    except FlowrunError as error:
        print_error(error)
        return 2 if isinstance(error, (GraphError, UsageError)) else 1
    except KeyboardInterrupt as interrupt:
        number = interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT
        is_int = number == signal.SIGINT
        say("interrupted" if is_int else f"ended by {signal.Signals(number).name}")
        return exit_status(interrupt)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and str(error) != _NO_THREAD:
            raise
        lacks = _NO_MEMORY if isinstance(error, MemoryError) else _NO_THREADS
        say(f"flowrun: the system gives it {lacks}")
        return 1
    except OSError as error:
        raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
        if not isinstance(raw, _Stdout) or raw.error is not error:
            if error.filename is None and error.errno in _LACKS:
                say(f"flowrun: the system gives it {_LACKS[error.errno]}")
                return 1
            if error.errno not in _OF_THE_MACHINE or error.filename is None:
                raise
            say(f"flowrun: {os.fsdecode(error.filename)}: {error.strerror}")
            return 1
        # Python flushes stdout once more at exit; the rest must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), raw.fileno())
        if isinstance(error, BrokenPipeError):
            return _BROKEN_PIPE
        say(f"flowrun: cannot write to stdout: {error.strerror}")
        return 1


class _Stdout(io.FileIO):
    """The file of stdout, which knows which error came from it."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def _open_outputs() -> None:
    """Take the places of stdin, stdout and stderr, if they are closed: the next file that is opened,
    such as a slab of a log, would get their number, and what libraries print would go into it.
    Writing to a stdout that was closed stays an error."""
    is_own = sys.stdout is sys.__stdout__
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            found = os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY)
            os.set_inheritable(found, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if is_own and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Stdout(1, "w", closefd=False)),
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            line_buffering=sys.stdout.line_buffering,
        )


def _print_anything() -> None:
    r"""Let stdout and stderr write characters that their encoding lacks as JSON escapes.
    "backslashreplace" would not do: its `\xfc` is not JSON."""
    codecs.register_error("flowrun.escape", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="flowrun.escape")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[i : i + 2].hex() for i in range(0, len(units), 2))
    return "".join(f"\\u{unit}" for unit in pairs), error.end


def _complete() -> None:
    """Answer a shell, and end the process."""
    verbs = [*_VERBS, *_offered()]
    words = completion.with_verb(_is_graph, verbs)
    verb = words[0] if words and words[0] in verbs else None
    completion.complete(_parser(verb)[0])


def _dispatch(argv: list[str]) -> int:
    verb, rest = _verb(argv)
    parser, module = _parser(verb)
    try:
        args = parser.parse_args(rest if verb is None else [verb, *rest])
    except SystemExit as error:  # argparse has printed its help, or what is wrong
        return error.code if isinstance(error.code, int) else 2
    if args.version and module is None:
        from importlib.metadata import version

        from flowrun.runtime.extras import DISTRIBUTION

        print_text(f"flowrun {version(DISTRIBUTION)}")
        return 0
    if module is None:
        parser.print_help()
        return 2
    status: int = module.run(args)
    return status


def _parser(verb: str | None) -> tuple[argparse.ArgumentParser, Any]:
    """The parser of a command line with `verb`, and the verb's module; of None, one that knows the names
    of all verbs."""
    parser = _Parser(
        prog="flowrun",
        description="A deterministic dataflow graph runtime for cameras and VLMs.",
        epilog="flowrun GRAPH.yaml means flowrun run GRAPH.yaml; flowrun VERB --help says more.",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(metavar="VERB", dest="verb")
    module = None
    if verb is not None:
        module = _module(verb)
        module.add_parser(verbs)
    else:
        for name, help_text in _VERBS.items():
            verbs.add_parser(name, help=help_text, add_help=False)
        for name in _offered():
            try:
                _module(name).add_parser(verbs)
            except UsageError as error:
                verbs.add_parser(name, help=str(error), add_help=False)
    return parser, module


class _Parser(argparse.ArgumentParser):
    """A parser whose errors quote the command line as a terminal may get it."""

    def error(self, message: str) -> NoReturn:
        """End with what is wrong alone: the usage would hide it, unless an argument is missing."""
        if message.startswith("the following arguments are required"):
            super().error(escaped(message))
        wrong = re.fullmatch(
            r"argument (.+): invalid (int|float) value: ('.*')", message, re.DOTALL
        )
        if wrong is not None:
            kind = {"int": "a whole number", "float": "a number"}[wrong[2]]
            message = f"{wrong[1]}: expected {kind}, got {wrong[3]}"
        self.exit(2, escaped(f"{self.prog}: {message}; {self.prog} --help lists all\n"))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """All must be known, to the parser of the verb already, whose options are the nearest."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = unknown[0]
            what = "option" if word.startswith("-") else "argument"
            near = nearest(word.partition("=")[0], self._option_string_actions)
            text = f"{self.prog}: unknown {what} {word!r}{near}; {self.prog} --help lists all\n"
            self.exit(2, escaped(text))
        return found, unknown


def _module(verb: str) -> Any:
    """The module of `verb`. `UsageError` if another package offers it and it cannot be imported."""
    if verb in _VERBS:
        package = "flowrun.tasks.commands" if verb in _NEED_TASKS else "flowrun.runtime.cli"
        module = _MODULES.get(verb, verb.replace("-", "_"))
        return importlib.import_module(f"{package}.{module}")
    first, *others = _offered()[verb]
    if others:
        modules = " and ".join(sorted(point.value for point in (first, *others)))
        raise UsageError(f"two packages offer the command {verb!r}: {modules}; uninstall one")
    try:
        return first.load()
    except Exception as error:
        raise UsageError(
            f"the command {verb!r} ({first.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error


@functools.cache  # to look through all installed packages takes as long as most verbs
def _offered() -> dict[str, list[EntryPoint]]:
    """The verbs that installed packages offer besides `_VERBS`, sorted by name."""
    from importlib.metadata import entry_points

    offered: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=_GROUP):
        offered.setdefault(point.name, []).append(point)
    return {name: offered[name] for name in sorted(offered) if name not in _VERBS}


def _verb(argv: list[str]) -> tuple[str | None, list[str]]:
    """The verb that `argv` means, and the other words; None if it holds only options."""
    words = [word for word in argv if not word.startswith("-")]
    if not words:
        return None, argv
    if argv[0] in _VERBS:
        return argv[0], argv[1:]
    # Options may come before a graph; a word after one may be its value.
    candidates = words if argv[0].startswith("-") else words[:1]
    if any(map(_is_graph, candidates)):
        return "run", argv
    for word in candidates:
        if word in _VERBS or word in _offered():
            index = argv.index(word)
            return word, argv[:index] + argv[index + 1 :]
    known = [*_VERBS, *_offered()]
    hint = nearest(words[0], known)
    if Path(words[0]).is_dir():
        raise UsageError(
            f"{words[0]!r} is a folder: flowrun GRAPH.yaml runs a graph in it, and flowrun serve "
            f"{words[0]} serves all of them"
        )
    raise UsageError(f"unknown command {words[0]!r}{hint}; commands: {', '.join(known)}")


def _is_graph(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) or "/" in word or Path(word).is_file()
