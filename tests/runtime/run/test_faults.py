"""What must hold when something goes wrong around the cycle: each was a defect once."""

from __future__ import annotations

import threading

import pytest

from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import TaskError, UsageError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import parse_graph
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run.live import Run
from support import helpers
from support.fault_tasks import Holds
from support.helpers import START_NS, Hooked, plan_of, record


def graph(tmp_path, tasks, cnx="", *, env=None, more=""):
    lines = ["tasks:", *(f"  - {{{task}}}" for task in tasks), f"cnx: [{cnx}]", more]
    text = "\n".join(lines) + "\nlogging: {slab_size_mib: 1, section_size_mib: 1}\n"
    return plan_graph(bind(parse_graph(text, path=tmp_path / "g.yaml", env=env or {})))


BOUNDS = [
    "id: n, type: support.helpers.Hooked, config: {limit: 5}",
    "id: b, type: support.fault_tasks.Bounds",
]
N_TO_B = "{src: n, dst: b, msg: IntMsg}"


def run_with_hook(plan, directory, hook):
    live = Run(plan, clock=ManualClock(START_NS, step_ns=1000), directory=directory)
    Hooked.hook = lambda number: hook(live, number)
    return live, live.run()


def replay(directory):
    with Log(directory) as log:
        return Replay(log, env={}).run()


def test_changes_that_belong_together_are_one_and_replay_as_one(tmp_path):
    def hook(live, number):
        if number == 2:
            live.set_live("b", {"lo": 8, "hi": 12})

    _, result = run_with_hook(graph(tmp_path, BOUNDS, N_TO_B), tmp_path / "run", hook)
    assert result.error is None
    with Log(tmp_path / "run") as log:
        texts = [m.fields["value"] for m in log.messages("/b/out")]
        [change] = [m.fields for m in log.messages("/flowrun/control") if m.fields["kind"] == "set"]
    assert texts == ["0-5 0", "0-5 0", "0-5 0", "8-12 1", "8-12 1"]
    assert change["value"] == {"lo": 8, "hi": 12}
    assert replay(tmp_path / "run").first is None


def test_a_change_is_checked_against_those_that_wait(tmp_path):
    refused = []

    def hook(live, number):
        if number == 2:
            live.set_live("b", {"lo": 4})
            with pytest.raises(UsageError) as caught:
                live.set_live("b", {"hi": 3})
            refused.append(str(caught.value))

    _, result = run_with_hook(graph(tmp_path, BOUNDS, N_TO_B), tmp_path / "run", hook)
    assert result.error is None
    assert "lo must not exceed hi" in refused[0]


@pytest.mark.parametrize("values", [{"lo": -(2**70)}, {"word": "half \ud83d"}])
def test_a_value_that_the_log_cannot_hold_is_refused(tmp_path, values):
    live = Run(graph(tmp_path, BOUNDS, N_TO_B), clock=ManualClock(), directory=tmp_path / "run")
    with pytest.raises(UsageError, match="^b: the log cannot hold "):
        live.set_live("b", values)


def test_a_configure_that_raises_is_named_logged_and_replayed(tmp_path):
    def hook(live, number):
        if number == 2:
            live.set_live("b", {"word": "fail"})

    _, result = run_with_hook(graph(tmp_path, BOUNDS, N_TO_B), tmp_path / "run", hook)
    assert str(result.error) == ("task 'b' failed in configure, cycle 3: OSError: cannot configure")
    with Log(tmp_path / "run") as log:
        kinds = [m.fields["kind"] for m in log.messages("/flowrun/control")]
    assert kinds == ["set", "error"]
    report = replay(tmp_path / "run")
    assert report.recorded_error == "task 'b', cycle 3: OSError: cannot configure"


def test_a_configure_that_raises_follows_the_policy(tmp_path):
    def hook(live, number):
        if number == 2:
            live.set_live("b", {"word": "fail"})

    tasks = [BOUNDS[0], BOUNDS[1] + ", on_error: skip"]
    _, result = run_with_hook(graph(tmp_path, tasks, N_TO_B), tmp_path / "run", hook)
    assert result.error is None
    assert replay(tmp_path / "run").first is None


def test_a_background_task_whose_configure_raises_ends_the_run(tmp_path):
    def hook(live, number):
        if number == 2:
            live.set_live("b", {"word": "fail"})

    tasks = [BOUNDS[0], BOUNDS[1] + ", background: true"]
    _, result = run_with_hook(graph(tmp_path, tasks, N_TO_B), tmp_path / "run", hook)
    assert str(result.error).endswith("OSError: cannot configure")


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(3)])
def test_a_background_task_that_exits_ends_the_run_not_the_worker(tmp_path, monkeypatch, raised):
    def process(self, ctx, number, out):
        raise raised

    tasks = [
        "id: n, type: support.helpers.Numbers",
        "id: b, type: support.fault_tasks.Leaver, background: true",
    ]
    plan = graph(tmp_path, tasks, N_TO_B)
    monkeypatch.setattr("support.fault_tasks.Leaver.process", process)
    _, result = record(plan, tmp_path / "run")
    assert str(result.error).endswith(f": {type(raised).__name__}: 3")


def test_a_run_that_a_sources_error_ended_replays(tmp_path):
    tasks = ["id: n, type: support.fault_tasks.Cable", "id: x, type: support.helpers.Scale"]
    plan = graph(tmp_path, tasks, "{src: n, dst: x, msg: IntMsg}")
    _, result = record(plan, tmp_path / "run")
    assert isinstance(result.error, TaskError)
    report = replay(tmp_path / "run")
    assert report.first is None
    assert report.recorded_error == "task 'n', cycle 3: OSError: the cable is out"


def test_a_cycle_that_a_source_skipped_is_skipped_in_a_replay(tmp_path):
    tasks = [
        "id: a, type: support.helpers.Numbers, config: {limit: 6}",
        "id: n, type: support.fault_tasks.Cable, on_error: skip_cycle",
        "id: s, type: support.helpers.Sum",
    ]
    plan = graph(tmp_path, tasks, "{src: a, dst: s.a, msg: IntMsg}")
    _, result = record(plan, tmp_path / "run")
    assert result.error is None
    assert replay(tmp_path / "run").first is None


def test_a_default_of_an_unset_variable_holds_in_a_replay(tmp_path):
    tasks = [
        "id: n, type: support.helpers.Numbers",
        "id: x, type: support.helpers.Scale, config: {factor: '${FLOWRUN_TEST_FACTOR:-3}'}",
    ]
    # As YAML would type it, a quoted one stays a text; pydantic takes it for the number.
    plan = graph(tmp_path, tasks, "{src: n, dst: x, msg: IntMsg}")
    record(plan, tmp_path / "run")
    assert replay(tmp_path / "run").first is None


@pytest.mark.parametrize("tov", [1.5, -1, 2**64])
def test_a_time_that_cannot_be_names_the_task(tmp_path, tov):
    tasks = ["id: n, type: support.helpers.Numbers",
             f"id: b, type: support.fault_tasks.Stamps, config: {{tov: {tov}}}"]  # fmt: skip
    _, result = record(graph(tmp_path, tasks, N_TO_B), tmp_path / "run")
    assert str(result.error) == (
        "task 'b' failed in process, cycle 0: MessageTypeError: IntMsg: tov_ns must be a "
        f"whole number of nanoseconds, 0 or more; got {tov!r}"
    )


def test_a_background_job_never_sees_what_is_written_later(tmp_path):
    tasks = [
        "id: n, type: support.helpers.Hooked, config: {limit: 4}",
        "id: b, type: support.fault_tasks.Reuses",
        "id: h, type: support.fault_tasks.Holds, background: true",
    ]
    cnx = N_TO_B + ", {src: b, dst: h, msg: support.helpers.GridMsg}"
    began, goes = threading.Semaphore(0), threading.Semaphore(0)

    def gate():
        began.release()
        assert goes.acquire(timeout=240)

    Holds.gate = staticmethod(gate)

    def hook(live, number):
        if number == 1:
            assert began.acquire(timeout=240)
        if number == 3:
            goes.release(9)

    run_with_hook(graph(tmp_path, tasks, cnx), tmp_path / "run", hook)
    goes.release(9)
    with Log(tmp_path / "run") as log:
        texts = [m.fields["value"] for m in log.messages("/h/out")]
    assert texts[0] == str([[0.0, 0.0]] * 4)
    assert replay(tmp_path / "run").first is None


def test_secrets_are_masked_in_whatever_is_logged(tmp_path):
    tasks = ["id: n, type: support.helpers.Numbers",
             "id: b, type: support.fault_tasks.Object, config: {password: '${PW}'}"]  # fmt: skip
    plan = graph(tmp_path, tasks, N_TO_B, env={"PW": "s3cret-word"})
    _, result = record(plan, tmp_path / "run")
    assert result.error is None
    [slab] = (tmp_path / "run").glob("*.mcap")
    assert b"bad login ***" in slab.read_bytes()
    assert b"s3cret" not in slab.read_bytes()


def test_a_run_that_never_ran_leaves_nothing(tmp_path):
    plan = plan_of(tmp_path, "n=Numbers")
    with (
        pytest.raises(UsageError, match="port"),
        Run(plan, clock=ManualClock(), directory=tmp_path / "run").discarded_unless_run(),
    ):
        raise UsageError("the port is taken")
    assert not (tmp_path / "run").exists()


def test_a_directory_whose_name_is_not_utf8_holds_runs(tmp_path):
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    tasks = ["id: n, type: support.helpers.Numbers", "id: b, type: support.helpers.Scale"]
    _, result = record(graph(folder, tasks, N_TO_B), folder / "run")
    assert result.error is None
    with Log(folder / "run") as log:
        assert log.metadata["graph_path"].endswith(r"caf\udce9/g.yaml")
        assert Replay(log).run().identical


def test_an_error_text_without_bytes_leaves_a_finished_log(tmp_path, monkeypatch):
    """As that of a file whose name is not UTF-8."""

    def process(self, ctx, number, out):
        raise OSError("cannot open 'caf\udce9.jpg'")

    tasks = ["id: n, type: support.helpers.Numbers", "id: b, type: support.helpers.Boom"]
    plan = graph(tmp_path, tasks, N_TO_B)
    monkeypatch.setattr(helpers.Boom, "process", process)
    _, result = record(plan, tmp_path / "run")
    assert isinstance(result.error, TaskError)
    with Log(tmp_path / "run") as log:
        assert log.loss is None
        assert log.end is not None
        assert log.end["error"].endswith(r"OSError: cannot open 'caf\udce9.jpg'")


def test_a_field_of_a_wrong_type_is_named_with_its_task(tmp_path):
    tasks = ["id: n, type: support.helpers.Numbers", "id: b, type: support.fault_tasks.WrongType"]
    _, result = record(graph(tmp_path, tasks, N_TO_B), tmp_path / "run")
    assert str(result.error) == (
        "task 'b' failed in process, cycle 0: MessageTypeError: TextMsg.value: expected "
        "str, got int 0"
    )
