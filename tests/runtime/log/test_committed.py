"""What one who follows a writer in its own process is given: what the log has, or word to read it."""

import msgpack
import pytest

from flowrun.msgs import BytesMsg
from flowrun.runtime.links.sent import LogTail
from flowrun.runtime.log.committed import FellBehind
from flowrun.runtime.log.reader import Log
from support.log_writing import commit, payload, writer_of


class Writer:
    """Commits cycles of one message of `size` bytes."""

    def __init__(self, directory, *, size=100, **options):
        self.directory, self.size, self.cycle = directory, size, 0
        self.message = BytesMsg()
        self.writer = writer_of(directory, BytesMsg, **options)
        self.bound = self.writer.bind([self.message])

    def commit(self, count=1):
        for _ in range(count):
            self.message.value = payload(self.cycle, self.size)
            self.message.publish(tov_ns=self.cycle)
            commit(self.writer, self.bound, self.cycle)
            self.cycle += 1

    def finish(self):
        self.writer.finish({"reason": "test"})


def shown(cycles):
    """Number, time and the message of each."""
    return [
        (cycle, time_ns, tov_ns, msgpack.unpackb(data)["value"])
        for cycle, time_ns, entries in cycles
        for topic, tov_ns, data in entries
        if topic == "/t0/out"
    ]


def in_log(directory):
    with Log(directory) as log:
        return shown(log.cycles())


@pytest.mark.parametrize("size", [100, 100_000])
def test_what_is_taken_is_what_the_log_has_over_slabs_and_chunks(tmp_path, size):
    made = Writer(tmp_path / "run", size=size, slab_size_mib=1)
    followed, taken = made.writer.follow(), []
    for _ in range(2_000_000 // size // 10):
        made.commit(10)
        taken += shown(followed.take(None))
    made.finish()
    assert taken == in_log(made.directory)


def test_payloads_are_read_only_and_outlive_the_slab(tmp_path):
    made = Writer(tmp_path / "run")
    followed = made.writer.follow()
    made.commit()
    [(_, _, entries)] = followed.take(None)
    made.finish()
    followed.close()
    [(_, _, data), _] = entries
    assert data.readonly
    assert msgpack.unpackb(data) == {"value": payload(0, 100)}


def test_one_who_took_none_for_too_long_is_told_so(tmp_path):
    made = Writer(tmp_path / "run")
    followed = made.writer.follow(most=4)
    made.commit(5)
    with pytest.raises(FellBehind):
        list(followed.take(None))
    made.finish()


def test_what_the_log_was_read_for_is_passed_over(tmp_path):
    made = Writer(tmp_path / "run")
    followed = made.writer.follow(most=4)
    made.commit(6)
    assert [it[0] for it in followed.take(5)] == [5]
    made.finish()


def test_cycles_of_a_closed_slab_are_left_to_the_log(tmp_path):
    made = Writer(tmp_path / "run")
    followed = made.writer.follow()
    made.commit()
    made.finish()
    with pytest.raises(FellBehind):
        list(followed.take(None))


def test_cycles_that_are_not_in_the_file_are_not_given(tmp_path):
    made = Writer(tmp_path / "run")
    followed = made.writer.follow()
    made.commit()
    made.writer._slabs.slab._mapped.region.give_up()
    with pytest.raises(FellBehind):
        list(followed.take(None))
    made.writer.abandon()


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_a_tail_has_each_cycle_once_whether_it_keeps_up_or_not(tmp_path, most):
    made = Writer(tmp_path / "run", slab_size_mib=1, size=20_000)
    made.commit(2)
    tail, taken = LogTail(made.directory, made.writer.follow(most=most)), []
    for count in (0, 1, 2, 1, 0, 3, 30, 1, 60, 1, 1, 4):
        made.commit(count)
        taken += shown(tail.new())
    made.commit(3)
    made.finish()
    taken += shown(tail.new())
    tail.close()
    assert taken == in_log(made.directory)
