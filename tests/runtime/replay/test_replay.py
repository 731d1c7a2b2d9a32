from __future__ import annotations

import time

import pytest

from flowrun.msgs import FloatMsg, IntMsg, Message
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.errors import ReplayError, TaskError, UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.recorder import ReplayLog
from flowrun.runtime.replay.replay import Replay, Tolerance
from flowrun.runtime.run.live import Run
from flowrun.runtime.task import Context, Input, Output, Task
from support import engine_tasks, helpers
from support.helpers import Hooked, plan_of, record


def replay(directory, **options):
    with Log(directory) as log:
        return Replay(log, env={}, **options).run()


def test_a_run_replays_identical(tmp_path):
    plan = plan_of(
        tmp_path,
        "n=Numbers(limit: 20); e=Evens; x=Scale; s=Sum; z=Noise",
        "n > e; e > x; n > s.a; x > s.b; n > z",
    )
    record(plan, tmp_path / "run")
    report = replay(tmp_path / "run")
    assert report.identical
    assert report.first is None
    assert (report.cycles, report.fed) == (21, 20)
    assert report.per_task == {"e": 10, "x": 10, "s": 20, "z": 20}


def test_a_changed_task_is_found_with_cycle_task_field_and_both_values(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, "n=Numbers(limit: 5); x=Scale; s=Sum", "n > x; x > s.a")
    record(plan, tmp_path / "run")

    class WrongAt3(helpers.Scale):
        def process(self, ctx: Context, number: Input[IntMsg], scaled: Output[IntMsg]) -> None:
            scaled.value = number.value * self.config.factor + (number.value == 3)
            scaled.publish(tov_ns=number.tov_ns)

    monkeypatch.setattr(helpers, "Scale", WrongAt3)
    report = replay(tmp_path / "run")
    assert str(report.first) == (
        "cycle 3, task 'x', port 'scaled', field 'value':\n  recorded: 30\n  replayed: 31"
    )
    assert report.differing == 3  # x in cycle 3, and the sum after it in 3 and 4


def test_a_differing_array_says_where_how_many_and_how_much(tmp_path, monkeypatch):
    record(plan_of(tmp_path, "n=Numbers(limit: 5); z=Noise", "n > z"), tmp_path / "run")

    class WrongAt2(helpers.Noise):
        def process(
            self, ctx: Context, number: Input[IntMsg], noise: Output[helpers.GridMsg]
        ) -> None:
            super().process(ctx, number, noise)
            if number.value == 2:
                noise.grid = noise.grid.copy()
                noise.grid[1, 0] += 2
                noise.publish()

    monkeypatch.setattr(helpers, "Noise", WrongAt2)
    first = replay(tmp_path / "run").first
    assert (first.cycle, first.task, first.port, first.field) == (2, "z", "noise", "grid")
    assert first.recorded.endswith("at [1, 0]")
    assert first.replayed.endswith("there; 1 of 4 elements differ, by 2 at most")


def test_another_time_of_validity_is_a_difference(tmp_path, monkeypatch):
    record(plan_of(tmp_path, "n=Numbers(limit: 3); x=Scale", "n > x"), tmp_path / "run")

    class Late(helpers.Scale):
        def process(self, ctx: Context, number: Input[IntMsg], scaled: Output[IntMsg]) -> None:
            super().process(ctx, number, scaled)
            scaled.publish(tov_ns=number.tov_ns + (number.value == 1))

    with Log(tmp_path / "run") as log:
        [_, tov_ns, _] = [m.tov_ns for m in log.messages("/x/scaled")]
    monkeypatch.setattr(helpers, "Scale", Late)
    report = replay(tmp_path / "run")
    assert str(report.first) == (
        f"cycle 1, task 'x', port 'scaled', field 'tov_ns':\n  recorded: {tov_ns}\n"
        f"  replayed: {tov_ns + 1}"
    )
    assert report.differing == 1
    assert replay(tmp_path / "run", tolerance=Tolerance({"IntMsg": 1e9})).differing == 1


@pytest.mark.parametrize("limits", [{}, {"IntMsg": 1}], ids=["none", "of another class"])
@pytest.mark.parametrize(
    ("other", "shown"), [(-0.0, "-0.0"), (0, "0")], ids=["minus zero", "a whole number"]
)
def test_a_zero_of_another_kind_is_a_difference_unless_a_tolerance_was_asked_for(
    tmp_path, monkeypatch, limits, other, shown
):
    record(plan_of(tmp_path, "n=Numbers(limit: 2); z=engine_tasks.Zero", "n > z"), tmp_path / "run")

    def process(self: Task, ctx: Context, number: Input[IntMsg], out: Output[FloatMsg]) -> None:
        out.value = other
        out.publish()

    monkeypatch.setattr(engine_tasks.Zero, "process", process)
    report = replay(tmp_path / "run", tolerance=Tolerance(limits))
    first = report.first
    assert first is not None
    assert (first.field, first.recorded, first.replayed) == ("value", "0.0", shown)
    assert (report.differing, report.tolerated) == (2, 0)
    within = replay(tmp_path / "run", tolerance=Tolerance({"FloatMsg": 0}))
    assert (within.differing, within.tolerated) == (0, 2)


def test_a_task_that_is_in_no_keyframe_is_noted(tmp_path):
    more = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 3}"
    record(plan_of(tmp_path, "n=Numbers(limit: 9); x=Scale", "n > x", more), tmp_path / "run")
    other = tmp_path / "other.yaml"
    with Log(tmp_path / "run") as log:
        text = log.attachments["graph.yaml"].decode()
        other.write_text(
            text.replace("cnx:", "  - {id: y, type: support.helpers.Scale}\ncnx:").replace(
                "  - {src: n,", "  - {src: n, dst: y, msg: IntMsg}\n  - {src: n,"
            )
        )
        again = Replay(log, graph=other, env={})
        assert again.run(start=4).first is None
    assert "task 'y' is in no keyframe: what it remembers stays" in again.notes


def test_a_missing_and_an_additional_message_are_differences(tmp_path, monkeypatch):
    record(plan_of(tmp_path, "n=Numbers(limit: 3); e=Evens", "n > e"), tmp_path / "run")

    class OnlyOne(helpers.Evens):
        def process(self, ctx: Context, number: Input[IntMsg], even: Output[IntMsg]) -> None:
            if number.value == 1:
                even.value = 1
                even.publish()

    monkeypatch.setattr(helpers, "Evens", OnlyOne)
    report = replay(tmp_path / "run")
    assert str(report.first) == (
        "cycle 0, task 'e', port 'even':\n  recorded: a message of 8 bytes\n  replayed: no message"
    )
    assert report.differing == 3


def test_control_messages_come_back_in_their_cycle(tmp_path):
    plan = plan_of(tmp_path, "n=Hooked(limit: 6); x=Scale", "n > x")
    live = Run(plan, clock=ManualClock(1, step_ns=10), directory=tmp_path / "run")
    Hooked.hook = lambda number: live.set_live("x", {"factor": 3}) if number == 2 else None
    live.run()
    with Log(tmp_path / "run") as log:
        assert [m.fields["value"] for m in log.messages("/x/scaled")] == [0, 10, 20, 9, 12, 15]
    Hooked.hook = None  # a replay never calls a source
    assert replay(tmp_path / "run").identical


def test_background_results_are_made_again_and_appear_in_their_cycles(tmp_path):
    plan = plan_of(tmp_path, "n=Hooked(limit: 300); f=Free!; x=Scale", "n > f; n > x")
    live = Run(plan, clock=ManualClock(1, step_ns=10), directory=tmp_path / "run")
    worker = live.executor.workers["f"]

    def hook(number):
        while number == 1 and not worker.jobs.has_done:
            time.sleep(0)  # lets the worker have the interpreter

    Hooked.hook = hook
    live.run()
    with Log(tmp_path / "run") as log:
        assert len(list(log.messages("/f/text"))) > 1
    report = replay(tmp_path / "run")
    assert report.identical
    assert report.per_task["f"] > 1


def test_a_background_task_takes_the_config_of_its_inputs_cycle(tmp_path):
    plan = plan_of(tmp_path, "n=Hooked(limit: 4); s=Slow!", "n > s")
    live = Run(plan, clock=ManualClock(1, step_ns=10), directory=tmp_path / "run")

    def hook(number):
        if number == 1:
            assert helpers.Slow.began.acquire(timeout=240)
        if number == 2:
            live.set_live("s", {"word": "heard"})
        if number == 4:
            helpers.Slow.gate.release(2)

    Hooked.hook = hook
    live.run()
    with Log(tmp_path / "run") as log:
        texts = [m.fields["value"] for m in log.messages("/s/text")]
        controls = [m.fields for m in log.messages("/flowrun/control")]
    assert texts == ["seen 0 of cycle 0", "heard 3 of cycle 3"]
    assert [it["input_cycle"] for it in controls if it["kind"] == "replaced"] == [1, 2]
    helpers.Slow.gate.release(2)
    assert replay(tmp_path / "run").identical


def test_fed_tasks_do_not_run(tmp_path, monkeypatch):
    record(
        plan_of(tmp_path, "n=Numbers(limit: 5); x=Scale; s=Sum", "n > x; x > s.a"),
        tmp_path / "run",
    )
    monkeypatch.setattr(helpers.Scale, "start", None)
    report = replay(tmp_path / "run", feed=["x"])
    assert report.identical
    assert (report.fed, report.per_task) == (10, {"s": 5})


def test_an_unknown_task_to_feed_is_named(tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 1)"), tmp_path / "run")
    with pytest.raises(UsageError, match="^unknown task 'x'; tasks: n$"):
        replay(tmp_path / "run", feed=["x"])


def test_a_recorded_error_comes_again(tmp_path):
    record(plan_of(tmp_path, "n=Numbers; b=Boom", "n > b"), tmp_path / "run")
    report = replay(tmp_path / "run")
    assert report.identical
    assert (report.cycles, report.compared, report.errors) == (2, 2, 0)
    assert report.recorded_error == "task 'b', cycle 2: ValueError: cannot stand 2"


def test_an_error_that_no_longer_comes_is_said(tmp_path, monkeypatch):
    record(plan_of(tmp_path, "n=Numbers; b=Boom", "n > b"), tmp_path / "run")

    class Sound(helpers.Boom):
        def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
            if number.value != 2:
                out.value = number.value
                out.publish()

    monkeypatch.setattr(helpers, "Boom", Sound)
    with pytest.raises(ReplayError) as caught:
        replay(tmp_path / "run")
    assert str(caught.value) == (
        "cycle 2: task 'b' raised ValueError: cannot stand 2 in the recorded run, and did not raise "
        "in the replay"
    )


def test_a_new_error_is_named_with_task_and_cycle(tmp_path, monkeypatch):
    record(plan_of(tmp_path, "n=Numbers(limit: 3); x=Scale", "n > x"), tmp_path / "run")

    class Fails(helpers.Scale):
        def process(self, ctx: Context, number: Input[IntMsg], scaled: Output[IntMsg]) -> None:
            raise RuntimeError("new")

    monkeypatch.setattr(helpers, "Scale", Fails)
    with pytest.raises(TaskError, match="^task 'x' failed in process, cycle 0: RuntimeError: new$"):
        replay(tmp_path / "run")


def test_another_graph_may_be_replayed_with_the_same_recording(tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 3); x=Scale(factor: 2)", "n > x"), tmp_path / "run")
    other = tmp_path / "other.yaml"
    with Log(tmp_path / "run") as log:
        other.write_text(log.attachments["graph.yaml"].decode().replace("factor: 2", "factor: 5"))
    first = replay(tmp_path / "run", graph=other).first
    assert (first.cycle, first.field, first.recorded, first.replayed) == (1, "value", "2", "5")


def test_another_config_value_may_be_tried(tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 3); x=Scale(factor: 2)", "n > x"), tmp_path / "run")
    report = replay(tmp_path / "run", config={"x.factor": 5})
    assert (report.first.recorded, report.first.replayed, report.differing) == ("2", "5", 2)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"y.factor": 5}, "unknown task 'y'; tasks: n, x"),
        ({"factor": 5}, "'factor': expected task.key=value"),
    ],
)
def test_a_config_value_that_cannot_be_is_named(tmp_path, config, text):
    record(plan_of(tmp_path, "n=Numbers(limit: 3); x=Scale(factor: 2)", "n > x"), tmp_path / "run")
    with pytest.raises(UsageError) as caught:
        replay(tmp_path / "run", config=config)
    assert str(caught.value) == text


def test_a_replay_may_end_early(tmp_path):
    record(plan_of(tmp_path, "n=Numbers(limit: 9); x=Scale", "n > x"), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        report = Replay(log, env={}).run(to=3)
    assert (report.cycles, report.compared) == (4, 4)


def test_what_is_not_as_it_was_recorded_is_noted(tmp_path, monkeypatch):
    from flowrun.runtime.run import provenance

    code = (
        "from flowrun.msgs import IntMsg\n"
        "from flowrun.runtime.task import Context, Input, Output, Task\n"
        "class Double(Task):\n"
        "    def process(self, ctx: Context, a: Input[IntMsg], b: Output[IntMsg]) -> None:\n"
        "        b.value = 2 * a.value\n"
        "        b.publish()\n"
    )
    (tmp_path / "doubling.py").write_text(code)
    plan = plan_of(tmp_path, "n=Numbers(limit: 2)")
    text = plan.graph.spec.text.replace("cnx: []", "cnx: [{src: n, dst: d, msg: IntMsg}]")
    text = text.replace("cnx:", "  - {id: d, type: doubling.Double}\ncnx:")
    monkeypatch.syspath_prepend(tmp_path)
    from flowrun.runtime.graph.bind import bind
    from flowrun.runtime.graph.plan import plan_graph
    from flowrun.runtime.graph.read import parse_graph

    plan = plan_graph(bind(parse_graph(text, path=tmp_path / "g.yaml", env={})))
    monkeypatch.setattr(provenance, "_version", lambda package: "1.0")
    record(plan, tmp_path / "run")
    with Log(tmp_path / "run") as log:
        assert log.metadata["version_numpy"] == "1.0"
        assert len(log.metadata["code_doubling"]) == 64
        assert Replay(log, env={}).notes == []
        (tmp_path / "doubling.py").write_text(f"{code}# another file\n")
        monkeypatch.setattr(
            provenance, "_version", lambda package: "1.0" if package != "av" else "2"
        )
        assert Replay(log, env={}).notes == [
            "recorded with av 1.0, replayed with av 2",
            "the code of doubling has changed since it was recorded",
        ]


class OldMsg(Message):
    schema_name = "ResultMsg"
    value: int


class ResultMsg(Message):
    value: int
    unit: str = "m"


class OldMeasure(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[OldMsg]) -> None:
        out.value = number.value
        out.publish()


class Measure(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[ResultMsg]) -> None:
        out.value = number.value
        out.publish()


def test_fields_that_a_message_has_got_since_are_not_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "Measure", OldMeasure, raising=False)
    record(plan_of(tmp_path, "n=Numbers(limit: 3); m=Measure", "n > m"), tmp_path / "run")
    monkeypatch.setattr(helpers, "Measure", Measure)
    with Log(tmp_path / "run") as log:
        again = Replay(log, env={})
        report = again.run()
        assert (report.first, report.compared) == (None, 3)
        assert again.notes == ["/m/out was recorded without unit: not compared"]
        other = Replay(log, env={})
        other.hook(
            around=lambda task, call: (
                call(),
                other._graph.messages[1].envelope.fields.update(value=7),
            )
        )
        assert other.run().first.field == "value"


def test_the_commit_of_the_graphs_folder_is_recorded_and_none_of_its_hooks_run(
    tmp_path, monkeypatch
):
    import subprocess

    def git(*words):
        identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "a.txt").write_text("a")
    git("add", "a.txt")
    git("commit", "-qm", "one")
    hook = tmp_path / ".git" / "hook.sh"
    hook.write_text("#!/bin/sh\ntouch .git/was-run\n")
    hook.chmod(0o755)
    git("config", "core.fsmonitor", str(hook))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))  # as a hook of git has it
    record(plan_of(tmp_path, "n=Numbers(limit: 1)"), tmp_path / "one")
    (tmp_path / "a.txt").write_text("b")
    record(plan_of(tmp_path, "n=Numbers(limit: 1)"), tmp_path / "two")
    assert not (tmp_path / ".git" / "was-run").exists()
    monkeypatch.delenv("GIT_DIR")
    commit = git("rev-parse", "HEAD")
    for name, expected in (("one", commit), ("two", f"{commit}-dirty")):
        with Log(tmp_path / name) as log:
            assert log.metadata["git_commit"] == expected


# -- which tasks run -------------------------------------------------------------------------------


class Asked(helpers.Scale):
    """Its outputs come from a server, if its config says so."""

    class Config(helpers.Scale.Config):
        server: bool = True

    config: Config  # type: ignore[assignment]

    @classmethod
    def is_external(cls, config: object) -> bool:
        return bool(getattr(config, "server"))  # noqa: B009


FROM_OUTSIDE = (
    "as it is configured, what it makes comes from outside (from a server, or it depends on who waits "
    "or how long), and is taken from the log; name it as a task to run to have it asked again"
)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.setattr(helpers, "Asked", Asked, raising=False)
    tasks = "n=Numbers(limit: 3); a=Asked; b=Asked(server: false); x=Scale"
    record(plan_of(tmp_path, tasks, "n > a; n > b; a > x"), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        yield log


def test_what_came_from_a_server_is_taken_from_the_log(asked):
    again = Replay(asked, env={})
    assert again.notes == [f"task 'a' is not run: {FROM_OUTSIDE}"]
    assert again.fed == {"n", "a"}
    report = again.run()
    assert (report.per_task, report.fed) == ({"b": 3, "x": 3}, 6)
    for options, runs in (({"feed": ["a"]}, "bx"), ({"only": ["x"]}, "x"), ({"only": ["a"]}, "a")):
        again = Replay(asked, env={}, **options)
        assert (again.notes, {*"nabx"} - again.fed) == ([], {*runs})
        assert {*again.run().per_task} == {*runs}
    assert Replay(asked, env={}, feed=["x"]).fed == {"n", "a", "x"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, FROM_OUTSIDE),
        ({"only": ["x"]}, "it is fed from the log"),
    ],
)
def test_a_value_of_a_task_that_is_not_run_is_refused(asked, options, why):
    with pytest.raises(UsageError) as caught:
        Replay(asked, env={}, config={"a.factor": 3}, **options)
    assert str(caught.value) == f"a.factor would change nothing: task 'a' is not run: {why}"
    assert Replay(asked, env={}, config={"a.factor": 10}, only=["a"]).run().identical


def test_a_source_named_to_be_fed_or_run_is_fed(asked):
    for options in ({"feed": ["n"]}, {"only": ["n", "x", "b"]}):
        again = Replay(asked, env={}, **options)
        assert "n" in again.fed
        assert again.run().first is None
    for options in ({"feed": ["q"]}, {"only": ["q"]}):
        with pytest.raises(UsageError, match="^unknown task 'q'; tasks: n, a, b, x$"):
            Replay(asked, env={}, **options)


# -- what is called --------------------------------------------------------------------------------


def test_progress_pace_and_the_recorder_go_with_the_cycles(tmp_path):
    more = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 4}"
    record(plan_of(tmp_path, "n=Numbers(limit: 9); x=Scale", "n > x", more), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        done, times = [], []
        again = Replay(log, env={})
        with ReplayLog(again, tmp_path / "new", config={}, now_ns=7) as recorder:
            report = again.run(
                start=3, to=8, progress=done.append, pace=times.append, recorder=recorder
            )
        assert done == [1, 2, 3, 4, 5, 6]
        assert times == [log[cycle].time_ns for cycle in range(3, 9)]
        assert (report.cycles, report.compared, report.fed) == (6, 6, 6)
        with Log(tmp_path / "new") as new:
            assert [cycle.cycle for cycle in new.cycles()] == [3, 4, 5, 6, 7, 8]
            assert [m.cycle for m in new.messages("/flowrun/keyframe")] == [3, 4, 8]
            assert new.end == {"cycles": "6", "ended_ns": "7", "reason": "end of the replay"}
        with pytest.raises(
            ReplayError, match=f"^{log.path} is the run that is replayed; choose anot"
        ):
            ReplayLog(again, log.path, config={}, now_ns=1)


def test_a_replay_without_keyframes_writes_none(tmp_path):
    more = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 0}"
    record(plan_of(tmp_path, "n=Numbers(limit: 4); x=Scale", "n > x", more), tmp_path / "run")
    with Log(tmp_path / "run") as log:
        again = Replay(log, env={})
        with ReplayLog(again, tmp_path / "new", config={}, now_ns=7) as recorder:
            again.run(recorder=recorder)
    with Log(tmp_path / "new") as new:
        assert list(new.messages("/flowrun/keyframe")) == []


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (KeyboardInterrupt(), {"reason": "interrupted"}),
        (ValueError("word is hush"), {"reason": "error", "error": "word is ***"}),
    ],
)
def test_how_a_replay_ended_is_in_its_log_without_secrets(tmp_path, error, end):
    tasks = "n=Numbers(limit: 4); x=Scale; t=Tells(password: hush)@on_error: skip"
    plan = plan_of(tmp_path, tasks, "n > x; n > t")
    plan.graph.spec.path.write_text(plan.graph.spec.text)  # the log does not hold the secret
    record(plan, tmp_path / "run")

    def progress(cycles: int) -> None:
        if cycles == 2:
            raise error

    def written(name: str) -> None:
        with Log(tmp_path / "run") as log:
            again = Replay(log, env={}, config={"x.factor": 10}, only=["x"])
            changed = {"x.factor": 10, "x.word": "hush"}
            with ReplayLog(again, tmp_path / name, config=changed, now_ns=9) as recorder:
                if name == "none":
                    raise error
                again.run(recorder=recorder, progress=progress)

    for name in ("new", "none"):
        with pytest.raises(type(error)):
            written(name)
    with Log(tmp_path / "new") as new:
        assert new.end == {"cycles": "2", "ended_ns": "9", **end}
        assert new.metadata["replay_of"] == "run"
        assert new.metadata["replay_fed"] == "t"
        assert new.metadata["replay_set"] == '{"x.factor": 10, "x.word": "***"}'
    if isinstance(error, ValueError):
        assert not (tmp_path / "none").exists()
    else:
        with Log(tmp_path / "none") as none:
            assert none.end["cycles"] == "0"


# -- a second time ---------------------------------------------------------------------------------


def test_tasks_that_are_made_again_remember_nothing(tmp_path):
    """Neither their state, nor random numbers, due times, pauses after errors and jobs."""
    tasks = (
        "n=Hooked(limit: 12); t=Total; r=Total@rate_hz: 200000; j=Jobs!@on_error: skip; "
        "f=Flaky(at: [2, 11])@on_error: restart; k=Keeps"
    )
    more = "logging: {slab_size_mib: 1, section_size_mib: 1, keyframe_interval: 0}"
    plan = plan_of(tmp_path, tasks, "n > t; n > r; n > j; n > f; n > k", more)

    def hook(live, number):
        helpers.until(lambda: not live.executor.workers["j"].jobs.working)
        if number == 7:
            live.set_live("j", {"word": "heard"})
            live.set_live("t", {"factor": 3})

    assert helpers.run_hooked(plan, tmp_path / "run", hook).error is None
    with Log(tmp_path / "run") as log, Replay(log, env={}) as again:
        compared = []
        for begin in (0, 0, 5, 0):
            again.seek(begin)
            while again.next_cycle():
                pass
            assert again.report.first is None, str(again.report.first)
            compared.append((again.report.compared, again.report.errors))
        assert compared[0] == compared[1] == compared[3]
        assert compared[0] > compared[2]
        again.seek(9)
        again.seek(3)  # back, in the middle
        assert again.task("t").config.factor == 1
        again.seek(9, fresh=True)
        assert again.task("t").config.factor == 3
