"""`backend: openai` against a real llama-server, and against one that misbehaves."""

from __future__ import annotations

import base64
import gc
import io
import itertools
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from PIL import Image
from structlog.testing import capture_logs

from flowrun.tasks.backends import client, openai
from flowrun.tasks.backends.openai import OpenAIBackend
from flowrun.tasks.backends.settings import OpenAISettings
from flowrun.tasks.embedded.training.scenes import HELD_OUT_SEEDS, caption, draw, make_scene
from flowrun.tasks.models.question import Answer, ModelError, Question, Sampling
from support.model_servers.fault_server import FaultServer
from support.model_servers.llama import LlamaServer, free_port

BLACK = np.zeros((48, 64, 3), np.uint8)


@pytest.fixture
def opened() -> Iterator[list[OpenAIBackend]]:
    made: list[OpenAIBackend] = []
    yield made
    for backend in made:
        backend.close()


@pytest.fixture
def connect(opened: list[OpenAIBackend]) -> Any:
    def connect(base_url: str, *, max_batch: int = 1, **settings: Any) -> OpenAIBackend:
        backend = OpenAIBackend(
            OpenAISettings(base_url=base_url, **settings),
            graph_dir=Path(),
            log=structlog.get_logger(),
            rng=np.random.default_rng(0),
            max_batch=max_batch,
        )
        opened.append(backend)
        backend.load()
        return backend

    return connect


@pytest.fixture
def waiting(opened: list[OpenAIBackend], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load a backend; gives it, what was shown meanwhile, and what was logged: events and reasons."""
    monkeypatch.setattr(openai, "_LOOK_S", 0.01)

    def waiting(base_url: str, on_look: Any = lambda _looks: None) -> Any:
        shown: list[str] = []

        def tell(what: str, _fraction: float | None) -> None:
            shown.append(what)
            on_look(len(shown))

        backend = OpenAIBackend(
            OpenAISettings(base_url=base_url, start_timeout_s=200),
            graph_dir=Path(),
            log=structlog.get_logger(),
            rng=np.random.default_rng(0),
            tell=tell,
        )
        opened.append(backend)
        with capture_logs() as records:
            backend.load()
        assert all(it["up_to_s"] == 200 for it in records if "said" in it)
        return backend, shown, [(it["event"], it.get("said")) for it in records]

    return waiting


def watch(_text: str) -> None:
    """With somebody to show it to, an answer is streamed."""


def ask(backend: OpenAIBackend, prompt: str = "cap en", **more: Any) -> Answer:
    return backend.answer(
        Question(BLACK, prompt, **{"max_new_tokens": 50, "on_text": watch, **more})
    )


def failure(backend: OpenAIBackend, prompt: str = "cap en") -> str:
    with pytest.raises(ModelError) as caught:
        ask(backend, prompt)
    return str(caught.value)


# -- llama-server ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_llama_server_captions_scenes(llama: LlamaServer, connect: Any, stream: bool) -> None:
    backend = connect(llama.base_url, stream=stream)
    scenes = [make_scene(seed) for seed in HELD_OUT_SEEDS[:20]]
    questions = [Question(draw(scene), "cap en", 50, on_text=watch) for scene in scenes]
    answers = [backend.answer(question) for question in questions]
    right = sum(a.text == caption(s) for a, s in zip(answers, scenes, strict=True))
    assert right >= 19  # llama.cpp prepares pictures a little differently
    assert all(0 < answer.tokens <= 50 for answer in answers)


@pytest.mark.slow
def test_the_text_arrives_as_it_grows(llama: LlamaServer, connect: Any) -> None:
    backend = connect(llama.base_url)
    grown: list[str] = []
    pixels = draw(make_scene(HELD_OUT_SEEDS[0]))
    answer = backend.answer(Question(pixels, "cap en", 50, on_text=grown.append))
    assert len(grown) > 3
    assert all(after.startswith(before) for before, after in itertools.pairwise(grown))
    assert grown[-1].strip() == answer.text


@pytest.mark.slow
def test_max_new_tokens_and_stop_bound_the_answer(llama: LlamaServer, connect: Any) -> None:
    backend = connect(llama.base_url)
    pixels = draw(make_scene(HELD_OUT_SEEDS[0]))
    assert backend.answer(Question(pixels, "cap en", 3)).tokens == 3
    whole = backend.answer(Question(pixels, "cap en", 50)).text
    first, second = whole.split()[:2]
    stopped = backend.answer(Question(pixels, "cap en", 50, stop=(f" {second}",))).text
    assert stopped == first


@pytest.mark.slow
def test_the_servers_only_model_is_found(llama: LlamaServer, connect: Any) -> None:
    backend = connect(llama.base_url)
    assert backend._farm.members[0].client.model is not None
    assert backend._farm.members[0].client.model.endswith("model.gguf")
    assert backend.healthy()


# -- what is sent ------------------------------------------------------------------------------


def test_the_request_holds_the_picture_and_the_prompt(
    fault_server: FaultServer, connect: Any
) -> None:
    backend = connect(fault_server.base_url, api_key="sesame", jpeg_quality=95)
    pixels = draw(make_scene(3))
    answer = backend.answer(Question(pixels, "what is it?", 7, on_text=watch))
    assert answer == Answer("a red circle", 3)
    [body], [headers] = fault_server.bodies, fault_server.headers
    assert headers["Authorization"] == "Bearer sesame"
    [message] = body.pop("messages")
    picture, text = message["content"]
    kind, _, data = picture["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert np.abs(sent.astype(int) - pixels).mean() < 3
    assert text == {"type": "text", "text": "what is it?"}
    assert body == {
        "model": "tiny",
        "max_tokens": 7,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_an_answer_that_nobody_watches_is_not_streamed(
    fault_server: FaultServer, connect: Any
) -> None:
    ask(connect(fault_server.base_url), on_text=None)
    assert fault_server.bodies[0]["stream"] is False


def test_sampling_and_stop_are_sent(fault_server: FaultServer, connect: Any) -> None:
    backend = connect(fault_server.base_url, stream=False, model="big")
    ask(backend, sampling=Sampling(seed=5, temperature=0.5), stop=("\n", "."))
    [body] = fault_server.bodies
    del body["messages"]
    assert body == {
        "model": "big",
        "max_tokens": 50,
        "temperature": 0.5,
        "seed": 5,
        "stop": ["\n", "."],
        "stream": False,
    }


# -- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "stream", "text"),
    [
        ("400", True, "status 400: asked to give 400 to "),
        ("html", True, "no answer in the reply but text/html: a web page: 'This is no model'"),
        ("broken", False, 'no answer in the reply but application/json: \'{"choices": [{"mess\''),
        ("empty", False, "no answer in the reply but application/json: nothing"),
        ("no content", False, "the reply holds no text (content: null)"),
        ("cut", True, "the answer broke off after 1 characters"),
        ("broken stream", True, "broken JSON in the stream: '{\"choices\": ['"),
        ("stream error", True, "out of memory"),
        ("500", True, "status 500: asked to give 500 to "),
    ],
)
def test_each_fault_is_named(
    fault_server: FaultServer, connect: Any, fault: str, stream: bool, text: str
) -> None:
    backend = connect(fault_server.base_url, stream=stream, retries=0)
    fault_server.faults.append(fault)
    assert failure(backend) == f"{fault_server.base_url}: {text}"
    assert ask(backend, "something else").text == "a red circle"


def test_a_reply_that_cannot_be_unpacked_leaves_nothing_to_complain_of(
    fault_server: FaultServer, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    backend = connect(fault_server.base_url, retries=0)
    fault_server.faults.append("no gzip")
    assert failure(backend) == (
        f"{fault_server.base_url}: the answer broke off after 0 characters: Error -3 while "
        "decompressing data: incorrect header check"
    )
    backend.close()
    gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("long text", "the answer is longer than 1 MiB of text"),
        ("long stream", "the answer is longer than 1 MiB of text"),
        ("long body", "the reply is longer than 8 MiB"),
        ("long line", "the reply is longer than 8 MiB"),
        ("long refusal", f"status 400: {'x' * 2000}..."),
    ],
)
def test_an_answer_without_end_is_given_up_and_not_asked_for_again(
    fault_server: FaultServer, connect: Any, fault: str, text: str
) -> None:
    backend = connect(fault_server.base_url, retries=5)
    fault_server.faults.append(fault)
    assert failure(backend) == f"{fault_server.base_url}: {text}"
    assert len(fault_server.bodies) == 1
    assert ask(backend, "something else").text == "a red circle"


@pytest.mark.parametrize(
    "fault", ["500", "503", "529", "429", "html", "broken", "cut", "stream error"]
)
def test_what_may_pass_is_tried_again(fault_server: FaultServer, connect: Any, fault: str) -> None:
    backend = connect(fault_server.base_url, retries=2)
    fault_server.faults += [fault, fault]
    assert ask(backend) == Answer("a red circle", 3)
    assert len(fault_server.bodies) == 3


def test_a_kept_connection_that_the_server_has_closed_is_no_failure(
    fault_server: FaultServer, connect: Any
) -> None:
    backend = connect(fault_server.base_url, retries=0)
    ask(backend)
    fault_server.faults.append("close")
    assert ask(backend).text == "a red circle"
    fault_server.faults += ["close", "close"]
    assert failure(backend) == (
        f"{fault_server.base_url}: Server disconnected without sending a response."
    )


def test_a_refused_request_is_not_tried_again(fault_server: FaultServer, connect: Any) -> None:
    backend = connect(fault_server.base_url, retries=5)
    fault_server.faults.append("400")
    failure(backend)
    assert len(fault_server.bodies) == 1


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_an_answer_that_takes_too_long_is_given_up(
    fault_server: FaultServer, connect: Any, fault: str
) -> None:
    backend = connect(fault_server.base_url, timeout_s=2, retries=5)
    fault_server.faults.append(fault)
    began = time.monotonic()
    assert failure(backend) == f"{fault_server.base_url}: no answer within 2 s (timeout_s)"
    assert time.monotonic() - began > 1.9
    assert len(fault_server.bodies) == 1
    assert ask(backend).text == "a red circle"


@pytest.mark.parametrize(("fault", "tokens"), [("no usage", 0), ("silent", 3)])
def test_a_server_may_leave_out_counts_and_the_stream(
    fault_server: FaultServer, connect: Any, fault: str, tokens: int
) -> None:
    backend = connect(fault_server.base_url)
    fault_server.faults.append(fault)
    assert ask(backend) == Answer("a red circle", tokens)


def test_a_server_that_is_not_there_is_named(connect: Any) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(ModelError) as caught:
        connect(url, start_timeout_s=0)
    assert str(caught.value) == f"{url}: no answer (Connection refused); is the server running?"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://127.0.0.1:99999/v1", "connect(): port must be 0-65535."),
        ("http://[::1/v1", "Invalid port: ':1'"),
    ],
)
def test_a_url_that_the_settings_let_pass_is_an_error_of_the_model(
    opened: list[OpenAIBackend], url: str, text: str
) -> None:
    settings = OpenAISettings.model_construct(base_url=url, model="tiny", timeout_s=5.0)
    rng = np.random.default_rng(0)
    backend = OpenAIBackend(settings, graph_dir=Path(), log=structlog.get_logger(), rng=rng)
    opened.append(backend)
    with pytest.raises(ModelError) as caught:
        backend.load()
    assert str(caught.value) == f"{url}: cannot be asked: {text}"


def test_several_models_must_be_chosen_from(fault_server: FaultServer, connect: Any) -> None:
    fault_server.models = ["tiny", "huge"]
    with pytest.raises(ModelError) as caught:
        connect(fault_server.base_url)
    assert str(caught.value) == (
        f"{fault_server.base_url} has 2 models (tiny, huge); give one as 'model'"
    )
    assert connect(fault_server.base_url, model="huge")._farm.members[0].client.model == "huge"


def test_health_follows_the_server(fault_server: FaultServer, connect: Any) -> None:
    backend = connect(fault_server.base_url)
    assert backend.healthy()
    fault_server.models_status = 503
    assert not backend.healthy()


def test_a_password_in_the_url_is_not_shown(connect: Any) -> None:
    with pytest.raises(ModelError) as caught:
        connect(f"http://me:sesame@127.0.0.1:{free_port()}/v1", start_timeout_s=0)
    assert "sesame" not in str(caught.value)


# -- left alone, and waited for -----------------------------------------------------------------


def test_a_server_that_asks_for_a_pause_gets_it(fault_server: FaultServer, connect: Any) -> None:
    backend = connect(fault_server.base_url, retries=5, timeout_s=5)
    fault_server.faults += ["429"] * 50
    fault_server.retry_after = "60"
    text = f"{fault_server.base_url}: status 429: asked to give 429 to  (it asks to wait 60 s)"
    assert failure(backend) == text
    assert not backend.healthy()
    assert all(failure(backend).startswith(f"{text}; it is left alone for 6") for _ in range(50))
    assert len(fault_server.bodies) == 1
    assert failure(backend, "something else") == text
    assert len(fault_server.bodies) == 2


def test_a_short_pause_is_waited_for(fault_server: FaultServer, connect: Any) -> None:
    backend = connect(fault_server.base_url, retries=1)
    fault_server.faults.append("503")
    fault_server.retry_after = "0.3"
    began = time.monotonic()
    assert ask(backend).text == "a red circle"
    assert time.monotonic() - began >= 0.3


def test_what_a_model_says_instead_of_an_answer_is_no_failure_of_the_server(
    fault_server: FaultServer, connect: Any
) -> None:
    backend = connect(fault_server.base_url, retries=5)
    fault_server.faults.append('{"choices": [{"message": {"refusal": "no"}}]}')
    assert failure(backend) == f"{fault_server.base_url}: the model refuses to answer: 'no'"
    assert len(fault_server.bodies) == 1
    assert ask(backend).text == "a red circle"


def test_a_server_that_loads_its_model_is_waited_for(
    fault_server: FaultServer, waiting: Any
) -> None:
    fault_server.not_ready = 3
    said = f"{fault_server.base_url}: status 503: Loading model"
    backend, shown, records = waiting(fault_server.base_url)
    waits = [re.fullmatch(r"waiting for the model server, \d+ of 200 s: (.*)", it) for it in shown]
    assert [it and it[1] for it in waits] == [said] * 3
    assert records == [("waiting for the model server", said), ("model server found", None)]
    assert ask(backend).text == "a red circle"


def test_a_server_that_does_not_listen_yet_is_waited_for(waiting: Any) -> None:
    """Refused at first; then connections are closed without a word, as by a container's port; then the
    model is loaded."""
    servers: list[FaultServer] = []
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"

    def come(looks: int) -> None:
        if looks == 2:
            servers.append(FaultServer(port))
            servers[0].closes = servers[0].not_ready = 2

    try:
        backend, shown, records = waiting(url, come)
        assert ask(backend).text == "a red circle"
    finally:
        for server in servers:
            server.close()
    reasons = [
        f"{url}: no answer (Connection refused); is the server running?",
        f"{url}: Server disconnected without sending a response.",
        f"{url}: status 503: Loading model",
    ]
    assert [event for event, _ in records] == ["waiting for the model server"] * 3 + [
        "model server found"
    ]
    assert [said for _, said in records] == [*reasons, None]
    assert {text.partition(" s: ")[2] for text in shown} == {*reasons}


@pytest.mark.parametrize("url", ["http://no-such-host.invalid/v1", "https://127.0.0.1:{port}/v1"])
def test_an_address_at_which_no_server_can_come_is_an_error_at_once(
    fault_server: FaultServer, connect: Any, url: str
) -> None:
    url = url.format(port=fault_server.port)
    with capture_logs() as records, pytest.raises(ModelError) as caught:
        connect(url)
    assert str(caught.value).startswith(f"{url}: no answer (")
    assert "start_timeout_s" not in str(caught.value)
    assert records == []


def test_a_server_is_not_waited_for_without_end(
    fault_server: FaultServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai, "_LOOK_S", 0.01)
    fault_server.not_ready = 10**9
    with pytest.raises(ModelError) as caught:
        connect(fault_server.base_url, start_timeout_s=0.05)
    assert str(caught.value) == (
        f"{fault_server.base_url}: status 503: Loading model; waited 0.05 s (start_timeout_s)"
    )


def test_a_reply_whose_connection_does_not_end_is_an_answer(
    fault_server: FaultServer, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_TAIL_S", 0.05)
    backend = connect(fault_server.base_url)
    fault_server.faults.append("no end")
    assert ask(backend) == Answer("a red circle", 3)


@pytest.mark.parametrize(
    ("fault", "key", "model", "text"),
    [
        ("401", None, None, "401: asked to give 401 to ; give its key as api_key"),
        ("403", "k", None, "403: asked to give 403 to Bearer k; it does not accept the api_key"),
        (
            "404",
            None,
            "tinny",
            "404: asked to give 404 to ; the server's models: tiny (did you mean 'tiny'?)",
        ),
        (
            "404",
            None,
            None,
            "404: asked to give 404 to ; base_url must be where the API begins, usually with /v1",
        ),
        (
            "405",
            None,
            None,
            "405: asked to give 405 to ; base_url must be where the API begins, usually with /v1",
        ),
        (
            "307",
            None,
            None,
            "307: asked to give 307 to ; it redirects to nowhere: give the final URL as base_url",
        ),
    ],
)
def test_a_refusal_says_what_to_change(
    fault_server: FaultServer,
    connect: Any,
    fault: str,
    key: str | None,
    model: str | None,
    text: str,
) -> None:
    backend = connect(fault_server.base_url, api_key=key, model=model)
    fault_server.faults.append(fault)
    assert failure(backend) == f"{fault_server.base_url}: status {text}"


# -- withdrawn ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_request_that_is_cancelled_fails_at_once(
    fault_server: FaultServer, connect: Any, fault: str
) -> None:
    backend = connect(fault_server.base_url, retries=5)
    fault_server.faults.append(fault)
    with ThreadPoolExecutor(1) as worker:
        asked = worker.submit(failure, backend)
        while not fault_server.bodies:
            time.sleep(0.001)
        backend.cancel()
        text = asked.result(timeout=25)  # timeout_s is 30
    assert text == f"{fault_server.base_url}: the request was withdrawn"
    assert failure(backend) == text
    assert len(fault_server.bodies) == 1


def test_close_ends_a_request_of_another_thread(fault_server: FaultServer, connect: Any) -> None:
    backend = connect(fault_server.base_url)
    fault_server.faults.append("hang")
    with ThreadPoolExecutor(1) as worker, capture_logs() as records:
        asked = worker.submit(failure, backend)
        while not fault_server.bodies:
            time.sleep(0.001)
        backend.close()
        assert asked.result(timeout=0.5).endswith(": the request was withdrawn")
    assert backend._loop is None
    assert records == []


def test_questions_that_come_together_are_asked_at_the_same_time(
    fault_server: FaultServer, connect: Any
) -> None:
    """Two by two: none of them is answered before its other one has come."""
    backend = connect(fault_server.base_url, max_batch=2)
    fault_server.meeting = threading.Barrier(2)
    answers = backend.answers([Question(BLACK, f"number {k}", 50) for k in range(4)])
    assert [it.text for it in answers] == ["a red circle"] * 4
    prompts = [body["messages"][0]["content"][-1]["text"] for body in fault_server.bodies]
    assert [sorted(prompts[:2]), sorted(prompts[2:])] == [
        ["number 0", "number 1"],
        ["number 2", "number 3"],
    ]


def test_one_question_that_fails_fails_all_that_come_with_it(
    fault_server: FaultServer, connect: Any
) -> None:
    backend = connect(fault_server.base_url, max_batch=3)
    fault_server.meeting = threading.Barrier(3)
    fault_server.faults.append("400")
    with pytest.raises(ModelError, match="asked to give 400"):
        backend.answers([Question(BLACK, f"number {k}", 50) for k in range(3)])
