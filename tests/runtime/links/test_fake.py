"""The network in memory does what Zenoh does."""

from __future__ import annotations

from flowrun.runtime.links.fake import FakeNetwork


def test_all_who_watch_a_process_are_told_that_it_comes_and_goes() -> None:
    network = FakeNetwork()
    one, other = network.transport("one"), network.transport("other")
    said: list[tuple[str, bool]] = []
    one.watch_alive("other/alive", lambda is_there: said.append(("sender", is_there)))
    one.watch_alive("other/alive", lambda is_there: said.append(("receiver", is_there)))
    other.declare_alive("other/alive")
    other.close()
    assert said == [("sender", True), ("receiver", True), ("sender", False), ("receiver", False)]
