"""`run_task`, `source_of`, `collector_of`: what authors of tasks test with."""

from __future__ import annotations

import copy
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from pydantic import PositiveInt

from flowrun.msgs import ImageRgb8Msg, IntMsg, MessageTypeError, TextMsg
from flowrun.runtime.clock import ManualClock
from flowrun.runtime.engine.executor import Executor
from flowrun.runtime.errors import UsageError
from flowrun.runtime.graph.bind import bind
from flowrun.runtime.graph.plan import plan_graph
from flowrun.runtime.graph.read import load_graph
from flowrun.runtime.task import Context, Input, Output, Task, TaskConfig
from flowrun.runtime.testing import Collect, collector_of, run_task, source_of


class Add(Task):
    class Config(TaskConfig):
        amount: PositiveInt = 1

    def start(self, ctx: Context) -> None:
        self.calls: list[tuple[int, int]] = []

    def process(
        self,
        ctx: Context,
        number: Input[IntMsg],
        label: Input[TextMsg] | None,
        total: Output[IntMsg],
        said: Output[TextMsg],
    ) -> None:
        total.value = number.value + self.config.amount
        total.publish(tov_ns=number.tov_ns)
        if label is not None:
            said.value = f"{label.value} at {ctx.now_ns}"
            said.publish()


class Wrong(Task):
    def process(self, ctx: Context, number: Input[IntMsg], text: Output[TextMsg]) -> None:
        text.value = number.value  # type: ignore[assignment]
        text.publish()


class Overwrites(Task):
    def process(self, ctx: Context, number: Input[IntMsg]) -> None:
        number.value = 3


def test_each_cycle_gives_what_it_published() -> None:
    out = run_task(
        Add,
        inputs=[
            {"number": IntMsg(value=1)},
            {"number": IntMsg(value=2), "label": TextMsg(value="b")},
        ],
        config={"amount": 10},
    )
    assert [{port: message.value for port, message in cycle.items()} for cycle in out] == [
        {"total": 11},
        {"total": 12, "said": "b at 10000000"},
    ]
    assert [cycle["total"].tov_ns for cycle in out] == [0, 10_000_000]


def test_a_port_is_an_attribute_of_what_was_published() -> None:
    first, second = run_task(Add, inputs=[{"number": IntMsg(value=1)}, {}])
    assert first.total is first["total"]
    assert first == {"total": first.total}
    assert copy.copy(first).total is first.total
    assert "total" in dir(first)
    for published, ports in ((first, "total"), (second, "none")):
        with pytest.raises(AttributeError) as caught:
            published.said.value  # noqa: B018
        assert str(caught.value) == f"'said' was not published; published: {ports}"


def test_process_is_not_called_without_a_required_input() -> None:
    out = run_task(Add, inputs=[{"label": TextMsg(value="alone")}, {}, {"number": IntMsg(value=1)}])
    assert [list(cycle) for cycle in out] == [[], [], ["total"]]


def test_the_callers_messages_and_the_results_are_independent() -> None:
    class Blank(Task):
        def process(
            self, ctx: Context, image: Input[ImageRgb8Msg], out: Output[ImageRgb8Msg]
        ) -> None:
            out.allocate_pixels(image.height, image.width)[:] = image.pixels + 1
            out.publish()

    image = ImageRgb8Msg(pixels=np.full((2, 3, 3), 7, np.uint8))
    first, second = run_task(Blank, inputs=[{"image": image}, {"image": image}])
    assert first["out"].pixels is not second["out"].pixels
    assert first["out"].pixels.tolist() == np.full((2, 3, 3), 8).tolist()
    image.pixels[0] = 0  # still the caller's own


def test_inputs_are_read_only() -> None:
    with pytest.raises(AttributeError, match=r"inputs are read-only: cannot set IntMsg\.value"):
        run_task(Overwrites, inputs=[{"number": IntMsg(value=1)}])


def test_published_types_are_checked_and_the_cycle_is_named() -> None:
    with pytest.raises(MessageTypeError) as caught:
        run_task(Wrong, inputs=[{}, {"number": IntMsg(value=5)}])
    assert str(caught.value) == "TextMsg.value: expected str, got int 5"
    assert caught.value.__notes__ == ["raised in cycle 1 of Wrong"]


def test_misspelt_port_names_the_inputs() -> None:
    with pytest.raises(UsageError) as caught:
        run_task(Add, inputs=[{"nunber": IntMsg(value=1)}])
    assert str(caught.value) == (
        "inputs[0]: Add has no input 'nunber'; inputs: ['number', 'label'] (did you mean 'number'?)"
    )


def test_wrong_message_type_is_an_error() -> None:
    with pytest.raises(UsageError) as caught:
        run_task(Add, inputs=[{"number": TextMsg(value="1")}])
    assert str(caught.value) == "inputs[0]: input 'number' of Add takes IntMsg, got TextMsg"


def test_bad_config_is_an_error() -> None:
    with pytest.raises(UsageError) as caught:
        run_task(Add, inputs=[], config={"amount": 0})
    assert str(caught.value) == ("config of Add: amount: Input should be greater than 0; got 0")


def test_config_of_a_task_that_was_not_made_whole_says_why() -> None:
    class Forgetful(Task):
        def __init__(self, config: TaskConfig) -> None:
            self.doubled = self.config

        def process(self, ctx: Context, out: Output[IntMsg]) -> None: ...

    with pytest.raises(AttributeError) as caught:
        Forgetful(TaskConfig())
    assert str(caught.value) == "Forgetful has no config yet; call super().__init__(config) first"


def test_inputs_must_fit_the_kind_of_task() -> None:
    with pytest.raises(UsageError) as missing:
        run_task(Add)
    assert str(missing.value) == (
        "Add needs inputs=[{port: message}, ...]; ports: ['number', 'label']"
    )
    with pytest.raises(UsageError) as needless:
        run_task(source_of([IntMsg(value=1)]), inputs=[])
    assert str(needless.value) == "ListSource is a source: it takes no inputs"


def test_stop_is_called_after_an_error_too() -> None:
    stopped = []

    class Fails(Task):
        def start(self, ctx: Context) -> None:
            raise OSError("no such device")

        def process(self, ctx: Context, out: Output[IntMsg]) -> None:
            raise AssertionError

        def stop(self, ctx: Context) -> None:
            stopped.append(ctx.task_id)

    with pytest.raises(OSError, match="no such device"):
        run_task(Fails)
    assert stopped == ["Fails"]


def test_a_sources_thread_is_waited_for() -> None:
    class Threaded(Task):
        def start(self, ctx: Context) -> None:
            self.calls = 0
            self.arrived: list[int] = []
            self.may_go = threading.Event()
            self.thread = threading.Thread(target=self.deliver, args=(ctx,))
            self.thread.start()

        def deliver(self, ctx: Context) -> None:
            self.may_go.wait()
            self.arrived.append(42)
            ctx.wake()

        def process(self, ctx: Context, out: Output[IntMsg]) -> None:
            self.may_go.set()
            if self.arrived:
                out.value = self.arrived.pop()
                out.publish()
                ctx.finish()

        def stop(self, ctx: Context) -> None:
            self.thread.join()

    [only] = run_task(Threaded)
    assert only["out"].value == 42


def test_wake_at_moves_the_clock_instead_of_waiting() -> None:
    class Hourly(Task):
        def start(self, ctx: Context) -> None:
            self.next_ns = 3_600_000_000_000

        def process(self, ctx: Context, out: Output[IntMsg]) -> None:
            if ctx.now_ns < self.next_ns:
                ctx.wake_at(self.next_ns)
                return
            out.value = ctx.cycle
            out.publish()
            self.next_ns += 3_600_000_000_000

    first, second = run_task(Hourly, cycles=2)
    assert (first["out"].value, first["out"].tov_ns) == (0, 3_600_000_000_000)
    assert (second["out"].value, second["out"].tov_ns) == (1, 7_200_000_000_000)


def test_a_source_that_never_publishes_is_an_error() -> None:
    class Silent(Task):
        def process(self, ctx: Context, out: Output[IntMsg]) -> None:
            pass

    with pytest.raises(UsageError) as caught:
        run_task(Silent, timeout_s=0.05)
    assert str(caught.value) == (
        "source Silent has neither published nor called ctx.finish() for 0.05 s after 0 cycles"
    )


def test_source_of_publishes_the_list_and_ends() -> None:
    numbers = source_of([IntMsg(value=1), None, IntMsg(value=3)])
    assert [cycle["out"].value for cycle in run_task(numbers)] == [1, 3]
    assert [cycle["out"].value for cycle in run_task(numbers, cycles=1)] == [1]


def test_source_of_wants_one_type() -> None:
    with pytest.raises(UsageError) as caught:
        source_of([IntMsg(value=1), TextMsg(value="b")])
    assert str(caught.value) == (
        "source_of needs messages of exactly one type; got ['IntMsg', 'TextMsg']"
    )


def test_collector_keeps_copies_and_starts_empty() -> None:
    sink = collector_of(IntMsg)
    for _ in range(2):
        assert run_task(sink, inputs=[{"item": IntMsg(value=n)} for n in (4, 5)]) == [{}, {}]
        assert [message.value for message in sink.messages] == [4, 5]
    assert collector_of(IntMsg).messages == []


def test_both_ends_work_in_a_graph(tmp_path: Path) -> None:
    (tmp_path / "list_ends.py").write_text(
        "from flowrun.msgs import IntMsg\n"
        "from flowrun.runtime.testing import collector_of, source_of\n"
        "Numbers = source_of([IntMsg(value=n) for n in range(5)])\n"
        "Seen = collector_of(IntMsg)\n"
    )
    (tmp_path / "ends.yaml").write_text(
        "tasks:\n"
        "  - {id: numbers, type: list_ends.Numbers}\n"
        "  - {id: seen, type: list_ends.Seen}\n"
        "cnx:\n"
        "  - {src: numbers, dst: seen, msg: IntMsg}\n"
    )
    plan = plan_graph(bind(load_graph(tmp_path / "ends.yaml", env={})))
    executor = Executor(plan, clock=ManualClock(step_ns=1000))
    assert executor.run() == "end of sources"
    sink = executor.instances["seen"].bound.task_class
    assert issubclass(sink, Collect)
    assert [message.value for message in sink.messages] == [0, 1, 2, 3, 4]


class SetsInVain(Task):
    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        out.value = np.int64(number.value)
        out.publish()
        if number.value == 2:
            out.value = 5


def test_a_field_that_is_set_after_publishing_is_an_error() -> None:
    assert run_task(SetsInVain, inputs=[{"number": IntMsg(value=1)}])[0].out.value == 1
    text = "'value' of port 'out' was set after publish(), so that nobody sees it: publish() again"
    with pytest.raises(MessageTypeError, match=f"^{re.escape(text)}"):
        run_task(SetsInVain, inputs=[{"number": IntMsg(value=2)}])


def test_inputs_are_checked_as_published_messages_are() -> None:
    [made] = run_task(SetsInVain, inputs=[{"number": IntMsg(value=np.int64(1))}])
    assert type(made.out.value) is int
    with pytest.raises(MessageTypeError, match=r"^IntMsg\.value: expected int, got str 'x'$"):
        run_task(SetsInVain, inputs=[{"number": IntMsg(value="x")}])
