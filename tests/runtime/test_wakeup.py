"""How other threads wake the thread that runs the cycles."""

from __future__ import annotations

import threading

from flowrun.runtime.wakeup import Wakeup


def test_it_stays_set_until_it_is_cleared_or_waited_for() -> None:
    woken = Wakeup()
    assert not woken.is_set()
    woken.set()
    woken.set()
    assert woken.is_set()
    assert woken.wait(0)
    assert not woken.is_set()
    assert not woken.wait(0)
    woken.set()
    woken.clear()
    woken.clear()
    assert not woken.wait(0)


def test_who_sleeps_is_woken() -> None:
    woken, done = Wakeup(), threading.Event()

    def sleep() -> None:
        assert woken.wait(30)
        done.set()

    thread = threading.Thread(target=sleep)
    thread.start()
    woken.set()
    assert done.wait(30)
    thread.join()
    assert not woken.is_set()


def test_threads_that_set_it_at_once_do_not_disturb_each_other() -> None:
    """And what one of them has brought before is seen by who is woken."""
    woken, brought, seen = Wakeup(), list[int](), 0
    start = threading.Barrier(4)

    def bring() -> None:
        start.wait()
        for number in range(2000):
            brought.append(number)
            woken.set()

    threads = [threading.Thread(target=bring) for _ in range(3)]
    for thread in threads:
        thread.start()
    start.wait()
    while seen < 6000:
        assert woken.wait(30)
        seen = len(brought)
    for thread in threads:
        thread.join()
    assert seen == 6000
