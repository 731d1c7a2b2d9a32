"""What Zenoh cannot do is said in our words."""

from __future__ import annotations

import socket

import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.links.zenoh import config_of, open_zenoh

pytest.importorskip("zenoh")


def test_an_address_at_which_it_cannot_listen_says_why_and_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        used = f"tcp/127.0.0.1:{taken.getsockname()[1]}"
        said = {}
        for address in (used, "tcp/192.0.2.1:7447", "tcp/no-such-host.invalid:7447"):
            with pytest.raises(UsageError) as caught:
                open_zenoh(config_of(["tcp/127.0.0.1:0", address], [], None))
            said[address] = str(caught.value)
    assert said[used] == (
        f"cannot listen at {used}: another process listens there; end that one, or write another port"
    )
    assert said["tcp/192.0.2.1:7447"] == (
        "cannot listen at tcp/192.0.2.1:7447: this machine has no such address; 0.0.0.0 stands for all "
        "that it has"
    )
    assert said["tcp/no-such-host.invalid:7447"].startswith(
        "cannot listen at tcp/127.0.0.1:0, tcp/no-such-host.invalid:7447: failed to lookup address "
    )
    assert ".rs" not in said["tcp/no-such-host.invalid:7447"]
