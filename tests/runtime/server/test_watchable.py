"""The fake run of these tests and a real `Run` look the same to the server."""

import inspect

import httpx
import pytest

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.run.live import Run
from flowrun.runtime.run.report import RunReport
from flowrun.runtime.server.status import report_json
from flowrun.runtime.server.watchable import Watchable
from support.paths import MEDIA

GRAPH = """
tasks:
  - {id: n, type: Counter, config: {limit: 3}}
  - {id: x, type: Square}
  - {id: p, type: Print}
cnx:
  - {src: n, dst: x, msg: IntMsg}
  - {src: x, dst: p, msg: IntMsg}
"""
MEMBERS = [name for name in vars(Watchable) if not name.startswith("_")]


@pytest.fixture
def real(tmp_path):
    plan = plan_graph(bind(parse_graph(GRAPH, path=tmp_path / "squares.yaml", env={})))
    run = Run(plan, clock=ManualClock(1, step_ns=1000), directory=tmp_path / "run")
    with run.discarded_unless_run():
        yield run


@pytest.fixture
def fake(new_run):
    return new_run()


def types_in(value):
    """The types in JSON data, by place; what is None may be anything."""
    match value:
        case dict():
            return {key: types_in(inner) for key, inner in value.items()}
        case None:
            return ...
    return type(value)


@pytest.mark.parametrize("name", MEMBERS)
def test_real_and_fake_run_have_the_member(real, fake, name):
    promised = getattr(Watchable, name)
    for run in (real, fake):
        if isinstance(promised, property):
            assert not callable(getattr(run, name))
        else:
            wanted = list(inspect.signature(promised).parameters)[1:]
            assert list(inspect.signature(getattr(run, name)).parameters) == wanted


def test_real_and_fake_run_report_the_same(real, fake):
    assert real.run().error is None
    fake.cycle()
    fake.cycle()
    reports = [real.report(), fake.report()]
    assert [type(report) for report in reports] == [RunReport, RunReport]
    types = [types_in(report_json(report)) for report in reports]
    assert types[0].pop("tasks")["n"] == types[1].pop("tasks")["cam0"]
    assert types[1].pop("last_answer").keys() == {
        "prompt", "response", "truncated", "reasoning", "latency_ms", "backend", "cycle",
        "timestamp_nanos",
    }  # fmt: skip
    assert types[0].pop("last_answer") is ...
    assert (types[0].pop("ended"), types[1].pop("ended")) == (str, ...)  # the fake one goes on
    assert types[0] == types[1]


def test_real_and_fake_run_end_in_the_same_words(real, fake):
    assert real.state() == fake.state() == "Running"
    real.run()
    fake.end()
    assert real.state() == fake.state() == "Stopped"


def test_the_fake_graph_says_nothing_that_a_real_one_does_not(real, fake):
    real, fake = real.graph(), fake.graph()
    for key in ("tasks", "cnx"):
        assert fake[key][0].keys() <= real[key][0].keys()
    assert type(real["tasks"][0]["config"]) is type(fake["tasks"][0]["config"]) is dict


def test_a_prompt_that_is_too_long_is_refused_with_the_limit(tmp_path, new_server):
    graph = f"""
    tasks:
      - {{id: cam, type: VideoCapture, config: {{source_uri: {MEDIA / "shapes.mp4"}}}}}
      - {{id: vlm, type: Inference}}
    cnx: [{{src: cam, dst: vlm, msg: ImageRgb8Msg}}]
    """
    plan = plan_graph(bind(parse_graph(graph, path=tmp_path / "ask.yaml", env={})))
    run = Run(plan, clock=ManualClock(1, step_ns=1000), directory=None)
    address = f"{new_server(run).url}api/v0/inference/settings"
    with run.discarded_unless_run(), httpx.Client(trust_env=False, verify=False) as http:
        assert http.post(address, json={"prompt": "x" * 16_384}).status_code == 200
        reply = http.post(address, json={"prompt": "x" * 16_385})
    assert (reply.status_code, reply.json()) == (
        422,
        {"error": f"vlm.prompt: must be a text of at most 16,384 characters; got '{'x' * 56}..."},
    )
