"""Several backends in a run: switched, failing and back again, in the log and in the replay."""

from __future__ import annotations

import dataclasses
import gc
import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import GraphError, TaskError, UsageError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import Plan, plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run, RunResult
from flowrun.runtime.run.log_lines import configure_logs
from flowrun.runtime.server.serve import Server
from flowrun.tasks.backends import backoff, openai
from flowrun.tasks.backends.settings import OpenAISettings
from flowrun.tasks.embedded.training.scenes import HELD_OUT_SEEDS, caption, make_scene
from support.model_servers.fault_server import FaultServer
from support.model_servers.llama import LlamaServer, free_port, llama_command
from support.scene_tasks import Scenes

S = 1_000_000_000


@pytest.fixture(autouse=True)
def no_hook() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    Scenes.hook = staticmethod(lambda number: None)


def graph(config: str, *, more: str = "", limit: int = 4, env: dict[str, str] | None = None) -> Any:
    text = f"""
tasks:
  - {{id: cam0, type: support.scene_tasks.Scenes, config: {{limit: {limit}}}}}
  - id: vlm
    type: Inference
    config: {{{config}}}
    {more}
cnx: [{{src: cam0, dst: vlm, msg: ImageRgb8Msg}}]
logging: {{slab_size_mib: 4, section_size_mib: 1}}
"""
    return parse_graph(text, path=Path.cwd() / "g.yaml", env=env or {})


def plan(config: str, **more: Any) -> Plan:
    return plan_graph(bind(graph(config, **more)))


def run(
    made: Plan, directory: Path, hook: Callable[[Run, int], None] = lambda run, number: None
) -> RunResult:
    """A run whose clock moves 5 s a cycle, so that every pause is over."""
    live = Run(made, clock=ManualClock(step_ns=5 * S), directory=directory)
    Scenes.hook = staticmethod(lambda number: hook(live, number))
    configure_logs(
        now_ns=lambda: 0,
        target=live.writer,
        secrets=made.graph.spec.secrets,
        stream=io.StringIO(),
    )
    return live.run()


def answers(directory: Path) -> list[dict[str, Any]]:
    with Log(directory) as log:
        return [message.fields for message in log.messages("/vlm/answer")]


def controls(directory: Path, kind: str) -> list[dict[str, Any]]:
    with Log(directory) as log:
        found = [message.fields for message in log.messages("/flowrun/control")]
    return [item for item in found if item["kind"] == kind]


def log_lines(directory: Path) -> list[str]:
    with Log(directory) as log:
        return [str(message.fields) for message in log.messages("/flowrun/log")]


def replays(directory: Path, **options: Any) -> Any:
    with Log(directory) as log:
        return Replay(log, env={}, **options).run()


# -- a run on a server -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_on_llama_server_replays_without_it(gguf: Path, tmp_path: Path) -> None:
    server = LlamaServer(gguf)
    server.start()
    try:
        made = plan(f"backend: openai, backends: {{openai: {{base_url: '{server.base_url}'}}}}")
        assert run(made, tmp_path / "run").error is None
    finally:
        server.stop()
    found = answers(tmp_path / "run")
    assert [a["backend"] for a in found] == ["openai"] * 4
    assert [a["frame_id"] for a in found] == [0, 1, 2, 3]
    assert [a["frame_cycle"] for a in found] == [0, 1, 2, 3]
    assert all(a["tokens"] > 0 and a["latency_ms"] > 0 for a in found)
    right = [caption(make_scene(seed)) for seed in HELD_OUT_SEEDS[:4]]
    assert sum(a["response"] == text for a, text in zip(found, right, strict=True)) >= 3
    report = replays(tmp_path / "run")
    assert report.first is None
    assert report.fed == 8  # pictures and answers: nobody was asked again


@pytest.mark.slow
def test_stopping_llama_server_falls_back_and_starting_it_recovers(
    gguf: Path, tmp_path: Path
) -> None:
    server = LlamaServer(gguf)
    server.start()

    def hook(live: Run, number: int) -> None:
        if number == 2:
            server.stop()
        elif number == 4:
            server.start()

    made = plan(
        "backend: llama, fallback: [embedded], "
        f"backends: {{llama: {{type: openai, base_url: '{server.base_url}', retries: 0}}}}",
        limit=6,
    )
    try:
        assert run(made, tmp_path / "run", hook).error is None
    finally:
        server.stop()
    found = answers(tmp_path / "run")
    assert [a["backend"] for a in found] == [
        "llama",
        "llama",
        "embedded",
        "embedded",
        "llama",
        "llama",
    ]
    assert [a["frame_id"] for a in found] == [0, 1, 2, 3, 4, 5]
    right = [caption(make_scene(seed)) for seed in HELD_OUT_SEEDS[:6]]
    assert [found[i]["response"] for i in (2, 3)] == right[2:4]
    lines = log_lines(tmp_path / "run")
    assert sum("backend failed" in line and server.base_url in line for line in lines) == 1
    assert sum("backend answers again" in line for line in lines) == 1
    report = replays(tmp_path / "run")
    assert (report.first, report.fed) == (None, 12)


@pytest.mark.slow
def test_a_server_of_the_graphs_own_lasts_as_long_as_the_run(gguf: Path, tmp_path: Path) -> None:
    port = free_port()
    command = json.dumps(llama_command(gguf, port))
    made = plan(
        f"backend: openai, backends: {{openai: {{base_url: 'http://127.0.0.1:{port}/v1', "
        f"server: {{command: {command}, ready_url: 'http://127.0.0.1:{port}/health'}}}}}}"
    )
    assert run(made, tmp_path / "run").error is None
    assert [a["backend"] for a in answers(tmp_path / "run")] == ["openai"] * 4
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")


# -- switching ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_switch_of_prompt_backend_and_length_shows_in_answers_log_and_replay(
    llama: LlamaServer, tmp_path: Path
) -> None:
    def hook(live: Run, number: int) -> None:
        if number == 1:
            live.set_live("vlm", {"prompt": "answer en how many shapes are there?"})
        elif number == 2:
            live.set_live("vlm", {"backend": "openai"})
        elif number == 3:
            live.set_live("vlm", {"backend": "embedded", "prompt": "cap en", "max_new_tokens": 2})

    made = plan(f"backends: {{openai: {{base_url: '{llama.base_url}'}}}}", limit=5)
    assert run(made, tmp_path / "run", hook).error is None
    found = answers(tmp_path / "run")
    # What is set while a cycle runs holds from the next cycle on.
    assert [(a["backend"], a["prompt"]) for a in found] == [
        ("embedded", "cap en"),
        ("embedded", "cap en"),
        ("embedded", "answer en how many shapes are there?"),
        ("openai", "answer en how many shapes are there?"),
        ("embedded", "cap en"),
    ]
    assert found[2]["response"] == str(len(make_scene(HELD_OUT_SEEDS[2]).objects))
    assert found[4]["tokens"] == 2
    assert [item["value"] for item in controls(tmp_path / "run", "set")] == [
        {"prompt": "answer en how many shapes are there?"},
        {"backend": "openai"},
        {"backend": "embedded", "prompt": "cap en", "max_new_tokens": 2},
    ]
    assert replays(tmp_path / "run").first is None


@pytest.mark.long
@pytest.mark.slow
def test_a_switch_between_models_in_the_process_is_computed_again(tmp_path: Path) -> None:
    from flowrun.tasks.embedded import MODEL_DIR

    def hook(live: Run, number: int) -> None:
        if number == 1:
            live.set_live("vlm", {"backend": "copy"})

    made = plan(f"backends: {{copy: {{type: transformers, model: '{MODEL_DIR}', device: cpu}}}}")
    assert run(made, tmp_path / "run", hook).error is None
    assert [a["backend"] for a in answers(tmp_path / "run")] == ["embedded"] * 2 + ["copy"] * 2
    report = replays(tmp_path / "run")
    assert (report.first, report.fed, report.compared) == (None, 4, 4)


def test_a_replay_says_that_a_server_is_not_asked_and_what_that_means(
    fault_server: FaultServer, tmp_path: Path
) -> None:
    made = plan(f"backends: {{openai: {{base_url: '{fault_server.base_url}'}}}}")
    assert run(made, tmp_path / "run").error is None
    with Log(tmp_path / "run") as log:
        replay = Replay(log, env={})
        [note] = replay.notes
        assert note.startswith(
            "task 'vlm' is not run: as it is configured, what it makes comes from "
        )
        with pytest.raises(UsageError, match=r"^vlm\.prompt would change nothing: task 'vlm'"):
            Replay(log, env={}, config={"vlm.prompt": "answer how many shapes are there?"})
        local = {"vlm.prompt": "answer how many shapes are there?", "vlm.backends": {}}
        changed = Replay(log, env={}, config=local)
        assert (changed.notes, changed.run().differing) == ([], 4)


@pytest.mark.slow
def test_a_replay_in_another_type_than_the_recorded_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from flowrun.tasks.embedded import MODEL_DIR

    settings = f"backend: transformers, model: '{MODEL_DIR}', device: cpu, max_new_tokens: 1"
    said = (
        "task 'vlm' was recorded on cpu bfloat16 (transformers), and is replayed on cpu float32 "
        "(transformers)"
    )
    for able in (True, False):  # the machine that records computes in bfloat16, the other does not
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda able=able: {"amx_bf16": able}, raising=False
        )
        if able:
            assert run(plan(settings, limit=1), tmp_path / "run").error is None
        with Log(tmp_path / "run") as log:
            replay = Replay(log, env={})
            assert replay.run().compared == 1
        assert replay.notes == ([] if able else [said])


@pytest.mark.slow
def test_settings_over_http_switch_the_backend(fault_server: FaultServer, tmp_path: Path) -> None:
    replies: list[tuple[int, Any]] = []

    def post(live: Run, settings: dict[str, Any]) -> None:
        url = f"http://127.0.0.1:{server.port}/api/v0/inference/settings"
        reply = httpx.post(url, json=settings)
        replies.append((reply.status_code, reply.json()))

    def hook(live: Run, number: int) -> None:
        if number == 1:
            post(live, {"backend": "embeded"})
            post(live, {"backend": "openai", "prompt": "what?", "max_new_tokens": 9})

    made = plan(f"backends: {{openai: {{base_url: '{fault_server.base_url}'}}}}", limit=3)
    live = Run(made, clock=ManualClock(step_ns=5 * S), directory=tmp_path / "run")
    Scenes.hook = staticmethod(lambda number: hook(live, number))
    server = Server.start(live, port=0)
    try:
        assert live.run().error is None
    finally:
        server.stop()
    assert replies == [
        (
            422,
            {
                "error": "vlm.backend: unknown backend 'embeded'; backends: embedded, openai "
                "(did you mean 'embedded'?)"
            },
        ),
        (200, {"success": True}),
    ]
    assert [a["response"] for a in answers(tmp_path / "run")][2] == "a red circle"
    assert fault_server.bodies[0]["max_tokens"] == 9


@pytest.mark.slow
def test_a_replay_from_the_middle_leaves_out_the_same_frames(tmp_path: Path) -> None:
    made = plan("skip_similar: 255", limit=6)  # every frame looks like the first
    spec = dataclasses.replace(
        made.graph.spec,
        logging=dataclasses.replace(made.graph.spec.logging, keyframe_interval=2),
    )
    made = plan_graph(bind(spec))
    assert run(made, tmp_path / "run").error is None
    assert [a["frame_id"] for a in answers(tmp_path / "run")] == [0]
    assert any("similar frames skipped" in line for line in log_lines(tmp_path / "run"))
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run(start=3).first is None
    with Log(tmp_path / "run") as log:
        assert Replay(log, env={}).run().first is None


@pytest.mark.slow
def test_two_cameras_share_one_model(tmp_path: Path) -> None:
    text = """
tasks:
  - {id: a, type: support.scene_tasks.Scenes}
  - {id: b, type: support.scene_tasks.Scenes}
  - {id: vlm_a, type: Inference, background: true}
  - id: vlm_b
    type: Inference
    background: true
    config: {prompt: "answer en how many shapes are there?"}
cnx:
  - {src: a, dst: vlm_a, msg: ImageRgb8Msg}
  - {src: b, dst: vlm_b, msg: ImageRgb8Msg}
logging: {slab_size_mib: 4, section_size_mib: 1}
"""
    made = plan_graph(bind(parse_graph(text, path=Path.cwd() / "g.yaml", env={})))
    assert run(made, tmp_path / "run").error is None
    lines = log_lines(tmp_path / "run")
    assert sum("model loaded" in line for line in lines) == 1
    with Log(tmp_path / "run") as log:
        captions = [m.fields for m in log.messages("/vlm_a/answer")]
        counts = [m.fields for m in log.messages("/vlm_b/answer")]
    assert captions
    assert counts
    for found in captions:
        scene = make_scene(HELD_OUT_SEEDS[found["frame_id"]])
        assert found["response"] == caption(scene)
    for found in counts:
        scene = make_scene(HELD_OUT_SEEDS[found["frame_id"]])
        assert found["response"] == str(len(scene.objects))
    assert replays(tmp_path / "run").first is None


# -- errors ------------------------------------------------------------------------------------


def test_an_error_of_the_server_is_logged_and_the_policy_applied(
    fault_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "_FIRST_REST_S", 0.0)
    openai = f"{{base_url: '{fault_server.base_url}', retries: 0}}"
    made = plan(f"backend: openai, backends: {{openai: {openai}}}", more="on_error: skip", limit=5)
    fault_server.faults += ["", "500", "html"]
    assert run(made, tmp_path / "run").error is None
    assert [a["frame_id"] for a in answers(tmp_path / "run")] == [0, 3, 4]
    errors = controls(tmp_path / "run", "error")
    assert [(e["task"], e["key"]) for e in errors] == [("vlm", "skip")] * 2
    assert "status 500" in errors[0]["value"]
    assert "text/html" in errors[1]["value"]
    assert replays(tmp_path / "run").first is None


def test_an_error_without_a_policy_ends_the_run_and_is_reported_by_the_replay(
    fault_server: FaultServer, tmp_path: Path
) -> None:
    openai = f"{{base_url: '{fault_server.base_url}', timeout_s: 2}}"
    made = plan(f"backend: openai, backends: {{openai: {openai}}}")
    fault_server.faults += ["", "hang"]
    error = run(made, tmp_path / "run").error
    assert isinstance(error, TaskError)
    assert "no answer within 2 s (timeout_s)" in str(error)
    assert len(answers(tmp_path / "run")) == 1
    report = replays(tmp_path / "run")
    assert report.first is None
    assert "no answer within 2 s" in str(report.recorded_error)


@pytest.mark.slow
def test_a_timeout_falls_back(fault_server: FaultServer, tmp_path: Path) -> None:
    openai = f"{{base_url: '{fault_server.base_url}', timeout_s: 2}}"
    made = plan(f"backend: openai, fallback: [embedded], backends: {{openai: {openai}}}")
    fault_server.faults += ["", "hang"]
    assert run(made, tmp_path / "run").error is None
    backends = [a["backend"] for a in answers(tmp_path / "run")]
    assert backends == ["openai", "embedded", "openai", "openai"]


@pytest.mark.slow
def test_a_run_may_begin_before_its_server(fault_server: FaultServer, tmp_path: Path) -> None:
    fault_server.models_status = 503

    def hook(live: Run, number: int) -> None:
        if number == 1:
            fault_server.models_status = 200

    made = plan(
        "backend: openai, fallback: [embedded], "
        f"backends: {{openai: {{base_url: '{fault_server.base_url}', retries: 0}}}}"
    )
    assert run(made, tmp_path / "run", hook).error is None
    assert [a["backend"] for a in answers(tmp_path / "run")] == [
        "embedded",
        "openai",
        "openai",
        "openai",
    ]


def test_a_key_from_the_environment_shows_nowhere(
    fault_server: FaultServer, tmp_path: Path
) -> None:
    key = "sesame-0123456789"
    openai = f"{{base_url: '{fault_server.base_url}', api_key: '${{KEY}}', retries: 0}}"
    made = plan(
        f"backend: openai, backends: {{openai: {openai}}}", more="on_error: skip", env={"KEY": key}
    )
    fault_server.faults += ["500", "400"]  # whose texts hold the key
    assert run(made, tmp_path / "run").error is None
    assert {headers["Authorization"] for headers in fault_server.headers} == {f"Bearer {key}"}
    for path in (tmp_path / "run").iterdir():
        assert key.encode() not in path.read_bytes()
    assert "***" in controls(tmp_path / "run", "error")[0]["value"]
    assert replays(tmp_path / "run").first is None  # where KEY is not set


def test_a_key_written_in_the_graph_shows_nowhere(
    fault_server: FaultServer, tmp_path: Path
) -> None:
    key = "sesame-0123456789"
    openai = f"{{base_url: '{fault_server.base_url}', api_key: {key}, retries: 0}}"
    made = plan(f"backend: openai, backends: {{openai: {openai}}}", more="on_error: skip")
    shown = masked_graph(made.graph.spec)["tasks"][1]["config"]
    assert shown["backends"]["openai"]["api_key"] == "***"
    fault_server.faults += ["500", "400"]  # whose texts hold the key
    assert run(made, tmp_path / "run").error is None
    assert {headers["Authorization"] for headers in fault_server.headers} == {f"Bearer {key}"}
    assert "***" in controls(tmp_path / "run", "error")[0]["value"]
    with Log(tmp_path / "run") as log:
        assert b"api_key: '***', retries: 0" in log.attachments["graph.yaml"]
        replay = Replay(log, env={})
        with ReplayLog(replay, tmp_path / "again", config={}, now_ns=0) as recorder:
            assert replay.run(recorder=recorder).first is None
    for name in ("run", "again"):
        for path in (tmp_path / name).iterdir():
            assert key.encode() not in path.read_bytes()
    assert replays(tmp_path / "again").first is None


def test_a_recorded_run_may_be_asked_what_another_backend_would_say(
    fault_server: FaultServer, tmp_path: Path
) -> None:
    made = plan(
        f"backend: openai, backends: {{openai: {{base_url: '{fault_server.base_url}'}}}}", limit=2
    )
    assert run(made, tmp_path / "run").error is None
    report = replays(tmp_path / "run", config={"vlm.backend": "embedded", "vlm.backends": {}})
    assert (report.compared, report.differing) == (2, 2)
    assert "a red circle" in report.first.recorded


# -- mistakes in the graph ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            "backend: openai",
            "6:14: 'backend' of task 'vlm': backend openai needs the server's URL: "
            "backends: {openai: {base_url: http://127.0.0.1:8080/v1}}",
        ),
        (
            "fallback: [embeded]",
            "6:14: 'fallback' of task 'vlm': unknown backend 'embeded'; backends: embedded "
            "(did you mean 'embedded'?)",
        ),
        (
            "backends: {box: {base_url: 'http://x'}}",
            "6:25: 'backends.box' of task 'vlm' must be a mapping with 'type'; got a mapping",
        ),
        (
            "backends: {box: {type: opnai}}",
            "6:25: 'backends.box' of task 'vlm' must be a mapping whose 'type' is one of "
            "'transformers', 'openai'; got a mapping",
        ),
        (
            "backends: {openai: {base_url: 'http://x', server: {command: 'serve --api-key k'}}}",
            "6:65: server: --api-key puts a secret into the command, which everybody on this machine "
            "can read; give it by the environment, for example env: {LLAMA_API_KEY: ...} "
            "(llama-server), VLLM_API_KEY or HF_TOKEN",
        ),
        (
            "backends: {openai: {base_url: 'http://x', api_key: sesame, "
            "server: {command: [a, -ksesame]}}}",
            "6:82: server: the command holds the api_key, which everybody on this machine can read; "
            "give it by the environment, for example env: {LLAMA_API_KEY: ...} (llama-server), "
            "VLLM_API_KEY or HF_TOKEN",
        ),
        (
            "backends: {openai: {base_url: 'http://x', server: {command: a, env: {A-B: c}}}}",
            "6:83: 'backends.openai.server.env.A-B' of task 'vlm' must be a text that matches "
            "^[A-Za-z_][A-Za-z0-9_]*$; got 'c'",
        ),
        (
            "backends: {openai: {base_url: 'http://x', modle: y}}",
            "6:56: unknown key 'modle' in 'backends.openai' of the config of task 'vlm'; valid "
            "keys: type, base_url, model, api_key, timeout_s, retries, "
            "start_timeout_s, stream, jpeg_quality, "
            "server (did you mean 'model'?)",
        ),
        (
            "backends: {openai: {base_url: 'ftp://x'}}",
            "6:34: 'backends.openai.base_url' of task 'vlm': must begin with http:// or https:// "
            "and hold no spaces",
        ),
        (
            "backends: {openai: {base_url: 'http://127.0.0.1:99999/v1'}}",
            "6:34: 'backends.openai.base_url' of task 'vlm': the port must be a number from 1 to "
            "65535; a '/', '?' or '#' in a password is written %2F, %3F, %23",
        ),
        (
            "backends: {openai: {base_url: 'http://me:ses#ame@x/v1'}}",
            "6:34: 'backends.openai.base_url' of task 'vlm': the port must be a number from 1 to "
            "65535; a '/', '?' or '#' in a password is written %2F, %3F, %23",
        ),
        (
            "backends: {openai: {base_url: 'http://[::1/v1'}}",
            "6:34: 'backends.openai.base_url' of task 'vlm': an IPv6 address must be in brackets: "
            "http://[::1]:8080/v1",
        ),
        (
            "backends: {openai: {base_url: 'http://999.1.1.1/v1'}}",
            "6:34: 'backends.openai.base_url' of task 'vlm': has no valid host; expected a URL "
            "such as http://127.0.0.1:8080/v1",
        ),
        (
            'backends: {openai: {base_url: "http://x/\\x01"}}',
            "6:34: 'backends.openai.base_url' of task 'vlm': holds characters that no URL has",
        ),
        (
            "backends: {openai: {base_url: 'http://x', "
            "server: {command: s, ready_url: 'http://a..b/'}}}",
            "6:77: 'backends.openai.server.ready_url' of task 'vlm': has no valid host; "
            "expected a URL such as http://127.0.0.1:8080/v1",
        ),
        *(
            (
                f'backends: {{openai: {{base_url: "http://x", api_key: "{key}"}}}}',
                "6:56: 'backends.openai.api_key' of task 'vlm': a key holds only printable ASCII "
                "characters, and no space or line end around them",
            )
            for key in ("käse", "sesame\\n", " sesame")
        ),
        (
            "backends: {openai: {base_url: 'http://x', server: {command: ''}}}",
            "6:65: 'backends.openai.server.command' of task 'vlm': names no program; give it and "
            "its arguments: [llama-server, -m, ...]",
        ),
        *(
            (
                f"backends: {{openai: {{base_url: 'http://x', server: {{command: {command}}}}}}}",
                "6:65: 'backends.openai.server.command' of task 'vlm': holds a secret, which "
                "everybody on this machine can read; give it by the environment, as in "
                "env: {LLAMA_API_KEY: ${secret:KEY}}",
            )
            for command in (
                "'s ${secret:X:-abcd}'",
                "'s --login=${secret:X:-abcd}'",
                "'s ${X_TOKEN:-long-enough}-2'",
                "'s --proxy http://me:abcd@h'",
            )
        ),
        (
            "backends: {box: {type: transformers, model: ./nowhere}}",
            f"6:51: model './nowhere': no such folder: {Path.cwd()}/nowhere; give a checkpoint "
            "folder, or a hub id such as 'google/paligemma-3b-mix-224'",
        ),
        (
            "backends: {embedded: {type: transformers, model: x/y}}",
            "6:14: 'backends' of task 'vlm': 'embedded' is the model that ships with flowrun; "
            "use another",
        ),
        (
            "model: x/y",
            "6:14: model is for backend: transformers, and backend is 'embedded'; to be able to "
            "switch to it, name it under 'backends'",
        ),
    ],
)
def test_mistakes_are_named_with_their_place(config: str, text: str) -> None:
    with pytest.raises(GraphError) as caught:
        bind(graph(config))
    assert str(caught.value) == f"{Path.cwd()}/g.yaml:{text}"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_server_command_that_cannot_be_run_is_named_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "serve"
    program.mkdir() if kind == "folder" else program.write_text("#!/bin/sh\n")
    why = "is a folder" if kind == "folder" else "is not executable; chmod +x makes it so"
    with pytest.raises(GraphError) as caught:
        bind(graph("backends: {openai: {base_url: 'http://x', server: {command: ./serve -m x}}}"))
    assert str(caught.value) == (
        f"{tmp_path}/g.yaml:6:65: server: cannot start './serve': {program} {why}"
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://x",
        "https://me:p%23w@x.example:8443/v1",
        "http://[::1]:8080/v1",
        "http://x:/v1",
        "http://käse.example/v1",
        "http://a_b:65535",
        "http://[fe80::1%eth0]:80/v1",
        "http://1.2.3.4",
        "http://***@x/v1",
    ],
)
def test_urls_that_can_be_are_taken(url: str) -> None:
    assert OpenAISettings(base_url=url).base_url == url


HANGING = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): ...
    def do_GET(self):
        data = b'{"data": [{"id": "tiny"}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_POST(self):
        open("asked", "w").close()
        time.sleep(1000)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.slow
def test_a_run_that_is_stopped_leaves_no_request_and_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("server.py").write_text(HANGING)
    port = free_port()
    made = plan(
        f"backend: mine, fallback: [embedded], backends: {{mine: {{type: openai, "
        f"base_url: 'http://127.0.0.1:{port}/v1', retries: 5, "
        f"server: {{command: [{sys.executable}, server.py, '{port}']}}}}}}",
        more="background: true",
    )
    stopped: list[float] = []

    def hook(live: Run, number: int) -> None:
        if number == 1:
            while not Path("asked").exists():
                time.sleep(0.001)
            live.stop("SIGINT")
            stopped.append(time.monotonic())

    result = run(made, tmp_path / "run", hook)
    assert time.monotonic() - stopped[0] < 25  # timeout_s is 30
    assert (result.reason, result.error) == ("SIGINT", None)
    with Log(tmp_path / "run") as log:
        levels = [message.fields["level"] for message in log.messages("/flowrun/log")]
    assert set(levels) == {"INFO"}
    assert not openai._SERVERS._entries
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/v1/models")
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"flowrun-vlm", "flowrun-model-server"}
    gc.collect()  # a coroutine that was never awaited is a warning, and warnings are errors
