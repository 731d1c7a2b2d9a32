"""Pipelines whose processes are shell scripts, which start in milliseconds."""

import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from flowrun.runtime.serve.app import create_app
from flowrun.runtime.serve.graphs import Graphs
from flowrun.runtime.serve.pipeline import Place
from flowrun.runtime.serve.pipelines import Pipelines
from flowrun.runtime.server.serve import Server
from flowrun.runtime.server.site import Site

_HERE = Site()
FOREVER = "exec sleep 1000"
ECHO = f"exec {sys.executable} -I -S {Path(__file__).with_name('echo_server.py')} $2"
"""Answers each request with itself."""
STUCK = "trap '' TERM; while true; do sleep 1000; done"
TWO_PARTITIONS = """\
partitions: {a: {}, b: {}}
tasks:
  - {id: n, type: Counter, partition: a}
  - {id: p, type: Print, partition: b}
cnx: [{src: n, dst: p, msg: IntMsg}]
"""
SCRIPTED_UP = """\
import os, socket, sys, time
words = sys.argv[1:]
assert "--plain" not in words, words
server = socket.socket(socket.AF_UNIX)
server.bind(words[words.index("--socket") + 1])
server.listen()
print("a/0 | started", "b/0 | started", "a/0 | 08:15 [info] started", sep="\\n", flush=True)
while not os.path.exists("fail"):
    time.sleep(0.01)
print("b/0 | failed: no camera; starts again in 1 s", flush=True)
while not os.path.exists("end"):
    time.sleep(0.01)
print("a/0 | ended", "b/0 | failed: no camera", sep="\\n", flush=True)
print("error: b/0 failed: no camera", file=sys.stderr)
sys.exit(1)
"""
"""What says of its children what `flowrun up` does, until the files `fail` and `end` are there."""


def write_script(folder, name, script):
    """A file that counts as a graph, and is a shell script that runs `script`."""
    (folder / f"{name}.yaml").write_text(f": <<'end'\ntasks:\nend\n{script}\n")


def scripted_pipelines(folder, **options):
    """The pipelines of the scripts in `folder`, and the lines about them."""
    said = []
    sockets = folder / "sockets"
    sockets.mkdir(exist_ok=True)
    place = Place(
        **{"log_dir": folder / "runs", "sockets": sockets, "token": None, "say": said.append}
        | {"command": ("sh",), "first_pause_s": 0.01}
        | options
    )
    return Pipelines(Graphs(folder), place), said


@contextmanager
def serving(pipelines, *, token=None, site=_HERE):
    """A client of a server of `pipelines`."""
    server = Server.start_app(
        partial(create_app, pipelines, site=site), host="127.0.0.1", port=0, token=token
    )
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{server.port}"
    try:
        with httpx.Client(base_url=url, timeout=240, trust_env=False, headers=headers) as client:
            yield client
    finally:
        server.stop()
        pipelines.stop_all()


def listed(client):
    """Name -> what the list says of it."""
    return {one["id"]: one for one in client.get("/api/v0/pipeline/list").json()}


def statuses(client):
    return {name: one["status"] for name, one in listed(client).items()}


def wait_for(condition, timeout_s=240.0):
    """What `condition` gives when it is no longer false."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


KILLED = "killed by SIGKILL: by somebody, or by the system for want of memory"
