"""`task.key=value`: values in place of those of a graph file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.graph.read import parse_graph

GRAPH = """\
constants: {most: 3}
tasks:
  - {id: count, type: Counter, config: {limit: {{most}}, rate_hz: 100}}
  - {id: show, type: Print}
cnx:
  - {src: count, dst: show, msg: IntMsg}
"""


def resolved(text: str, *settings: str) -> dict[str, Any]:
    return masked_graph(parse_graph(text, path=Path("g.yaml"), env={}, settings=settings))


def test_a_setting_is_as_if_it_were_in_the_file() -> None:
    edited = """\
tasks:
  - {id: count, type: Counter, config: {limit: 4, rate_hz: 5}, rate_hz: 6}
  - {id: show, type: Print, every: 2, logging: {enabled: false}}
cnx:
  - {src: count, dst: show, msg: IntMsg}
runtime: {seed: 7}
logging: {keep: {runs: 3}}
"""
    assert resolved(
        GRAPH,
        "constants.most=4",
        "count.rate_hz=5",  # its config has it
        "show.every=2",
        "show.logging.enabled=false",
        "runtime.seed=7",
        "logging.keep.runs=3",
    ) == resolved(edited.replace(", rate_hz: 6", ""))
    assert resolved(edited, "count.limit=1", "count.limit=4") == resolved(edited)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("cont.limit=3", "--set cont.limit: unknown task 'cont'; tasks: count, show; sections: runtime, "
         "logging, constants, partitions, network (did you mean 'count'?)"),
        ("count.limt=3", "--set count.limt: unknown key 'limt' in the config of task 'count'; valid "
         "keys: limit, rate_hz (did you mean 'limit'?)"),
        ("count.limit", "--set count.limit: expected TASK.KEY=VALUE, such as cam.max_fps=5 or "
         "runtime.seed=7; got no '='"),
        ("count=3", "--set count: expected TASK.KEY=VALUE, such as cam.max_fps=5 or runtime.seed=7"),
        ("count.limit=x", "--set count.limit: 'limit' of task 'count' must be a whole number; got 'x'"),
        ("count.limit=[1", "--set count.limit: not valid YAML: expected ',' or ']'; quote a text that "
         "holds { } [ ] , or ' #'; the value is YAML"),
        ("count.limit.x=1", "--set count.limit.x: 'x' is a key of a mapping, and the file has 3 there"),
        ("count.limit={{x}}", "--set count.limit: nothing gives {{x}} a value; constants and params "
         "here: most"),
        ("show.every=0", "--set show.every: 'every' must be a whole number of at least 1; got 0"),
        ("runtime.sed=1", "--set runtime.sed: unknown key 'sed' in 'runtime'; valid keys: "),
        ("logging.keep.run=1", "--set logging.keep.run: unknown key 'run' in 'keep'; valid keys: gib, "
         "runs (did you mean 'runs'?)"),
        ("constants.mots=1", "--set constants.mots: unknown constant 'mots'; constants: most (did you "
         "mean 'most'?)"),
        ("count.password=hunter2", "--set count.password: unknown key 'password' in the config of task "
         "'count'; valid keys: limit, rate_hz"),
    ],
)  # fmt: skip
def test_each_mistake_has_an_answer(tmp_path: Path, setting: str, said: str) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(GRAPH)
    with pytest.raises(GraphError) as caught:
        load_plan(path, env={}, settings=[setting])
    [line] = str(caught.value).splitlines()
    assert line.startswith(said)
    assert "hunter2" not in line


def test_an_item_of_a_list_is_set_by_its_number() -> None:
    text = "tasks: [{id: a, type: T, config: {x: [{u: 1, f: 2}, {u: 3}]}}]"
    found = resolved(text, "a.x.1.f=5", "a.x[0].f=6", "a.y.z=[1, {b: c}]")
    assert found["tasks"][0]["config"] == {
        "x": [{"u": 1, "f": 6}, {"u": 3, "f": 5}],
        "y": {"z": [1, {"b": "c"}]},
    }
    with pytest.raises(GraphError) as caught:
        resolved(text, "a.x.2.f=5")
    assert str(caught.value) == "--set a.x.2.f: expected an item from 0 to 1 of the list; got '2'"


def test_a_value_that_a_merge_key_brought_is_set_for_one_task_only() -> None:
    text = (
        "constants: {all: &all {x: {y: 1, z: 2}}}\n"
        "tasks: [{id: a, type: T, config: {<<: *all}}, {id: b, type: T, config: *all}]\n"
    )
    one, two = resolved(text, "a.x.y=5")["tasks"]
    assert (one["config"], two["config"]) == ({"x": {"y": 5, "z": 2}}, {"x": {"y": 1, "z": 2}})


def test_a_secret_that_is_set_is_not_in_the_text_that_the_log_keeps(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text("tasks: [{id: cam, type: VideoCapture, config: {source_uri: test}}]")
    setting = "cam.source_uri=rtsp://me:hunter2-of-door@host/x"
    graph = load_plan(path, env={}, ready=False, settings=[setting]).graph.spec
    assert graph.tasks[0].config == {"source_uri": "rtsp://me:hunter2-of-door@host/x"}
    assert graph.stored_text is not None
    assert "hunter2" not in graph.stored_text
    assert "rtsp://***@host/x" in graph.stored_text


PATHS = st.lists(st.sampled_from(["a", "b", "c-d", "0"]), min_size=1, max_size=3)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["on", "a: b", "x", "{{{{", "#", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from("ab"), VALUES), PATHS, VALUES)
def test_any_setting_gives_what_the_edited_file_gives(
    config: dict[str, Any], path: list[str], value: Any
) -> None:
    def text(config: Any) -> str:
        return yaml.safe_dump({"tasks": [{"id": "t", "type": "T", "config": config}]})

    edited = yaml.safe_load(yaml.safe_dump(config))
    place, fits = edited, True
    for step in path[:-1]:
        if isinstance(place, list):
            fits = step.isdecimal() and int(step) < len(place)
            step = int(step) if fits else 0  # noqa: PLW2901
        if not fits:
            break
        if isinstance(place, dict) and place.get(step) is None:
            place[step] = {}
        if isinstance(place, list) and place[step] is None:  # type: ignore[call-overload]
            place[step] = {}  # type: ignore[call-overload]
        place = place[step]
        if not isinstance(place, dict | list):
            fits = False
            break
    last: Any = path[-1]
    if fits and isinstance(place, list):
        fits = last.isdecimal() and int(last) < len(place)
        last = int(last) if fits else last
    written = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
    setting = f"t.{'.'.join(path)}={written}"
    if not fits:
        with pytest.raises(GraphError, match="--set"):
            resolved(text(config), setting)
        return
    place[last] = value
    assert resolved(text(config), setting) == resolved(text(edited))
