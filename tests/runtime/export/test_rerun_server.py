"""Rerun's server, asked by Rerun's own program."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.runtime.errors import UsageError
from flowrun.runtime.export.rerun_server import RerunProcess, RerunServer
from flowrun.runtime.log.reader import Log
from support.films import draw, recorded

pytestmark = [pytest.mark.slow, pytest.mark.real]

MOST_OF_IT = 100_000


@pytest.fixture(autouse=True)
def _sdk():
    pytest.importorskip("rerun", reason="rerun-sdk is 170 MB, not in the dev extra")


def addresses_of(port):
    """The addresses of this machine at which something listens at a port, as /proc/net/tcp has them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [line.split()[1].split(":") for line in lines if line.split()[3] == "0A"]
    return {socket.inet_ntoa(bytes.fromhex(at)[::-1]) for at, end in ends if int(end, 16) == port}


def test_it_listens_where_it_should_and_nowhere_else(tmp_path):
    run = recorded(tmp_path, draw(tmp_path / "plain.mp4", bf="0"))
    with Log(run) as log:
        server = RerunServer(log, port=0)
        try:
            port = int(server.url.rpartition(":")[2].partition("/")[0])
            assert addresses_of(port) == {"127.0.0.1"}
            server.send()
            saved = tmp_path / "saved.rrd"
            words = [sys.executable, "-m", "rerun", server.url, "--save", str(saved)]
            words += ["--bind", "127.0.0.1", "--port", "auto"]
            with subprocess.Popen(words, env={"CI": "true"}, stderr=subprocess.DEVNULL) as viewer:
                while not saved.exists() or saved.stat().st_size < MOST_OF_IT:
                    assert viewer.poll() is None
                viewer.terminate()
            with pytest.raises(UsageError) as refused:
                RerunProcess(host="127.0.0.1", port=port)
        finally:
            server.stop()
    text = f"cannot serve Rerun at port {port} of '127.0.0.1': Address already in use"
    assert str(refused.value) == text
    assert addresses_of(port) == set()
