"""Whatever is started, stopped and killed in whatever order: the list says what runs."""

import os
import random
import signal
import sys
import threading

import httpx
import pytest

from support.commands_of_pipelines import torture
from support.helpers import until
from support.pipelines import ECHO, is_alive, listed, scripted_pipelines, serving, write_script

NAMES = ["door", "gate", "yard"]
GRAPH = """
tasks:
  - {id: counter, type: Counter, config: {rate_hz: 20}}
  - {id: square, type: Square}
cnx: [{src: counter, dst: square, msg: IntMsg}]
logging: {slab_size_mib: 4, section_size_mib: 1}
"""


def test_the_list_is_right_after_each_random_command(tmp_path):
    for name in NAMES:
        write_script(tmp_path, name, f"trap 'exit 0' TERM; {ECHO.removeprefix('exec ')} & wait")
    pipelines, _ = scripted_pipelines(tmp_path)
    with serving(pipelines) as client:
        done = torture(client, NAMES, commands=15, seed=random.randrange(10**6))
    assert sum(done.values()) > 0


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_list_is_right_after_each_of_200_commands_to_real_runs(tmp_path):
    for name in NAMES:
        (tmp_path / f"{name}.yaml").write_text(GRAPH)
    command = (sys.executable, "-P", "-m", "flowrun.runtime.cli", "run")
    pipelines, _ = scripted_pipelines(tmp_path, command=command)
    with serving(pipelines) as client:
        done = torture(client, NAMES, commands=200, seed=random.randrange(10**6))
    assert set(done) == {"start", "stop", "restart", "kill", "kill warden", "end"}


def agrees(one):
    """Whether what the list says of a pipeline's process and of its status fits the process."""
    pid = one["pid"]
    return (pid is not None) == (one["status"] == "Running") and (pid is None or is_alive(pid))


def test_many_clients_at_once_leave_no_process(tmp_path):
    for name in NAMES:
        write_script(tmp_path, name, ECHO)
    pipelines, said = scripted_pipelines(tmp_path)
    pids, failed = set(), []

    def work(url, seed):
        rng = random.Random(seed)
        with httpx.Client(base_url=url, timeout=240, trust_env=False) as client:
            for _ in range(4):
                verb, name = rng.choice(["start", "stop", "restart", "kill"]), rng.choice(NAMES)
                pid = listed(client)[name]["pid"]
                if verb != "kill":
                    reply = client.post(f"/api/v0/pipeline/{verb}", json={"name": name})
                    if reply.status_code not in (200, 400):
                        failed.append(reply.text)
                elif pid is not None:
                    pids.add(pid)
                    if is_alive(pid):
                        os.kill(pid, signal.SIGKILL)

    with serving(pipelines) as client:
        clients = [
            threading.Thread(target=work, args=[str(client.base_url), seed]) for seed in range(4)
        ]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        # One that was killed a moment ago may not have been seen to end.
        until(lambda: all(agrees(one) for one in listed(client).values()))
        pids |= {one["pid"] for one in listed(client).values() if one["pid"] is not None}
    assert failed == []
    assert not any(map(is_alive, pids))
    assert said
