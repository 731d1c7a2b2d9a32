"""Which alerts recorded runs would have raised: rules, tried on the messages that the logs hold.

No model runs, and of a run's graph nothing but its alerts: what they read is taken from the log.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from flowrun.msgs.alert import AlertMsg
from flowrun.msgs.message import Message
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.alone import Alone
from flowrun.runtime.engine.rates import Rate
from flowrun.runtime.errors import LogError, UsageError
from flowrun.runtime.events import Set, unpack
from flowrun.runtime.graph.find import find_message_type, message_types
from flowrun.runtime.graph.plan import Plan
from flowrun.runtime.log.message import LogMessage
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.slab.format import CONTROL_TOPIC, GRAPH_SOURCE, PARTITION
from flowrun.runtime.recorded.graph import graph_of
from flowrun.runtime.run.log_lines import drop_logs
from flowrun.runtime.run.trust import why_not_own
from flowrun.runtime.testbench.spread import Broken, Done, Part, spread
from flowrun.runtime.wording import listed, nearest
from flowrun.tasks.alert import Alert
from flowrun.tasks.conditions.condition import Condition
from flowrun.tasks.conditions.language import INPUTS
from flowrun.tasks.rules import is_function

__all__ = ["Fired", "Rehearsed", "Rule", "Wanted", "rehearse", "rehearse_all", "rules_of"]

_TYPES = ("Alert", f"{Alert.__module__}.{Alert.__qualname__}")
"""How a graph file may name it."""
WHEN = "when"
"""The name of a rule that is given as a condition alone."""

Change: TypeAlias = Literal["same", "new", "gone"]


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert of a graph.

    task: its id.
    config: its config, as a graph file has it.
    inputs: by input, the output that feeds it, as task and port; the port may be "".
    messages: by input, the name of the message's class, as `msg:` of a connection has it.
    folder: where modules and relative paths of the config start.
    every, rate_hz: in which cycles it runs, as a graph file has them.
    background: whether it runs beside the cycles, so that an alert comes in a later one.
    """

    task: str
    config: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, str]]
    messages: Mapping[str, str]
    folder: str
    every: int = 1
    rate_hz: float | None = None
    background: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is tried.

    rules: those of a graph; None: of each run its own.
    when: the config of a rule without a graph, of which each input is that of the run's messages of its
        kind; `feeds` says which, where there are several.
    feeds: by input, "task.port".
    trust: whether functions that a run's own rules name may run, also if somebody else has recorded it.
    """

    rules: tuple[Rule, ...] | None = None
    when: Mapping[str, Any] | None = None
    feeds: Mapping[str, str] = field(default_factory=dict)
    trust: bool = False


@dataclass(frozen=True, slots=True)
class Fired:
    """An alert of a run, recorded or not.

    change: "same": the run has raised it, and it is raised now; "new": only now; "gone": only then.
        None where the run has no task of this name to compare with.
    time_ns: of its cycle. tov_ns: of the frame that it is about.
    """

    task: str
    cycle: int
    time_ns: int
    tov_ns: int
    text: str
    severity: str
    values: Mapping[str, Any]
    rule: str
    change: Change | None


@dataclass(slots=True)
class Rehearsed:
    """What came of a run.

    looked_at: number of messages that rules have read.
    fired: its alerts, in their order.
    problems: rules that were not tried, or not to the end, and why.
    elsewhere: why none was tried, where it is the run of one process of a fleet: another one has what it
        lacks.
    """

    run: str
    looked_at: int = 0
    fired: list[Fired] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    elsewhere: str = ""


def rules_of(plan: Plan) -> tuple[Rule, ...]:
    """The alerts of a graph."""
    graph = plan.graph
    return tuple(
        Rule(
            task.id,
            task.config.model_dump(mode="json"),
            {
                it.dst_port: (it.src_task, it.src_port)
                for it in graph.connections
                if it.dst_task == task.id
            },
            {
                it.dst_port: f"{it.message_type.__module__}.{it.message_type.__qualname__}"
                for it in graph.connections
                if it.dst_task == task.id
            },
            str(graph.spec.path.parent),
            task.spec.every,
            task.spec.rate_hz,
            task.spec.background,
        )
        for task in graph.tasks
        if issubclass(task.task_class, Alert)
    )


def rehearse_all(runs: Sequence[Path], wanted: Wanted, *, processes: int) -> Iterator[Rehearsed]:
    """Try the rules on all runs, some at the same time; yields the runs in their order."""
    if processes == 1 or len(runs) == 1:
        work = _worker(wanted)
        for run in runs:
            yield work(str(run), lambda _: None)
        return
    waiting: dict[int, Rehearsed] = {}
    at = 0
    pieces = [str(run) for run in runs]
    for event in spread(pieces, partial(_worker, wanted), processes=processes):
        if isinstance(event, Part):
            continue
        if isinstance(event, Done):
            waiting[event.index] = event.value
        elif isinstance(event, Broken):
            waiting[event.index] = Rehearsed(pieces[event.index], problems=[event.why])
        while at in waiting:
            yield waiting.pop(at)
            at += 1


def _worker(wanted: Wanted) -> Callable[[str, Callable[[Any], None]], Rehearsed]:
    drop_logs()
    return lambda run, _send: rehearse(Path(run), wanted)


def rehearse(run: Path, wanted: Wanted) -> Rehearsed:
    """Try the rules on one run. What is wrong with a rule, or the log, is among the problems."""
    found = Rehearsed(str(run))
    is_part = False
    try:
        with Log(run) as log:
            is_part = PARTITION in log.metadata
            rules = _recorded_rules(log) if wanted.rules is None else list(wanted.rules)
            if wanted.when is not None:
                rules = [_of_condition(log, wanted.when, wanted.feeds)]
            follows = wanted.rules is None and wanted.when is None
            if not rules:
                found.problems.append("its graph has no Alert; give one with --graph, or --when")
            for rule in rules:
                _try(log, rule, wanted, found, follows=follows)
            if log.loss is not None:
                found.problems.append(f"not all of it could be read: {log.loss}")
    except (LogError, UsageError) as error:
        found.problems.append(str(error))
    if is_part and not found.looked_at and found.problems:
        found.elsewhere, found.problems = "; ".join(found.problems), []
    found.fired.sort(key=lambda it: (it.cycle, it.task))
    return found


def _recorded_rules(log: Log) -> list[Rule]:
    """The alerts of the graph that a log holds."""
    graph = graph_of(log)
    folder = str(Path(log.metadata.get("graph_path", "")).parent)
    rules = []
    for task in graph["tasks"]:
        if task["type"].replace(":", ".") not in _TYPES:
            continue
        inputs, messages = {}, {}
        for cnx in graph["cnx"]:
            to, _, port = cnx["dst"].partition(".")
            if to != task["id"]:
                continue
            kind = str(cnx.get("msg", ""))
            source, _, source_port = cnx["src"].partition(".")
            name = port or _input_for(kind)
            inputs[name], messages[name] = (source, source_port), kind
        every, rate_hz = task.get("every", 1), task.get("rate_hz")
        rules.append(
            Rule(
                task["id"],
                task["config"],
                inputs,
                messages,
                folder,
                every if isinstance(every, int) and every > 0 else 1,
                rate_hz if isinstance(rate_hz, (int, float)) and rate_hz > 0 else None,
                task.get("background") is True,
            )
        )
    return rules


def _is_received(log: Log, task: str | None) -> bool:
    """Whether what a task publishes came from another partition."""
    origin = log.topics.get(f"/{task}/origin")
    return origin is not None and origin.schema_name == "OriginMsg"


def _input_for(kind: str) -> str:
    """The input that takes messages of a class, by its name."""
    found = message_types().get(kind)
    for name, message_type in INPUTS.items():
        if found is not None and issubclass(found, message_type):
            return name
    return "message"


def _of_condition(log: Log, config: Mapping[str, Any], feeds: Mapping[str, str]) -> Rule:
    """The rule of a condition alone, fed by the run's messages of the kinds that it reads."""
    inputs: dict[str, tuple[str, str]] = {}
    for name in INPUTS:
        if name not in Condition(config[WHEN]).inputs:
            continue
        if name in feeds:
            task, _, port = feeds[name].partition(".")
            inputs[name] = task, port
            continue
        fitting = [
            topic
            for topic in log.topics.values()
            if name != "message" and topic.schema_name == INPUTS[name].schema_name
        ]
        if len(Condition(config[WHEN]).inputs) == 1:  # another process's log has it at its own task
            fitting = [it for it in fitting if not _is_received(log, it.metadata.get("task"))]
        outputs = [f"{it.metadata.get('task')}.{it.metadata.get('port')}" for it in fitting]
        if len(outputs) != 1:
            what = "several give it" if outputs else "the run has none"
            options = outputs or [
                f"{it.metadata['task']}.{it.metadata['port']}"
                for it in log.topics.values()
                if "task" in it.metadata
            ]
            raise UsageError(
                f"the condition reads {name}, and {what}; say which: --input {name}=TASK.PORT, "
                f"one of {listed(options)}"
            )
        inputs[name] = fitting[0].metadata["task"], fitting[0].metadata["port"]
    return Rule(WHEN, config, inputs, {}, str(Path.cwd()))


def _try(log: Log, rule: Rule, wanted: Wanted, found: Rehearsed, *, follows: bool) -> None:
    """Add to `found` what a rule gives.

    follows: whether live values that were set while the run went on apply.
    """
    try:
        config = Alert.Config.model_validate(dict(rule.config))
        if follows and is_function(config.when or "") and not wanted.trust:
            why = why_not_own(log.metadata, log.attachments.get(GRAPH_SOURCE, b""), os.environ)
            if why is not None:
                raise UsageError(
                    f"it names the function {config.when}, and the run may not be yours: {why}; "
                    "--trust runs it, --graph takes a graph of yours"
                )
        topics = {name: _topic(log, *rule.inputs[name], name) for name in rule.inputs}
        raised = list(_raised(log, rule, config, topics, found, follows=follows))
    except ValidationError as error:
        said = "; ".join(str(it["msg"]).removeprefix("Value error, ") for it in error.errors())
        found.problems.append(f"{rule.task}: {said}")
        return
    except (LogError, UsageError) as error:
        found.problems.append(f"{rule.task}: {error}")
        return
    except Exception as error:  # noqa: BLE001  # of a user's function, or of the condition
        notes = ", ".join(getattr(error, "__notes__", ()))
        found.problems.append(f"{rule.task}: {type(error).__name__}: {error} ({notes})")
        return
    found.fired += _compared(log, rule, raised)


def _topic(log: Log, task: str, port: str, name: str) -> str:
    """The topic of an output. `UsageError` where the log has none."""
    outputs = {
        f"{it.metadata['task']}.{it.metadata.get('port', '')}": it
        for it in log.topics.values()
        if "task" in it.metadata
    }
    wanted = INPUTS[name].schema_name if name != "message" else None
    for output, topic in outputs.items():
        if output == f"{task}.{port}" or (
            not port and topic.metadata["task"] == task and wanted in {None, topic.schema_name}
        ):
            return topic.name
    said = f"{task}.{port}" if port else task
    raise UsageError(
        f"its input {name} is fed by {said}, which the run does not have; outputs: "
        f"{listed(outputs)}{nearest(said, list(outputs))}"
    )


def _raised(
    log: Log,
    rule: Rule,
    config: Alert.Config,
    topics: Mapping[str, str],
    found: Rehearsed,
    *,
    follows: bool,
) -> Iterator[Fired]:
    """What the rule raises."""
    classes = {name: _class_of(log, rule, name, topic) for name, topic in topics.items()}
    alone = Alone(Alert, config, graph_dir=Path(rule.folder), seed=0, messages=classes)
    alone.start()
    try:
        yield from _runs(log, rule, alone, classes, topics, found, follows=follows)
    finally:
        alone.stop()


def _runs(
    log: Log,
    rule: Rule,
    alone: Alone,
    classes: Mapping[str, type[Message]],
    topics: Mapping[str, str],
    found: Rehearsed,
    *,
    follows: bool,
) -> Iterator[Fired]:
    """What the started task of a rule raises, cycle after cycle."""
    by_topic: dict[str, list[str]] = {}
    for name, topic in topics.items():
        by_topic.setdefault(topic, []).append(name)
    rate = Rate(every=rule.every, rate_hz=rule.rate_hz)
    wanted = [*by_topic, *([CONTROL_TOPIC] if follows and CONTROL_TOPIC in log.topics else [])]
    for cycle, messages in groupby(log.messages(wanted), key=lambda it: it.cycle):
        arrived: dict[str, Message] = {}
        now_ns = 0
        for message in messages:
            now_ns = message.time_ns
            if message.topic == CONTROL_TOPIC:
                _follow(alone, rule.task, message)
                continue
            found.looked_at += 1
            for name in by_topic[message.topic]:
                arrived[name] = _loaded(classes[name], message)
        if not arrived or not rate.admits(CycleTime(cycle, now_ns)):
            continue
        alert = alone.run(arrived, cycle=cycle, now_ns=now_ns).get("alert")
        if isinstance(alert, AlertMsg):
            yield Fired(
                rule.task, cycle, now_ns, alert.tov_ns, alert.text, alert.severity,
                dict(alert.values), alert.rule, None,
            )  # fmt: skip


def _class_of(log: Log, rule: Rule, name: str, topic: str) -> type[Message]:
    if name != "message":
        return INPUTS[name]
    schema = log.topics[topic].schema_name
    for known in message_types().values():
        if known.schema_name == schema:
            return known
    if "." in rule.messages.get(name, ""):
        return find_message_type(rule.messages[name], folder=Path(rule.folder))
    raise UsageError(
        f"what comes at message is a {schema}, which is none of flowrun's; give the graph with --graph"
    )


def _loaded(message_type: type[Message], message: LogMessage) -> Message:
    made = message_type()
    made.restore(message.deferred, tov_ns=message.tov_ns)
    return made


def _follow(alone: Alone, task: str, message: LogMessage) -> None:
    """Set the live values that were set in the run."""
    try:
        event = unpack(message.fields)
    except ValueError:
        return
    if isinstance(event, Set) and event.task == task:
        alone.set(event.values)


def _compared(log: Log, rule: Rule, raised: Sequence[Fired]) -> Iterator[Fired]:
    """What is raised now, and what was raised in the run, each with what has changed: alerts of one
    cycle are the same, or, where they came in a later one, those about one frame."""
    task = rule.task

    def key(it: Fired | LogMessage) -> int:
        return it.tov_ns if rule.background else it.cycle

    topics = [
        name
        for name, topic in log.topics.items()
        if topic.metadata.get("task") == task and topic.schema_name == AlertMsg.schema_name
    ]
    if not topics:
        yield from raised
        return
    recorded = {key(message): message for message in log.messages(topics)}
    for fired in raised:
        change: Change = "new" if recorded.pop(key(fired), None) is None else "same"
        yield replace(fired, change=change)
    for message in recorded.values():
        fields = message.fields
        yield Fired(
            task, message.cycle, message.time_ns, message.tov_ns, str(fields.get("text", "")),
            str(fields.get("severity", "")), fields.get("values") or {}, str(fields.get("rule", "")),
            "gone",
        )  # fmt: skip
