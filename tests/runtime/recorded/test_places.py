"""Where messages are: what an index says is what reading the whole log says."""

import shutil

import numpy as np

from flowrun.msgs import BytesMsg, IntMsg
from flowrun.runtime.log.reader import Log
from flowrun.runtime.log.recover import recover
from flowrun.runtime.log.slab.format import STEPS_TOPIC
from flowrun.runtime.recorded.places import Places
from support.log_writing import T0, commit, writer_of


def read(log):
    """By topic, cycle and time of each message, read one after the other."""
    found = {topic: [] for topic in log.topics}
    for message in log.messages():
        found[message.topic].append((message.cycle, message.time_ns))
    return found


def placed(places, log):
    """The same by the places; asked for one by one and all at once."""
    found = {}
    for topic in log.topics:
        its = places.of(topic)
        cycles = [its.cycle(i) for i in range(len(its))]
        assert its.cycles(np.arange(len(its))).tolist() == cycles
        found[topic] = list(zip(cycles, its.times.tolist(), strict=True))
    return found


def places_of(log):
    places = Places(log)
    places.update()
    return places


def test_places_are_those_of_all_messages(run):
    with Log(run) as log:
        places = places_of(log)
        assert placed(places, log) == read(log)
        assert not places.update()
        says = places.of("/says/answer")
        cycles = [says.cycle(i) for i in range(len(says))]
        for cycle in range(26):
            assert says.before(cycle) == sum(at <= cycle for at in cycles)


def test_places_of_a_log_that_was_cut_off_are_those_of_its_good_cycles(run, tmp_path):
    data = (run / "log_0000.mcap").read_bytes()
    rng = np.random.default_rng(1)
    with Log(run) as log:
        begin = log.slabs[0].structure.chunks[0].records_start
    path = tmp_path / "log_0000.mcap"
    for size in rng.integers(begin, len(data), 12):
        path.write_bytes(data[:size])
        with Log(path) as log:
            assert placed(places_of(log), log) == read(log)


def test_places_follow_a_log_that_grows_over_several_slabs(tmp_path):
    """Also where a flight recorder removes the first ones, and after the end."""
    directory = tmp_path / "run"
    writer = writer_of(directory, BytesMsg, slab_size_mib=1, keep_slabs=2)
    message = BytesMsg()
    bound = writer.bind([message])
    log, places = None, None
    for cycle in range(4000):
        message.clear()
        message.value = bytes(1000)
        message.publish(tov_ns=T0)
        commit(writer, bound, cycle)
        if cycle % 500 == 7:
            log = log or Log(directory)
            places = places or Places(log)
            log.refresh()
            places.update()
            steps = places.of(STEPS_TOPIC)
            assert steps.cycle(len(steps) - 1) == cycle
            assert int(steps.times[0]) == log.start_ns
    first = steps.cycle(0)
    assert first > 0
    writer.finish({"reason": "done", "cycles": "4000", "ended_ns": "0"})
    log.refresh()
    places.update()
    assert placed(places, log)["/t0/out"] == read(log)["/t0/out"]
    log.close()


def test_places_of_a_recovered_log(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "log_0000.mcap"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    recover(copy)
    with Log(copy) as log:
        assert placed(places_of(log), log) == read(log)


def test_a_damaged_index_gives_no_cycle(run, tmp_path):
    """It is only a proposal: what it says is compared with what is there."""
    data = bytearray((run / "log_0000.mcap").read_bytes())
    with Log(run) as log:
        slab = log.slabs[0]
        at = slab.index_at(slab.structure.chunks[0])
        whole = placed(places_of(log), log)
    data[at + 15 : at + 400] = bytes(385)
    path = tmp_path / "log_0000.mcap"
    path.write_bytes(data)
    with Log(path) as log:
        found = placed(places_of(log), log)
    assert any(not places and whole[topic] for topic, places in found.items())
    for topic, places in found.items():
        assert {it for it in places if it[0] >= 0} <= set(whole[topic])


def test_a_run_without_a_cycle_has_no_places(tmp_path):
    writer = writer_of(tmp_path / "run", IntMsg)
    with Log(tmp_path / "run") as log:
        assert len(places_of(log).of(STEPS_TOPIC)) == 0
    writer.discard()


def test_messages_whose_places_hold_something_else_are_passed_over(run, tmp_path):
    """As where a part of a disk was lost: those before and after are found."""
    shutil.copytree(run, tmp_path / "copy")
    path = tmp_path / "copy" / "log_0000.mcap"
    with Log(tmp_path / "copy", verify=False) as log:
        places = places_of(log)
        steps = places.of(STEPS_TOPIC)
        cycles = [steps.cycle(index) for index in range(len(steps))]
        middle = len(cycles) // 2
        lost = [steps.place(index) for index in range(middle, middle + 3)]
    data = bytearray(path.read_bytes())
    for place in lost:
        assert place.slab == path
        data[place.offset : place.offset + 31] = bytes(31)
    path.write_bytes(data)
    with Log(tmp_path / "copy", verify=False) as log:
        steps = places_of(log).of(STEPS_TOPIC)
        for index, cycle in enumerate(cycles):
            is_lost = middle <= index < middle + 3
            assert steps.before(cycle) == (middle if is_lost else index + 1)
            assert steps.near(index) == (cycles[middle - 1] if is_lost else cycle)
            assert steps.at_or_after(index) == (cycles[middle + 3] if is_lost else cycle)
        all_ = np.arange(len(cycles))
        assert steps.cycles(all_).tolist() == [steps.near(index) for index in all_.tolist()]


def test_cycles_have_their_numbers_though_the_first_is_damaged(run, tmp_path):
    """A message holds the lower half of its cycle's number alone."""
    shutil.copytree(run, tmp_path / "copy")
    path = tmp_path / "copy" / "log_0000.mcap"
    with Log(run) as log:
        whole = places_of(log).of(STEPS_TOPIC)
        cycles = [whole.cycle(index) for index in range(len(whole))]
        place = whole.place(0)
    data = bytearray(path.read_bytes())
    data[place.offset + 40] ^= 1
    path.write_bytes(data)
    with Log(tmp_path / "copy") as log:
        steps = places_of(log).of(STEPS_TOPIC)
        assert [steps.cycle(index) for index in range(len(steps))] == cycles
