"""A graph, written in Python.

    g = Graph("inference")
    cam = g.add(VideoCapture, source_uri=0)
    cap = g.add(Inference, prompt="cap en", background=True)
    g.connect(cam, cap)
    g.run()

It can say what a graph file can, and is checked by the same code when it runs, all at once; an error
names the line of the program.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from flowrun.msgs.message import Message
from flowrun.runtime.api.naming import name_of
from flowrun.runtime.api.node import Added, End, Node
from flowrun.runtime.api.untyped import Found, Untyped
from flowrun.runtime.atomic import whole_file
from flowrun.runtime.callers import Caller, caller
from flowrun.runtime.errors import FlowrunError, GraphError, Location, Problem, UsageError
from flowrun.runtime.graph.declared import Declared, Item, declared_in, item_of, said_in
from flowrun.runtime.graph.find import find_task_class, given_class, task_types
from flowrun.runtime.graph.keys import TASK, key_names
from flowrun.runtime.graph.partitions import without_partition
from flowrun.runtime.graph.plan import Plan, plan_read
from flowrun.runtime.graph.scripts import leave_import
from flowrun.runtime.graph.spec import IDENTIFIER, UNKNOWN
from flowrun.runtime.graph.stale import changed_modules, note_loaded
from flowrun.runtime.graph.writing import Unwritable, plain, written
from flowrun.runtime.mistaken import TakenForRun
from flowrun.runtime.task import Task
from flowrun.runtime.wording import listed, nearest, with_article

if TYPE_CHECKING:
    from flowrun.runtime.api.running import LiveRun
    from flowrun.runtime.run.live import RunResult

__all__ = ["Graph"]

_Path = tuple[str | int, ...]
_Place = Callable[[_Path], Location]
_YAML_END = "...\n"
"""What ends a document that is a scalar."""
_TASK_KEYS = tuple(name for name in key_names(TASK) if name not in ("id", "type", "config"))


class Graph(TakenForRun):
    """Tasks, and how messages flow between them.

    name: what its runs are called.
    sections: those of a graph file besides `tasks` and `cnx`, such as `logging={"sync_s": 0.2}`,
        `runtime={"seed": 3}` and `missions=["day", "night"]`.

    Relative paths in configs start in the folder of the file that makes the graph; in a notebook, in
    the current folder. A text may hold `${NAME}`, as in a file: it is resolved when the graph runs, and
    what is secret is in no log.

    Nothing is checked before `plan`, `run`, `start` or `save`. They raise `GraphError`, which lists
    every mistake with its place.
    """

    _is = "a graph is no run: start() gives one"

    def __init__(self, name: str = "graph", **sections: Any) -> None:
        called = caller()
        self._declared = Declared(name, called.folder / f"{name}.yaml", called.place())
        self._nodes: dict[Node, Added] = {}
        self._untyped: list[Untyped] = []
        if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.-]*", name):
            text = f"a graph's name is letters, digits, '_', '-' and '.'; got {name!r}"
            self._declared.problems.append(Problem(called.place("name", 0), text))
        self._set_sections(sections, called)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The graph in a file, to run or to change; `graph["inference"]` is its task of that id.

        As long as nothing is changed, `save` writes the file as it was, with its comments.

        `UsageError` if there is no such file; `GraphError` if it is no graph. Other mistakes are found
        when it runs, and can be mended before.
        """
        made = cls()
        made._take(declared_in(Path(path), os.environ))  # a graph of this class
        return made

    def save(self, path: str | Path) -> None:
        """Write a graph file that has the same plan. `GraphError` lists every mistake, and the classes
        that no file can name: those of a notebook, or inside a function."""
        self.plan(ready=False)
        problems = [
            Problem(item.place(("type",)), f"no graph file can name this class: {lacks}")
            for item, lacks in self._unnamed()
        ]
        if problems:
            raise GraphError(problems)
        with whole_file(Path(path)) as file:
            file.write_text(self._declared.written(), encoding="utf-8")

    @property
    def name(self) -> str:
        """What its runs are called."""
        return self._declared.name

    @property
    def text(self) -> str:
        """The graph file that says the same."""
        self._find_messages()
        return self._declared.written()

    # -- declaring -----------------------------------------------------------------------------

    def add(
        self,
        task: type[Task] | Callable[..., Any] | str,
        /,
        *,
        id: str | None = None,  # noqa: A002  # as in a graph file
        background: bool | None = None,
        on_error: Literal["stop", "skip", "skip_cycle", "restart"] | None = None,
        every: int | None = None,
        rate_hz: float | None = None,
        deadline_ms: int | None = None,
        logging: Mapping[str, Any] | None = None,
        missions: Sequence[str] | None = None,
        partition: str | None = None,
        config: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Node:
        """Add a task; returns it, for `connect`.

        task: its class, a function that is a task, or a name as `type` of a graph file.
        id: the task's name; if not given, that of its class, such as `video_capture`, with `_2`, `_3`,
            ... after it if there is one already.
        background, on_error, every, rate_hz, deadline_ms, logging, missions, partition: as in a graph
            file.
        config: the task's config, of which `settings` are more keys. It is needed for keys that have
            the name of another parameter.
        """
        called = caller()
        keys = {
            "background": background,
            "on_error": on_error,
            "every": every,
            "rate_hz": rate_hz,
            "deadline_ms": deadline_ms,
            "logging": logging,
            "missions": missions,
            "partition": partition,
        }
        found, text = self._class_of(task)
        chosen = self._new_id(found.__name__ if found else text) if id is None else id
        item = item_of({"id": chosen, "type": text}, called, {"type": 0})
        if inspect.isfunction(task) or _is_task(task):
            item.given = task
        elif not isinstance(task, str):
            said = (
                f"a task is a class that derives from Task, a function, or a name; got {task!r:.60}"
            )
            item.note(("type",), said)
        added = Added(item, found)
        self._declared.tasks.append(item)
        given = {name: value for name, value in keys.items() if value is not None}
        self._say(added, config, given | settings, called)
        return self._node_of(added)

    def connect(
        self,
        src: Node | End | str,
        dst: Node | End | str,
        /,
        *,
        msg: type[Message] | str | None = None,
        missions: Sequence[str] | None = None,
        link: Mapping[str, Any] | None = None,
    ) -> None:
        """Connect an output to an input.

        src, dst: a task, where only one of its ports fits; a port, such as `cam.image`; or what `src`
            and `dst` of a graph file say.
        msg: the type of the messages; if not given, that of the output.
        missions, link: as in a graph file.
        """
        called = caller()
        ends = self._end(src, "output"), self._end(dst, "input")
        said: dict[str, Any] = {"src": ends[0].said(), "dst": ends[1].said(), "msg": UNKNOWN}
        if msg is not None:
            said["msg"] = msg if isinstance(msg, str) else name_of(msg, self._folder).text
        if missions is not None:
            said["missions"] = missions
        if link is not None:
            said["link"] = link
        item = item_of(said, called, {"src": 0, "dst": 1})
        if msg is None:
            self._untyped.append(Untyped(item, *ends))
        elif not isinstance(msg, str):
            item.given = msg
        self._declared.connections.append(item)
        self._changed()

    def disconnect(self, src: Node | End | str, dst: Node | End | str, /) -> None:
        """Remove the connections between two ports, or all between two tasks. `UsageError` if there is
        none."""
        texts = [it.id if isinstance(it, Node) else str(it) for it in (src, dst)]
        left = [
            item
            for item in self._declared.connections
            if not (_is_at(item.said["src"], texts[0]) and _is_at(item.said["dst"], texts[1]))
        ]
        if len(left) == len(self._declared.connections):
            raise UsageError(f"{texts[0]} is not connected to {texts[1]}")
        self._declared.connections = left
        self._changed()

    def remove(self, task: Node | str, /) -> None:
        """Remove a task, and its connections. `UsageError` if there is no such task."""
        node = self[task.id if isinstance(task, Node) else task]
        item = self._nodes.pop(node).item
        self._declared.tasks = [it for it in self._declared.tasks if it is not item]
        self._declared.connections = [
            item
            for item in self._declared.connections
            if not (_is_at(item.said["src"], node.id) or _is_at(item.said["dst"], node.id))
        ]
        self._changed()

    def update(self, **sections: Any) -> None:
        """Change sections, key by key: `graph.update(runtime={"seed": 4})`."""
        self._set_sections(sections, caller())

    def __getitem__(self, task: str) -> Node:
        """The task of that id; `UsageError` if there is none."""
        for node in self._nodes:
            if node.id == task:
                return node
        ids = [node.id for node in self._nodes]
        raise UsageError(f"unknown task {task!r}; tasks: {listed(ids)}{nearest(task, ids)}")

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    if not TYPE_CHECKING:  # a checker would take every name for an attribute

        def __getattr__(self, name: str) -> Any:
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if not name.startswith("_"):
                from flowrun.runtime.api.running import LiveRun  # it loads the engine

                if hasattr(LiveRun, name):
                    text = f"{self._is}; write: run = graph.start(); run.{name}"
            raise AttributeError(text, name=name, obj=self)

    def __repr__(self) -> str:
        return f"<graph {self.name!r}: {listed(node.id for node in self._nodes)}>"

    # -- checking and running ------------------------------------------------------------------

    def plan(
        self,
        *,
        mission: str | None = None,
        partition: str | None = None,
        settings: Mapping[str, Any] | None = None,
        ready: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> Plan:
        """The order in which its tasks run; `GraphError` lists every mistake.

        mission: the mission to run; None for the first one.
        partition: the process to run, such as "gpu/0", of a graph that has partitions.
        settings: other values than those of the graph, which stays as it is: `{"cam.max_fps": 5}`.
        ready: whether it is to run now, so that the files it needs must exist.
        env: environment variables for `${NAME}`; None for the process's own.
        """
        self._find_messages()
        place = caller().place("settings")
        read = self._declared.read(
            os.environ if env is None else env,
            mission=mission,
            partition=partition,
            settings=_settings_of(settings or {}, place),
            set_by=f"{place}: settings: ",
        )
        note_loaded(self._folder, self._given_names)
        try:
            return plan_read(read, ready=ready)
        except GraphError as error:
            noted = self._declared.noted
            places = {problem.where for problem in noted}  # of values that were left out
            found = [it for it in error.problems if it in noted or it.where not in places]
            raise GraphError(found) from None

    def start(
        self,
        *,
        mission: str | None = None,
        partition: str | None = None,
        settings: Mapping[str, Any] | None = None,
        cycles: int | None = None,
        log_dir: str | Path | None = "runs",
        port: int | None = None,
    ) -> LiveRun:
        """Run the graph on a thread of its own.

        mission: the mission to run; None for the first one.
        partition: the process to run, such as "gpu/0", of a graph that has partitions.
        settings: other values than those of the graph for this run, as `--set` gives them:
            `{"cam.max_fps": 5, "runtime.seed": 7}`. The log has them.
        cycles: end after this number of cycles; None runs until the sources end.
        log_dir: the folder in which the run's own directory is made; None keeps no log.
        port: serve the run's page and HTTP API there, on this machine; 0 picks a free port, see
            `LiveRun.url`; None serves nothing.

        `GraphError` lists every mistake of the graph. What goes wrong later, `LiveRun.wait` raises.
        """
        leave_import()
        from flowrun.runtime.api.running import LiveRun  # it loads the engine

        notes = self.not_replayed  # before changed modules are forgotten
        plan = self.plan(mission=mission, partition=partition, settings=settings)
        if plan.graph.spec.partitions and plan.graph.spec.part is None:
            raise without_partition(plan.graph.spec)
        return LiveRun(plan, cycles=cycles, log_dir=log_dir, port=port, notes=notes)

    def run(
        self,
        *,
        mission: str | None = None,
        partition: str | None = None,
        settings: Mapping[str, Any] | None = None,
        cycles: int | None = None,
        log_dir: str | Path | None = "runs",
        port: int | None = None,
    ) -> RunResult:
        """Run the graph to its end; see `start` and `LiveRun.wait`. Ctrl-C ends it in order."""
        live = self.start(
            mission=mission,
            partition=partition,
            settings=settings,
            cycles=cycles,
            log_dir=log_dir,
            port=port,
        )
        return live.wait()

    @property
    def not_replayed(self) -> list[str]:
        """Why a replay in another process will not run what this one does, a sentence each: a class that
        it will not find, or that has changed on the disk since it was imported."""
        names = self._given_names
        old = [
            it
            for it in changed_modules(self._folder, names)
            if any(name.startswith(f"{it}.") for name in names)
        ]
        lacks = [lacks for _, lacks in self._unnamed()]
        lacks += [f"{it} has changed since it was imported; import it again" for it in old]
        return list(dict.fromkeys(lacks))

    # -- inside --------------------------------------------------------------------------------

    def _take(self, declared: Declared) -> None:
        self._declared = declared
        for item in declared.tasks:
            found, _ = self._class_of(item.said["type"])
            self._node_of(Added(item, found))

    def _node_of(self, added: Added) -> Node:
        node = Node(added, self._say)
        self._nodes[node] = added
        return node

    @property
    def _given_names(self) -> set[str]:
        """The dotted names of the classes and functions that the program has given."""
        items = (*self._declared.tasks, *self._declared.connections)
        given = [item.given for item in items if item.given is not None]
        return {f"{it.__module__}.{it.__qualname__}" for it in given}

    @property
    def _folder(self) -> Path:
        return self._declared.path.parent

    def _changed(self) -> None:
        self._declared.text = None

    def _find_messages(self) -> None:
        """Say what flows through the connections of which no `msg` was given.

        The ports of a task that takes any message have the class of those that are connected to them,
        so one connection may tell that of another.
        """
        kept = {id(item) for item in self._declared.connections}
        self._untyped = [it for it in self._untyped if id(it.item) in kept]
        classes: dict[tuple[str, str], type[Message]] = {}
        left = list(self._untyped)
        for guess in (False, True):
            while found := [it for it in left if it.find(classes, guess=guess)]:
                left = [it for it in left if it not in found]
                for it in found:
                    it.item.said["msg"] = name_of(it.item.given, self._folder).text
        for it in left:
            it.item.given, it.item.said["msg"] = None, UNKNOWN

    def _set_sections(self, sections: Mapping[str, Any], called: Caller) -> None:
        for name, values in sections.items():
            place = partial(_place_in_section, called, name)
            made = Item(None, place)
            if name in ("tasks", "cnx"):
                text = f"{name!r} is what `add` and `connect` say"
                self._declared.problems.append(Problem(place(()), text))
                continue
            made.said = said_in(made, values, (name,))
            known = self._declared.sections.get(name)
            if known is not None and isinstance(made.said, dict) and isinstance(known.said, dict):
                made.said = known.said | made.said
                made.place = partial(_first_place, {(key,) for key in values}, place, known.place)
            self._declared.sections[name] = made
        self._changed()

    def _class_of(self, task: Any) -> tuple[type[Task] | None, str]:
        """The class that `task` means, None if there is none, and what a graph file calls it."""
        try:
            if isinstance(task, str):
                return find_task_class(task, folder=self._folder, types=task_types()), task
            if inspect.isfunction(task) or _is_task(task):
                return given_class(task), name_of(task, self._folder).text
        except FlowrunError:  # reported with all else
            return None, task if isinstance(task, str) else task.__name__
        return None, getattr(task, "__name__", type(task).__name__)

    def _new_id(self, name: str) -> str:
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+|[A-Z]|\d+", name.rpartition(".")[2])
        stem = "_".join(words).lower()
        stem = stem if re.fullmatch(IDENTIFIER, stem) else "task"
        taken = {node.id for node in self._nodes}
        names = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
        return next(name for name in names if name not in taken)

    def _say(
        self,
        added: Added,
        config: Mapping[str, Any] | None,
        keys: Mapping[str, Any],
        called: Caller,
    ) -> None:
        """Set keys of a task and of its config, at the places of a call."""
        item = added.item
        own: dict[str, Any] = {}
        settings = dict(config or {})
        config_class = None if added.found is None else added.found.Config
        fields = getattr(config_class, "model_fields", ())  # a wrong one is reported with all else
        wrong: dict[str, str] = {}
        for name, value in keys.items():
            if name in _TASK_KEYS and not (name in fields and config is None):
                own[name] = value
            elif name in _TASK_KEYS:
                wrong[name] = (
                    f"{name!r} is a key of a task and of the config of {item.said['type']}: write "
                    f"config={{{name!r}: ...}} for the latter, config={{}} for the former"
                )
            elif name in settings:
                wrong[name] = f"{name!r} is in 'config' too; leave one out"
            else:
                settings[name] = value
        said = item_of({**own, "config": settings}, called, {})
        new = said.said.pop("config")
        changed: set[_Path] = {(name,) for name in (*own, *wrong)}
        changed |= {("config", name) for name in new}
        item.problems = {
            path: it
            for path, it in item.problems.items()
            if changed.isdisjoint((path[:1], path[:2], ("config", path[0])))
        } | said.problems
        for name, text in wrong.items():
            item.note((name,), text, called.place(name))
        if new:
            item.said["config"] = item.said.get("config", {}) | new
        item.said |= said.said
        item.place = partial(_first_place, changed, said.place, item.place)
        self._changed()

    def _end(self, end: Node | End | str, direction: Literal["input", "output"]) -> Found:
        port: str | None = None
        if isinstance(end, End):
            node, port = end.node, end.port
        elif isinstance(end, Node):
            node = end
        elif not isinstance(end, str):
            raise UsageError(_no_end(end))
        else:
            task, _, port = end.partition(".")
            known = next((it for it in self._nodes if it.id == task), None)
            if known is None:
                return Found(task, port or None, (), is_only=True)
            node = known
        if node not in self._nodes:
            raise UsageError(
                f"task {node.id!r} is not in graph {self.name!r}: it was removed, or added to another"
            )
        ports = tuple(it for it in self._nodes[node].ports or () if it.direction == direction)
        fitting = tuple(it for it in ports if port in (None, "", it.name))
        return Found(node.id, port or None, fitting, is_only=len(ports) == 1)

    def _unnamed(self) -> Iterator[tuple[Item, str]]:
        for item in (*self._declared.tasks, *self._declared.connections):
            if item.given is not None:
                lacks = name_of(item.given, self._folder).lacks
                if lacks:
                    yield item, lacks


def _is_task(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Task) and value is not Task


def _no_end(value: Any) -> str:
    text = "expected what add() returned, a port of it, or a text such as 'cam.image'"
    if isinstance(value, type) or inspect.isfunction(value):
        kind = "class" if isinstance(value, type) else "function"
        name = value.__name__
        return f"{text}; got the {kind} {name}: write it = g.add({name}), and connect that"
    return f"{text}; got {with_article(type(value).__name__)}"


def _is_at(said: Any, end: str) -> bool:
    """Whether what a connection says is the port, or a port of the task, that `end` names."""
    return bool(said == end or str(said).partition(".")[0] == end)


def _place_in_section(called: Caller, name: str, path: _Path) -> Location:
    del path
    return called.place(name)


def _first_place(changed: set[_Path], new: _Place, old: _Place, path: _Path) -> Location:
    """The place of what is at `path`, which a later call may have changed."""
    return new(path) if path[:1] in changed or path[:2] in changed else old(path)


def run(
    graph: Graph | str | Path,
    *,
    mission: str | None = None,
    partition: str | None = None,
    settings: Mapping[str, Any] | None = None,
    cycles: int | None = None,
    log_dir: str | Path | None = "runs",
    port: int | None = None,
) -> RunResult:
    """Run a graph, or the graph in a file, to its end; see `Graph.run`."""
    made = graph if isinstance(graph, Graph) else Graph.load(graph)
    return made.run(
        mission=mission,
        partition=partition,
        settings=settings,
        cycles=cycles,
        log_dir=log_dir,
        port=port,
    )


def _settings_of(settings: Mapping[str, Any], place: Location) -> list[str]:
    """The same as `task.key=value`, each value as YAML says it."""
    found, problems = [], []
    for name, value in settings.items():
        try:
            text = written(plain(value)).removesuffix(_YAML_END).rstrip("\n")
            found.append(f"{name}={text}")
        except Unwritable as error:
            problems.append(Problem(place, f"settings: {name}: {error}"))
    if problems:
        raise GraphError(problems)
    return found
