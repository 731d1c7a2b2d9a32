"""The graph of a recorded run, read again from its log."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowrun.msgs import IntMsg
from flowrun.runtime.errors import ReplayError, UntrustedRun, UsageError
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.graph import (
    computed_elsewhere,
    is_recorded_graph,
    masked_values,
    recorded_feed,
    recorded_graph,
    with_config,
)
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.task import Context, Input, Output, Task
from support import helpers
from support.helpers import START_NS, plan_of, record

TEXT = """tasks:
  - {id: n, type: support.helpers.Numbers, config: {limit: 3}}
  - {id: t, type: support.helpers.Tells, config: {password: "${TELLS}"}}
cnx: [{src: n, dst: t, msg: IntMsg}]
"""


def logged(text: str | None, **metadata: str) -> Any:
    """A log with this graph and metadata, and nothing else."""
    attachments = {} if text is None else {"graph.yaml": text.encode()}
    return SimpleNamespace(attachments=attachments, metadata=metadata, path=Path("runs/x"))


def spec_of(text: str, path: Path = Path("g.yaml"), **env: str) -> Any:
    return parse_graph(text, path=path, env=env)


# -- reading it ------------------------------------------------------------------------------------


def test_a_log_without_a_graph_is_refused():
    text = "runs/x: the log holds no graph; give one to replay it with"
    with pytest.raises(ReplayError, match=f"^{re.escape(text)}$"):
        recorded_graph(logged(None), {}, trust=True)


def test_the_environment_is_that_of_the_recording_and_else_that_of_today():
    text = TEXT.replace("limit: 3", "limit: '${LIMIT}'")
    log = logged(text, environment=json.dumps({"LIMIT": "7"}))
    spec = recorded_graph(log, {"LIMIT": "9", "TELLS": "word"}, trust=True)
    assert [task.config for task in spec.tasks] == [{"limit": "7"}, {"password": "word"}]
    assert str(spec.path) == "graph.yaml"
    # What is not known any more is empty, or has its default.
    text = TEXT.replace("limit: 3", "limit: '${LIMIT:-4}'")
    spec = recorded_graph(logged(text, graph_path="a/b.yaml"), {}, trust=True)
    assert [task.config for task in spec.tasks] == [{"limit": "4"}, {"password": ""}]
    assert str(spec.path) == "a/b.yaml"


def test_the_values_that_a_replay_had_changed_are_changed_again():
    log = logged(TEXT, replay_set=json.dumps({"n.limit": 8}))
    assert recorded_graph(log, {}, trust=True).tasks[0].config == {"limit": 8}


def test_what_an_unknown_run_would_run_is_listed(tmp_path):
    text = """tasks:
  - {id: a, type: mine.Task, config: {server: {command: [touch, "a b"]}}}
  - {id: b, type: mine.Task, config: {servers: [{command: echo hi}, {command: null}, 3]}}
  - {id: c, type: flowrun.tasks.basic.Counter}
  - {id: d, type: Counter}
  - {id: e, type: "mine:function"}
  - {id: f, type: PythonCallable, config: {callable: "theirs:f"}}
"""
    with pytest.raises(UntrustedRun) as caught:
        recorded_graph(logged(text, graph_path="/g/graph.yaml"), {})
    assert caught.value.would_run == (
        "code: mine.Task, from /g, the module path or a package",
        "code: mine:function, from /g, the module path or a package",
        "code: theirs:f, from /g, the module path or a package",
        "command: touch 'a b'",
        "command: echo hi",
        "command: ",
    )
    assert str(caught.value).startswith("runs/x: ")
    for unreadable in ("tasks: [", "\udcff"):
        log = logged("")
        log.attachments["graph.yaml"] = unreadable.encode(errors="surrogateescape")
        with pytest.raises(UntrustedRun) as caught:
            recorded_graph(log, {})
        assert caught.value.would_run == ()


# -- secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "text", "is_it"),
    [
        ("a: 1", "a: 1", True),
        ("a: 1", "a: 2", False),
        ("a: 1", "a: 11", False),
        ("a: '***'", "a: word", True),
        ("a: '***' ", "a: word", False),
        ("a: '***'", "b: word", False),
        ("u: rtsp://***@h/", "u: rtsp://me:word@h/", True),
        ("u: rtsp://***@h/", "u: rtsp://me:word@i/", False),
        ("a: '***'\nb: 1", "a: word\nb: 1", True),
        ("a: '***'\nb: 1", "a: word\nb: 2", False),
        ("a: '***'\nb: '***'\nc: 1", "a: x\nb: y\nc: 1", True),
        ("a: '***'\nb: '***'\nc: 1", "a: x\nB: y\nc: 1", False),
        ("a: '***'\nb: '***'\nc: '***'", "a: x\nb: y\nc: z", True),
        ("a: '***'\nb: '***'\nc: '***'", "a: x\nc: y\nb: z", False),
        ("-***--", "--", False),  # the ends may not overlap
        ("-***--", "---", True),
        ("a***bc***c", "abc", False),
        ("a***bc***c", "abcc", True),
    ],
)
def test_a_graph_is_the_recorded_one_if_only_secrets_differ(stored, text, is_it):
    assert is_recorded_graph(logged(stored), SimpleNamespace(text=text)) is is_it
    assert not is_recorded_graph(logged(None), SimpleNamespace(text=text))


def test_a_masked_secret_is_read_from_the_file_if_that_is_still_the_same(tmp_path):
    path = tmp_path / "g.yaml"
    written = TEXT.replace('"${TELLS}"', "hush")
    stored = written.replace("hush", "'***'")
    log = logged(stored, graph_path=str(path))

    def password() -> str:
        spec = recorded_graph(log, {}, trust=True)
        noted = masked_values(spec, ["n", "t"])
        is_masked = spec.tasks[1].config["password"] == "***"
        assert noted == is_masked * [
            "task 't' is run with *** for a secret in its config: the log keeps none, and "
            f"{path} is gone or has changed"
        ]
        assert masked_values(spec, ["n"]) == []
        return spec.tasks[1].config["password"]

    assert password() == "***"
    path.write_text(written)
    assert password() == "hush"
    path.write_text(written.replace("limit: 3", "limit: 4"))
    assert password() == "***"
    path.write_text(written.replace("hush", "other"))
    assert password() == "other"
    log.attachments["graph.yaml"] = written.replace("hush", "new").encode()
    assert recorded_graph(log, {}, trust=True).tasks[1].config["password"] == "new"


# -- what a replay changes -------------------------------------------------------------------------


def test_a_changed_value_leaves_the_others_and_a_secret_one_is_masked():
    spec = spec_of(TEXT, TELLS="word")
    changed = with_config(spec, {"n.limit": 5, "n.more.key": 1, "t.password": 1234})
    numbers, tells = changed.tasks
    assert numbers.config == {"limit": 5, "more.key": 1}
    assert numbers.masked_config == numbers.config
    assert numbers.secrets == spec.tasks[0].secrets
    assert (tells.config, tells.masked_config) == ({"password": 1234}, {"password": "***"})
    assert tells.secrets == spec.tasks[1].secrets | {"1234"}
    assert spec.tasks[0].config == {"limit": 3}
    assert with_config(spec, {}) == spec


@pytest.mark.parametrize("name", ["n", "n.", "limit"])
def test_a_value_without_task_or_key_is_refused(name):
    with pytest.raises(UsageError, match=f"^'{name}': expected task.key=value$"):
        with_config(spec_of(TEXT, TELLS=""), {name: 1})
    with pytest.raises(UsageError, match="^unknown task 'q'; tasks: n, t$"):
        with_config(spec_of(TEXT, TELLS=""), {"q.limit": 1})


def test_what_a_replay_fed_is_fed_again():
    log = logged(TEXT, replay_fed="a b c")
    assert recorded_feed(log, ["b", "c", "n"]) == ["b", "c"]
    assert recorded_feed(logged(TEXT), ["b"]) == []


# -- where it was computed -------------------------------------------------------------------------


class Placed(Task):
    """Computes on a device, as it says."""

    where = "cpu float32"

    def start(self, ctx: Context) -> None:
        ctx.log.info("begins", where="another line")
        ctx.computes_on = type(self).where

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        out.value = number.value
        out.publish()


def test_a_task_that_computes_on_another_device_than_it_did_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "Placed", Placed, raising=False)
    plan = plan_of(
        tmp_path, "n=Numbers(limit: 2); p=Placed; q=Placed; x=Scale", "n > p; n > q; n > x"
    )
    record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log:
        again = Replay(log, env={})
        again.run()
        assert again.notes == []
        monkeypatch.setattr(Placed, "where", "cuda float16")
        again = Replay(log, env={}, feed=["q"])
        with ReplayLog(again, tmp_path / "new", config={}, now_ns=START_NS) as recorder:
            again.run(recorder=recorder)
        assert again.notes == [
            "task 'p' was recorded on cpu float32, and is replayed on cuda float16"
        ]
        monkeypatch.setattr(Placed, "where", "")
        again = Replay(log, env={})
        again.run()
        assert again.notes == []
    monkeypatch.setattr(Placed, "where", "elsewhere")
    with Log(tmp_path / "new") as log:  # of which nothing says where it was computed
        again = Replay(log, env={})
        again.run()
        assert again.notes == []
    assert computed_elsewhere(SimpleNamespace(topics={}), again._graph.active) == []
