"""How far a process has come with its senders stands in its logs, whatever is removed of them."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.msgs import BytesMsg
from flowrun.runtime.links.fake import FakeNetwork
from flowrun.runtime.links.reached import began_with, reached_in
from flowrun.runtime.links.runs import Cursor
from flowrun.runtime.log.channels import LoggedOutput
from flowrun.runtime.log.reader import Log
from support.link_processes import Pair, ReceiverProcess


class BusyReceiver(ReceiverProcess):
    """Has cycles of its own, which fill its log."""

    def __init__(self, network, directory):
        super().__init__(network, directory)
        self.outputs = [*self.outputs, LoggedOutput("own", "out", "/own/out", BytesMsg)]

    def work(self):
        self.messages[-1].value = bytes(600_000)
        self.messages[-1].publish(tov_ns=0)
        self.commit()


class BusyPair(Pair):
    def __init__(self, folder):
        super().__init__(FakeNetwork(), folder)
        self.receiver = BusyReceiver(self.network, folder / "gpu")
        self.begun = []

    def begin(self, **options):
        self.receiver.begin(**options)
        self.begun.append(self.receiver.reached)

    def restart(self, *, keep, **options):
        """keep: how many of the runs before it are there once it has begun."""
        self.receiver.kill()
        before = self.receiver.logs()
        self.begin(**options)
        for path in before[: max(0, len(before) - keep)]:
            shutil.rmtree(path)

    def send(self):
        self.sender.make((0,))
        for _ in range(3):
            self.step(500)

    def end(self):
        self.sender.kill()
        self.receiver.kill()


@given(
    st.lists(
        st.sampled_from(["send", 1, 6, "keep 0", "keep 1"]),
        min_size=8,
        max_size=16,
    ),
    st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_a_process_goes_on_where_it_was_whatever_its_logs_have_lost(acts, ring):
    options = {"keep_slabs": 2} if ring else {}
    with tempfile.TemporaryDirectory() as folder:
        pair = BusyPair(Path(folder))
        pair.sender.begin()
        pair.begin(**options)
        expected = [None]
        for act in acts:
            if act == "send":
                pair.send()
            elif isinstance(act, int):
                for _ in range(act):
                    pair.receiver.work()
            else:
                expected.append(pair.receiver.reached)
                pair.restart(keep=int(act[-1]), **options)
        sent = pair.sender.cycle
        assert pair.receiver.reached == (Cursor(pair.sender.run, sent) if sent else None)
        pair.end()
    assert pair.begun == expected


def test_runs_without_a_cycle_pass_on_where_the_process_was(tmp_path):
    pair = BusyPair(tmp_path)
    pair.sender.begin()
    pair.begin()
    pair.send()
    for _ in range(50):
        pair.restart(keep=1)
    with Log(pair.receiver.path) as log:
        assert not list(log.cycles())
    pair.send()
    pair.end()
    [origin] = pair.receiver.origins()
    assert (origin["first"], origin["cycle"], origin["gap"]) == (1, 1, "")


def test_a_run_that_was_turned_away_does_not_say_how_far_the_process_is(tmp_path):
    pair = BusyPair(tmp_path)
    pair.sender.begin()
    pair.begin()
    pair.send()
    other = ReceiverProcess(FakeNetwork(), pair.receiver.directory)
    other.runs = pair.receiver.runs
    other.begin()
    other.kill()
    pair.send()
    expected = pair.receiver.reached
    assert expected > other.reached
    pair.end()
    paths = [other.path, pair.receiver.path]
    assert reached_in(paths, ["from_dock"]) == {"from_dock": expected}
    assert reached_in(paths[:1], ["from_dock"]) == {"from_dock": other.reached}


@pytest.mark.parametrize(
    "said", ["[]", "[1]", "{}", '{"from_dock": [1]}', '{"from_dock": "xy"}', "-"]
)
def test_metadata_that_says_something_else_says_nothing(tmp_path, said):
    process = BusyReceiver(FakeNetwork(), tmp_path)
    process.begin()
    process.kill()
    with Log(process.path) as log:
        slab = log.slabs[0]
        slab.preamble.metadata["reached"] = said
        assert began_with(log, "from_dock") is None
