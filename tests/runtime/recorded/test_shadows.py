"""What a recorded run says of its shadows, against reading the whole log."""

from collections import Counter

import numpy as np
import pytest

from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.shadows import compared
from flowrun.runtime.recorded.run import RecordedRun
from support.shadow_runs import is_seen, ran


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("shadows"), is_enough=is_seen)


@pytest.fixture
def recorded(run):
    made = RecordedRun("x", run)
    yield made
    made.close()


def test_at_each_cycle_the_disagreements_are_those_until_then(recorded, run):
    with Log(run) as log:
        last = max(record.cycle for record in log.cycles())
        answers = {
            task: {it.fields["frame_cycle"]: it for it in log.messages(f"/{task}/answer")}
            for task in ("vlm", "vlm_shadow")
        }
        [found] = [it for it in compared(log) if it.shadow == "vlm_shadow"]
    both = sorted(
        (max(answers["vlm"][at].cycle, its.cycle), at) for at, its in answers["vlm_shadow"].items()
    )
    assert len(both) == found.compared
    for cycle in range(last + 1):
        told = recorded.shadows(cycle, bins=7, most=50)["vlm_shadow"]
        until = [frame for at, frame in both if at <= cycle]
        wrong = [frame for frame in until if frame % 2 == 0]
        assert (told["of"], told["compared"], told["disagreed"]) == ("vlm", len(until), len(wrong))
        assert [it["frame_cycle"] for it in told["last"]] == wrong[::-1]
        assert recorded.moment(cycle=cycle, at_ns=None, url="")["shadows"]["vlm_shadow"] == {
            "of": "vlm",
            "compared": len(until),
            "disagreed": len(wrong),
        }
    for it in recorded.shadows(None, bins=7, most=2)["vlm_shadow"]["last"]:
        assert (it["said"], it["shadow_said"]) == (f"say {it['frame_cycle']}", "say -1")
        assert it["cycle"] == dict(map(reversed, both))[it["frame_cycle"]]


@pytest.mark.parametrize("bins", [1, 2, 7, 100])
def test_the_parts_of_the_run_count_each_frame_once(recorded, bins):
    for told in recorded.shadows(None, bins=bins, most=0).values():
        assert len(told["at_ns"]) == bins
        assert sum(told["parts"]["compared"]) == told["compared"]
        assert sum(told["parts"]["disagreed"]) == told["disagreed"]
        assert np.less_equal(told["parts"]["disagreed"], told["parts"]["compared"]).all()
        assert told["last"] == []


def test_a_lane_has_the_disagreements(recorded):
    found = recorded.lanes(first=None, last=None, bins=9)["lanes"]
    lanes = {it["task"]: sum(it["counts"]) for it in found if it["kind"] == "disagreements"}
    all_ = recorded.shadows(None, bins=1, most=0)
    assert lanes == {name: it["disagreed"] for name, it in all_.items() if it["disagreed"]}
    assert lanes.keys() == {"vlm_shadow", "thrifty_shadow"}


def test_a_shadow_that_fails_says_how_often_and_why(recorded, run):
    with Log(run) as log:
        cycles = [
            it.cycle
            for it in log.messages("/flowrun/control")
            if (it.fields["kind"], it.fields["task"]) == ("error", "gate_shadow")
        ]
    assert cycles
    for number, cycle in enumerate(cycles, 1):
        told = recorded.shadows(cycle, bins=1, most=5)["gate_shadow"]
        errors = {"count": number, "text": "ValueError: broken", "cycle": cycle}
        assert (told["compared"], told["answers"], told["errors"]) == (0, 0, errors)
    before = recorded.shadows(cycles[0] - 1, bins=1, most=5)["gate_shadow"]
    assert before["errors"] == {"count": 0, "text": "", "cycle": None}


def test_what_a_budget_leaves_out_is_counted_by_its_cause(recorded, run):
    told = recorded.shadows(None, bins=1, most=5)["thrifty_shadow"]
    assert told["budget"] == {"per_hour": 3, "asked": 3, "p99_ms": None, "took_p99_ms": 0.0}
    assert told["answers"] == told["compared"] == told["disagreed"] == 3
    left = Counter()
    with Log(run) as log:
        for it in log.messages("/flowrun/control"):
            if (it.fields["kind"], it.fields["task"]) == ("dropped", "thrifty_shadow"):
                left[it.fields["key"]] += it.fields["value"]
    assert left["hourly budget"] > 0
    assert {cause: told["dropped"][cause] for cause in left} == left


def test_a_run_without_shadows_has_none(tmp_path):
    graph = "tasks: [{id: n, type: Counter, config: {limit: 3}}]"
    recorded = RecordedRun("x", ran(tmp_path, graph))
    assert recorded.shadows(None, bins=3, most=3) == {}
    assert recorded.moment(cycle=1, at_ns=None, url="")["shadows"] == {}
    recorded.close()
