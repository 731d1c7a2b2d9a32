"""A plan as a picture: Mermaid text, or an SVG that needs nothing else.

The SVG is drawn in layers from left to right: a task is to the right of all that feed it. Within a
layer a box is as close as possible to what feeds it; a connection that passes a layer has a lane of its
own there, so that no line runs through a box. Labels are at the end of a line, since an input has only
one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

from flowrun.runtime.graph.plan import Plan, Step

__all__ = ["Notes", "mermaid", "mermaid_of_missions", "partitions_of", "svg", "svg_of_missions"]

Notes = Mapping[str, Sequence[str]]
"""By the id of a task, the lines that its box has below its type."""

_CHARACTER = 7.3  # width of a monospace character at 12 px
_MARGIN = 24.0
_HEAD = 42.0  # id and type, above the ports
_NOTE = 16.0  # one line below them
_TITLE = 20.0  # of a mission
_ROW = 20.0  # one port
_LANE = 22.0  # one connection that passes a layer
_SPACE = 22.0  # between boxes of one layer
_BENDS = 100.0  # between layers, next to the label: room for the curves and the arrow


def mermaid(plan: Plan, notes: Notes | None = None) -> str:
    """A Mermaid flowchart; GitHub and many editors draw it."""
    return "\n".join(["flowchart LR", *_flow(plan, notes or {}, "t")]) + "\n"


def mermaid_of_missions(plans: Mapping[str | None, Plan]) -> str:
    """One flowchart with a part for each mission."""
    lines = ["flowchart LR"]
    for i, (mission, plan) in enumerate(plans.items()):
        lines.append(f'    subgraph m{i}["mission {mission}"]')
        lines += [f"    {line}" for line in _flow(plan, {}, f"m{i}t")]
        lines.append("    end")
    return "\n".join(lines) + "\n"


def _flow(plan: Plan, notes: Notes, prefix: str) -> list[str]:
    """The lines of a flowchart. prefix: of the names in it; ids of tasks such as `end` clash."""
    lines = []
    names = {step.task.id: f"{prefix}{i}" for i, step in enumerate(plan.steps)}
    of_task = partitions_of(plan)
    for partition in dict.fromkeys(of_task.values()) or [None]:
        inside = [step for step in plan.steps if of_task.get(step.task.id) == partition]
        if partition is not None:
            lines.append(f'    subgraph {prefix}_{partition}["partition {partition}"]')
        for step in inside:
            texts = [step.task.id, _type_name(step, plan), *notes.get(step.task.id, ())]
            label = f'"{"<br/>".join(texts)}"'
            shape = f"([{label}])" if step.task.is_source else f"[{label}]"
            lines.append(f"    {names[step.task.id]}{shape}")
        if partition is not None:
            lines.append("    end")
    for line in _lines(plan):
        label = f"{line.src_port}: {line.message}"
        is_link = of_task.get(line.src) != of_task.get(line.dst)
        arrow = ("==", "==>") if is_link else ("--", "-->")
        lines.append(f'    {names[line.src]} {arrow[0]} "{label}" {arrow[1]} {names[line.dst]}')
    lines += [
        f"    style {names[step.task.id]} stroke-dasharray: 5 5"
        for step in plan.steps
        if step.task.spec.background
    ]
    return lines


def partitions_of(plan: Plan) -> dict[str, str]:
    """The partition of each task of a whole graph; empty for one that has none, and for a part."""
    if plan.graph.spec.part is not None or not plan.graph.spec.partitions:
        return {}
    return {step.task.id: step.task.spec.partition or "" for step in plan.steps}


def svg(plan: Plan, notes: Notes | None = None) -> str:
    """A self-contained SVG. A source has a green bar, a background task a dashed frame."""
    return _page(plan, [_drawn(plan, notes or {}, 0.0)])


def svg_of_missions(plans: Mapping[str | None, Plan]) -> str:
    """One SVG with the missions below each other."""
    drawings: list[_Drawing] = []
    top = 0.0
    for mission, plan in plans.items():
        title = (
            f'<text class="id" x="{_MARGIN:.1f}" y="{top + _TITLE:.1f}">mission {mission}</text>'
        )
        drawn = _drawn(plan, {}, top + _TITLE)
        drawings.append(replace(drawn, parts=[title, *drawn.parts]))
        top = drawn.bottom
    return _page(next(iter(plans.values())), drawings)


@dataclass(frozen=True, slots=True)
class _Drawing:
    """The elements of a plan, and how far they reach to the right and down."""

    parts: list[str]
    right: float
    bottom: float


def _page(plan: Plan, drawings: Sequence[_Drawing]) -> str:
    width = max(it.right for it in drawings) + _MARGIN
    height = drawings[-1].bottom + _MARGIN
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>',
        f"<title>{escape(plan.graph.spec.name)}</title>",
        _STYLE,
        '<rect class="page" width="100%" height="100%"/>',
        *(part for it in drawings for part in it.parts),
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _drawn(plan: Plan, notes: Notes, above: float) -> _Drawing:
    """The plan, with its top margin below `above`."""
    layers = _layers(plan, notes)
    _place(layers)
    boxes = {box.step.task.id: box for layer in layers for box in layer if box.step is not None}
    top = min(box.y - box.height / 2 for layer in layers for box in layer)
    for layer in layers:
        for box in layer:
            box.y += above + _MARGIN - top
    parts = [_draw_line(stops) for layer in layers for box in layer for stops in box.incoming]
    parts += [_draw_box(box) for box in boxes.values()]
    right = max(box.x + box.width for box in boxes.values())
    bottom = max(box.y + box.height / 2 for layer in layers for box in layer)
    return _Drawing(parts, right, bottom)


_STYLE = """<style>
text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, monospace; fill: #1f2328 }
.page { fill: #fff }
.box { fill: #f6f8fa; stroke: #59636e }
.background { stroke-dasharray: 5 4 }
.source { fill: #2da44e }
.id { font-weight: bold }
.type, .label { fill: #59636e }
.label { text-anchor: end; paint-order: stroke; stroke: #fff; stroke-width: 4px }
.output { text-anchor: end }
.line { fill: none; stroke: #59636e; stroke-width: 1.3 }
.tip { fill: #59636e }
</style>"""


@dataclass(frozen=True, slots=True)
class _Line:
    """One connection."""

    src: str
    src_port: str
    dst: str
    dst_port: str
    message: str


@dataclass(slots=True)
class _Stops:
    """The way of a connection: the boxes and lanes that it touches, from output to input."""

    line: _Line
    boxes: list[_Box]


@dataclass(slots=True)
class _Box:
    """A task, or (step None) the lane of a connection that passes a layer. y is its middle.

    texts: its lines above the ports.
    """

    step: Step | None
    texts: Sequence[str] = ()
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    incoming: list[_Stops] = field(default_factory=list)
    before: list[tuple[_Box, _Line]] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = _LANE

    def output_y(self, line: _Line) -> float:
        return self.y + (_port_offset(self, self.outputs.index(line.src_port)) if self.step else 0)

    def input_offset(self, line: _Line) -> float:
        return _port_offset(self, self.inputs.index(line.dst_port)) if self.step else 0.0


def _port_offset(box: _Box, row: int) -> float:
    return _head(box.texts) + _ROW * (row + 0.5) - box.height / 2


def _head(texts: Sequence[str]) -> float:
    return _HEAD + _NOTE * max(0, len(texts) - 2)


def _type_name(step: Step, plan: Plan) -> str:
    """The task's type, and the included file that it is from."""
    name, file = step.task.task_class.__name__, step.task.spec.where.file
    return f"{name}, {Path(file).name}" if file in plan.graph.spec.includes else name


def _lines(plan: Plan) -> list[_Line]:
    """Every connection, in the order of the steps and their inputs."""
    return [
        _Line(
            plan.slots[argument.slot].task_id,
            plan.slots[argument.slot].port,
            step.task.id,
            argument.port.name,
            plan.slots[argument.slot].message_type.__name__,
        )
        for step in plan.steps
        for argument in step.arguments
        if argument.port.is_input and argument.slot is not None
    ]


def _layers(plan: Plan, notes: Notes) -> list[list[_Box]]:
    """Each task in the first layer right of all that feed it, with a lane in every layer that a
    connection passes."""
    depth: dict[str, int] = {}
    lines = _lines(plan)
    for step in plan.steps:
        feeding = [depth[line.src] for line in lines if line.dst == step.task.id]
        depth[step.task.id] = max(feeding, default=-1) + 1
    layers: list[list[_Box]] = [[] for _ in range(max(depth.values()) + 1)]
    boxes = {
        step.task.id: _box(
            step, [step.task.id, _type_name(step, plan), *notes.get(step.task.id, ())]
        )
        for step in plan.steps
    }
    for task_id, box in boxes.items():
        layers[depth[task_id]].append(box)
    for line in lines:
        way = [boxes[line.src]]
        for between in range(depth[line.src] + 1, depth[line.dst]):
            lane = _Box(step=None)
            layers[between].append(lane)
            way.append(lane)
        way.append(boxes[line.dst])
        for left, right in pairwise(way):
            right.before.append((left, line))
        boxes[line.dst].incoming.append(_Stops(line, way))
    return layers


def _box(step: Step, texts: Sequence[str]) -> _Box:
    ports = [argument.port for argument in step.arguments]
    inputs = [port.name for port in ports if port.is_input]
    outputs = [port.name for port in ports if port.is_output]
    rows = max(len(inputs), len(outputs))
    longest = max(map(len, texts))
    port_columns = max(map(len, inputs), default=0) + max(map(len, outputs), default=0) + 3
    return _Box(
        step,
        texts,
        inputs,
        outputs,
        width=max(longest, port_columns) * _CHARACTER + 24,
        height=_head(texts) + _ROW * rows + 6,
    )


def _place(layers: list[list[_Box]]) -> None:
    x = _MARGIN
    for layer in layers:
        labels = [len(stops.line.message) for box in layer for stops in box.incoming]
        if labels:
            x += max(labels) * _CHARACTER + _BENDS
        width = max(box.width for box in layer)
        for box in layer:
            box.x, box.width = x, width  # all equally wide: no bend may begin next to a box below
        x += width
        wanted = {id(box): _wanted_y(box) for box in layer}
        layer.sort(key=lambda box: wanted[id(box)])  # stable: ties keep the plan's order
        bottom = None
        for box in layer:
            box.y = wanted[id(box)]
            if bottom is not None:
                box.y = max(box.y, bottom + _SPACE + box.height / 2)
            bottom = box.y + box.height / 2


def _wanted_y(box: _Box) -> float:
    """The y at which the lines into `box` would be level."""
    levels = [left.output_y(line) - box.input_offset(line) for left, line in box.before]
    return sum(levels) / len(levels) if levels else 0.0


def _draw_line(stops: _Stops) -> str:
    line, way = stops.line, stops.boxes
    start, end = way[0], way[-1]
    x, y = start.x + start.width, start.output_y(line)
    path = [f"M{x:.1f} {y:.1f}"]
    for box in way[1:]:
        to_x, to_y = box.x, box.y + box.input_offset(line)
        if box is end:
            to_x -= 6  # the arrow's tip
        bend = min((to_x - x) / 2, 40)
        path.append(
            f"C{x + bend:.1f} {y:.1f} {x + bend:.1f} {to_y:.1f} {x + 2 * bend:.1f} {to_y:.1f}"
            f" H{to_x if box is end else to_x + box.width:.1f}"
        )
        x, y = to_x + box.width, to_y
    tip = end.x
    return (
        f'<path class="line" d="{" ".join(path)}"/>'
        f'<path class="tip" d="M{tip:.1f} {y:.1f} l-8 -4 v8 z"/>'
        f'<text class="label" x="{tip - 12:.1f}" y="{y - 6:.1f}">{escape(line.message)}</text>'
    )


def _draw_box(box: _Box) -> str:
    step = box.step
    assert step is not None
    left, top = box.x, box.y - box.height / 2
    kind = "box background" if step.task.spec.background else "box"
    size = f'width="{box.width:.1f}" height="{box.height:.1f}"'
    parts = [f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" {size} rx="6"/>']
    if step.task.is_source:
        parts.append(
            f'<rect class="source" x="{left:.1f}" y="{top + 6:.1f}" width="4" '
            f'height="{box.height - 12:.1f}"/>'
        )
    texts = [
        ("type" if row else "id", left + 12, top + 18 + _NOTE * row, text)
        for row, text in enumerate(box.texts)
    ]
    for row, name in enumerate(box.inputs):
        texts.append(("input", left + 12, box.y + _port_offset(box, row) + 4, name))
    for row, name in enumerate(box.outputs):
        texts.append(("output", left + box.width - 12, box.y + _port_offset(box, row) + 4, name))
    parts += [
        f'<text class="{c}" x="{x:.1f}" y="{y:.1f}">{escape(t)}</text>' for c, x, y, t in texts
    ]
    return "".join(parts)
