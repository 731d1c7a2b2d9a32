"""What another prompt would have answered."""

import shutil
import time

import pytest
import structlog

from flowrun.runtime.cli import main
from flowrun.runtime.errors import LogInUse, LogNotFound, UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded import what_if
from flowrun.runtime.recorded.runs import RecordedRuns
from flowrun.runtime.recorded.what_if import Asked, changes, check_values, command_of
from support.paths import TESTS

GRAPH = {
    "tasks": [{"id": name} for name in ("cam", "vlm", "parse", "boxes", "other")],
    "cnx": [
        {"src": "cam", "dst": "vlm"},
        {"src": "vlm.answer", "dst": "parse"},
        {"src": "parse", "dst": "boxes.objects"},
        {"src": "cam", "dst": "boxes"},
        {"src": "cam", "dst": "other"},
    ],
}


def test_what_gets_the_messages_of_a_changed_task_runs_too():
    assert check_values({"vlm.prompt": "x"}, GRAPH) == ["vlm", "parse", "boxes"]
    assert check_values({"boxes.color": 3, "other.stop": ["a"]}, GRAPH) == ["boxes", "other"]


def test_what_makes_an_input_that_no_log_holds_runs_too():
    names = ("cam", "crop", "small", "vlm", "window")
    links = [("cam", "crop"), ("crop", "small"), ("small.out", "vlm.image"), ("small", "window")]
    graph = {
        "tasks": [{"id": name} for name in names],
        "cnx": [{"src": src, "dst": dst} for src, dst in links],
    }
    cam, crop, small = graph["tasks"][:3]
    small["logging"] = {"enabled": True, "payload": "none"}
    assert check_values({"vlm.prompt": "x"}, graph) == ["small", "vlm"]
    crop["logging"] = cam["logging"] = {"enabled": False, "payload": "all"}
    assert check_values({"vlm.prompt": "x"}, graph) == ["crop", "small", "vlm"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "nothing to change: give task.key and its value, such as inference.prompt"),
        ({"vlm": 1}, "'vlm': expected task.key"),
        ({"vlmm.x": 1}, "unknown task 'vlmm'; tasks: cam, vlm, parse, boxes, other"),
        ({"vlm.x": {}}, "vlm.x: expected a text, a number, true, false, null or a list of these"),
    ],
)
def test_values_that_are_not_taken_are_named(values, why):
    with pytest.raises(UsageError) as error:
        check_values(values, GRAPH)
    assert str(error.value) == why


@pytest.mark.parametrize("key", ["command", "base_url", "source_uri", "api_key", "model_path"])
def test_what_says_which_program_runs_is_not_changed_over_http(key):
    with pytest.raises(UsageError) as error:
        check_values({f"vlm.{key}": "x"}, GRAPH)
    assert str(error.value) == (
        f"vlm.{key} is not changed over HTTP: it may say what is run, or where to; use "
        "flowrun replay --set"
    )


def test_the_command_makes_a_run_whose_answers_are_compared(run, tmp_path, capsys):
    asked = Asked({"says.prompt": 'th: "ird" #'}, 4, 20)
    words = command_of(run, tmp_path / "out", asked, ["says"])
    words = words[words.index("replay") :]
    assert main(words) == 1  # messages differ
    structlog.reset_defaults()
    capsys.readouterr()
    with Log(run) as recorded, Log(tmp_path / "out") as replayed:
        found = changes(recorded, replayed, ["says"])
        assert [record.cycle for record in replayed] == list(range(4, 21))
        before = list(recorded.messages("/says/answer", 4, 21))
    assert found["compared"] == found["differing"] == len(before)
    for change, message in zip(found["differs"], before, strict=True):
        was = message.fields["response"]
        assert change["before"]["response"] == was
        assert change["after"]["response"] == f'th: "ird" #: {was.partition(": ")[2]}'
        assert (change["task"], change["cycle"]) == ("says", message.cycle)


def test_two_run_at_once_and_one_is_cancelled(run, tmp_path, monkeypatch):
    monkeypatch.setattr(what_if, "command_of", lambda *_: ["sleep", "100"])
    runs = RecordedRuns.at(shutil.copytree(run, tmp_path / "run"))
    for _ in range(2):
        runs.ask("run", {"says.prompt": "x"}, 4, 20)
    with pytest.raises(LogInUse) as error:
        runs.ask("run", {"says.prompt": "x"}, 4, 20)
    assert str(error.value) == ("2 what-ifs run already; wait for the end of one, or cancel it")
    assert runs.cancel("run", "1")["state"] == "cancelled"
    assert [it["state"] for it in runs.what_ifs("run")] == ["cancelled", "running"]
    made = runs.ask("run", {"says.prompt": "x"}, 4, 20)
    assert made == {"id": "3", "run": "run~3"}
    for number in ("2", "3"):
        assert runs.cancel("run", number)["why"] is None
    with pytest.raises(LogNotFound) as missing:
        runs.cancel("run", "4")
    assert str(missing.value) == "no what-if '4' of run 'run'; there are: 1, 2, 3"


def test_a_run_may_have_the_sign_of_a_what_if_in_its_name(run, tmp_path):
    shutil.copytree(run, tmp_path / "a~b")
    assert RecordedRuns.at(tmp_path / "a~b").get("a~b").span(None, None)[1][0] == 24


@pytest.mark.long
def test_a_what_if_runs_beside_the_server_and_is_found_again(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    runs = RecordedRuns.at(copy)
    with pytest.raises(UsageError) as error:
        runs.ask("run", {"says.prompt": "x"}, 4, 99)
    assert str(error.value) == "from_cycle 4 and to_cycle 99: the log holds cycles 0 to 24"
    made = runs.ask("run", {"says.prompt": "third"}, 4, 20)
    deadline = time.monotonic() + 100
    while runs.what_if("run", made["id"])["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    for again in (runs, RecordedRuns.at(copy)):
        found = again.what_if("run", "1")
        assert (found["state"], found["why"], found["progress"]) == ("done", None, 1.0)
        assert found["differs"][0]["after"]["response"].startswith("third: ")
        moment = again.get(found["run"]).moment(cycle=15, at_ns=None, url="")
        assert moment["answers"]["says"]["prompt"] == "third"
    failed = runs.ask("run", {"says.nothing": "third"}, 4, 20)
    while runs.what_if("run", failed["id"])["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    found = runs.what_if("run", failed["id"])
    assert found["state"] == "error"
    assert "nothing" in found["why"]
    runs.close()
