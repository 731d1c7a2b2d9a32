"""Runs that somebody else has written: whatever they hold, what there is is shown."""

import json

import numpy as np
import pytest

from flowrun.msgs import DetectionsMsg, ImageRgb8Msg, PromptResponseMsg
from flowrun.runtime.events import Failed, Set, SourceState
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.slab.format import Attachment
from flowrun.runtime.log.writer import LogWriter
from flowrun.runtime.recorded.run import RecordedRun, number_in
from flowrun.runtime.recorded.runs import RecordedRuns
from support.log_writing import T0

EVIL = "<img src=x onerror=\"document.title='broken into'\"> \x1b[31m\x07\u202e & more"
GRAPH = {
    "tasks": [{"id": "cam", "type": "VideoCapture"}, {"id": "says", "type": "Inference"}],
    "cnx": [{"src": "cam", "dst": "says"}],
}


def written(directory, *, cycles=12, graph=GRAPH, names=("cam", "says")):
    cam, says = names
    outputs = [
        LoggedOutput(cam, "image", f"/{cam}/image", ImageRgb8Msg),
        LoggedOutput(says, "answer", f"/{says}/answer", PromptResponseMsg),
        LoggedOutput("finds", "out", "/finds/out", DetectionsMsg),
    ]
    data = graph if isinstance(graph, bytes) else json.dumps(graph).encode()
    writer = LogWriter(
        directory,
        outputs=outputs,
        steps=3,
        metadata={"run_id": "x", "graph": EVIL, "steps": f"{cam} {says} finds"},
        attachments=[Attachment("graph.json", "application/json", data, T0, T0)],
        slab_size_mib=1,
        section_size_mib=1,
        sync_s=None,
    )
    image, answer, found = ImageRgb8Msg(), PromptResponseMsg(), DetectionsMsg()
    bound = writer.bind([image, answer, found])
    for cycle in range(cycles):
        image.allocate_pixels(24, 32)[...] = cycle
        answer.prompt = answer.response = EVIL
        answer.frame_cycle = cycle - 3  # the first ones are of before the run
        found.boxes, found.labels = np.zeros((1, 4), np.float32), [EVIL]
        found.scores, found.class_ids = np.array([np.nan], np.float32), np.array([1], np.int32)
        for message in (image, answer, found):
            message.publish(tov_ns=T0 + cycle)
        writer.log_record(T0 + cycle, "info", EVIL, EVIL, {"a": EVIL})
        events = [
            Failed(says, "skip", EVIL),
            Set(says, {"prompt": EVIL}),
            SourceState(cam, "lost", EVIL),
        ]
        writer.commit(cycle, T0 + cycle, bound, start_ns=0, ends_ns=[1, 2, 3], events=events)
    writer.finish({"reason": EVIL, "cycles": str(cycles)})
    return RecordedRun("x", directory)


def everything(run):
    """All that the page asks of a run."""
    details, found = run.details(), run.lanes(first=None, last=None, bins=9, keys=True)
    for cycle in (found["from_cycle"], found["to_cycle"]):
        moment = run.moment(cycle=cycle, at_ns=None, url="u")
        assert moment["missing"] == []
        run.lines(cycle, level="debug", task=None, most=9)
        run.seen(cycle)
    run.latencies(first=None, last=None, bins=9)
    run.file()
    return details, moment


@pytest.mark.parametrize(
    "graph",
    [
        b"nonsense",
        b"[" * 100_000,
        [],
        {"tasks": 3, "cnx": "x"},
        {"tasks": [3, {}, {"id": None}, {"id": ["a"]}], "cnx": [1, {}, {"src": 3, "dst": None}]},
        {"tasks": [{"id": "says", "config": [1]}], "cnx": [{"src": "says", "dst": "says"}]},
    ],
    ids=range(6),
)
def test_a_graph_that_is_none_is_left_out(tmp_path, graph):
    details, moment = everything(written(tmp_path / "run", graph=graph))
    assert [task["id"] for task in details["tasks"]] in ([], ["says"])
    assert moment["answers"]["says"]["response"] == EVIL


def test_names_of_tasks_are_names_in_addresses(tmp_path):
    names = "c?a#m %2f&<b>", "says"
    graph = {"tasks": [{"id": it} for it in names], "cnx": [{"src": names[0], "dst": "says"}]}
    _, moment = everything(written(tmp_path / "run", graph=graph, names=names))
    quoted = "c%3Fa%23m%20%252f%26%3Cb%3E"
    assert moment["images"][names[0]]["url"] == f"u/image/{quoted}?cycle=11"
    assert moment["answers"]["says"]["frame"]["url"] == f"u/image/{quoted}?cycle=8"


def test_a_frame_of_before_the_run_is_none(tmp_path):
    run = written(tmp_path / "run")
    answers = [run.moment(cycle=it, at_ns=None, url="u")["answers"]["says"] for it in (2, 3)]
    assert [it["frame"] and it["frame"]["cycle"] for it in answers] == [None, 0]


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("\u00b2", None), ("9" * 5000, None), ("-1", None), ("", None), (None, None)],
)
def test_a_number_of_the_metadata_is_one_or_none(text, number):
    assert number_in(text) == number


def test_a_run_without_a_cycle_says_so(tmp_path):
    runs = tmp_path / "runs"
    made = written(runs / "run", cycles=0)
    assert (made.details()["first_cycle"], made.details()["images"]) == (None, ["cam"])
    [listed] = RecordedRuns.at(runs).summaries()
    assert (listed["id"], listed["cycles"], listed["state"]) == ("run", 0, "ended")
