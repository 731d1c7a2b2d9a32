"""`includes` and `constants`: several files as one graph."""

from __future__ import annotations

import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import load_plan, plan_graph
from flowrun.runtime.graph.read import parse_graph
from support.plans import shape

CHAIN = """\
    tasks:
      - {id: "count_{{name}}", type: Counter, config: {limit: {{limit}}}}
      - {id: "square_{{name}}", type: Square}
    cnx:
      - {src: "count_{{name}}", dst: "square_{{name}}", msg: IntMsg}
    """


def write(folder: Path, **files: str) -> Path:
    """Write `name.yaml` for each; the path of g.yaml."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(textwrap.dedent(text))
    return folder / "g.yaml"


def mistakes(path: Path) -> list[str]:
    with pytest.raises(GraphError) as caught:
        load_plan(path, env={})
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


def test_a_file_is_included_as_often_as_it_has_params(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        chain=CHAIN,
        g="""\
        constants: {most: 7}
        includes:
          - {path: chain.yaml, params: {name: a, limit: {{most}}}}
          - {path: chain.yaml, params: {name: b, limit: 3}}
        tasks:
          - {id: show, type: Print}
        cnx:
          - {src: square_a, dst: show, msg: IntMsg}
        """,
    )
    plan = load_plan(path, env={})
    assert [task.id for task in plan.graph.tasks] == [
        "count_a", "square_a", "count_b", "square_b", "show",
    ]  # fmt: skip
    assert [task.spec.config for task in plan.graph.tasks][::2] == [{"limit": 7}, {"limit": 3}, {}]


def test_constants_are_the_defaults_of_params(tmp_path: Path) -> None:
    source = "{id: c, type: Counter, config: {limit: {{limit}}}}"
    path = write(
        tmp_path,
        part=f"""\
        constants: {{limit: 4}}
        tasks: [{source}]
        """,
        g="includes: [{path: part.yaml}]",
        h="includes: [{path: part.yaml, params: {limit: 9}}]",
    )
    [task] = load_plan(path, env={}).graph.tasks
    assert task.spec.config == {"limit": 4}
    [task] = load_plan(path.with_name("h.yaml"), env={}).graph.tasks
    assert task.spec.config == {"limit": 9}
    [task] = load_plan(path.with_name("part.yaml"), env={}).graph.tasks
    assert task.spec.config == {"limit": 4}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("{{x}}", [1, "a"]),
        ("{{ y }}", "5"),
        ("'{{y}}'", "5"),
        ("{{z}}", 5),
        ("'{{z}}'", 5),
        ("'{{x}}'", [1, "a"]),
        ("a {{y}} b {{z}}", "a 5 b 5"),
        ("1{{z}}", 15),
        ("'{{{{z}} and $${z}'", "{{z}} and ${z}"),
        ("'${V:-{{z}}}'", "5"),
        ("[{{z}}, {k: {{x}}}]", [5, {"k": [1, "a"]}]),
        ("{{n}}", None),
    ],
)
def test_a_name_is_the_value_itself_or_its_text(written: str, value: Any) -> None:
    text = (
        "constants: {z: 5, x: [1, a], y: '5', n: null}\n"
        f"tasks:\n- id: a\n  type: T\n  config:\n    k: {written}\n"
    )
    graph = parse_graph(text, path=Path("g.yaml"), env={})
    assert graph.tasks[0].config == {"k": value}
    again = parse_graph(graph.text, path=Path("g.yaml"), env={})
    assert again.tasks[0].config == {"k": value}
    assert again.text == graph.text


def test_keys_of_the_including_file_go_before(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        part="""\
        runtime: {seed: 1, ring_size: 6}
        logging: {sync_s: 2}
        """,
        g="""\
        includes: [{path: part.yaml}]
        runtime: {seed: 2}
        tasks: [{id: c, type: Counter}]
        """,
    )
    graph = load_plan(path, env={}).graph.spec
    assert (graph.runtime.seed, graph.runtime.ring_size, graph.logging.sync_s) == (2, 6, 2)


def test_a_mistake_is_where_it_is_written_and_says_who_includes_it(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        chain=CHAIN,
        part="""\
        includes:
          - path: chain.yaml
            params: {name: a, limit: many}
        """,
        g="includes:\n- path: part.yaml\n",
    )
    assert mistakes(path) == [
        "chain.yaml:2:52: 'limit' of task 'count_a' must be a whole number; got 'many' "
        "(included at part.yaml:2:5, which is included at g.yaml:2:3)"
    ]


ONCE = "{path: chain.yaml, params: {name: a, limit: 1}}"
TWICE = f"includes: [{ONCE}, {ONCE}]"


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (
            "includes: [{path: chain.yaml, params: {name: a}}]",
            [
                "chain.yaml:2:59: nothing gives {{limit}} a value; constants and params here: name "
                "(included at g.yaml:1:12)"
            ],
        ),
        (
            "includes: [{path: chain.yaml, params: {name: a, limit: 2, limt: 3}}]",
            [
                "g.yaml:1:59: unused param 'limt': chain.yaml has no {{limt}}; it uses limit, name "
                "(did you mean 'limit'?)"
            ],
        ),
        (
            "includes: [{path: chian.yaml}]",
            [
                "g.yaml:1:19: included file not found: chian.yaml; the current folder holds "
                "chain.yaml, g.yaml, list.yaml, loop.yaml (did you mean 'chain.yaml'?)"
            ],
        ),
        (
            "includes: [{path: folder}]",
            ["g.yaml:1:19: folder is a folder; it has no .yaml file"],
        ),
        (
            "includes: [{path: 'https://example.org/chain.yaml'}]",
            [
                "g.yaml:1:19: 'path' must be a file on this machine; got a URL: save what is there as "
                "a file"
            ],
        ),
        (
            "includes: [{path: bytes.bin}]",
            [
                "bytes.bin:1:1: not UTF-8: byte 0xff at offset 0; save it as UTF-8 (included at "
                "g.yaml:1:19)"
            ],
        ),
        (
            "includes: [{path: loop.yaml}]",
            [
                "loop.yaml:1:19: the file includes itself: loop.yaml -> loop.yaml "
                "(included at g.yaml:1:12)"
            ],
        ),
        (
            "includes: [chain.yaml]",
            [
                "g.yaml:1:12: an include must be a mapping; got 'chain.yaml'; write - path: chain.yaml"
            ],
        ),
        (
            "includes: [{path: list.yaml}]",
            [
                "list.yaml:1:1: the included file list.yaml must be a mapping (key: value); got a list "
                "(included at g.yaml:1:12)"
            ],
        ),
        (
            TWICE,
            [
                "chain.yaml:2:10: duplicate task id 'count_a'; first at chain.yaml:2:10 (included at "
                "g.yaml:1:12) (included at g.yaml:1:61)",
                "chain.yaml:3:10: duplicate task id 'square_a'; first at chain.yaml:3:10 (included at "
                "g.yaml:1:12) (included at g.yaml:1:61)",
            ],
        ),
        (
            "constants: {a-b: 1}\ntasks: [{id: c, type: Counter, config: {limit: {{a}}}}]",
            [
                "g.yaml:1:13: 'a-b' in 'constants' is not an identifier; use letters, digits and '_', "
                "not beginning with a digit",
                "g.yaml:2:48: nothing gives {{a}} a value; constants and params here: a-b",
            ],
        ),
        (
            "tasks: [{id: c, type: Counter, config: {limit: '{{1}}'}}]",
            [
                "g.yaml:1:41: 'limit' of task 'c' must be a whole number; got '{{1}}'",
                "g.yaml:1:48: '{{' must begin {{NAME}}; write '{{{{' for the text '{{'",
            ],
        ),
    ],
)
def test_each_mistake_has_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str, said: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "bytes.bin").write_bytes(b"\xff\xfe\x00")
    write(tmp_path, chain=CHAIN, g=graph, loop="includes: [{path: loop.yaml}]", list="- a")
    found = mistakes(Path("g.yaml"))
    assert found[: len(said)] == said
    assert all("already has a source" in line for line in found[len(said) :])


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {
                f"f{i}": f"includes: [{{path: f{i + 1}.yaml}}, {{path: f{i + 1}.yaml}}]"
                for i in range(9)
            }
            | {"f9": "tasks: []"},
            "more than 500 files are included, all in all",
        ),
        (
            {
                "f0": "constants:\n  a0: abcdefgh\n"
                + "".join(f"  a{i}: '{{{{a{i - 1}}}}}{{{{a{i - 1}}}}}'\n" for i in range(1, 30))
            },
            "a text of more than 1048576 characters with its values",
        ),
        (
            {
                "f0": "constants:\n  a0: 1\n"
                + "".join(f"  a{i}: [{{{{a{i - 1}}}}}, {{{{a{i - 1}}}}}]\n" for i in range(1, 30))
                + "tasks: [{id: a, type: Counter, config: {limit: {{a29}}}}]"
            },
            "when its aliases are expanded",
        ),
    ],
)
def test_what_would_grow_without_bound_is_refused(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    path = write(tmp_path, g="includes: [{path: f0.yaml}]", **files)
    assert any(said in line for line in mistakes(path))


def test_an_anchor_in_constants_may_be_merged(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        g="""\
        constants: &shared
          limits: &limits {limit: 3, rate_hz: 100}
        tasks:
          - {id: a, type: Counter, config: *limits}
          - {id: b, type: Counter, config: {<<: *limits, limit: 4}}
        """,
    )
    configs = [task.spec.config for task in load_plan(path, env={}).graph.tasks]
    assert configs == [{"limit": 3, "rate_hz": 100}, {"limit": 4, "rate_hz": 100}]


def test_secrets_of_params_are_masked_in_the_text_that_the_log_keeps(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        part="""\
        tasks:
          - id: cam
            type: VideoCapture
            config: {source_uri: "rtsp://me:{{pw}}@{{host}}/x", options: {password: {{pw}}}}
        """,
        g="""\
        includes:
          - {path: part.yaml, params: {pw: "a'b-7", host: "10.0.0.1"}}
        """,
    )
    graph = load_plan(path, env={}, ready=False).graph.spec
    assert graph.stored_text is not None
    assert "b-7" in graph.text
    assert "b-7" not in graph.stored_text
    assert "rtsp://***@10.0.0.1/x" in graph.stored_text
    parse_graph(graph.stored_text, path=path, env={})


IDS = [f"t{i}" for i in range(7)]


@st.composite
def split_graphs(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """A graph, and the same in several files that include each other."""
    tasks: list[dict[str, Any]] = []
    cnx: list[dict[str, Any]] = []
    for i, id_ in enumerate(draw(st.lists(st.sampled_from(IDS), min_size=1, unique=True))):
        feeding = draw(st.sampled_from([None, *(task["id"] for task in tasks)])) if i else None
        tasks.append(
            {"id": id_, "type": "Counter", "config": {"limit": draw(st.integers(0, 9))}}
            if feeding is None
            else {"id": id_, "type": "Square", "config": {}, "every": draw(st.integers(1, 3))}
        )
        if feeding is not None:
            cnx.append({"src": feeding, "dst": id_, "msg": "IntMsg"})
    whole = {"tasks": tasks, "cnx": cnx, "runtime": {"seed": draw(st.integers(0, 5))}}
    files: dict[str, Any] = {}

    def split(part: list[dict[str, Any]], depth: int) -> dict[str, Any]:
        cuts = sorted(draw(st.lists(st.integers(0, len(part)), max_size=2))) if depth < 2 else []
        bounds = [0, *cuts]
        includes = []
        for start, end in pairwise(bounds):
            name = f"f{len(files)}"
            files[name] = {}
            files[name] = split(part[start:end], depth + 1)
            includes.append({"path": f"{name}.yaml"})
        return {"includes": includes, "tasks": part[bounds[-1] :]}

    main = split(tasks, 0)
    for line in cnx:
        holder = draw(st.sampled_from([main, *files.values()]))
        holder.setdefault("cnx", []).append(line)
    holder = draw(st.sampled_from([main, *files.values()]))
    holder["runtime"] = whole["runtime"]
    files["g"] = main
    return _plain(whole), {name: _plain(part) for name, part in files.items()}


def _plain(graph: dict[str, Any]) -> str:
    return yaml.safe_dump({key: value for key, value in graph.items() if value}, sort_keys=False)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**20) | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=12)
    | st.sampled_from(["{{{{x}}", "on", "5", "a: b", "ä\n- ü\n", "#c", "*a", "1e3", "null", "$${a}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(VALUES, st.sampled_from([True, False, None]), st.sampled_from([None, "'", '"', "|", ">"]))
def test_the_resolved_text_has_every_value_as_it_was(
    value: Any, flow: bool | None, style: str | None
) -> None:
    value = value if style is None else str(value)
    graph = {
        "tasks": [{"id": "{{x}}", "type": "T", "config": {"k": value}}],
        "constants": {"x": "a"},
    }
    text = yaml.safe_dump(
        graph, allow_unicode=True, default_flow_style=flow, default_style=style, version=(1, 2)
    )
    if "$" in text.replace("$${", ""):
        return
    found = parse_graph(text, path=Path("g.yaml"), env={})
    again = parse_graph(found.text, path=Path("g.yaml"), env={})
    assert found.tasks[0].id == "a"
    assert again.tasks[0].config == found.tasks[0].config
    for path, (start, end) in found.tasks[0].scalars.items():
        assert again.tasks[0].scalars[path] == (start, end)


@settings(max_examples=5, deadline=None)
@given(split_graphs())
def test_however_a_graph_is_split_its_plan_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, graphs: tuple[str, dict[str, str]]
) -> None:
    check_split(tmp_path_factory.mktemp("split"), *graphs)


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(split_graphs())
def test_however_a_hundred_graphs_are_split_their_plans_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, graphs: tuple[str, dict[str, str]]
) -> None:
    check_split(tmp_path_factory.mktemp("split"), *graphs)


def check_split(folder: Path, whole: str, files: dict[str, str]) -> None:
    (folder / "whole").mkdir()
    (folder / "whole" / "g.yaml").write_text(whole)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    expected = load_plan(folder / "whole" / "g.yaml", env={})
    found = load_plan(folder / "g.yaml", env={})
    assert _unordered(shape(found)) == _unordered(shape(expected))
    again = plan_graph(bind(parse_graph(found.graph.spec.text, path=folder / "r.yaml", env={})))
    assert shape(again) == shape(found)


def _unordered(found: Any) -> Any:
    graph, *others = found
    return {**graph, "cnx": sorted(map(str, graph["cnx"]))}, others
