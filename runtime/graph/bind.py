"""GraphSpec -> BoundGraph: classes, ports, message types and configurations, all checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.message import Message
from flowrun.runtime.errors import (
    FlowrunError,
    GraphError,
    Location,
    Problem,
    TaskDefinitionError,
)
from flowrun.runtime.graph.boundary import Boundary
from flowrun.runtime.graph.channels import Claim, channel_numbers, claims, conflicts
from flowrun.runtime.graph.config import check_config, path_of
from flowrun.runtime.graph.find import (
    TaskTypes,
    dotted,
    find_message_type,
    find_task_class,
    given_class,
    in_one_line,
    task_types,
)
from flowrun.runtime.graph.masking import declares_secret, with_secrets_masked
from flowrun.runtime.graph.partition_problems import partition_problems
from flowrun.runtime.graph.ports import Port, has_more_ports, is_source, ports_for, with_types
from flowrun.runtime.graph.several import separated
from flowrun.runtime.graph.shadows import with_shadows
from flowrun.runtime.graph.spec import UNKNOWN, ConnectionSpec, GraphSpec, PartId, TaskSpec
from flowrun.runtime.graph.stale import forget_changed, note_loaded
from flowrun.runtime.interrupts import is_users
from flowrun.runtime.places import place_of, place_of_code
from flowrun.runtime.task import Task, TaskConfig
from flowrun.runtime.task_config import LiveMarker
from flowrun.runtime.threads import refused_affinity, refused_nice
from flowrun.runtime.wording import listed, mask_secrets, nearest

__all__ = [
    "BoundConnection",
    "BoundGraph",
    "BoundTask",
    "bind",
    "channels_of",
    "dotted_names",
    "live_keys",
]


@dataclass(frozen=True, slots=True)
class BoundTask:
    """A task of the graph with its class, its validated configuration and its ports."""

    spec: TaskSpec
    task_class: type[Task]
    config: TaskConfig
    ports: tuple[Port, ...]

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def is_source(self) -> bool:
        return is_source(self.ports)

    def codec_of(self, port: Port) -> str:
        """How the log stores the messages of the output `port`."""
        if not issubclass(port.message_type, ImageRgb8Msg):
            return "raw"
        return self.spec.logging.codec or self.task_class.picture_codecs[0]


@dataclass(frozen=True, slots=True)
class BoundConnection:
    """From one output to one input; `message_type` flows through both."""

    src_task: str
    src_port: str
    dst_task: str
    dst_port: str
    message_type: type[Message]


@dataclass(frozen=True, slots=True)
class BoundGraph:
    """A graph all of whose parts exist and fit; tasks and connections are in the file's order.

    receives, sends: what comes from and goes to other processes, where this is the part of one.
    ring: the processes of all partitions that send, maybe through others, to this one, and get what it
        sends, itself included; empty where there is no other partition among them.
    """

    spec: GraphSpec
    tasks: tuple[BoundTask, ...]
    connections: tuple[BoundConnection, ...]
    receives: tuple[Boundary, ...] = ()
    sends: tuple[Boundary, ...] = ()
    ring: tuple[PartId, ...] = ()


def live_keys(task_class: type[Task]) -> tuple[str, ...]:
    """The keys of the task's config that may change while it runs: those declared `Live[...]`."""
    fields = task_class.Config.model_fields
    return tuple(name for name, info in fields.items() if LiveMarker in info.metadata)


def bind(graph: GraphSpec, *, complete: bool = True, ready: bool = True) -> BoundGraph:
    """Find and check everything that `graph` names.

    Imports the modules of the tasks, again if they have changed; opens and starts nothing.
    `GraphError` lists every mistake; what depends on a task that could not be bound is not checked.

    complete: False if a part of the file could not be read, which may hold what `graph` lacks.
    ready: whether the graph is to run now, so that the files it needs must exist (`Task.check`); a
        replay needs none.
    """
    folder, names = graph.path.parent, dotted_names(graph)
    forget_changed(folder, names)
    graph, problems = separated(graph)
    graph, wrong_shadows = with_shadows(graph)
    problems += wrong_shadows
    if complete:
        problems += partition_problems(graph)
    binder = _Binder(graph, complete, ready, problems=dict.fromkeys(problems))
    tasks = {task.id: binder.task(task) for task in graph.tasks}
    connections = binder.connections(tasks)
    note_loaded(folder, names)
    binder.unconnected_inputs(tasks)
    binder.fitting_inputs(tasks, connections)
    binder.channels(tasks)
    if ready:
        binder.threads()
    if binder.problems:
        raise GraphError(list(binder.problems))
    bound = list(filter(None, tasks.values()))
    graph = with_secrets_masked(graph, {task.id: task.config for task in bound})
    specs = {spec.id: spec for spec in graph.tasks}
    made = tuple(replace(task, spec=specs[task.id]) for task in bound)
    return BoundGraph(graph, made, tuple(filter(None, connections)))


def dotted_names(graph: GraphSpec) -> set[str]:
    """The dotted paths of classes that the graph names."""
    named = [task.type for task in graph.tasks if task.given is None]
    named += [cnx.msg for cnx in graph.connections if cnx.given is None]
    return {name for name in map(dotted, named) if "." in name}


@dataclass(slots=True)
class _Binder:
    graph: GraphSpec
    complete: bool
    ready: bool
    types: TaskTypes = field(default_factory=task_types)
    problems: dict[Problem, None] = field(default_factory=dict)
    fed: dict[tuple[str, str], ConnectionSpec] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    """Tasks with a connection to an unknown input: none of their inputs is reported as unconnected."""

    def problem(self, where: Location, message: str) -> None:
        self.problems[Problem(where, message)] = None

    def task(self, spec: TaskSpec) -> BoundTask | None:
        """The bound task, or None after a problem, which has been noted."""
        type_where = spec.key_where.get("type", spec.where)
        try:
            if spec.given is not None:
                task_class = given_class(spec.given)
            else:
                folder = self.graph.path.parent
                task_class = find_task_class(spec.type, folder=folder, types=self.types)
            ports = _ports(task_class, None)
        except FlowrunError as error:
            place = place_of(error) if isinstance(error, TaskDefinitionError) else None
            self.problem(type_where, str(error) if place is None else f"{error} (at {place})")
            return None
        if not (isinstance(task_class.Config, type) and issubclass(task_class.Config, TaskConfig)):
            name = task_class.__name__
            place = place_of_code(task_class)
            self.problem(
                type_where,
                f"{name}.Config must be a subclass of TaskConfig; write `class Config(TaskConfig):`"
                + ("" if place is None else f" (at {place})"),
            )
            return None
        found = check_config(spec, task_class)
        if not isinstance(found, list):
            ports = ports_for(task_class, found)
        elif has_more_ports(task_class):
            self.problems |= dict.fromkeys(found)
            return None
        if any(port.variable for port in ports):
            ports = with_types(ports, self._connected(spec.id, ports))
        if spec.background and is_source(ports):
            self.problem(
                spec.key_where.get("background", spec.where),
                f"task {spec.id!r} is a source, and a source cannot run in the background; "
                "leave 'background' out",
            )
        if spec.every > 1 and is_source(ports):
            self.problem(
                spec.key_where.get("every", spec.where),
                f"task {spec.id!r} is a source, and 'every' would make it wait for cycles that only "
                "its own messages start; use 'rate_hz'",
            )
        for name in live_keys(task_class):
            if declares_secret(name, task_class.Config.model_fields[name].annotation):
                self.problem(
                    type_where,
                    f"'{task_class.__name__}.Config.{name}' is Live, and a secret by its name or type: "
                    "what changes while the graph runs is in the log, which holds no secrets; leave "
                    "Live out",
                )
        self._check_codec(spec, task_class, ports)
        if isinstance(found, list):
            self.problems |= dict.fromkeys(found)
            found = task_class.Config.model_construct()
        elif self.ready and self._runs_here(spec):
            config, folder = found, self.graph.path.parent
            self._ask(spec, "check", lambda: task_class.check(config, folder))
        return BoundTask(spec, task_class, found, ports)

    def _runs_here(self, spec: TaskSpec) -> bool:
        return self.graph.part is None or spec.partition == self.graph.part.partition

    def _connected(self, task_id: str, ports: tuple[Port, ...]) -> dict[str, type[Message]]:
        """The message class of the connection of each port that has one."""
        given: dict[str, type[Message]] = {}
        for cnx in self.graph.connections:
            for end, direction in ((cnx.dst, "input"), (cnx.src, "output")):
                if end.task != task_id:
                    continue
                meant = [it for it in ports if it.direction == direction]
                meant = [it for it in meant if end.port in (None, it.name)]
                message = self._message(cnx)
                if message is not None and len(meant) == 1:
                    given.setdefault(meant[0].name, message)
        return given

    def _ask(
        self, spec: TaskSpec, name: str, check: Callable[[], Iterable[tuple[str, str]]]
    ) -> None:
        """Report what a check of the task's author finds, at the keys that it names."""
        whole = spec.key_where.get("config", spec.where)
        try:
            for key, text in check():
                self.problem(spec.config_where.get(path_of(key), whole), text)
        except BaseException as error:
            if is_users(error):
                raise
            said = mask_secrets(in_one_line(error), spec.secrets)
            self.problem(whole, f"{name} of task {spec.id!r} raised {said}")

    def _check_codec(self, spec: TaskSpec, task_class: type[Task], ports: tuple[Port, ...]) -> None:
        codec = spec.logging.codec
        if codec is None:
            return
        where = spec.key_where.get("logging", spec.where)
        outputs = [port for port in ports if port.is_output]
        if not any(issubclass(port.message_type, ImageRgb8Msg) for port in outputs):
            self.problem(where, f"task {spec.id!r} makes no pictures; leave 'codec' out")
        elif codec not in task_class.picture_codecs:
            self.problem(
                where,
                f"codec {codec!r}: task {spec.id!r} makes its pictures itself and has no packets of "
                f"a source; codecs: {listed(task_class.picture_codecs)}",
            )

    def connections(self, tasks: Mapping[str, BoundTask | None]) -> list[BoundConnection | None]:
        return [self._connection(cnx, tasks) for cnx in self.graph.connections]

    def _connection(
        self, cnx: ConnectionSpec, tasks: Mapping[str, BoundTask | None]
    ) -> BoundConnection | None:
        known_problems = len(self.problems)
        message = self._message(cnx)
        src = self._port(cnx, "src", tasks, message)
        dst = self._port(cnx, "dst", tasks, message)
        if cnx.msg == UNKNOWN and len(self.problems) == known_problems:
            self._unclear_ends(cnx, tasks)
        if dst is None:
            self.unclear.add(cnx.dst.task)
        else:
            other = self.fed.setdefault((cnx.dst.task, dst.name), cnx)
            if other is not cnx:
                self.problem(
                    cnx.key_where.get("dst", cnx.where),
                    f"input '{cnx.dst.task}.{dst.name}' already has a source, {str(other.src)!r} "
                    f"{other.where.seen_from(cnx.where)}; an input takes one connection",
                )
        if message is None or src is None or dst is None:
            return None
        if not (issubclass(src.message_type, message) and issubclass(message, dst.message_type)):
            made, taken = src.message_type.__name__, dst.message_type.__name__
            self.problem(
                cnx.key_where.get("msg", cnx.where),
                f"message mismatch: 'msg' is {message.__name__}, output "
                f"'{cnx.src.task}.{src.name}' publishes {made}, input "
                f"'{cnx.dst.task}.{dst.name}' takes {taken}"
                + (f"; write msg: {made}" if made == taken else ""),
            )
        return BoundConnection(cnx.src.task, src.name, cnx.dst.task, dst.name, message)

    def _unclear_ends(self, cnx: ConnectionSpec, tasks: Mapping[str, BoundTask | None]) -> None:
        src, dst = tasks.get(cnx.src.task), tasks.get(cnx.dst.task)
        if src is None or dst is None:
            return  # what is wrong with them is reported
        outputs = listed(f"{src.id}.{port.name}" for port in src.ports if port.is_output)
        inputs = listed(f"{dst.id}.{port.name}" for port in dst.ports if port.is_input)
        self.problem(
            cnx.where,
            f"it is not clear what flows from {src.id!r} to {dst.id!r}: name an output, an input, or "
            f"the message; outputs: {outputs}; inputs: {inputs}",
        )

    def _message(self, cnx: ConnectionSpec) -> type[Message] | None:
        if isinstance(cnx.given, type):
            return cnx.given
        if cnx.msg == UNKNOWN:
            return None  # what is wrong with its ends is reported
        try:
            return find_message_type(cnx.msg, folder=self.graph.path.parent)
        except FlowrunError as error:
            self.problem(cnx.key_where.get("msg", cnx.where), str(error))
            return None

    def _port(
        self,
        cnx: ConnectionSpec,
        end: Literal["src", "dst"],
        tasks: Mapping[str, BoundTask | None],
        message: type[Message] | None,
    ) -> Port | None:
        """The port that one end of `cnx` means, or None where that cannot be known."""
        endpoint = cnx.src if end == "src" else cnx.dst
        where = cnx.key_where.get(end, cnx.where)
        direction: Literal["input", "output"] = "output" if end == "src" else "input"
        if endpoint.task not in tasks:
            if self.complete:
                self.problem(
                    where,
                    f"unknown task {endpoint.task!r} in {end!r}; task ids: {listed(tasks)}"
                    + nearest(endpoint.task, tasks),
                )
            return None
        task = tasks[endpoint.task]
        if task is None:
            return None
        ports = {port.name: port for port in task.ports if port.direction == direction}
        if not ports:
            kind = "a sink" if direction == "output" else "a source"
            self.problem(where, f"task {task.id!r} is {kind}: it has no {direction}s")
            return None
        if endpoint.port is not None:
            return self._named_port(task, endpoint.port, direction, ports, where)
        if len(ports) == 1:
            return next(iter(ports.values()))
        if message is None:
            return None
        return self._fitting_port(task, direction, ports, message, where)

    def _named_port(
        self,
        task: BoundTask,
        name: str,
        direction: Literal["input", "output"],
        ports: Mapping[str, Port],
        where: Location,
    ) -> Port | None:
        if name not in ports:
            others = {port.name for port in task.ports}
            turned = " (that is an output)" if direction == "input" else " (that is an input)"
            self.problem(
                where,
                f"task {task.id!r} has no {direction} {name!r}"
                + (turned if name in others else "")
                + f"; its {direction}s: {_with_types(task, ports)}"
                + nearest(name, ports),
            )
        return ports.get(name)

    def _fitting_port(
        self,
        task: BoundTask,
        direction: Literal["input", "output"],
        ports: Mapping[str, Port],
        message: type[Message],
        where: Location,
    ) -> Port | None:
        """The only one of several `ports` through which `message` can flow. An input of a class comes
        before one that also takes others."""
        fitting = [port for port in ports.values() if _fits(port, message)]
        if direction == "input":
            classes = [port.message_type for port in fitting]
            fitting = [
                port
                for port in fitting
                if not any(
                    issubclass(other, port.message_type) and other is not port.message_type
                    for other in classes
                )
            ]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            names = listed(f"{task.id}.{port.name}" for port in fitting)
            self.problem(
                where,
                f"task {task.id!r} has several {direction}s of {message.__name__}; "
                f"name one: {names}",
            )
        else:
            self.problem(
                where,
                f"task {task.id!r} has no {direction} of {message.__name__}; "
                f"its {direction}s: {_with_types(task, ports)}",
            )
        return None

    def unconnected_inputs(self, tasks: Mapping[str, BoundTask | None]) -> None:
        if not self.complete:
            return
        for task in filter(None, tasks.values()):
            for port in task.ports:
                if (
                    port.is_input
                    and (port.required or port.named)
                    and (task.id, port.name) not in self.fed
                    and task.id not in self.unclear
                ):
                    name = port.message_type.__name__
                    fitting = listed(_outputs(tasks, port.message_type, but=task.id))
                    self.problem(
                        task.spec.key_where.get("id", task.spec.where),
                        f"input '{task.id}.{port.name}' ({name}) is not connected"
                        f"{self._why_cut(task.id)}; outputs that fit: {fitting}",
                    )

    def _why_cut(self, task_id: str) -> str:
        """That the chosen mission lacks a task that would feed this one."""
        feeding = [cnx.src.task for cnx in self.graph.cut if cnx.dst.task == task_id]
        return (
            f" in mission {self.graph.mission!r}, which lacks {listed(feeding)}" if feeding else ""
        )

    def fitting_inputs(
        self,
        tasks: Mapping[str, BoundTask | None],
        connections: Iterable[BoundConnection | None],
    ) -> None:
        """What the tasks say to what is connected to them, where all of that is known."""
        if not self.complete or self.problems:
            return
        bound = list(filter(None, tasks.values()))
        made = {(it.id, port.name): port.message_type for it in bound for port in it.ports}
        for task in bound:
            inputs = {
                cnx.dst_port: made[cnx.src_task, cnx.src_port]
                for cnx in filter(None, connections)
                if cnx.dst_task == task.id
            }
            check = task.task_class.check_inputs
            self._ask(task.spec, "check_inputs", partial(check, task.config, inputs))

    def threads(self) -> None:
        """Whether the system lets threads run as `runtime` says."""
        runtime, where = self.graph.runtime, self.graph.runtime_where
        for path, spec in (((), runtime), (("background",), runtime.background)):
            refused = {
                "affinity": spec.affinity and refused_affinity(spec.affinity),
                "nice": None if spec.nice is None else refused_nice(spec.nice),
            }
            for name, why in refused.items():
                if why:
                    place = where.get((*path, name), Location(str(self.graph.path), 1, 1))
                    self.problem(place, f"{'.'.join(('runtime', *path, name))!r}: {why}")

    def channels(self, tasks: Mapping[str, BoundTask | None]) -> None:
        bound = {id_: task for id_, task in tasks.items() if task is not None}
        shows = {id_: task.task_class.shows for id_, task in bound.items()}
        for claim, first, kind in conflicts(shows, _claims(bound, self.graph.connections)):
            spec = bound[claim.owner].spec
            self.problem(
                spec.config_where.get(("channel_id",), spec.where),
                f"channel_id {claim.number} of task {claim.owner!r} is that of task {first!r} too; "
                f"every task that shows {kind}s needs a number of its own",
            )


def _claims(
    tasks: Mapping[str, BoundTask], connections: Iterable[ConnectionSpec]
) -> dict[str, Claim]:
    given = {
        id_: number
        for id_, task in tasks.items()
        if isinstance(number := getattr(task.config, "channel_id", None), int)
    }
    sources: dict[str, list[str]] = {}
    for cnx in connections:
        sources.setdefault(cnx.dst.task, []).append(cnx.src.task)
    return claims({id_: task.task_class.shows for id_, task in tasks.items()}, given, sources)


def channels_of(graph: BoundGraph) -> dict[str, int]:
    """The channel number of each task that shows pictures or answers."""
    tasks = {task.id: task for task in graph.tasks}
    shows = {id_: task.task_class.shows for id_, task in tasks.items()}
    return channel_numbers(shows, _claims(tasks, graph.spec.connections))


def _with_types(task: BoundTask, ports: Mapping[str, Port]) -> str:
    return listed(
        f"{task.id}.{port.name} ({port.message_type.__name__})" for port in ports.values()
    )


def _fits(port: Port, message: type[Message]) -> bool:
    if port.is_output:
        return issubclass(port.message_type, message)
    return issubclass(message, port.message_type)


def _outputs(
    tasks: Mapping[str, BoundTask | None], message: type[Message], *, but: str
) -> Iterator[str]:
    for task in filter(None, tasks.values()):
        for port in task.ports:
            if port.is_output and task.id != but and _fits(port, message):
                yield f"{task.id}.{port.name}"


def _ports(task_class: type[Task], config: TaskConfig | None) -> tuple[Port, ...]:
    if (task_class.freeze is Task.freeze) != (task_class.thaw is Task.thaw):
        raise TaskDefinitionError(
            f"{task_class.__name__}: freeze and thaw belong together; define both, or neither",
            task_class,
        )
    try:
        return ports_for(task_class, config)
    except FlowrunError:
        raise
    except BaseException as error:  # an annotation may be any expression, and raise anything
        if is_users(error):
            raise
        raise TaskDefinitionError(
            f"{task_class.__name__}.process: its annotations raised {in_one_line(error)}",
            task_class.process,
        ) from error
