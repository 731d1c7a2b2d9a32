"""A farm of servers: who is asked, what happens when one fails, and who is seen to have answered."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from flowrun.tasks.backends import farm as farms
from flowrun.tasks.backends.backoff import Backoff
from flowrun.tasks.backends.chat import ServerError
from flowrun.tasks.backends.client import ServerClient
from flowrun.tasks.backends.farm import Farm, Member, Standing
from flowrun.tasks.backends.openai import OpenAIBackend
from flowrun.tasks.backends.probe import ServerProbe
from flowrun.tasks.backends.servers_health import ServersHealth
from flowrun.tasks.backends.settings import OpenAISettings
from flowrun.tasks.models.question import Answer, ModelError, Question
from support.model_servers.fault_server import FaultServer

BLACK = np.zeros((48, 64, 3), np.uint8)


# -- who is asked, whatever happens ------------------------------------------------------------------


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def members(count: int, clock: Clock) -> list[Member]:
    farms._LOADS.clear()
    return [
        Member(
            ServerClient(f"http://host{number}/v1", model="m", api_key=None),
            Backoff(np.random.default_rng(number), now_s=clock),
        )
        for number in range(count)
    ]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "answer", "fail", "busy", "look", "wait"]),
        st.integers(0, 30),
        st.sampled_from(["cap en", "how many?"]),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(st.integers(1, 5), STEPS)
def test_a_question_goes_to_the_least_busy_server_that_answers_and_to_none_twice(
    count: int, steps: list[tuple[str, int, str]]
) -> None:
    clock = Clock()
    farm = Farm(members(count, clock))
    open_: list[tuple[Member, str, set[Member]]] = []
    asked_at: dict[Member, int] = {}
    for number, (what, which, prompt) in enumerate(steps):
        if what == "wait":
            clock.now_s += which
        elif what == "look":
            for member in farm.returning():
                assert not member.backoff.rests
                member.is_back = True
        elif what == "ask" or not open_:
            take_and_judge(farm, prompt, set(), open_, asked_at, number)
        else:
            member, words, tried = open_.pop(which % len(open_))
            farm.give_back(member)
            if what == "answer":
                member.note_answer()
                assert member.standing(words) is Standing.ANSWERS
                continue
            wait_s = 60.0 if what == "busy" else None
            member.note_failure(ServerError("no", may_pass=True, retry_after_s=wait_s), words)
            assert member.standing(words) is not Standing.ANSWERS
            take_and_judge(farm, words, {*tried, member}, open_, asked_at, number)
        outstanding = Counter(member for member, *_ in open_)
        assert all(it.load.outstanding == outstanding[it] for it in farm.members)


def take_and_judge(
    farm: Farm,
    words: str,
    tried: set[Member],
    open_: list[tuple[Member, str, set[Member]]],
    asked_at: dict[Member, int],
    number: int,
) -> None:
    limit = Standing.RESTS if tried else Standing.MAY_ANSWER
    left = [it for it in farm.members if it not in tried and it.standing(words) <= limit]
    before = {it: (it.standing(words), it.load.outstanding, asked_at.get(it, -1)) for it in left}
    taken = farm.take(words, tried)
    if taken is None:
        assert not left
        return
    assert taken in left  # and so never one that was tried, or that asked to be left alone
    assert before[taken] == min(before.values())
    asked_at[taken] = number
    open_.append((taken, words, tried))


@given(st.integers(1, 6), st.integers(1, 40))
def test_servers_that_answer_alike_get_alike(count: int, questions: int) -> None:
    farm = Farm(members(count, Clock()))
    for _ in range(questions):
        assert farm.take("cap en", ()) is not None
    loads = [it.load.outstanding for it in farm.members]
    assert max(loads) - min(loads) <= 1


def test_questions_that_fail_together_make_the_rest_no_longer() -> None:
    clock = Clock()
    [member] = members(1, clock)
    for _ in range(16):
        member.note_failure(ServerError("gone", may_pass=True), "cap en")
    clock.now_s = 1.3
    assert not member.backoff.rests


def test_tasks_of_one_process_count_together() -> None:
    first, second = Farm(members(2, Clock())), Farm(
        [
            Member(ServerClient(f"http://host{number}/v1/", model="m", api_key=None),
                   Backoff(np.random.default_rng(0)))
            for number in range(2)
        ]
    )  # fmt: skip
    taken = [farm.take("cap en", ()) for farm in (first, second, first, second)]
    assert [it.client.url[-4] for it in taken if it is not None] == ["0", "1", "0", "1"]


# -- real requests -----------------------------------------------------------------------------------


@pytest.fixture
def three() -> Iterator[list[FaultServer]]:
    farms._LOADS.clear()  # an earlier server had one of their ports, perhaps, and was asked before
    servers = [FaultServer() for _ in range(3)]
    yield servers
    for server in servers:
        server.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., OpenAIBackend]]:
    made: list[OpenAIBackend] = []

    def connect(urls: Any, *, max_batch: int = 1, seen: Any = None, **more: Any) -> OpenAIBackend:
        backend = OpenAIBackend(
            OpenAISettings(base_url=urls, **more),
            graph_dir=Path(),
            log=structlog.get_logger(),
            rng=np.random.default_rng(0),
            max_batch=max_batch,
            seen=seen,
        )
        made.append(backend)
        backend.load()
        return backend

    yield connect
    for backend in made:
        backend.close()


def urls(servers: list[FaultServer]) -> list[str]:
    return [server.base_url for server in servers]


def ask(backend: OpenAIBackend, prompt: str = "cap en") -> Answer:
    return backend.answer(Question(BLACK, prompt, 50))


def failure(backend: OpenAIBackend, prompt: str = "cap en") -> str:
    with pytest.raises(ModelError) as caught:
        ask(backend, prompt)
    return str(caught.value)


def test_questions_take_turns_and_the_answer_says_whose_it_is(
    three: list[FaultServer], connect: Any
) -> None:
    backend = connect(urls(three))
    assert [ask(backend).server for _ in range(6)] == urls(three) * 2


@pytest.mark.parametrize("fault", ["close", "cut", "500", "429", "401", "404", "html", "broken"])
def test_a_question_that_a_server_fails_at_is_asked_elsewhere_once(
    three: list[FaultServer], connect: Any, fault: str
) -> None:
    backend = connect(urls(three), retries=5)
    three[0].faults += [fault] * 10
    with capture_logs() as records:
        answers = [backend.answer(Question(BLACK, "cap en", 50, on_text=str)) for _ in range(6)]
    assert [it.text for it in answers] == ["a red circle"] * 6
    assert [it.server for it in answers] == [three[n].base_url for n in (1, 2, 1, 2, 1, 2)]
    # A connection that was kept, and is closed when it is used again, is no try of its own.
    assert len(three[0].bodies) == (2 if fault == "close" else 1)
    [failed] = [it for it in records if it["event"] == "model server failed"]
    assert failed["url"] == three[0].base_url


@pytest.mark.parametrize(
    "fault", ["400", "422", "long text", '{"choices": [{"message": {"refusal": "no"}}]}']
)
def test_a_question_that_the_model_refuses_is_not_asked_elsewhere(
    three: list[FaultServer], connect: Any, fault: str
) -> None:
    backend = connect(urls(three))
    three[0].faults.append(fault)
    assert failure(backend).startswith(f"{three[0].base_url}: ")
    assert [len(server.bodies) for server in three] == [1, 0, 0]
    assert [ask(backend).server for _ in range(3)] == [three[n].base_url for n in (1, 2, 0)]


def test_where_all_fail_each_has_been_asked_once_and_all_are_named(
    three: list[FaultServer], connect: Any
) -> None:
    backend = connect(urls(three))
    for server in three:
        server.faults += ["500"] * 9
    said = "; ".join(f"{url}: status 500: asked to give 500 to " for url in urls(three))
    assert failure(backend) == f"no server answers; {said}"
    again = failure(backend)  # they rest now: nobody is asked
    assert again.startswith("no server answers; ")
    assert again.count("; it is left alone for ") == 3
    assert [len(server.bodies) for server in three] == [1, 1, 1]


def test_a_server_that_comes_back_is_asked_again(
    three: list[FaultServer], connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = connect(urls(three))
    gone = three[0]
    gone.faults.append("close")  # the connection that is kept; there are no new ones
    gone.close()
    clock = Clock()
    for member in backend._farm.members:
        monkeypatch.setattr(member.backoff, "_now_s", clock)
    with capture_logs() as records:
        assert [ask(backend).server for _ in range(4)] == [three[n].base_url for n in (1, 2, 1, 2)]
        three[0] = FaultServer(gone.port)
        assert ask(backend).server == three[1].base_url  # its rest is not over
        clock.now_s = 2
        assert ask(backend).server == three[2].base_url  # meanwhile it is seen to be back
        assert ask(backend).server == three[0].base_url
    assert [it["event"] for it in records] == ["model server failed", "model server answers again"]


def test_a_silent_server_costs_one_answer_and_is_left_alone(
    three: list[FaultServer], connect: Any
) -> None:
    backend = connect(urls(three), timeout_s=2)
    three[0].faults.append("hang")
    assert failure(backend) == f"{three[0].base_url}: no answer within 2 s (timeout_s)"
    assert [ask(backend).server for _ in range(4)] == [three[n].base_url for n in (1, 2, 1, 2)]


def test_a_connection_notices_a_machine_that_is_gone(
    three: list[FaultServer], connect: Any
) -> None:
    import socket

    client = connect(urls(three))._farm.members[0].client
    options = {
        socket.SO_KEEPALIVE: (socket.SOL_SOCKET, 1),
        socket.TCP_USER_TIMEOUT: (socket.IPPROTO_TCP, 5000),
        socket.TCP_KEEPIDLE: (socket.IPPROTO_TCP, 2),
    }
    [kept] = client._http._transport._pool.connections
    real = kept._connection._network_stream.get_extra_info("socket")
    assert {name: real.getsockopt(at, name) for name, (at, _) in options.items()} == {
        name: value for name, (_, value) in options.items()
    }


def test_questions_that_come_together_are_spread(three: list[FaultServer], connect: Any) -> None:
    backend = connect(urls(three), max_batch=2)
    for server in three:
        server.meeting = threading.Barrier(2)  # each has two at the same time, or waits
    answers = backend.answers([Question(BLACK, f"number {k}", 50) for k in range(6)])
    assert Counter(it.server for it in answers) == dict.fromkeys(urls(three), 2)


# -- at the start ------------------------------------------------------------------------------------


def test_one_server_that_is_there_is_enough(three: list[FaultServer], connect: Any) -> None:
    three[0].close()
    three[1].models_status = 401
    with capture_logs() as records:
        backend = connect(urls(three))
    assert [(it["event"], it["url"]) for it in records] == [
        ("model server found", three[2].base_url),
        ("model server not found; others answer", three[0].base_url),
        ("model server not found; others answer", three[1].base_url),
    ]
    assert [ask(backend).server for _ in range(3)] == [three[2].base_url] * 3


def test_where_none_is_there_all_are_named(three: list[FaultServer], connect: Any) -> None:
    for server in three[:2]:
        server.close()
    three[2].models_status = 401
    with pytest.raises(ModelError) as caught:
        connect(urls(three), start_timeout_s=0)
    assert str(caught.value) == (
        f"no server answers; {three[0].base_url}: no answer (Connection refused); is the server "
        f"running?; {three[1].base_url}: no answer (Connection refused); is the server running?; "
        f"{three[2].base_url}: status 401: nothing; give its key as api_key"
    ).replace("nothing", '{"data": [{"id": "tiny"}]}')


def test_servers_with_other_models_are_an_error_but_other_folders_are_not(
    three: list[FaultServer], connect: Any
) -> None:
    for server, name in zip(three, ("/a/m.gguf", "m.gguf", "/home/b/m.gguf"), strict=True):
        server.models = [name]
    backend = connect(urls(three))
    for _ in range(3):
        ask(backend)
    assert [it.bodies[0]["model"] for it in three] == ["/a/m.gguf", "m.gguf", "/home/b/m.gguf"]
    three[1].models = ["huge"]
    with pytest.raises(ModelError, match=r"has the model .*, and .*; the servers of one base_url"):
        connect(urls(three))
    assert ask(connect(urls(three), model="m")).text == "a red circle"


# -- for those who look ------------------------------------------------------------------------------


def test_each_server_is_seen_with_what_it_answered(three: list[FaultServer], connect: Any) -> None:
    seen = ServersHealth(urls(three))
    backend = connect(urls(three), seen=seen)
    three[1].faults.append("500")
    for _ in range(4):
        ask(backend)
    found = [seen.health()[url] for url in urls(three)]
    assert [(it.state, it.answers, it.failures, it.outstanding) for it in found] == [
        ("ok", 2, 0, 0),
        ("failing", 0, 1, 0),
        ("ok", 2, 0, 0),
    ]
    assert found[1].detail == f"{three[1].base_url}: status 500: asked to give 500 to "


def test_a_probe_looks_at_each_and_one_that_is_there_is_enough(three: list[FaultServer]) -> None:
    seen = ServersHealth(urls(three))
    probe = ServerProbe(OpenAISettings(base_url=urls(three)), log=structlog.get_logger(), seen=seen)
    three[0].close()
    probe.ask()
    assert [it.state for it in seen.health().values()] == ["failing", "ok", "ok"]
    for server in three[1:]:
        server.models_status = 500
    with pytest.raises(ModelError, match="^no server answers; "):
        probe.ask()
    assert not any(server.bodies for server in three)


def test_passwords_in_addresses_are_not_shown(three: list[FaultServer], connect: Any) -> None:
    secret = [url.replace("://", "://me:sesame@") for url in urls(three)]
    three[0].faults.append("500")
    with capture_logs() as records:
        answer = ask(connect(secret))
    assert answer.server == three[1].base_url.replace("://", "://***@")
    assert "sesame" not in f"{records} {answer}"
