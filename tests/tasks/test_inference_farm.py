"""A farm of servers in a run: in messages, log, report and replay; and real ones, of which one dies."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from structlog.testing import capture_logs

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.runtime.run.log_lines import configure_logs
from flowrun.tasks.backends.openai import OpenAIBackend
from flowrun.tasks.backends.settings import OpenAISettings
from flowrun.tasks.embedded.training.scenes import HELD_OUT_SEEDS, draw, make_scene
from flowrun.tasks.models.question import Question, Sampling
from support.model_servers.fault_server import FaultServer
from support.model_servers.llama import LlamaServer
from support.scene_tasks import Scenes

GRAPH = """
tasks:
  - {{id: cam0, type: support.scene_tasks.Scenes, config: {{limit: {limit}}}}}
  - id: vlm
    type: Inference
    config:
      backend: farm
      backends:
        farm: {{type: openai, retries: 0, start_timeout_s: 0, base_url: {urls}}}
        {more}
      {shadow}
cnx: [{{src: cam0, dst: vlm, msg: ImageRgb8Msg}}]
logging: {{slab_size_mib: 4, section_size_mib: 1}}
"""


@pytest.fixture(autouse=True)
def no_hook() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    Scenes.hook = staticmethod(lambda number: None)


@pytest.fixture
def pair() -> Iterator[list[FaultServer]]:
    servers = [FaultServer(), FaultServer()]
    yield servers
    for server in servers:
        server.close()


def graph(urls: Any, *, limit: int = 4, more: str = "", shadow: str = "") -> Any:
    text = GRAPH.format(urls=urls, limit=limit, more=more, shadow=shadow)
    return parse_graph(text, path=Path.cwd() / "g.yaml", env={})


def recorded(made: Any, folder: Path, hook: Any = lambda run, number: None) -> Run:
    """A run whose clock moves 5 s a cycle."""
    live = Run(plan_graph(bind(made)), clock=ManualClock(step_ns=5_000_000_000), directory=folder)
    Scenes.hook = staticmethod(lambda number: hook(live, number))
    configure_logs(now_ns=lambda: 0, target=live.writer, secrets=made.secrets, stream=io.StringIO())
    assert live.run().error is None
    return live


def fields(folder: Path, topic: str) -> list[dict[str, Any]]:
    with Log(folder) as log:
        return [message.fields for message in log.messages(topic)]


def test_each_answer_says_who_gave_it_and_a_replay_asks_nobody(
    pair: list[FaultServer], tmp_path: Path
) -> None:
    urls = [pair[0].base_url.replace("://", "://me:sesame@"), pair[1].base_url]
    shown = ["http://***@" + urls[0].partition("@")[2], urls[1]]
    reports = []

    def hook(live: Run, number: int) -> None:
        if number == 2:
            pair[0].faults += ["500"] * 9
        reports.append(live.report().tasks["vlm"].backends["farm"])

    recorded(graph(urls), tmp_path / "run", hook)
    answers = fields(tmp_path / "run", "/vlm/answer")
    assert [it["server"] for it in answers] == [shown[0], *[shown[1]] * 3]
    assert {it["backend"] for it in answers} == {"farm"}
    lines = [str(it) for it in fields(tmp_path / "run", "/flowrun/log")]
    [failed] = [it for it in lines if "model server failed" in it]
    assert shown[0] in failed
    assert not any("sesame" in it for it in lines)
    last = reports[-1]
    assert (last.state, list(last.servers)) == ("ok", shown)
    states = [asdict(it) for it in last.servers.values()]
    assert [it["state"] for it in states] == ["failing", "ok"]
    assert [it["answers"] for it in states] == [1, 2]
    assert [it["failures"] for it in states] == [1, 0]
    asked = [len(server.bodies) for server in pair]
    with Log(tmp_path / "run") as log:
        report = Replay(log, env={}).run()
    assert (report.first, report.fed) == (None, 8)
    assert [len(server.bodies) for server in pair] == asked


def test_a_fallback_may_be_a_farm_too(pair: list[FaultServer], tmp_path: Path) -> None:
    """Both servers of the first farm are gone, and one of the three of the second."""
    gone = [FaultServer() for _ in range(3)]
    for server in gone:
        server.close()
    more = (
        f"other: {{type: openai, start_timeout_s: 0, "
        f"base_url: [{gone[2].base_url}, {pair[0].base_url}, {pair[1].base_url}]}}"
    )
    made = graph([it.base_url for it in gone[:2]], more=more, shadow="fallback: [other]")
    recorded(made, tmp_path / "run")
    answers = fields(tmp_path / "run", "/vlm/answer")
    assert [it["backend"] for it in answers] == ["other"] * 4
    assert {it["server"] for it in answers} == {it.base_url for it in pair}


def test_the_mistakes_of_a_list_are_where_they_are_made() -> None:
    listed = "['http://a/v1', 'ftp://me:sesame@b', 7, '', 'http://a/v1/']"
    with pytest.raises(GraphError) as caught:
        bind(graph(listed))
    assert [str(it).partition("g.yaml:")[2] for it in caught.value.problems] == [
        "9:88: 'backends.farm.base_url[1]' of task 'vlm': must begin with http:// or https:// and "
        "hold no spaces",
        "9:109: 'backends.farm.base_url[2]' of task 'vlm' must be a text; got 7",
    ]
    with pytest.raises(GraphError) as caught:
        bind(graph("[]"))
    assert [str(it).partition(": ")[2] for it in caught.value.problems] == [
        "'backends.farm.base_url' of task 'vlm' must be a text, or a list of at least 1 item; got a "
        "list"
    ]
    server = "own: {type: openai, base_url: ['http://a', 'http://b'], server: {command: ['true']}}"
    with pytest.raises(GraphError) as caught:
        bind(graph("['http://a/v1', '', 'http://a/v1/']", more=server))
    assert [str(it).partition("g.yaml:")[2] for it in caught.value.problems] == [
        "9:88: base_url[1] is empty",
        "9:92: base_url[2] is the same server as base_url[0]",
        "10:65: flowrun starts one server, and base_url lists several; start them another way, or "
        "give each an entry of 'backends' of its own",
    ]


def test_passwords_of_a_list_are_masked() -> None:
    made = bind(graph(["http://a/v1", "http://me:sesame@b/v1"]))
    assert "sesame" not in str(masked_graph(made.spec))
    assert "sesame" not in made.spec.stored_text


@pytest.mark.slow
def test_real_servers_of_which_one_is_killed_while_it_answers(gguf: Path) -> None:
    """No question is without an answer, and the dead server is asked again when it is back."""
    servers = [LlamaServer(gguf), LlamaServer(gguf)]
    urls = [server.base_url for server in servers]
    for server in servers:
        server.start()
    backend = OpenAIBackend(
        OpenAISettings(base_url=urls),
        graph_dir=Path(),
        log=structlog.get_logger(),
        rng=np.random.default_rng(0),
    )
    pixels = draw(make_scene(HELD_OUT_SEEDS[0]))
    heard: list[str] = []

    def kill(text: str) -> None:
        heard.append(text)
        servers[0].stop()

    def asked(question: Question) -> str:
        answer = backend.answer(question)
        assert answer.text
        return answer.server

    try:
        with capture_logs() as records:
            backend.load()
            assert [asked(Question(pixels, "cap en", 50)) for _ in range(2)] == urls
            # Drawn at such a temperature, an answer is nonsense of hundreds of tokens.
            long = Question(pixels, "cap en", 400, Sampling(1, 50.0), on_text=kill)
            assert asked(long) == urls[1]
            assert len(heard) > 1
            assert [asked(Question(pixels, "cap en", 50)) for _ in range(4)] == [urls[1]] * 4
            servers[0].start()
            came_back = False
            for _ in range(600):  # its rest is a second, and then it is seen to be there
                came_back = came_back or asked(Question(pixels, "cap en", 50)) == urls[0]
                if came_back:
                    break
                time.sleep(0.05)
            assert came_back
    finally:
        backend.close()
        for server in servers:
            server.stop()
    failed = [it for it in records if it["event"] == "model server failed"]
    assert [it["url"] for it in failed] == [urls[0]]
    assert f"{urls[0]}: the answer broke off after " in failed[0]["error"]
