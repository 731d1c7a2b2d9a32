"""What `Broadcast` promises to those who listen and read."""

from flowrun.runtime.broadcast import Broadcast


def test_a_listener_is_called_for_each_item_and_the_end_until_it_leaves():
    broadcast, calls = Broadcast(), []
    leave = broadcast.subscribe(lambda: calls.append(broadcast.number))
    leave_too = broadcast.subscribe(lambda: calls.append("too"))
    broadcast.offer("a")
    leave_too()
    broadcast.offer("b")
    broadcast.close()
    leave()
    leave()
    broadcast.offer("c")
    assert calls == [1, "too", 2, 2]
    assert broadcast.closed


def test_the_age_of_the_newest_is_infinite_before_the_first():
    broadcast = Broadcast()
    assert broadcast.age_s == float("inf")
    broadcast.offer("a")
    assert 0 <= broadcast.age_s < 1
