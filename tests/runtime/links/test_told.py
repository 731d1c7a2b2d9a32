"""What a process hears of the others' ends, and what it does then."""

import io
import threading

import pytest

from flowrun.runtime.links import outbound
from flowrun.runtime.links.told import STOP, Told, ended
from support.paced_tasks import Paced
from support.pipelines import wait_for

from .test_links import Fleet, link, numbers

pytest.importorskip("zenoh")

ENDLESS = "limit: null, every_ms: 1"


@pytest.fixture
def enough(monkeypatch):
    """Ends the sources without a limit."""
    event = threading.Event()
    monkeypatch.setattr(Paced, "enough", event)
    return event


def values(fleet, partition, topic):
    with fleet.log(partition) as log:
        return [it.fields["value"] for it in log.messages(topic)]


def came_to(run, count):
    """An event that is set after so many cycles."""
    came = threading.Event()
    run.watch(lambda cycle: came.set() if cycle.time.cycle >= count else None)
    return came


def test_lines_say_who_has_ended_and_when_all_are_to_end():
    told, changes = Told(), []
    told.on_change = lambda: changes.append((told.has_ended("a/0"), told.is_over))
    told.take(ended("a/0"))
    told.take("what a later version says")
    told.take(STOP)
    assert changes == [(True, False), (True, False), (True, True)]
    assert not told.has_ended("a")


def test_who_says_nothing_more_is_gone():
    told = Told()
    told.hear(io.StringIO("ended a/0\nended b/le"))
    assert told.has_ended("a/0")
    assert told.is_over


def test_who_receives_from_one_that_is_ended_takes_all_and_ends(tmp_path):
    fleet = Fleet(tmp_path, numbers(ENDLESS), link("deliver: every"))
    gpu, dock = fleet.begin("gpu", Told()), fleet.begin("dock", Told())
    assert came_to(gpu, 5).wait(120)
    dock.stop("SIGTERM")
    dock_result, gpu_result = fleet.end("dock", "gpu")
    assert (dock_result.reason, dock_result.error) == ("SIGTERM", None)
    assert (gpu_result.reason, gpu_result.error) == ("end of sources", None)
    sent = values(fleet, "dock", "/n/number")
    assert values(fleet, "gpu", "/from_dock/n_number") == sent
    assert len(sent) > 5


def test_when_all_are_to_end_nobody_is_waited_for(tmp_path, enough):
    fleet = Fleet(tmp_path, numbers("limit: 3"), link("deliver: every"))
    told = Told()
    fleet.begin("dock", told)
    wait_for(lambda: "waiting for receivers" in fleet.lines.text)
    told.take(STOP)
    [result] = fleet.end("dock")
    assert result.error is None


def test_one_that_waits_for_receivers_is_let_go_by_another_signal(tmp_path):
    fleet = Fleet(tmp_path, numbers(ENDLESS), link("deliver: every"))
    dock = fleet.begin("dock", Told())
    assert came_to(dock, 5).wait(120)
    assert not dock.leave()
    dock.stop("SIGTERM")
    wait_for(lambda: "waiting for receivers" in fleet.lines.text)
    assert dock.leave()
    [result] = fleet.end("dock")
    assert (result.reason, result.error) == ("SIGTERM", None)


def test_a_sender_that_ended_unheard_is_given_up(tmp_path):
    fleet = Fleet(tmp_path, numbers(), link("deliver: every"), network="on_peer_lost: hold")
    told = Told()
    fleet.begin("gpu", told)
    told.take(ended("dock/0"))
    [result] = fleet.end("gpu")
    assert (result.reason, result.error) == ("end of sources", None)


@pytest.mark.parametrize("policy", ["hold", "continue", "stop"])
def test_lock_step_does_not_wait_for_one_that_has_ended(tmp_path, policy):
    fleet = Fleet(
        tmp_path, numbers("limit: 9"), link("deliver: lockstep"), network=f"on_peer_lost: {policy}"
    )
    told = Told()
    fleet.begin("dock", told)
    told.take(ended("gpu/0"))
    [result] = fleet.end("dock")
    assert (result.reason, result.error) == ("end of sources", None)
    assert len(values(fleet, "dock", "/n/number")) == 9


def test_a_receiver_that_ends_says_so_to_who_goes_in_lock_step_with_it(tmp_path):
    fleet = Fleet(
        tmp_path,
        numbers("limit: 200, every_ms: 1"),
        link("deliver: lockstep"),
        network="on_peer_lost: hold",
    )
    gpu = fleet.begin("gpu", Told())
    fleet.begin("dock")
    assert came_to(gpu, 3).wait(120)
    gpu.stop("SIGTERM")
    gpu_result, dock_result = fleet.end("gpu", "dock")
    assert (gpu_result.reason, gpu_result.error) == ("SIGTERM", None)
    assert (dock_result.reason, dock_result.error) == ("end of sources", None)
    assert len(values(fleet, "dock", "/n/number")) == 200


def test_a_receiver_that_is_away_for_long_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(outbound, "_ABSENT_S", 0.0)
    fleet = Fleet(tmp_path, numbers(), link("deliver: every"))
    fleet.begin("dock", Told())
    wait_for(lambda: "waiting for receivers" in fleet.lines.text)
    fleet.begin("gpu", Told())
    assert [it.error for it in fleet.end("dock", "gpu")] == [None, None]
    assert values(fleet, "gpu", "/from_dock/n_number") == list(range(20))
