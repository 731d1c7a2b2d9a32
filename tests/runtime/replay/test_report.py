"""All differences of a replay, as a page and as JSON."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flowrun.msgs import ImageRgb8Msg, IntMsg, Message
from flowrun.msgs.difference import ArrayDifference
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay import report as module
from flowrun.runtime.replay.about import nearest_pictures
from flowrun.runtime.replay.compare import Difference, Recorded, Tolerance
from flowrun.runtime.replay.page import Entry, Page, Series
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.replay.report import DifferenceReport
from flowrun.runtime.replay.values import plain
from flowrun.runtime.task import Context, Input, Output, Task
from support import helpers
from support.helpers import START_NS, plan_of, record
from support.pictures import ReadingMsg, pictures_run

S = 1_000_000_000


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Numbers 0 to 3, multiplied by 10, in cycles that begin weeks apart."""
    folder = tmp_path_factory.mktemp("numbers")
    tasks = "n=Numbers(limit: 4); x=Scale; s=Sum"
    record(plan_of(folder, tasks, "n > x; x > s.a"), folder / "run", step_ns=2_000_000 * S)
    with Log(folder / "run") as log:
        yield log


class Written:
    """What a `DifferenceReport` of `replay` wrote, in both forms."""

    def __init__(self, replay: Replay, folder: Path, *, most_pictures: int = 200) -> None:
        self.replay = replay
        self.folder = folder
        self.report = DifferenceReport(replay, most_pictures=most_pictures)

    def run(self, **options: Any) -> tuple[dict[str, Any], str]:
        self.replay.run(**options)
        return self.write()

    def write(self) -> tuple[dict[str, Any], str]:
        for name in ("r.json", "r.html"):
            self.report.write(self.folder / name, self.replay.report, command="flowrun <x>")
        text = (self.folder / "r.json").read_text()
        assert text.startswith('{\n "run"')
        assert text.endswith("\n}\n")
        return json.loads(text), (self.folder / "r.html").read_text()

    def take(self, difference: Difference, recorded: Recorded | None, made: Message | None) -> None:
        """Report a difference as the replay does."""
        on_difference = self.replay._graph.on_difference
        assert on_difference is not None
        on_difference(difference, recorded, made)


def recorded_of(message: Message, tov_ns: int = 5) -> Recorded:
    message.publish(tov_ns=tov_ns)
    payload = memoryview(b"".join(message.encode()))
    return Recorded(tov_ns, lambda: payload)


def data_of(page: str) -> dict[str, Any]:
    """The data of a page, which its script shows."""
    [text] = re.findall('<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def entries_of(page: str) -> list[dict[str, Any]]:
    names = [
        "cycle",
        "at",
        "task",
        "kind",
        "camera",
        "variant",
        "was",
        "now",
        "fields",
        "pictures",
        "hint",
        "run",
    ]
    data = data_of(page)
    entries = [dict(zip(names, row, strict=True)) for row in data["rows"]]
    for entry in entries:
        for name in ("task", "kind", "camera", "variant"):
            entry[name] = data["words"][entry[name]]
    return entries


def rows_of(page: str) -> list[tuple[str, str, str, str]]:
    """(class, name, recorded, replayed) of the rows of all tables."""
    return [
        ("differs" if differs else "same", name, was, now)
        for entry in entries_of(page)
        for name, was, now, differs in entry["fields"]
    ]


def test_all_that_differs_is_in_the_json(log, tmp_path):
    replay = Replay(log, config={"x.factor": 12}, env={}, tolerance=Tolerance({"IntMsg": 2}))
    found, _ = Written(replay, tmp_path).run()
    times = {m.cycle: (m.time_ns, m.tov_ns) for m in log.messages("/s/total")}
    differences = found.pop("differences")
    assert found == {
        "run": "run",
        "graph": "g",
        "command": "flowrun <x>",
        "cycles": 5,
        "compared": 8,
        "fed": 4,
        "differing": 4,
        "tolerated": 1,
        "bare": 0,
        "recorded_error": None,
        "notes": [],
    }
    assert differences[1] == {
        "cycle": 2, "task": "s", "port": "total", "field": "value", "recorded": "30",
        "replayed": "34", "array": None, "hint": "", "time_ns": times[2][0], "tov_ns": times[2][1],
        "recorded_message": {"value": 30}, "replayed_message": {"value": 34}, "pictures": {},
    }  # fmt: skip
    assert [(it["cycle"], it["task"]) for it in differences] == [
        (2, "x"), (2, "s"), (3, "x"), (3, "s")
    ]  # fmt: skip


def test_the_page_counts_by_task_and_says_when_each_came(log, tmp_path):
    written = Written(Replay(log, config={"x.factor": 12}, env={}), tmp_path)
    written.replay.notes.append("one <thing>")
    _, page = written.run(start=1)
    assert "<title>run: 6 of 6 messages differ</title>" in page
    data = data_of(page)
    assert data["command"] == "flowrun <x>"
    assert data["notes"] == ["one <thing>."]
    assert data["lead"] == "4 cycles, 3 messages fed from the log."
    assert data["compared"] == {"x": 3, "s": 3}
    assert [(it["cycle"], it["at"], it["task"]) for it in entries_of(page)] == [
        (1 + number, round(at, 3), output)
        for number, at in enumerate(_offsets(log))
        for output in ("x.scaled", "s.total")
    ]
    assert {it["kind"] for it in entries_of(page)} == {"number"}
    assert rows_of(page)[0] == ("differs", "value", "10", "12")
    assert data["runs"] == [{"id": "run", "path": str(log.path)}]


def test_numbers_are_plotted_where_they_differ(log, tmp_path):
    _, page = Written(Replay(log, config={"x.factor": 12}, env={}), tmp_path).run()
    at, sums = [0.0, *_offsets(log)], [0, 1, 3, 6]
    assert data_of(page)["series"] == [
        {"name": "s.total value", "points": [[at[k], 10 * n, 12 * n] for k, n in enumerate(sums)]},
        {"name": "x.scaled value", "points": [[at[k], 10 * k, 12 * k] for k in range(4)]},
    ]  # fmt: skip


def test_of_ten_thousand_points_those_that_differ_are_drawn():
    points = [(float(k), 1.0, 2.0 if k % 1000 == 7 else 1.0) for k in range(10_000)]
    page = Page("t", "l", "c", [("r", "p")], [], series=[Series("a", points)]).text()
    [series] = data_of(page)["series"]
    assert len(series["points"]) <= 2000
    assert sum(was != now for _, was, now in series["points"]) == 10


def test_ten_thousand_differences_are_data_of_a_page_that_does_not_grow():
    def page_of(number):
        fields = [("response", "a red circle", "a blue star", True)]
        entries = [
            Entry(0, k, k / 30, "vlm.answer", "text", "a red circle", "a blue star", fields)
            for k in range(number)
        ]
        return Page("t", "l", "c", [("r", "p")], entries).text()

    few, many = page_of(1), page_of(10_100)
    assert len(entries_of(many)) == 10_100
    assert len(many) < 200 * 10_100
    assert [many.count(it) for it in ("<tr", "<li", "<div")] == [
        few.count(it) for it in ("<tr", "<li", "<div")
    ]


def test_nothing_of_a_run_is_markup(tmp_path):
    evil = "</script><b>\u2028"
    entry = Entry(0, 1, 0.0, evil, "text", evil, evil, [(evil, evil, evil, True)], variant=evil)
    page = Page(evil, evil, evil, [(evil, evil)], [entry], notes=[evil]).text()
    assert page.count("</script>") == 2
    assert "<b>" not in page
    assert entries_of(page)[0]["was"] == evil


def _offsets(log: Log) -> list[float]:
    return [(log[cycle].time_ns - log[0].time_ns) / 1e9 for cycle in (1, 2, 3)]


def test_where_nothing_differs_the_page_says_so(log, tmp_path):
    written = Written(Replay(log, env={}), tmp_path)
    found, page = written.run()
    written.report.write(tmp_path / "r.page", written.replay.report, command="flowrun <x>")
    assert (tmp_path / "r.page").read_text() == page
    assert found["differences"] == []
    assert data_of(page)["lead"].endswith("All messages are identical.")
    assert data_of(page)["rows"] == []


def test_a_recorded_error_is_on_the_page(tmp_path):
    record(plan_of(tmp_path, "n=Numbers; b=Boom", "n > b"), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        found, page = Written(Replay(log, env={}), tmp_path).run()
    assert found["recorded_error"] == "task 'b', cycle 2: ValueError: cannot stand 2"
    assert "The recorded error came again: task 'b', cycle 2: " in data_of(page)["lead"]


def test_a_message_that_is_missing_or_came_besides_is_one_row(log, tmp_path):
    written = Written(Replay(log, env={}), tmp_path)
    none, extra, late = IntMsg(), IntMsg(value=3), IntMsg(value=7)
    extra.publish(tov_ns=9)
    late.publish(tov_ns=6)
    seven = recorded_of(IntMsg(value=7))
    for field, before, now, recorded, made in (
        ("", "a <message>", "no message", seven, none.view()),
        ("", "no message", "IntMsg(3)", None, extra.view()),
        ("tov_ns", "5", "6", seven, late.view()),
        ("error", "E: <a>", "no error", None, None),
    ):
        written.take(Difference(1, "x", "scaled", field, before, now), recorded, made)
    found, page = written.write()
    messages = [
        (it["recorded_message"], it["replayed_message"], it["tov_ns"])
        for it in found["differences"]
    ]
    assert messages == [
        ({"value": 7}, None, 5),
        (None, {"value": 3}, 9),
        ({"value": 7}, {"value": 7}, 6),
        (None, None, 0),
    ]
    assert rows_of(page) == [
        ("differs", "message", "a <message>", "no message"),
        ("differs", "message", "no message", "IntMsg(3)"),
        ("differs", "tov_ns", "5", "6"),
        ("differs", "error", "E: <a>", "no error"),
    ]


def test_bytes_of_another_kind_are_counted(log, tmp_path):
    written = Written(Replay(log, env={}), tmp_path)
    made = ReadingMsg()
    made.publish(tov_ns=5)
    recorded = Recorded(5, lambda: memoryview(b"\xc1abc"))
    written.take(Difference(1, "x", "scaled", "", "4 bytes", "now"), recorded, made.view())
    [found] = written.write()[0]["differences"]
    assert found["recorded_message"] == {"bytes": "4 bytes that are not a ReadingMsg"}


def test_every_kind_of_value_is_shown_and_what_differs_comes_first(log, tmp_path):
    written = Written(Replay(log, env={}), tmp_path)
    same = {"count": 1, "ok": True, "name": "é<", "raw": b"abc"}
    before = ReadingMsg(**same, level=float("nan"), gap=None, words=["a"])
    now = ReadingMsg(**same, level=float("-inf"), gap=2.5, words=["a", "b"])
    before.took_ms, now.took_ms = 1.0, 2.0
    now.publish(tov_ns=5)
    difference = Difference(1, "x", "scaled", "level", "nan", "-inf")
    written.take(difference, recorded_of(before), now.view())
    found, page = written.write()
    [entry] = found["differences"]
    shown = {"count": 1, "ok": True, "name": "é<", "raw": "3 bytes"}
    assert entry["recorded_message"] == {**shown, "level": "nan", "gap": None, "words": ["a"]}
    assert entry["replayed_message"]["level"] == "-inf"
    assert rows_of(page) == [
        ("differs", "level", "nan", "-inf"),
        ("differs", "gap", "null", "2.5"),
        ("differs", "words", '["a"]', '["a", "b"]'),
        ("same", "count", "1", "1"),
        ("same", "ok", "true", "true"),
        ("same", "name", "é<", "é<"),
        ("same", "raw", "3 bytes", "3 bytes"),
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.arange(64, dtype=np.uint8), [*range(64)]),
        (np.arange(65, dtype=np.uint8), "uint8 [65]"),
        (np.array([[1.5, np.nan]]), [[1.5, "nan"]]),
        (np.array([True]), [True]),
        (np.array([1 + 2j]), "complex128 [1]"),
        (np.array(["a"]), "<U1 [1]"),
        ({1: [b"ab", {"x": np.zeros((9, 9))}]}, {"1": ["2 bytes", {"x": "float64 [9, 9]"}]}),
        (0.5, 0.5),
        (2**70, 2**70),
        (None, None),
    ],
)
def test_what_json_does_not_know_is_put_in_words(value, shown):
    assert plain({"it": value}, most=64) == {"it": shown}


def test_a_long_value_is_cut(log, tmp_path):
    class Noted(Message):
        text: str

    written = Written(Replay(log, env={}), tmp_path)
    for length in (2000, 2001):
        made = Noted(text="b" * length)
        made.publish(tov_ns=5)
        difference = Difference(1, "x", "", "text", "a" * length, "b" * length)
        written.take(difference, recorded_of(Noted(text="a" * length)), made.view())
        written.take(Difference(1, "x", "", "error", "c" * length, "d" * length), None, None)
    rows = [row[2:] for row in rows_of(written.write()[1])]
    assert rows == [
        ("a" * 2000, "b" * 2000), ("c" * 2000, "d" * 2000),
        ("a" * 2000 + "…", "b" * 2000 + "…"), ("c" * 2000, "d" * 2000),
    ]  # fmt: skip


def test_an_array_that_looks_the_same_is_shown_by_where_it_differs(log, tmp_path):
    written = Written(Replay(log, env={}), tmp_path)
    made = helpers.GridMsg(grid=np.ones((40, 2), np.float32), note="n")
    made.publish(tov_ns=5)
    recorded = recorded_of(helpers.GridMsg(grid=np.zeros((40, 2), np.float32), note="n"))
    array = ArrayDifference((0, 0), 80, 80, 1.0)
    difference = Difference(1, "x", "", "grid", "0 at [0, 0]", "1 there; 80 of 80", array)
    written.take(difference, recorded, made.view())
    found, page = written.write()
    assert rows_of(page) == [
        ("differs", "grid", "0 at [0, 0]", "1 there; 80 of 80"),
        ("same", "note", "n", "n"),
    ]
    assert found["differences"][0]["array"] == {
        "index": [0, 0], "count": 80, "size": 80, "largest": 1.0
    }  # fmt: skip


# -- pictures --------------------------------------------------------------------------------------


def size_of(data: str) -> tuple[int, int]:
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == "JPEG"
    return image.size


def test_pictures_are_those_made_or_the_one_that_the_message_is_about(tmp_path):
    pictures_run(tmp_path)
    with Log(tmp_path / "run") as log:
        written = Written(Replay(log, config={"d.by": 30}, env={}), tmp_path)
        found, page = written.run()
        frames = {m.cycle: m.fields["pixels"] for m in log.messages("/d/darker")}
    assert [(it["cycle"], it["task"], [*it["pictures"]]) for it in found["differences"]] == [
        (cycle, task, names)
        for cycle in range(5)
        for task, names in (("d", ["recorded", "replayed"]), ("m", ["frame"]))
    ]
    for it in found["differences"]:
        darker = 28 if "replayed" in it["pictures"] else 0
        shown = Image.open(io.BytesIO(base64.b64decode([*it["pictures"].values()][-1])))
        red = frames[it["cycle"]][:, :, 0].mean() - darker
        assert abs(np.asarray(shown)[:, :, 0].mean() - red) < 4
    shown_on_page = [caption for it in entries_of(page) for caption, _ in it["pictures"]]
    assert shown_on_page == ["recorded", "replayed", "frame"] * 5
    assert len(data_of(page)["pictures"]) == 15
    assert {it["camera"] for it in entries_of(page)} == {"c", "d"}


@pytest.mark.parametrize(
    ("most", "shown"),
    [(0, []), (1, ["d"]), (3, ["d", "d", "d"]), (7, ["d", "m", "d", "d", "m", "d", "d"])],
)
def test_the_first_pictures_are_shown(tmp_path, most, shown):
    pictures_run(tmp_path)
    with Log(tmp_path / "run") as log:
        replay = Replay(log, config={"d.by": 30}, env={})
        found, page = Written(replay, tmp_path, most_pictures=most).run()
    assert [it["task"] for it in found["differences"] if it["pictures"]] == shown
    assert data_of(page)["notes"][-1] == f"Only {most} differences are shown with pictures."


class Marks(Task):
    """Its input of pictures comes last."""

    def process(
        self, ctx: Context, mark: Output[IntMsg], number: Input[IntMsg], image: Input[ImageRgb8Msg]
    ) -> None:
        mark.publish()


def test_the_picture_of_a_task_may_be_at_any_of_its_inputs(tmp_path, monkeypatch):
    from support import message_tasks

    monkeypatch.setattr(message_tasks, "Says", Marks, raising=False)
    tasks = "n=Numbers(limit: 4); c=Camera; s=message_tasks.Says; x=Scale"
    plan = plan_of(tmp_path, tasks, "n > s.number; c > s.image: ImageRgb8Msg; s > x")
    assert nearest_pictures(plan) == {"s": "/c/image", "x": "/c/image"}


def test_200_pictures_are_shown_if_nobody_says_how_many(log, tmp_path):
    replay = Replay(log, env={})
    report = DifferenceReport(replay)
    written = Written(replay, tmp_path)
    written.report = report
    replay.hook(on_difference=report._take)
    made = ImageRgb8Msg(pixels=np.zeros((2, 2, 3), np.uint8))
    made.publish(tov_ns=1)
    for _ in range(201):
        written.take(Difference(1, "x", "scaled", "", "no message", "a picture"), None, made.view())
    found, _ = written.write()
    assert [bool(it["pictures"]) for it in found["differences"]] == [True] * 200 + [False]
    assert {*found["differences"][0]["pictures"]} == {"replayed"}


@pytest.mark.parametrize(
    ("size", "shown"), [((720, 360), (360, 180)), ((360, 361), (359, 360)), ((360, 4), (360, 4))]
)
def test_a_large_picture_is_made_smaller(size, shown):
    picture = module._jpeg(np.zeros((size[1], size[0], 3), np.uint8))
    assert size_of(base64.b64encode(picture).decode()) == shown


def test_an_empty_picture_is_left_out(log, tmp_path):
    written = Written(Replay(log, env={}), tmp_path)
    made = ImageRgb8Msg(pixels=np.zeros((0, 0, 3), np.uint8))
    made.publish(tov_ns=1)
    written.take(Difference(1, "x", "scaled", "", "no message", "a picture"), None, made.view())
    found, page = written.write()
    assert found["differences"][0]["pictures"] == {"replayed": ""}
    assert data_of(page)["pictures"] == {}


class Recalls(Task):
    """Publishes a number for each, with the time of the only picture that it got."""

    def start(self, ctx: Context) -> None:
        self.tov_ns = 0

    def process(
        self, ctx: Context, number: Input[IntMsg], image: Input[ImageRgb8Msg] | None, out: Output[IntMsg]
    ) -> None:  # fmt: skip
        self.tov_ns = self.tov_ns if image is None else image.tov_ns
        out.value = number.value
        if ctx.cycle > 998:
            out.publish(tov_ns=self.tov_ns)


def test_a_picture_is_looked_for_in_the_thousand_cycles_before(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "Recalls", Recalls, raising=False)
    plan = plan_of(
        tmp_path,
        "c=Camera(limit: 1, width: 4, height: 4); n=Numbers(limit: 1002); r=Recalls",
        "c > r: ImageRgb8Msg; n > r.number",
        "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 500}",
    )
    record(plan, tmp_path / "run")

    def process(self, ctx: Context, number: Any, image: Any, out: Any) -> None: ...

    with Log(tmp_path / "run") as log:
        monkeypatch.setattr(Recalls, "process", process, raising=True)
        replay = Replay(log, env={})
        written = Written(replay, tmp_path)
        for cycle in (999, 1000, 1001):
            made = IntMsg()
            recorded = recorded_of(IntMsg(value=1), tov_ns=START_NS)
            written.take(Difference(cycle, "r", "out", "", "a", "b"), recorded, made.view())
        found, _ = written.write()
        assert [m.cycle for m in log.messages("/r/out")] == [999, 1000, 1001]
    assert [[*it["pictures"]] for it in found["differences"]] == [["frame"], ["frame"], []]


def test_the_picture_of_a_task_is_the_nearest_upstream(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "Recalls", Recalls, raising=False)
    plan = plan_of(
        tmp_path,
        "c=Camera; k=Camera; n=Numbers; d=Darken; r=Recalls; q=Recalls; x=Scale; y=Scale; u=Scale; "
        "s=Sum; t=Sum; v=Sum",
        "c > d: ImageRgb8Msg; d > r: ImageRgb8Msg; n > r.number; k > q: ImageRgb8Msg; n > q.number; "
        "r > x; q > y; n > u; r > s.a; y > s.b; x > t.a; q > t.b; q > v.a; r > v.b",
    )
    assert nearest_pictures(plan) == {
        "d": "/c/image",
        **dict.fromkeys("rxsv", "/d/darker"),  # v: as near as the other, and first by name
        **dict.fromkeys("qyt", "/k/image"),
    }
