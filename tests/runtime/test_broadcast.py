"""What `Broadcast` promises to those who listen and read."""

from flowrun.runtime.broadcast import Broadcast, Series


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


def test_who_offers_goes_on_whatever_a_listener_raises(capfd):
    broadcast, calls = Broadcast(), []

    def fail():
        calls.append("fails")
        raise OSError("no descriptor")

    broadcast.subscribe(fail)
    broadcast.subscribe(lambda: calls.append(broadcast.number))
    broadcast.offer("a")
    broadcast.offer("b")
    assert calls == ["fails", 1, 2]
    assert "OSError: no descriptor" in "".join(capfd.readouterr())


def test_a_series_gives_what_follows_and_how_much_of_it_is_lost():
    series = Series(3)
    assert series.after(0) == (0, [])
    for item in range(5):
        series.offer(item)
    assert [series.after(number) for number in range(6)] == [
        (2, [2, 3, 4]), (1, [2, 3, 4]), (0, [2, 3, 4]), (0, [3, 4]), (0, [4]), (0, []),
    ]  # fmt: skip


def test_the_age_of_the_newest_is_infinite_before_the_first():
    broadcast = Broadcast()
    assert broadcast.age_s == float("inf")
    broadcast.offer("a")
    assert 0 <= broadcast.age_s < 1
