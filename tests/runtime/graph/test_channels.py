"""The numbers by which clients ask for what tasks show."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.bind import bind, channels_of
from flowrun.runtime.graph.channels import Claim, channel_numbers, claims
from flowrun.runtime.graph.read import parse_graph

_TASKS = dict.fromkeys("abcdef", "picture") | dict.fromkeys("uvw", "answer")


def graph(tmp_path, *sinks, cameras=("{source_uri: test}", "{source_uri: test}")):
    lines = ["tasks:"]
    lines += [
        f"  - {{id: cam{n}, type: VideoCapture, config: {it}}}" for n, it in enumerate(cameras)
    ]
    lines += [
        f"  - {{id: s{n}, type: BroadcastImage, config: {config}}}"
        for n, (_, config) in enumerate(sinks)
    ]
    lines += ["cnx:"]
    lines += [
        f"  - {{src: {src}, dst: s{n}, msg: ImageRgb8Msg}}" for n, (src, _) in enumerate(sinks)
    ]
    return parse_graph("\n".join(lines), path=tmp_path / "g.yaml", env={})


def numbers(tmp_path, *sinks, **options):
    return channels_of(bind(graph(tmp_path, *sinks, **options)))


def test_without_an_id_a_channel_is_its_place(tmp_path):
    assert numbers(tmp_path, ("cam0", "{}"), ("cam1", "{}")) == {"s0": 0, "s1": 1}


def test_an_id_is_honoured_and_the_others_get_what_is_left(tmp_path):
    sinks = ("cam0", "{}"), ("cam1", "{channel_id: 0}"), ("cam1", "{channel_id: 7}")
    assert numbers(tmp_path, *sinks) == {"s0": 1, "s1": 0, "s2": 7}


def test_a_cameras_id_is_that_of_what_shows_it(tmp_path):
    cameras = "{source_uri: test, channel_id: 3}", "{source_uri: test, channel_id: 2}"
    sinks = ("cam0", "{}"), ("cam1", "{}"), ("cam1", "{channel_id: 5}")
    assert numbers(tmp_path, *sinks, cameras=cameras) == {"s0": 3, "s1": 2, "s2": 5}


def test_check_refuses_a_number_that_two_have(tmp_path):
    sinks = ("cam0", "{channel_id: 4}"), ("cam1", "{channel_id: 4}")
    with pytest.raises(GraphError) as refused:
        bind(graph(tmp_path, *sinks))
    assert (
        str(refused.value)
        .splitlines()[-1]
        .endswith(
            "g.yaml:5:45: channel_id 4 of task 's1' is that of task 's0' too; every task that shows "
            "pictures needs a number of its own"
        )
    )


def test_a_camera_shown_twice_is_no_conflict(tmp_path):
    cameras = ("{source_uri: test, channel_id: 1}",)
    assert numbers(tmp_path, ("cam0", "{}"), ("cam0", "{}"), cameras=cameras) == {"s0": 1, "s1": 0}


@settings(max_examples=40)
@given(
    claimed=st.dictionaries(
        st.sampled_from(list(_TASKS)), st.builds(Claim, st.integers(0, 9), st.sampled_from("xyz"))
    )
)
def test_no_two_tasks_of_a_kind_have_the_same_number(claimed):
    found = channel_numbers(_TASKS, claimed)
    assert found.keys() == _TASKS.keys()
    for kind in ("picture", "answer"):
        of_kind = [number for task, number in found.items() if _TASKS[task] == kind]
        assert len(set(of_kind)) == len(of_kind)
        taken = {claim.number for task, claim in claimed.items() if _TASKS[task] == kind}
        assert taken <= set(of_kind)


def test_what_two_nearest_tasks_say_differently_is_nobodys():
    shows = {"a": None, "b": None, "sink": "answer"}
    sources = {"sink": ["a", "b"]}
    assert claims(shows, {"a": 1, "b": 2}, sources) == {}
    assert claims(shows, {"a": 1, "b": 1}, sources) == {"sink": Claim(1, "a")}
