"""A run that goes on by itself: watched, changed and ended by the program; nothing hangs."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from types import SimpleNamespace

import pytest

from flowrun.msgs import ImageRgb8Msg, IntMsg
from flowrun.runtime.api.graph import Graph, run
from flowrun.runtime.api.received import newest_logged
from flowrun.runtime.api.running import LiveRun, running
from flowrun.runtime.errors import GraphError, LogError, TaskError, UsageError
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.tasks.basic import Counter, Print, Square
from flowrun.tasks.video.capture import VideoCapture
from support.helpers import Hooked, Scale, until

LIMIT_S = 60


class Fails(Task):
    class Config(TaskConfig):
        at: int = 3

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        if number.value == self.config.at:
            raise ValueError("no threes")
        out.value = number.value
        out.publish()


class Refuses(Task):
    def start(self, ctx: Context) -> None:
        raise OSError("no model")

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None: ...


def squares(limit=None, rate_hz=None, **sections):
    g = Graph("squares", **sections)
    config = {"limit": limit, "rate_hz": rate_hz}
    g.connect(g.add(Counter, config=config), g.add(Square))
    return g


@pytest.fixture(autouse=True)
def nothing_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    for live in running():
        live.stop()
        live.wait(LIMIT_S)


def test_an_iterator_gives_every_message_from_the_first_and_ends_with_the_run():
    with squares(300).start() as live:
        first = [it.value for it in live.messages("square.square")]
        again = [it.value for it in live.messages("square")]
    assert first == again == [n * n for n in range(300)]
    assert live.latest("square").value == 299**2
    assert live.wait().reason == "end of sources"


def test_iterators_do_not_disturb_each_other_or_the_run():
    with squares(400).start() as live:
        a, b = live.messages("square"), live.messages("counter")
        unread = live.messages("square")
        assert next(a).value == 0
        a.close()
        assert [it.value for it in b] == list(range(400))
        assert next(a, None) is None
        assert live.wait().cycles == 400
        assert len(list(unread)) == 400


def test_a_reader_that_wants_the_newest_gets_those_and_a_count_of_the_others():
    gate, ready = threading.Event(), threading.Event()
    seen = []

    def slow(message):
        gate.wait(LIMIT_S)
        seen.append(message.value)

    Hooked.hook = lambda _: ready.wait(LIMIT_S)
    g = Graph()
    g.connect(g.add(Hooked, limit=500), g.add(Square))
    with g.start(log_dir=None) as live:
        newest = live.messages("square", keep=2)
        live.on_message("square", slow, keep=3)
        ready.set()
        while not live.has_ended:
            time.sleep(0.001)
        gate.set()
        live.wait()
        got = [it.value for it in newest]
    assert got[-1] == 499**2
    assert len(got) <= 2
    assert newest.left_out > 400
    assert seen[-3:] == [n * n for n in range(497, 500)]


def test_a_dropped_iterator_keeps_no_messages():
    with squares(rate_hz=1000).start(log_dir=None) as live:
        messages = live.messages("square", keep=5)
        queue = weakref.ref(messages._queue)
        next(messages)
        del messages
        gc.collect()
        assert queue() is None


@pytest.mark.parametrize("keep", [None, 1])
def test_another_thread_closes_an_iterator_that_waits(keep):
    with squares(rate_hz=0.01).start() as live:
        messages = live.messages("square", keep=keep)
        got = []
        reader = threading.Thread(target=lambda: got.extend(messages))
        reader.start()
        until(lambda: messages._read.gi_running)
        messages.close()
        reader.join(LIMIT_S)
        assert not reader.is_alive()
        assert live._feeds._queues == ()
    assert len(got) <= 1


def test_the_newest_message_is_looked_for_in_the_log_once(monkeypatch):
    looks = []

    def look(directory, slot):
        looks.append(slot.index)
        return newest_logged(directory, slot)

    monkeypatch.setattr("flowrun.runtime.api.running.newest_logged", look)
    with squares(5).start() as live:
        assert [it.value for it in live.messages("square")] == [0, 1, 4, 9, 16]
        assert [live.latest("square").value for _ in range(3)] == [16, 16, 16]
    assert len(looks) == 1


def test_the_messages_are_copies_that_outlive_the_run():
    with squares(3).start() as live:
        kept = list(live.messages("square"))
    kept[0].value = 7
    assert [it.value for it in kept] == [7, 1, 4]


def test_pictures_are_those_of_the_log():
    g = Graph("film")
    g.add(VideoCapture, id="cam", source_type="test", width=32, height=24, rate_hz=None)
    with g.start(cycles=4) as live:
        pictures = list(live.messages("cam"))
        live.wait()
    assert [type(it) for it in pictures] == [ImageRgb8Msg] * 4
    with Log(live.directory) as log:
        for picture, frame in zip(pictures, log.frames("/cam/image"), strict=True):
            assert (picture.pixels == frame.pixels).all()


def test_a_task_that_fails_is_named_by_wait_and_by_the_iterator():
    g = Graph("fails")
    g.connect(g.add(Counter), g.add(Fails))
    live = g.start()
    got = []
    with pytest.raises(
        TaskError, match=r"^task 'fails' failed in process, cycle 3: ValueError: no"
    ):
        got.extend(it.value for it in live.messages("fails"))
    with pytest.raises(TaskError) as caught:
        live.wait()
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(TaskError):
        live.wait()
    with Log(live.directory) as log:
        assert log.finished


def test_a_task_that_does_not_start_is_named_and_iterators_end():
    g = Graph("refuses")
    g.connect(g.add(Counter), g.add(Refuses))
    live = g.start()
    with pytest.raises(TaskError, match=r"^task 'refuses' failed in start: OSError: no model$"):
        list(live.messages("refuses"))


def test_an_error_that_nobody_waits_for_is_printed(capfd):
    g = Graph("fails")
    g.connect(g.add(Counter), g.add(Fails))
    live = g.start()
    live._thread.join(LIMIT_S)
    said = capfd.readouterr().err
    assert "fails: error: task 'fails' failed in process, cycle 3: ValueError: no threes\n" in said
    assert ', in process: raise ValueError("no threes")' in said


def test_an_error_within_the_block_ends_the_run_and_passes():
    with pytest.raises(ZeroDivisionError), squares(rate_hz=100).start() as live:
        raise ZeroDivisionError
    assert live.has_ended
    assert live.wait().reason == "the program left its `with` block"


def test_values_are_set_and_the_change_replays():
    g = Graph("scaled")
    g.connect(g.add(Counter, rate_hz=None, config={"rate_hz": 2000}), g.add(Scale, factor=1))
    with g.start() as live:
        live.set("scale", factor=100)
        for message in live.messages("scale"):
            if message.value >= 100:
                break
        assert live.settings() == {"scale": {"factor": 100}}
        with pytest.raises(UsageError, match="unknown key"):
            live.set("scale", fctor=1)
        live.stop()
        live.wait(LIMIT_S)
    with Log(live.directory) as log, Replay(log) as replay:
        while replay.next_cycle():
            assert not replay.differences
    with pytest.raises(UsageError, match=r"^the run has ended$"):
        live.set("scale", factor=1)


def test_sources_pause_and_resume():
    with squares(rate_hz=1000).start() as live:
        live.latest("counter", timeout_s=LIMIT_S)
        live.pause()
        events = (m.fields for m in Log(live.directory, follow=True).messages("/flowrun/control"))
        assert next(it["key"] for it in events if it["kind"] == "switched") == "paused"
        before = live.report().cycles
        live.resume("counter")
        while live.report().cycles == before:
            time.sleep(0.001)
        with pytest.raises(UsageError, match=r"^task 'square' is no source; sources: counter$"):
            live.pause("square")


def test_a_callback_gets_every_message_before_wait_returns():
    seen, threads = [], set()

    def call(message):
        seen.append(message.value)
        threads.add(threading.current_thread())

    live = squares(200).start()
    live.on_message("square", call)
    live.wait(LIMIT_S)
    assert seen == [n * n for n in range(200)]
    assert len(threads) == 1
    assert threads.isdisjoint({threading.current_thread(), live._thread})


def test_a_callback_that_raises_ends_the_run_and_wait_raises_the_same():
    def call(message):
        raise KeyError(message.value)

    live = squares(rate_hz=100).start()
    live.on_message("square", call)
    with pytest.raises(KeyError) as caught:
        live.wait(LIMIT_S)
    assert caught.value.__notes__[0].endswith("call of 'square'")
    with Log(live.directory) as log:
        assert log.end["reason"] == "a callback raised KeyError"


def test_a_callback_that_raises_may_be_skipped():
    seen = []

    def call(message):
        if message.value == 4:
            raise ValueError("four")
        seen.append(message.value)

    live = squares(4).start()
    live.on_message("square", call, on_error="skip")
    live.wait(LIMIT_S)
    assert seen == [0, 1, 9]
    with pytest.raises(UsageError, match=r"^on_error='no': expected 'stop' or 'skip'$"):
        live.on_message("square", call, on_error="no")


def test_a_callback_may_stop_the_run_wait_for_it_and_end_itself():
    reasons = []
    live = squares(rate_hz=1000).start()

    def call(message):
        if message.value == 25:
            end()
            live.stop()
            reasons.append(live.wait(LIMIT_S).reason)

    end = live.on_message("square", call)
    live.wait(LIMIT_S)
    assert reasons == ["stop()"]


def test_a_callback_that_was_ended_leaves_nothing():
    with squares(rate_hz=0.01).start() as live:
        for keep in (None, 1):
            live.on_message("square", lambda _: None, keep=keep)()
        for callback in live._callbacks:
            callback.thread.join(LIMIT_S)
            assert not callback.thread.is_alive()
        assert live._feeds._queues == ()


def test_a_callback_that_is_stuck_holds_up_nobody_but_wait():
    gate = threading.Event()
    live = squares(50).start()
    live.on_message("square", lambda _: gate.wait(LIMIT_S))
    assert [it.value for it in live.messages("counter")] == list(range(50))
    with pytest.raises(TimeoutError, match="callback .*<lambda> of 'square' goes on after"):
        live.wait(0.2)
    gate.set()
    live.wait(LIMIT_S)


def test_a_run_that_goes_on_is_not_waited_for_any_longer():
    live = squares(rate_hz=10).start()
    with pytest.raises(TimeoutError, match=r"^the run goes on after 0\.01 s$"):
        live.wait(0.01)
    live.stop()
    assert live.wait(LIMIT_S).reason == "stop()"


def test_a_run_whose_handle_is_lost_goes_on_and_is_found():
    squares(rate_hz=100).start()
    gc.collect()
    [live] = running()
    live.stop()
    live.wait(LIMIT_S)
    assert running() == []


def test_two_runs_go_on_at_once_and_each_has_its_own_lines():
    def printed(name, limit):
        g = Graph(name)
        g.connect(g.add(Counter, limit=limit, config={"rate_hz": 500}), g.add(Print))
        return g.start()

    with printed("a", 20) as a, printed("b", 30) as b:
        a.wait(LIMIT_S)
        b.wait(LIMIT_S)
    for live, limit in (a, 20), (b, 30):
        with Log(live.directory) as log:
            lines = [m.fields for m in log.messages("/flowrun/log")]
        said = [it["fields"]["value"] for it in lines if it["message"] == "number"]
        assert said == list(range(10)) + said[10:]  # equal lines are folded, others are not
        assert len(said) == limit


def test_outputs_and_numbers_are_checked():
    with squares(3).start() as live:
        with pytest.raises(
            UsageError,
            match=r"^unknown output 'sqare'; outputs: counter\.count, square\.square",
        ):
            live.messages("sqare")
        with pytest.raises(UsageError, match=r"^keep=0: expected a whole number of at least 1"):
            live.messages("square", keep=0)


def test_nothing_is_left_of_a_run_that_is_not_begun(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError):
        squares(3).start(log_dir=tmp_path / "file")
    g = squares(3)
    g.add(Print)
    with pytest.raises(GraphError):
        g.start()
    assert [it.name for it in tmp_path.iterdir()] == ["file"]
    assert running() == []


def test_no_page_is_left_of_a_run_that_is_not_begun(tmp_path, monkeypatch):
    stopped = []
    server = SimpleNamespace(stop=lambda: stopped.append(True))
    monkeypatch.setattr(LiveRun, "_serve", lambda _run, _port: server)

    def refuse(_run):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        LiveRun(squares(3).plan(), log_dir=tmp_path, port=0, before_start=refuse)
    assert stopped == [True]
    assert list(tmp_path.glob("squares*")) == []


def test_a_fork_does_not_take_the_run_with_it():
    live = squares(rate_hz=100).start()
    messages = live.messages("square", keep=3)
    next(messages)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for call in (live.wait, live.stop, lambda: next(messages)):
                with pytest.raises(UsageError, match="in the process that has started it"):
                    call()
            status = len(running())
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    live.stop()
    assert live.wait(LIMIT_S).error is None


def test_a_file_runs_in_one_line(tmp_path):
    squares(5).save(tmp_path / "g.yaml")
    assert run(tmp_path / "g.yaml", log_dir=None).cycles == 5


# -- in a process of its own -------------------------------------------------------------------


def script(tmp_path, source, name="my_graph.py"):
    (tmp_path / name).write_text(textwrap.dedent(source))
    return [sys.executable, name]


BEGIN = """
    import os, signal, time
    from flowrun import Graph, Input, IntMsg, Context, Output, Task, task
    from flowrun.tasks.basic import Counter

    @task
    def double(number: IntMsg) -> IntMsg:
        return IntMsg(value=number.value * 2)

    class Halve(Task):
        def process(self, ctx: Context, number: Input[IntMsg], half: Output[IntMsg]) -> None:
            half.value = number.value // 2
            half.publish()

    g = Graph("doubles")
    n, twice = g.add(Counter, config={"rate_hz": 200}), g.add(double)
    g.connect(n, twice)
    g.connect(twice, g.add(Halve))
"""


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("live = g.start(); live.latest('halve', timeout_s=60)", "the program ended"),
        ("live = g.start(); live.latest('halve', timeout_s=60); 1 / 0", "the program ended"),
        ("g.run(cycles=5)", "the limit of 5 cycles"),
    ],
)
def test_a_script_ends_its_run_and_the_run_replays(tmp_path, ending, reason):
    command = script(tmp_path, BEGIN + "    " + ending)
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert ("ZeroDivisionError" in done.stderr) == (done.returncode == 1) == ("1 / 0" in ending)
    [directory] = (tmp_path / "runs").glob("doubles-*")
    with Log(directory) as log:
        assert log.end["reason"] == reason
        assert "type: my_graph.double" in log.attachments["graph.yaml"].decode()
    replay = [sys.executable, "-m", "flowrun", "replay", directory]
    done = subprocess.run(replay, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "messages identical" in done.stdout


@pytest.mark.long
@pytest.mark.slow
def test_ctrl_c_ends_the_run_in_order_and_the_script_goes_on(tmp_path):
    command = script(
        tmp_path,
        BEGIN
        + """
    def interrupt(message):
        if live._is_waited_for and message.value > 10:
            end()
            os.kill(os.getpid(), signal.SIGINT)

    live = g.start()
    end = live.on_message("halve", interrupt)
    print(live.wait().reason)
    print("goes on")
""",
    )
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stdout) == (0, "SIGINT\ngoes on\n"), done.stderr


def test_ctrl_c_while_it_begins_leaves_no_run(monkeypatch):
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        if thread.name == "flowrun-squares":
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        squares(rate_hz=100).start()
    for live in running():
        assert live.wait(LIMIT_S).reason == "interrupted"


@pytest.mark.long
@pytest.mark.slow
def test_a_task_that_is_stuck_does_not_keep_the_program_from_ending(tmp_path):
    """A second Ctrl-C finishes the log, and raises KeyboardInterrupt."""
    command = script(
        tmp_path,
        BEGIN
        + """
    class Stuck(Task):
        def process(self, ctx: Context, number: Input[IntMsg]) -> None:
            while "live" not in globals() or not live._is_waited_for:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
            while live._run.executor.stop_reason is None:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1000)

    g.connect(n, g.add(Stuck))
    live = g.start()
    try:
        live.wait()
    except KeyboardInterrupt:
        print("interrupted")
""",
    )
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
    [directory] = (tmp_path / "runs").glob("doubles-*")
    with Log(directory) as log:
        assert log.end["reason"] == "SIGINT, without waiting for task 'stuck'"
