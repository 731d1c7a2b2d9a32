"""Recorded messages that are fed to the classes of today."""

from __future__ import annotations

import re

import pytest

from flowrun.runtime.errors import ReplayError
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from support.helpers import record

TASKS = """
from typing import Annotated, Any
import numpy as np
from numpy.typing import NDArray
from flowrun.msgs import IntMsg, Message, Shape, TextMsg
from flowrun.runtime.task import Context, Input, Output, Task

class PMsg(Message):
    a: int
    b: str
    row: Annotated[NDArray[np.float32], Shape("N")]

class Source(Task):
    def process(self, ctx: Context, out: Output[PMsg]) -> None:
        out.a, out.b, out.row = 7, "x", np.ones(2, np.float32)
        out.publish()
        ctx.finish()

class Use(Task):
    def process(self, ctx: Context, p: Input[PMsg], out: Output[TextMsg]) -> None:
        out.value = f"{p.a} {p.b} {p.row.tolist()}"
        out.publish()
"""
GRAPH = (
    "tasks: [{{id: s, type: {0}.Source}}, {{id: u, type: {0}.Use}}]\n"
    "cnx: [{{src: s, dst: u, msg: {0}.PMsg}}]\n"
    "logging: {{slab_size_mib: 1, section_size_mib: 1}}\n"
)
MIGRATE = """    @classmethod
    def migrate(cls, fields):
        {}

class Source"""


def replay(tmp_path, name, *changes):
    """Record with `TASKS`, make `changes` (old text, new text) in them, and replay: the report's first
    difference, and the notes."""
    tasks, graph = tmp_path / f"{name}.py", tmp_path / "g.yaml"
    tasks.write_text(TASKS)
    graph.write_text(GRAPH.format(name))
    record(load_plan(graph, env={}), tmp_path / "run")
    text = TASKS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    tasks.write_text(text)
    with Log(tmp_path / "run") as log:
        again = Replay(log, graph=graph, env={})
        report = again.run()
        assert report.compared == 1
        return report.first, [note for note in again.notes if note.startswith("/s/out")]


def test_a_field_that_is_new_gets_its_default(tmp_path):
    new = '    b: str\n    c: str = "c"'
    assert replay(tmp_path, "fed_new", ("    b: str", new)) == (
        None,
        ["/s/out was recorded without c: fed as PMsg's default"],
    )


def test_a_field_that_is_gone_is_left_out(tmp_path):
    gone = ("    b: str\n", ""), ("{p.b}", "x"), ('out.b, out.row = 7, "x",', "out.row = 7,")
    assert replay(tmp_path, "fed_gone", *gone) == (
        None,
        ["/s/out was recorded with b, which PMsg no longer has: left out"],
    )


def test_a_renamed_field_is_refused_before_anything_runs(tmp_path):
    text = (
        "/s/out was recorded with another PMsg: a is no longer a field, n is new. If a field was "
        "renamed, say so in PMsg.migrate, a class method from the recorded fields to those of today"
    )
    with pytest.raises(ReplayError, match=f"^{re.escape(text)}$"):
        replay(tmp_path, "fed_renamed", ("    a: int", "    n: int"), ("p.a", "p.n"))


@pytest.mark.parametrize(
    ("declared", "shown"), [("str", "str"), ("bool", "bool"), ("list[int]", "list[int]")]
)
def test_a_value_that_no_longer_fits_is_refused(tmp_path, declared, shown):
    text = (
        "cycle 0: /s/out: the recorded message does not fit the class of today: PMsg.a: expected "
        f"{shown}, got int 7; PMsg.migrate can say how it comes to fit"
    )
    name = "fed_typed_" + declared.partition("[")[0]
    with pytest.raises(ReplayError, match=f"^{re.escape(text)}$"):
        replay(tmp_path, name, ("    a: int", f"    a: {declared}"))


def test_a_value_that_still_fits_is_fed(tmp_path):
    first, notes = replay(tmp_path, "fed_wider", ("    a: int", "    a: int | None"))
    assert first is None
    assert notes == ["/s/out was recorded with another type of a: each value is checked"]


def test_an_array_of_another_type_is_refused(tmp_path):
    changes = ("np.float32], Shape", "np.float64], Shape")
    with pytest.raises(
        ReplayError, match=r"PMsg\.row: expected float64 of shape \(N\), got float32"
    ):
        replay(tmp_path, "fed_array", changes)


def test_a_class_says_how_older_messages_come_to_fit(tmp_path):
    renamed = (
        ("    a: int", "    n: str"),
        ("p.a", "p.n"),
        ("    row:", "    line:"),
        ("p.row", "p.line"),
    )
    body = 'return {"n": str(fields["a"]), "line": fields["row"], "b": fields["b"]}'
    migrate = ("class Source", MIGRATE.format(body))
    assert replay(tmp_path, "fed_migrated", *renamed, migrate) == (
        None,
        [
            "/s/out: recorded with another PMsg (a is no longer a field, row is no longer a field, "
            "n is new, line is new): fed as PMsg.migrate says"
        ],
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return fields", "/s/out: PMsg.migrate returned a; fields: n, b, row"),
        ("return None", "/s/out: PMsg.migrate returned NoneType; expected a dict"),
        ('raise KeyError("q")', "/s/out: PMsg.migrate raised KeyError: 'q'"),
        (
            'return {"n": fields["b"]}',
            "cycle 0: /s/out: the recorded message does not fit the class of today: PMsg.n: expected "
            "int, got str 'x'; PMsg.migrate can say how it comes to fit",
        ),
    ],
)
def test_a_migration_that_fails_is_named(tmp_path, body, text):
    name = f"fed_fails_{len(body)}"
    changes = ("    a: int", "    n: int"), ("p.a", "p.n"), ("class Source", MIGRATE.format(body))
    with pytest.raises(ReplayError, match=f"^{re.escape(text)}$"):
        replay(tmp_path, name, *changes)
