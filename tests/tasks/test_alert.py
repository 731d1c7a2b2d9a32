"""`Alert`: what raises an alert, how long it must be so, and how soon the next one comes."""

from __future__ import annotations

import numpy as np
import pytest

from flowrun.msgs import AlertMsg, DetectionsMsg, PromptResponseMsg
from flowrun.msgs.fields import MessageTypeError
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import GraphError, UsageError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from flowrun.runtime.testing import run_task
from flowrun.tasks.alert import Alert
from support.helpers import START_NS

S = 1_000_000_000


def answer(text: str, at_s: float = 0) -> PromptResponseMsg:
    made = PromptResponseMsg(response=text, frame_id=7, frame_cycle=5)
    made.publish(tov_ns=int(at_s * S))
    return made


def objects(
    *labels: str, scores: tuple[float, ...] | None = None, at_s: float = 0
) -> DetectionsMsg:
    made = DetectionsMsg(labels=list(labels), frame_id=7, frame_cycle=5, width=8, height=8)
    made.boxes = np.zeros((len(labels), 4), np.float32)
    made.scores = np.array([np.nan] * len(labels) if scores is None else scores, np.float32)
    made.class_ids = np.full(len(labels), -1, np.int32)
    made.publish(tov_ns=int(at_s * S))
    return made


def alerts(*inputs: dict, **config) -> list[tuple[float, str]]:
    """The time in seconds and the text of each alert."""
    made = [out.get("alert") for out in run_task(Alert, config=config, inputs=list(inputs))]
    return [(it.tov_ns / S, it.text) for it in made if it is not None]


@pytest.mark.parametrize(
    ("text", "raises"),
    [
        ("there is FIRE!", True),
        ("a firefighter", False),
        ("smoke over the roof", True),
        ("", False),
    ],
)
def test_one_of_the_words_is_in_the_answer_as_a_whole_word(text: str, raises: bool) -> None:
    found = alerts({"answer": answer(text)}, contains=["fire", "smoke"])
    assert found == ([(0, text)] if raises else [])


def test_an_alert_is_about_the_frame_of_the_answer() -> None:
    [out] = run_task(
        Alert,
        config={"contains": "fire", "severity": "critical", "text": "It burns"},
        inputs=[{"answer": answer("fire", 3)}],
    )
    found = out["alert"]
    assert (found.text, found.severity) == ("It burns", "critical")
    assert (found.tov_ns, found.frame_id, found.frame_cycle) == (3 * S, 7, 5)


def test_objects_of_the_classes_count_from_the_threshold_on() -> None:
    seen = objects("cat", "car", "car", "dog", scores=(0.9, 0.5, 0.4, 0.9))
    found = alerts({"detections": seen}, labels=["car", "dog"], threshold=0.5)
    assert found == [(0, "1 car, 1 dog")]
    assert alerts({"detections": objects("cat", "cat")}, labels="cat", threshold=1) == [
        (0, "2 cat")
    ]
    assert alerts({"detections": objects("dog")}, labels="cat") == []


def test_it_must_be_so_for_a_while_without_a_pause() -> None:
    said = [(0, "fire"), (1, "no"), (2, "fire"), (3, "fire"), (4, "fire"), (5, "fire")]
    inputs = [{"answer": answer(text, at)} for at, text in said]
    assert alerts(*inputs, contains="fire", hold_s=2) == [(4, "fire")]


def test_the_next_alert_comes_after_the_cooldown() -> None:
    inputs = [{"answer": answer("fire", at)} for at in range(10)]
    assert [at for at, _ in alerts(*inputs, contains="fire", cooldown_s=4)] == [0, 4, 8]
    assert len(alerts(*inputs, contains="fire", cooldown_s=0)) == 10


def test_a_source_that_begins_again_does_not_silence_it() -> None:
    inputs = [{"answer": answer("fire", at)} for at in (100, 1, 3)]
    assert [at for at, _ in alerts(*inputs, contains="fire")] == [100, 1]


def test_a_condition_holds_for_the_newest_of_each_input() -> None:
    inputs = [
        {"answer": answer("fire", 0)},
        {"detections": objects("cat", "cat", at_s=1)},
        {"answer": answer("no", 2)},
        {"detections": objects("cat", at_s=3)},
        {"answer": answer("fire", 4)},
    ]
    found = alerts(*inputs, when="said('fire') and count('cat') > 0", cooldown_s=0)
    assert found == [
        (1, "said('fire') = True, count('cat') = 2"),
        (4, "said('fire') = True, count('cat') = 1"),
    ]


def test_an_alert_says_what_was_read_and_since_when() -> None:
    inputs = [{"detections": objects("cat", "cat", at_s=at)} for at in range(3)]
    *_, out = run_task(
        Alert,
        config={
            "when": "count('cat') > 1",
            "text": "{count('cat')} cats",
            "hold_s": 2,
            "clip": {"before_s": 1.5, "after_s": 4},
        },
        inputs=inputs,
    )
    found = out["alert"]
    assert (found.text, found.rule) == ("2 cats", "count('cat') > 1")
    assert (found.values, found.since_ns) == ({"count('cat')": 2}, 0)
    assert (found.clip_from_ns, found.clip_to_ns) == (S // 2, 6 * S)


def many_cats(detections: DetectionsMsg, answer: PromptResponseMsg | None = None) -> str | None:
    return f"{detections.count} cats" if detections.count > 1 else None


def test_a_function_says_what_an_alert_says() -> None:
    module = f"{__name__}:many_cats"
    inputs = [{"detections": objects(*names, at_s=1)} for names in (["cat"], ["cat", "cat"])]
    assert alerts(*inputs, when=module) == [(1, "2 cats")]


def of_a_frame(frame: object) -> bool:
    return frame is not None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            "{when: count('cat') >}",
            "14: 'when' of task 'watch': character 14 of \"count('cat') >\": invalid syntax; a "
            "condition is an expression, such as count('person') > 2 or said('fire')",
        ),
        (
            '{labels: cat, text: "{cont()}"}',
            "27: 'text' of task 'watch': character 1 of 'cont()': unknown function 'cont'; functions: "
            "said, number, count, best, inside, stay_s, entered, left, crossed, abs, all, any, len, "
            "max, min, round, sum, lower (did you mean 'count'?)",
        ),
        (
            "{labels: cat, timezone: Europe/Berlim}",
            "27: 'timezone' of task 'watch': unknown time zone 'Europe/Berlim'; write one such as "
            "Europe/Berlin or America/New_York (a machine without a database of them needs: pip "
            "install tzdata)",
        ),
        (
            "{when: 'MODULE:of_a_frame'}",
            "14: MODULE:of_a_frame takes 'frame'; it may take answer, detections, zones, lines, message",
        ),
        (
            "{when: said('fire')}",
            "14: it reads answer (PromptResponseMsg), and nothing is connected there",
        ),
    ],
)
def test_a_wrong_condition_is_reported_at_its_place(tmp_path, config: str, said: str) -> None:
    text = f"""
tasks:
  - {{id: find, type: support.pictures.Find}}
  - {{id: cam, type: support.pictures.Camera}}
  - id: watch
    type: Alert
    config: {config.replace("MODULE", __name__)}
cnx:
  - {{src: cam, dst: find, msg: ImageRgb8Msg}}
  - {{src: find, dst: watch, msg: DetectionsMsg}}
"""
    with pytest.raises(GraphError) as error:
        bind(parse_graph(text, path=tmp_path / "g.yaml", env={}))
    assert str(error.value) == f"{tmp_path / 'g.yaml'}:7:{said.replace('MODULE', __name__)}"


def test_a_function_is_not_set_while_the_graph_runs(tmp_path) -> None:
    task = Alert(Alert.Config(contains="fire"))
    vars(task)["config"] = Alert.Config(when="os:system")
    with pytest.raises(UsageError) as error:
        task.configure(None, frozenset({"when"}))
    assert str(error.value) == (
        "when: a function is named in the graph file, not while the graph runs"
    )


def test_both_inputs_share_the_cooldown() -> None:
    both = {"answer": answer("fire"), "detections": objects("cat")}
    assert alerts(both, contains="fire", labels="cat") == [(0, "fire")]
    assert alerts(both, contains="smoke", labels="cat") == [(0, "1 cat")]


def test_what_it_remembers_is_frozen() -> None:
    task = Alert(Alert.Config(contains="fire"))
    task._since_ns, task._alerted_ns = {"answer": 5}, 9
    task._held = {"answer": answer("fire", 2), "detections": objects("cat", at_s=3)}
    other = Alert(Alert.Config(contains="fire"))
    other.thaw(task.freeze())
    assert (other._since_ns, other._alerted_ns) == ({"answer": 5}, 9)
    assert (other._held["answer"].response, other._held["answer"].tov_ns) == ("fire", 2 * S)
    assert (other._held["detections"].labels, other._held["detections"].tov_ns) == (["cat"], 3 * S)


def test_a_rule_that_looks_for_nothing_is_a_mistake(tmp_path) -> None:
    text = "tasks:\n  - {id: watch, type: Alert}\n"
    with pytest.raises(GraphError) as error:
        bind(parse_graph(text, path=tmp_path / "g.yaml", env={}))
    assert str(error.value) == (
        f"{tmp_path / 'g.yaml'}:2:5: nothing to look for: give contains (words of answers), labels "
        "(of objects) or when (a condition)"
    )


def test_severities_are_three_words() -> None:
    with pytest.raises(MessageTypeError) as error:
        AlertMsg(text="x", severity="grave").publish()
    assert str(error.value) == (
        "AlertMsg.severity: expected one of info, warning, critical; got 'grave'"
    )


def test_a_run_shows_its_alerts_and_its_replay_raises_them_again(tmp_path) -> None:
    text = """
tasks:
  - {id: cam, type: support.pictures.Camera, config: {limit: 12}}
  - {id: says, type: support.pictures.Answer}
  - id: watch
    type: Alert
    config: {contains: ['2', '3', '4', '8', '9'], hold_s: 0.03, cooldown_s: 0.1}
cnx:
  - {src: cam, dst: says, msg: ImageRgb8Msg}
  - {src: says, dst: watch, msg: PromptResponseMsg}
logging: {keyframe_interval: 4}
"""
    plan = plan_graph(bind(parse_graph(text, path=tmp_path / "g.yaml", env={})))
    run = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=tmp_path / "run")
    seen = run.observe()
    assert run.run().error is None
    shown = [(it.task, it.message.text) for it in seen.alerts.after(0)[1]]
    assert shown == [("watch", "\u00fcn\u00ef 3"), ("watch", "\u00fcn\u00ef 9")]
    with Log(tmp_path / "run") as log:
        for start in (0, 4, 8):
            report = Replay(log).run(start=start)
            assert report.first is None
            assert report.compared
