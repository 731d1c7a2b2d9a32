"""A plan as Mermaid and as SVG: everything is shown, and nothing lies on anything else."""

from __future__ import annotations

import re
import textwrap
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.drawing import mermaid, svg
from flowrun.runtime.graph.plan import Plan, plan_graph
from flowrun.runtime.graph.read import load_graph, parse_graph
from support.paths import GRAPHS

SVG = "{http://www.w3.org/2000/svg}"

PARTS = """
from flowrun.msgs import BytesMsg, ImageRgb8Msg, TextMsg
from flowrun.runtime.task import Context, Input, Output, Task


class Cam(Task):
    def process(
        self, ctx: Context, image: Output[ImageRgb8Msg], audio: Output[BytesMsg]
    ) -> None: ...


class Find(Task):
    def process(self, ctx: Context, image: Input[ImageRgb8Msg], out: Output[TextMsg]) -> None: ...


class Join(Task):
    def process(
        self,
        ctx: Context,
        image: Input[ImageRgb8Msg],
        a: Input[TextMsg],
        b: Input[TextMsg],
        audio: Input[BytesMsg] | None,
    ) -> None: ...
"""

DIAMOND = """
tasks:
  - {id: cam, type: drawing_parts.Cam}
  - {id: end, type: drawing_parts.Find, background: true}
  - {id: find_things_in_the_picture, type: drawing_parts.Find}
  - {id: join, type: drawing_parts.Join}
cnx:
  - {src: cam, dst: end, msg: ImageRgb8Msg}
  - {src: cam, dst: find_things_in_the_picture, msg: ImageRgb8Msg}
  - {src: cam, dst: join, msg: ImageRgb8Msg}
  - {src: end, dst: join.a, msg: TextMsg}
  - {src: find_things_in_the_picture, dst: join.b, msg: TextMsg}
  - {src: cam, dst: join, msg: BytesMsg}
"""


@pytest.fixture
def diamond(tmp_path: Path) -> Plan:
    (tmp_path / "drawing_parts.py").write_text(PARTS)
    path = tmp_path / "diamond.yaml"
    return plan_graph(bind(parse_graph(DIAMOND, path=path, env={})))


def shipped(name: str) -> Plan:
    return plan_graph(bind(load_graph(GRAPHS / f"{name}.yaml", env={})))


def test_mermaid_draws_tasks_and_connections(diamond: Plan) -> None:
    assert mermaid(diamond) == textwrap.dedent("""\
        flowchart LR
            t0(["cam<br/>Cam"])
            t1["end<br/>Find"]
            t2["find_things_in_the_picture<br/>Find"]
            t3["join<br/>Join"]
            t0 -- "image: ImageRgb8Msg" --> t1
            t0 -- "image: ImageRgb8Msg" --> t2
            t0 -- "image: ImageRgb8Msg" --> t3
            t1 -- "out: TextMsg" --> t3
            t2 -- "out: TextMsg" --> t3
            t0 -- "audio: BytesMsg" --> t3
            style t1 stroke-dasharray: 5 5
        """)


def rectangles(root: ET.Element) -> list[tuple[float, float, float, float]]:
    return [
        (x, y, x + float(r.attrib["width"]), y + float(r.attrib["height"]))
        for r in root.iter(f"{SVG}rect")
        if r.attrib["class"].startswith("box")
        for x, y in [(float(r.attrib["x"]), float(r.attrib["y"]))]
    ]


def points_of(path: str) -> list[tuple[float, float]]:
    """Points along a path of M, C and H, close enough together not to step over a box."""
    points: list[tuple[float, float]] = []
    for command, numbers in re.findall(r"([MCH])([-\d. ]+)", path):
        values = [float(number) for number in numbers.split()]
        if command == "M":
            points.append((values[0], values[1]))
            continue
        x0, y0 = points[-1]
        if command == "H":
            points += [(x0 + (values[0] - x0) * i / 100, y0) for i in range(1, 101)]
            continue
        (x1, y1), (x2, y2), (x3, y3) = zip(values[::2], values[1::2], strict=True)
        for i in range(1, 101):
            t = i / 100
            a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
            points.append((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))
    return points


@pytest.mark.parametrize("name", ["diamond", "minimal", "caterpillar"])
def test_nothing_in_the_svg_lies_on_anything_else(name: str, diamond: Plan) -> None:
    plan = diamond if name == "diamond" else shipped(name)
    root = ET.fromstring(svg(plan))
    boxes = rectangles(root)
    assert len(boxes) == len(plan.steps)
    for a, b in combinations(boxes, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    lines = [p for p in root.iter(f"{SVG}path") if p.attrib["class"] == "line"]
    assert len(lines) == len(plan.graph.connections)
    for line in lines:
        for x, y in points_of(line.attrib["d"])[1:]:
            assert 0 < x < width
            assert 0 < y < height
            assert not any(b[0] < x < b[2] and b[1] < y < b[3] for b in boxes)
    labels = [t for t in root.iter(f"{SVG}text") if t.attrib["class"] == "label"]
    places = [
        (float(t.attrib["x"]) - 7.3 * len(t.text or ""), float(t.attrib["y"]) - 11,
         float(t.attrib["x"]), float(t.attrib["y"]))
        for t in labels
    ]  # fmt: skip
    for a, b in combinations([*places, *boxes], 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_the_svg_names_every_task_type_port_and_message(diamond: Plan) -> None:
    texts = [t.text for t in ET.fromstring(svg(diamond)).iter(f"{SVG}text")]
    assert {"cam", "Cam", "image", "audio", "join", "ImageRgb8Msg", "TextMsg", "BytesMsg"} <= {
        *texts
    }


def test_the_same_plan_gives_the_same_picture() -> None:
    assert svg(shipped("caterpillar")) == svg(shipped("caterpillar"))


def test_partitions_are_boxes_and_links_between_them_are_thick(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text(
        "partitions: {one: {}, two: {}}\n"
        "tasks:\n"
        "  - {id: n, type: Counter, partition: one}\n"
        "  - {id: square, type: Square, partition: one}\n"
        "  - {id: show, type: Print, partition: two}\n"
        "cnx:\n"
        "  - {src: n, dst: square, msg: IntMsg}\n"
        "  - {src: square, dst: show, msg: IntMsg}\n"
    )
    lines = [
        line.strip() for line in mermaid(plan_graph(bind(load_graph(path, env={})))).splitlines()
    ]
    assert lines == [
        "flowchart LR",
        'subgraph t_one["partition one"]',
        't0(["n<br/>Counter"])',
        't1["square<br/>Square"]',
        "end",
        'subgraph t_two["partition two"]',
        't2["show<br/>Print"]',
        "end",
        't0 -- "count: IntMsg" --> t1',
        't1 == "square: IntMsg" ==> t2',
    ]
