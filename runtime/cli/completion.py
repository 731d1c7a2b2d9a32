"""`flowrun completion SHELL`: what a shell completes, and completing it when the shell asks.

The shell runs `flowrun` with the line so far in its environment each time somebody presses TAB;
`complete` answers. Only the verb of the line is imported.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flowrun.runtime.errors import UsageError
from flowrun.runtime.printing import print_text

__all__ = ["ASKED", "add_parser", "complete", "run", "with_verb"]

ASKED = "_ARGCOMPLETE"
"""Set in the environment while a shell asks."""

_SHELLS = {
    "bash": ".local/share/bash-completion/completions/flowrun",
    "zsh": ".zfunc/_flowrun",
    "fish": ".config/fish/completions/flowrun.fish",
}
"""Where each shell looks for what completes `flowrun`, in the user's folder."""
_FILES = ("DIR", "FILE", "FOLDER", "PATH")
_SERVER_S = 0.5


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "completion",
        description="Print what lets a shell complete verbs, options, graph files, runs, task and "
        "message types of flowrun; with --install, put it where the shell looks.",
        epilog='Or, in ~/.bashrc: eval "$(flowrun completion bash)"',
    )
    parser.add_argument("shell", choices=tuple(_SHELLS))
    parser.add_argument(
        "--install", action="store_true", help="write it to its place in your home folder"
    )


def run(args: argparse.Namespace) -> int:
    from argcomplete import shell_integration

    script = shell_integration.shellcode(["flowrun"], shell=args.shell)
    if not args.install:
        print_text(script, end="")
        return 0
    path = Path.home() / _SHELLS[args.shell]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    print_text(f"wrote {path}")
    if args.shell == "zsh":
        print_text("in ~/.zshrc, before compinit: fpath+=(~/.zfunc)")
    print_text(f"a new {args.shell} completes flowrun")
    return 0


# -- answering -------------------------------------------------------------------------------------


def with_verb(is_graph: Callable[[str], bool], verbs: Iterable[str]) -> list[str]:
    """The words of the line after the program, without the one that is being written. If the first one
    is a graph, or becomes one and no verb, the line gets the verb `run` before it, which it stands
    for."""
    line, point = os.environ["COMP_LINE"], int(os.environ["COMP_POINT"])
    before = line[:point]
    try:
        words = shlex.split(before)
    except ValueError:  # an open quote
        words = before.split()
    done = words if before.endswith(" ") else words[:-1]
    first = words[1] if len(words) > 1 else ""
    is_first = len(done) == 1 and first != "" and not first.startswith("-")
    if (len(done) > 1 and is_graph(done[1])) or (
        is_first and not any(verb.startswith(first) for verb in verbs)
    ):
        program = line[: line.index(done[0]) + len(done[0])]
        os.environ["COMP_LINE"] = f"{program} run{line[len(program) :]}"
        os.environ["COMP_POINT"] = str(point + len(" run"))
        return ["run", *done[1:]]
    return done[1:]


def complete(parser: argparse.ArgumentParser) -> None:
    """Give the shell what fits the line, and end the process."""
    import argcomplete
    from argcomplete.completers import FilesCompleter, SuppressCompleter

    _give_completers(parser, graphs=FilesCompleter(("yaml", "yml")), files=FilesCompleter())
    argcomplete.autocomplete(
        parser, always_complete_options=False, default_completer=SuppressCompleter()
    )


def _give_completers(parser: argparse.ArgumentParser, *, graphs: Any, files: Any) -> None:
    by_metavar = {"GRAPH": graphs, "RUN": _runs, "TASK.PORT": _ports}
    for action in parser._actions:  # noqa: SLF001  # argparse has no other way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for inner in action.choices.values():
                _give_completers(inner, graphs=graphs, files=files)
            continue
        verb = parser.prog.split()[-1]
        completer = by_metavar.get(str(action.metavar))
        if completer is None and action.dest == "graph":
            completer = graphs
        if completer is None and action.dest == "name" and verb in ("tasks", "messages"):
            completer = _task_types if verb == "tasks" else _message_types
        if completer is None and action.dest == "task" and verb == "set":
            completer = _live_tasks
        if completer is None and action.dest == "to" and verb == "export":
            completer = _formats
        if completer is None and (action.type is Path or action.metavar in _FILES):
            completer = files
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined]  # argcomplete's own


def _runs(prefix: str, **_: Any) -> Iterable[str]:
    """Folders of runs, and folders on the way there: the newest runs first."""
    folder = Path(prefix) if prefix.endswith("/") else Path(prefix).parent
    found = [it for it in _entries(folder) if it.is_dir() or it.suffix == ".mcap"]
    if not prefix:
        found += _entries(Path("runs"))
    found = [it for it in found if not it.name.startswith(".")]
    return [str(it) + ("/" if it.is_dir() and not _is_run(it) else "") for it in found]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), reverse=True)
    except OSError:
        return []


def _is_run(folder: Path) -> bool:
    return any(folder.glob("*.mcap"))


def _formats(**_: Any) -> Iterable[str]:
    from flowrun.runtime.cli.log_export import FORMATS

    return FORMATS


def _task_types(**_: Any) -> Iterable[str]:
    from flowrun.runtime.graph.catalog import listed_tasks
    from flowrun.runtime.graph.find import task_types

    return [it.name for it in listed_tasks(task_types(), Path())]


def _message_types(**_: Any) -> Iterable[str]:
    from flowrun.runtime.graph.catalog import listed_messages

    return [it.name for it in listed_messages(Path())]


def _live_tasks(parsed_args: argparse.Namespace, **_: Any) -> Iterable[str]:
    return _asked(parsed_args, "inference/settings")


def _ports(parsed_args: argparse.Namespace, **_: Any) -> Iterable[str]:
    return _asked(parsed_args, "publish")


def _asked(args: argparse.Namespace, path: str) -> Iterable[str]:
    """The names that a running graph gives; none where none answers at once."""
    from flowrun.runtime.cli.client import Client, RefusedError

    try:
        found: Mapping[str, Any] = Client(args, timeout_s=_SERVER_S).get(path, dict)
    except RefusedError:
        return ()
    return list(found)
