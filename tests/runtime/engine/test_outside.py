"""What comes from outside in a live run, from any thread."""

from __future__ import annotations

import threading

from flowrun.runtime.clock import LiveClock
from flowrun.runtime.engine.outside import LiveOutside
from flowrun.runtime.events import Dropped, EndOfSource


def test_what_a_source_drops_between_two_cycles_is_one_event() -> None:
    outside = LiveOutside(LiveClock(), sources=["cam", "mic"], packets=())
    cam, mic = outside.source("cam"), outside.source("mic")

    def drop() -> None:
        for _ in range(1000):
            cam.dropped(2)

    threads = [threading.Thread(target=drop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cam.finish()
    mic.dropped(1)
    assert list(outside.after_sources()) == [
        Dropped("cam", 8000),
        Dropped("mic", 1),
        EndOfSource("cam"),
    ]
    assert list(outside.after_sources()) == []
    assert outside.left_out == {"cam": 8000, "mic": 1}
