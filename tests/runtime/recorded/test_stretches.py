"""A run whose recording was stopped and begun again, looked at as one run."""

import shutil
import threading

import pytest

from flowrun.runtime.clock import LiveClock
from flowrun.runtime.errors import LogNotFound
from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded.runs import CURRENT, RecordedRuns
from flowrun.runtime.run.live import Run
from support import helpers

PACED = "runtime: {rate_hz: 1000}\nlogging: {slab_size_mib: 4, section_size_mib: 1}"


class Stretched:
    """The directories of a run that has ended, and what it says of itself."""

    def __init__(self, directories):
        self.directories = directories
        self.now = "Stopped"

    def state(self):
        return self.now


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Of a run of three stretches."""
    folder = tmp_path_factory.mktemp("stretches")
    plan = helpers.plan_of(folder, "n=Numbers(limit: 1000000)", more=PACED)
    run = Run(plan, clock=LiveClock(), directory=folder / "runs" / "g-1")
    thread = threading.Thread(target=run.run)
    thread.start()

    def passing(cycles):
        until = run.executor.cycles + cycles
        while run.executor.cycles < until:
            threading.Event().wait(0.002)

    try:
        passing(30)
        for on in (False, True, False, True):
            run.record(on)
            passing(30)
    finally:
        run.stop("the test")
        thread.join(30)
    return run.directories


@pytest.fixture
def live(directories):
    return Stretched(directories)


@pytest.fixture
def runs(live):
    made = RecordedRuns(live=live)
    yield made
    made.close()


@pytest.fixture(scope="module")
def recorded(directories):
    """The cycles of each stretch, with their times."""
    return [{it.cycle: it.time_ns for it in Log(path).cycles()} for path in directories]


def moment(runs, cycle=None, at_ns=None):
    return runs.get(CURRENT, cycle=cycle, at_ns=at_ns).moment(cycle=cycle, at_ns=at_ns, url="u")


@pytest.fixture(params=["live", "folder", "first", "last"])
def viewed(request, live, directories):
    """The run where it goes on, in its folder, and where one of its stretches is named."""
    of = {"folder": directories[0].parent, "first": directories[0], "last": directories[-1]}
    made = (
        RecordedRuns(live=live) if request.param == "live" else RecordedRuns.at(of[request.param])
    )
    yield made
    made.close()


def test_a_run_is_one_wherever_it_is_shown(viewed, runs, recorded, directories):
    [listed] = viewed.summaries()
    names = [it.name for it in directories]
    assert (listed["id"], listed["stretches"]) == (names[0], names)
    assert listed["cycles"] == sum(map(len, recorded))
    assert (listed["state"], listed["why"]) == ("ended", "the test")
    expected = runs.stretches(CURRENT)
    for name in names:
        stretches = viewed.stretches(name)
        lanes = stretches.lanes(first=None, last=None, bins=50, keys=True)
        assert lanes == expected.lanes(first=None, last=None, bins=50, keys=True)
        assert viewed.get(name).path == directories[names.index(name)]
        for part, path in zip(recorded, directories, strict=True):
            assert viewed.get(name, cycle=min(part)).path == path
    details = viewed.stretches(names[0]).details()
    assert (details["id"], details["cycles"]) == (names[0], listed["cycles"])
    cycles = [cycle for part in recorded for cycle in part]
    assert (details["first_cycle"], details["last_cycle"]) == (min(cycles), max(cycles))
    with pytest.raises(LogNotFound, match="were not recorded: the recording had been stopped"):
        viewed.get(names[0], cycle=max(recorded[0]) + 1)


def test_a_stretch_whose_first_ones_are_gone_is_a_run(directories, recorded, tmp_path):
    for path in directories[1:]:
        shutil.copytree(path, tmp_path / path.name)
    runs = RecordedRuns.at(tmp_path)
    [listed] = runs.summaries()
    assert listed["stretches"] == [it.name for it in directories[1:]]
    lanes = runs.stretches(listed["id"]).lanes(first=None, last=None, bins=5, keys=False)
    assert lanes["missing"] == [
        f"cycles {max(recorded[0]) + 1} to {min(recorded[1]) - 1}: they were not recorded; earlier ones "
        f"are in the run {directories[0].name}"
    ]
    runs.close()


@pytest.mark.parametrize("bins", [1, 7, 200])
def test_the_lanes_are_those_of_all_stretches_and_mark_the_gaps(runs, recorded, bins):
    found = runs.stretches(CURRENT).lanes(first=None, last=None, bins=bins, keys=True)
    everything = sorted(cycle for it in recorded for cycle in it)
    assert (found["from_cycle"], found["to_cycle"]) == (everything[0], everything[-1])
    assert sum(found["frames"]) == len(everything)
    edges = found["cycles"]
    for part, count in enumerate(found["frames"]):
        inside = [it for it in everything if edges[part] <= it < edges[part + 1]]
        assert len(inside) == count
    ends = [(min(it), max(it)) for it in recorded]
    assert [(gap["from_cycle"], gap["to_cycle"]) for gap in found["gaps"]] == [
        (ends[0][1] + 1, ends[1][0] - 1),
        (ends[1][1] + 1, ends[2][0] - 1),
    ]
    assert found["state"] == "ended"


def test_a_part_of_the_lanes_may_begin_and_end_in_gaps(runs, recorded):
    (_, one), (first, last), (other, _) = [(min(it), max(it)) for it in recorded]
    found = runs.stretches(CURRENT).lanes(first=one + 5, last=other - 5, bins=9, keys=False)
    assert (found["from_cycle"], found["to_cycle"]) == (first, last)
    assert sum(found["frames"]) == len(recorded[1])
    with pytest.raises(LogNotFound) as error:
        runs.stretches(CURRENT).lanes(first=one + 2, last=one + 5, bins=9, keys=False)
    assert str(error.value) == f"cycles {one + 2} to {one + 5} were not recorded"


def test_a_moment_is_of_its_stretch_and_knows_its_neighbours_in_others(runs, recorded):
    stretches = runs.stretches(CURRENT)
    for number, part in enumerate(recorded):
        for cycle, time_ns in part.items():
            assert moment(runs, cycle)["at_ns"] == time_ns
            assert moment(runs, at_ns=time_ns)["cycle"] == cycle
        whole = stretches.moment(moment(runs, min(part)))
        assert whole["previous"] == (max(recorded[number - 1]) if number else None)
        whole = stretches.moment(moment(runs, max(part)))
        assert whole["next"] == (min(recorded[number + 1]) if number < 2 else None)
        assert (whole["first_cycle"], whole["last_cycle"]) == (0, max(recorded[2]))


def test_of_a_moment_in_a_gap_nothing_was_recorded(runs, live, recorded):
    one, other = max(recorded[0]), min(recorded[1])
    text = f"cycles {one + 1} to {other - 1} were not recorded: the recording had been stopped"
    between_ns = (recorded[0][one] + recorded[1][other]) // 2
    for where in ({"cycle": one + 1}, {"cycle": other - 1}, {"at_ns": between_ns}):
        with pytest.raises(LogNotFound) as error:
            moment(runs, **where)
        assert str(error.value) == text
    live.now = "Running"
    last = max(recorded[2])
    with pytest.raises(LogNotFound) as error:
        moment(runs, last + 1)
    assert str(error.value) == (
        f"cycles from {last + 1} on were not recorded: the recording was stopped"
    )
    assert runs.stretches(CURRENT).lanes(first=None, last=None, bins=1, keys=False)["state"] == (
        "running"
    )


def test_a_stretch_alone_says_what_was_not_recorded(runs, directories, recorded):
    one, other = max(recorded[0]), min(recorded[1])
    assert runs.get(directories[1].name).summary()["why"] == "recording stopped"
    lanes = runs.get(directories[1].name).lanes(first=None, last=None, bins=1)
    assert lanes["missing"] == [
        f"cycles {one + 1} to {other - 1}: they were not recorded; earlier ones are in the run "
        f"{directories[0].name}"
    ]
