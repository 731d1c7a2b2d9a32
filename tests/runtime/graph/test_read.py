"""The text of a graph file -> GraphSpec, and everything that can be wrong with its structure."""

from __future__ import annotations

import contextlib
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.runtime.errors import GraphError, Location, UsageError
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.read import load_graph, parse_graph
from flowrun.runtime.graph.spec import (
    Endpoint,
    GraphSpec,
    KeepSpec,
    LoggingSpec,
    RuntimeSpec,
    TaskLogging,
)
from flowrun.runtime.wording import mask_secrets, mask_urls, says_secret, secrets_in_urls


def parse(text: str, **env: str) -> GraphSpec:
    return parse_graph(textwrap.dedent(text), path=Path("g.yaml"), env=env)


def problems(text: str, **env: str) -> list[str]:
    with pytest.raises(GraphError) as caught:
        parse(text, **env)
    return str(caught.value).splitlines()


def config(text: str, **env: str) -> dict[str, object]:
    task = (
        f"tasks:\n- id: a\n  type: A\n  config:\n{textwrap.indent(textwrap.dedent(text), '    ')}"
    )
    return parse(task, **env).tasks[0].config


def test_a_graph_says_what_the_file_says() -> None:
    text = textwrap.dedent("""\
        tasks:
          - id: cam0
            type: VideoCapture
            config: {width: 640, tags: [x, y]}
            background: true
            logging: {enabled: false}
          - {id: show, type: my.Show}
        cnx:
          - {src: cam0.image, dst: show, msg: ImageRgb8Msg}
        logging: {slab_size_mib: 8, section_size_mib: 2, enable_task_logging: false}
        runtime: {ring_size: 2, seed: 7}
        """)
    graph = parse_graph(text, path=Path("graphs/door.yaml"), env={})
    assert (graph.name, graph.path, graph.text) == ("door", Path("graphs/door.yaml"), text)
    cam0, show = graph.tasks
    assert (cam0.id, cam0.type, cam0.background) == ("cam0", "VideoCapture", True)
    assert cam0.config == {"width": 640, "tags": ["x", "y"]}
    assert cam0.logging == TaskLogging(enabled=False)
    assert cam0.where == Location("graphs/door.yaml", 2, 5)
    assert cam0.config_where["width",] == Location("graphs/door.yaml", 4, 14)
    assert cam0.config_where["tags", 1] == Location("graphs/door.yaml", 4, 36)
    assert (show.config, show.background, show.logging) == ({}, False, TaskLogging())
    [cnx] = graph.connections
    assert (cnx.src, cnx.dst, cnx.msg) == (
        Endpoint("cam0", "image"),
        Endpoint("show", None),
        "ImageRgb8Msg",
    )
    assert graph.logging == LoggingSpec(8, 2, enable_task_logging=False)
    assert graph.runtime == RuntimeSpec(ring_size=2, seed=7)


def test_what_is_left_out_has_the_documented_defaults() -> None:
    graph = parse("tasks: [{id: a, type: A, config:}]\nlogging:\nruntime:\ncnx:\n")
    assert graph.logging == LoggingSpec(1024, 100, enable_task_logging=True)
    assert graph.runtime == RuntimeSpec(4, 0)
    assert graph.connections == ()


def test_null_is_the_default_of_a_key_that_has_none() -> None:
    graph = parse(
        "tasks: [{id: a, type: A, rate_hz: null, logging: {codec: null}}]\n"
        "logging: {keep: {gib: null, runs: null}}\nruntime: {rate_hz: null}\n"
    )
    assert graph == replace(parse("tasks: [{id: a, type: A}]"), text=graph.text, tasks=graph.tasks)
    assert (graph.tasks[0].rate_hz, graph.tasks[0].logging) == (None, TaskLogging())


def test_logging_says_what_stays_and_what_an_error_does() -> None:
    graph = parse(
        "tasks: [{id: a, type: A, logging: {payload: none}}]\n"
        "logging: {on_error: continue, keep: {gib: 0.5, runs: 20}, mode: ring, keep_slabs: 3}\n"
    )
    assert graph.tasks[0].logging == TaskLogging(enabled=True, payload="none")
    assert graph.logging == LoggingSpec(
        on_error="continue", keep=KeepSpec(gib=0.5, runs=20), mode="ring", keep_slabs=3
    )
    said = masked_graph(graph)["logging"]
    again = parse(f"tasks: [{{id: a, type: A}}]\nlogging: {json.dumps(said)}\n")
    assert again.logging == graph.logging


def test_masked_is_the_graph_as_a_file_would_say_it() -> None:
    graph = parse("tasks: [{id: a, type: A}]\ncnx: [{src: a.x, dst: a, msg: M}]")
    masked = masked_graph(graph)
    assert masked == {
        "tasks": [
            {
                "id": "a",
                "type": "A",
                "config": {},
                "background": False,
                "on_error": "stop",
                "every": 1,
                "rate_hz": None,
                "deadline_ms": 10_000,
                "logging": {"enabled": True, "payload": "all", "codec": None},
            }
        ],
        "cnx": [{"src": "a.x", "dst": "a", "msg": "M"}],
        "logging": {
            "slab_size_mib": 1024,
            "section_size_mib": 100,
            "enable_task_logging": True,
            "on_error": "stop",
            "keep": {},
            "mode": "all",
            "keyframe_interval": 100,
            "sync_s": 1,
        },
        "runtime": {
            "ring_size": 4,
            "seed": 0,
            "rate_hz": None,
            "collect_timeout_ms": 100,
            "executor": "serial",
        },
    }


# -- values ------------------------------------------------------------------------------------


def test_scalars_mean_what_yaml_1_2_says() -> None:
    assert config("""\
        a: no
        b: 12:30
        c: 1e-3
        d: 0x1F
        e: .inf
        f: ~
        g: "5"
        h: TRUE
        i: 2024-01-31
        j: 017
        """) == {
        "a": "no",
        "b": "12:30",
        "c": 1e-3,
        "d": 31,
        "e": float("inf"),
        "f": None,
        "g": "5",
        "h": True,
        "i": "2024-01-31",
        "j": 17,
    }


def test_anchors_aliases_and_merge_keys_work() -> None:
    graph = parse("""\
        tasks:
          - {id: a, type: A, config: &base {x: 1, y: 2}}
          - {id: b, type: A, config: {<<: *base, y: 3}}
          - {id: c, type: A, config: *base}
        """)
    assert [task.config for task in graph.tasks] == [
        {"x": 1, "y": 2},
        {"x": 1, "y": 3},
        {"x": 1, "y": 2},
    ]


def test_environment_variables_fill_in_values() -> None:
    text = """\
        whole: ${N}
        quoted: "${N}"
        within: rtsp://${HOST}/1
        default: ${NOTHING:-4}
        empty: ${NOTHING:-}
        literal: $${N}
        """
    assert config(text, N="5", HOST="cam.local") == {
        "whole": 5,
        "quoted": "5",
        "within": "rtsp://cam.local/1",
        "default": 4,
        "empty": None,
        "literal": "${N}",
    }


def test_secrets_of_the_environment_are_masked_and_nothing_else() -> None:
    graph = parse(
        """\
        tasks:
          - id: front
            type: A
            config:
              uri: "rtsp://${USER}:${WORD}@${HOST}/1"
              port: "${PORT:-80}"
              list: ["${WORD}", "${CAM}", "${secret:CODE}", "${HF_TOKEN:-hf_default}"]
              db_password: "x${CAM}"
              pin_code: 5
              password: 1234
              token_limit: 5
              api_key:
          - {id: b, type: A, config: {uri: "http://me:pass@host/x?sig=abcd&n=1", cam: "${CAM}"}}
          - {id: c, type: A, config: {uri: "http://${HOST}:${NUMBER}/v1?x=a@b&n=${CAM}"}}
        """,
        USER="joe",
        WORD="s3cret",
        HOST="cam.local",
        CAM="front",
        CODE="4711",
        NUMBER="8080",
    )
    first, second, third = graph.tasks
    assert first.config["uri"] == "rtsp://joe:s3cret@cam.local/1"
    assert first.secrets == {"s3cret", "4711", "hf_default", "xfront", "1234"}
    assert first.masked_config == {
        "uri": "rtsp://***@cam.local/1",
        "port": "80",
        "list": ["***", "front", "***", "***"],
        "db_password": "***",
        "pin_code": 5,
        "password": "***",
        "token_limit": 5,
        "api_key": None,
    }
    assert second.secrets == {"pass", "abcd"}
    assert second.masked_config == {"uri": "http://***@host/x?sig=***&n=1", "cam": "front"}
    assert third.masked_config == {"uri": "http://cam.local:8080/v1?x=a@b&n=front"}
    assert (third.config, third.secrets) == (third.masked_config, frozenset())
    assert graph.environment == {
        "CAM": "front",
        "HOST": "cam.local",
        "NUMBER": "8080",
        "PORT": "",
    }


def test_a_secret_belongs_to_its_own_task_only() -> None:
    text = 'tasks: [{id: a, type: A, config: {k: "${K_KEY}"}}, {id: b, type: B, config: {k: v}}]'
    secrets = [task.secrets for task in parse(text, K_KEY="x").tasks]
    assert secrets == [frozenset({"x"}), frozenset()]


SECRET = (
    "password PASSWORD passwd db_password DBPASSWORD pwd CAM_PW RTSP_PASS apiKey api_key APIKEY key "
    "OPENAI_API_KEY token accessToken HF_TOKEN_2 secret client_secret passphrase private_keys "
    "api_tokens credentials Authorization"
)
PLAIN = (
    "max_new_tokens stop_tokens tokens tokenizer token_limit key_file sort_key public_key keys monkey "
    "keyframe keyframe_interval keypoints passes bypass turnkey model prompt host user source_uri CAM"
)


def test_names_that_say_secret() -> None:
    assert [name for name in SECRET.split() if not says_secret(name)] == []
    assert [name for name in PLAIN.split() if says_secret(name)] == []


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("rtsp://u:p@h/1", "rtsp://***@h/1"),
        ("see rtsp://u:p@h and http://x@y.", "see rtsp://***@h and http://***@y."),
        ("rtsp://u:p@ss@h", "rtsp://***@h"),
        ("rtsp://u:a/b@h", "rtsp://***@h"),
        ("rtsp://u:p@ss/w%rd@h/1", "rtsp://***@h/1"),
        ("rtsp://u:p#a?b@h/1", "rtsp://***@h/1"),
        ("'rtsp://u:it's@h/1'", "'rtsp://***@h/1'"),
        ("http://h/?pwd=a&x=1&token=b#c", "http://h/?pwd=***&x=1&token=***#c"),
        ("http://h/?X-Amz-Signature=a&key=b;c", "http://h/?X-Amz-Signature=***&key=***;c"),
        ("http://h/?tokens=5&monkey=1", "http://h/?tokens=5&monkey=1"),
        ("http://h:8080/a@b", "http://h:8080/a@b"),
        ("http://h:8080?x=a@b", "http://h:8080?x=a@b"),
        ("a@b", "a@b"),
        ("rtsp://${U}:${secret:P}@h/... in", "rtsp://${U}:${secret:P}@h/... in"),
        ("rtsp://${U}:${P}@x@h", "rtsp://***@h"),
        ("rtsp://${U}:p@h", "rtsp://***@h"),
        ("rtsp://${U}:${P:-p}@h", "rtsp://***@h"),
    ],
)
def test_passwords_in_urls_are_masked(text: str, masked: str) -> None:
    assert mask_urls(text) == masked


def test_passwords_in_urls_are_secrets_however_they_are_spelled() -> None:
    [secret, *_] = sorted(secrets_in_urls("rtsp://joe:p@ss/w%rd@cam/1"), key=len, reverse=True)
    assert secret == "p@ss/w%rd"
    text = "no p%40ss%2Fw%25rd for 'p@ss/w%rd'"
    assert mask_secrets(text, {secret}) == "no *** for '***'"
    assert secrets_in_urls("rtsp://joe:p%40ss%2Fw%25rd@cam/1") == {"p%40ss%2Fw%25rd"}
    assert mask_secrets(text, {"p%40ss%2Fw%25rd"}) == "no *** for '***'"


@given(st.text(min_size=4, max_size=12), st.text(max_size=20), st.text(max_size=20))
def test_a_secret_is_masked_in_whatever_spelling(secret: str, before: str, after: str) -> None:
    for spelled in (secret, quote(secret, safe=""), repr(secret)[1:-1], json.dumps(secret)[1:-1]):
        shown = mask_secrets(f"{before}{spelled}{after}", {secret})
        assert secret not in shown.replace("***", "\0") or secret in "***"
    assert mask_secrets("12 of 123", {"1", "12", "123"}) == "12 of 123"


@pytest.mark.parametrize("text", ["a.", "a://", "a://b:", "a://b:c@", "?key=", "&", "k=v&"])
def test_masking_a_long_text_takes_no_long_time(text: str) -> None:
    mask_urls(text * (200_000 // len(text)))


# -- mistakes ----------------------------------------------------------------------------------


def test_all_mistakes_are_reported_at_once_in_the_files_order() -> None:
    assert problems("""\
        taks: []
        tasks:
          - id: 1a
            type: [x]
            confg: {}
            background: maybe
          - type: A
          - id: ok
            type: A
            config: [1]
            logging: {enable: true}
          - {id: ok, type: B}
          - {id: flowrun, type: B}
          - just text
        cnx:
          - {src: a.b.c, dst: ok, msg: 3}
          - {src: ok}
          - {src: ok, dest: ok, msg: M}
        logging: {slab_size_mib: 10, section_size_mib: 0}
        runtime: {ring_size: 1.5, seed: -1}
        """) == [
        "g.yaml:1:1: unknown key 'taks' in the graph; "
        "valid keys: tasks, cnx, missions, includes, constants, logging, runtime, "
        "partitions, network (did you mean 'tasks'?)",
        "g.yaml:3:9: task id '1a' is not an identifier; use letters, digits and '_', "
        "not beginning with a digit",
        "g.yaml:4:11: 'type' must be a text; got a list",
        "g.yaml:5:5: unknown key 'confg' in a task; "
        "valid keys: id, type, config, background, on_error, every, rate_hz, "
        "deadline_ms, logging, missions, partition (did you mean 'config'?)",
        "g.yaml:6:17: 'background' must be true or false; got 'maybe'",
        "g.yaml:7:5: a task lacks 'id'; it needs id, type",
        "g.yaml:10:13: 'config' must be a mapping (key: value); got a list",
        "g.yaml:11:15: unknown key 'enable' in a task's 'logging'; "
        "valid keys: enabled, payload, codec (did you mean 'enabled'?)",
        "g.yaml:12:10: duplicate task id 'ok'; first on line 8",
        "g.yaml:13:10: task id 'flowrun' is the runtime's own; choose another",
        "g.yaml:14:5: a task must be a mapping {id: n, type: Counter}; got 'just text'",
        "g.yaml:16:11: 'src' must be a task id, or task.port; got 'a.b.c'",
        "g.yaml:16:32: 'msg' must be a text; got 3",
        "g.yaml:17:5: a connection lacks 'dst'; it needs src, dst, msg",
        "g.yaml:17:5: a connection lacks 'msg'; it needs src, dst, msg",
        "g.yaml:18:5: a connection lacks 'dst'; it needs src, dst, msg",
        "g.yaml:18:15: unknown key 'dest' in a connection; "
        "valid keys: src, dst, msg, missions, link (did you mean 'dst'?)",
        "g.yaml:19:48: 'section_size_mib' must be a whole number of at least 1; got 0",
        "g.yaml:20:22: 'ring_size' must be a whole number of at least 1; got 1.5",
        "g.yaml:20:33: 'seed' must be a whole number of at least 0; got -1",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: the file is empty; a graph needs 'tasks'"),
        ("# only a comment\n", "1:1: the file is empty; a graph needs 'tasks'"),
        ("cnx: []", "1:1: the graph lacks 'tasks'; it needs tasks"),
        ("tasks: []", "1:8: 'tasks' is empty; a graph needs at least one task"),
        ("tasks: {a: b}", "1:8: 'tasks' must be a list (- ...); got a mapping"),
        ("- a", "1:1: the graph must be a mapping (key: value); got a list"),
        ("tasks: [{id: a, id: b, type: A}]", "1:17: duplicate key 'id'; first on line 1"),
        ("{1: 2, [a]: 3, tasks: []}", "1:8: a key of the graph must be a text; got a list"),
        (
            "tasks: [{id: !!python/name:os.system x, type: A}]",
            "1:14: the tag '!!python/name:os.system' has no meaning in a graph file; remove it",
        ),
        (
            "tasks: [{id: a, type: A, config: {a: {b: 1, b: 2}}}]",
            "1:45: duplicate key 'b'; first on line 1",
        ),
        (
            "tasks: [{id: a, type: A}]\nlogging: {slab_size_mib: 8, section_size_mib: 9}",
            "2:47: 'section_size_mib' must not exceed 'slab_size_mib'; got 9 and 8",
        ),
        (
            "tasks: [{id: a, type: A, logging: {payload: some}}]",
            "1:45: 'payload' must be all or none; got 'some'",
        ),
        (
            "tasks: [{id: a, type: A}]\nlogging: {on_error: ignore}",
            "2:21: 'on_error' must be stop or continue; got 'ignore'",
        ),
        (
            "tasks: [{id: a, type: A}]\nlogging: {mode: rings}",
            "2:17: 'mode' must be all or ring; got 'rings'",
        ),
        (
            "tasks: [{id: a, type: A}]\nlogging: {keep_slabs: 3}",
            "2:23: 'keep_slabs' needs 'mode: ring'",
        ),
        (
            "tasks: [{id: a, type: A}]\nlogging: {mode: ring, keep_slabs: 1}",
            "2:35: 'keep_slabs' must be a whole number of at least 2; got 1",
        ),
        (
            "tasks: [{id: a, type: A}]\nlogging: {keep: {gib: 0}}",
            "2:23: 'gib' must be a number above 0; got 0",
        ),
        (
            "tasks: [{id: a, type: A}]\nlogging: {keep: {runs: 0}}",
            "2:24: 'runs' must be a whole number of at least 1; got 0",
        ),
        (
            "tasks: [{id: a, type: A}]\nlogging: {keep: {run: 2}}",
            "2:18: unknown key 'run' in 'keep'; valid keys: gib, runs (did you mean 'runs'?)",
        ),
        (
            "tasks: [{id: a, type: A, config: {k: '${K}'}}]",
            "1:38: environment variable 'K' is not set; set it, or write ${K:-default}",
        ),
        (
            "tasks: [{id: a, type: A, config: {k: '${1x}'}}]",
            "1:38: '${' must begin ${NAME}, ${NAME:-default} or ${secret:NAME}; write '$${' "
            "for the text '${'",
        ),
    ],
)
def test_a_mistake_in_the_structure_is_named_with_its_place(text: str, expected: str) -> None:
    assert f"g.yaml:{expected}" in problems(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: b: c",
            "1:5: not valid YAML: unexpected ':'; check the indentation, have a space after "
            "each key's ':', or quote the text",
        ),
        ("a:\n\t- b", "2:1: not valid YAML: a tab; indent with spaces"),
        ("a: @b", "1:4: not valid YAML: a text that begins with a special character; quote it"),
        ("a: b\nc\n", "3:1: not valid YAML: expected ':' after the key"),
        (
            "a:\n  - b\n c: d",
            "3:2: not valid YAML: unexpected here; check the indentation, or quote the text",
        ),
        ("a: ]", "1:4: not valid YAML: expected a value"),
        (
            "a: [b, ${C}]",
            "1:9: not valid YAML: expected ',' or ']'; quote a text that holds { } [ ] , or ' #'",
        ),
        (
            "a: {b: ${C}}",
            "1:9: not valid YAML: expected ',' or '}'; quote a text that holds { } [ ] , or ' #'",
        ),
        ("a: 'b", "1:6: not valid YAML: the quotes are not closed"),
        ("a: *b", "1:4: not valid YAML: alias '*b' has no anchor '&b' before it"),
        (
            "a: b\n---\nc: d",
            "2:1: not valid YAML: a second document ('---'); a graph file holds one",
        ),
        ("a: \x00", "1:4: not valid YAML: unprintable character U+0000"),
        ("a: &x [*x]", "1:4: an alias inside its own anchor; it would never end"),
        ("a: " + "[" * 40 + "]" * 40, "1:35: nested more than 32 deep"),
        ("a: [" + "0," * 30_000 + "]", "1:39999: more than 20000 keys and values"),
    ],
)
def test_what_is_not_yaml_is_said_in_plain_words(text: str, expected: str) -> None:
    assert problems(text) == [f"g.yaml:{expected}"]


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 12))
    assert problems(f"l0: &l0 [x]\n{levels}") == [
        "g.yaml:6:5: more than 20000 keys and values when its aliases are expanded"
    ]


def test_a_chain_of_aliases_is_not_deeper_than_a_nest() -> None:
    links = "\n".join(f"l{i}: &l{i} [*l{i - 1}]" for i in range(1, 60))
    assert problems(f"l0: &l0 [x]\n{links}") == [
        "g.yaml:32:6: nested more than 32 deep when its aliases are expanded"
    ]


def test_a_problem_with_two_aliases_is_reported_once() -> None:
    assert problems(
        "tasks: [{id: a, type: A, config: &c {k: '${K}'}}, {id: b, type: A, config: *c}]"
    ) == ["g.yaml:1:41: environment variable 'K' is not set; set it, or write ${K:-default}"]


@given(st.text(alphabet="ab:-[]{}&*#'\"\n \t$<|>?!%@", max_size=40))
def test_any_text_is_a_graph_or_a_graph_error(text: str) -> None:
    with contextlib.suppress(GraphError):
        parse_graph(text, path=Path("g.yaml"), env={})


# -- files -------------------------------------------------------------------------------------


def load_error(path: Path) -> str:
    with pytest.raises((UsageError, GraphError)) as caught:
        load_graph(path, env={})
    return str(caught.value)


def test_a_missing_file_lists_those_that_are_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("graphs").mkdir()
    assert load_error(Path("graphs/x.yaml")) == (
        "graph file not found: graphs/x.yaml; graphs holds no .yaml file"
    )
    Path("graphs/minimal.yaml").touch()
    Path("graphs/door.yml").touch()
    assert load_error(Path("graphs/minmal.yaml")) == (
        "graph file not found: graphs/minmal.yaml; graphs holds door.yml, minimal.yaml "
        "(did you mean 'minimal.yaml'?)"
    )
    assert load_error(Path("graph/x.yaml")) == (
        "graph file not found: graph/x.yaml; there is no folder graph"
    )
    assert load_error(Path("x.yaml")) == (
        "graph file not found: x.yaml; the current folder holds no .yaml file"
    )
    assert load_error(Path("graphs")) == (
        "graphs is a folder; name one of its graph files: door.yml, minimal.yaml"
    )
    Path("run").mkdir()
    for other in (Path("run/log_0000.mcap"), Path("own.py")):
        other.write_text("")
    for run in (Path("run"), Path("run/log_0000.mcap")):
        assert load_error(run) == (
            f"{run} is a recorded run: flowrun replay {run} runs it again, flowrun view {run} shows it"
        )
    assert load_error(Path("own.py")) == (
        "own.py is a Python file: run it with Python; a graph file names what it defines: type: own.NAME"
    )


def test_a_file_that_is_too_large_or_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_bytes(b"#" * (2**20 + 1))
    for large in (path, Path("/dev/zero")):  # a device has no end
        assert load_error(large) == (
            f"{large}:1:1: the file has more than 1048576 bytes, which a graph file has at most"
        )
    path.write_bytes(b"tasks:\n  - \xff")
    assert load_error(path) == f"{path}:2:5: not UTF-8: byte 0xff at offset 11; save it as UTF-8"


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text("tasks: [{id: a, type: Ä}]", encoding="utf-8-sig")
    assert load_graph(path, env={}).tasks[0].type == "Ä"
