"""Random commands for a server of pipelines, and what its list must say after each."""

import os
import random
import signal
from collections import Counter
from pathlib import Path

from support.pipelines import is_alive, listed, wait_for

RUNNING, STOPPED, ERROR = "Running", "Stopped", "Error"


class Model:
    """What each pipeline must be: told by the commands alone."""

    def __init__(self, names):
        self.states = dict.fromkeys(names, STOPPED)
        self.done = Counter()


def torture(client, names, *, commands, seed, note=lambda _text: None):
    """Do random commands, and look at the list after each.

    client: of a server that has just the graphs `names`, which run until they are stopped.
    note: is told each command.

    Returns how often each was done.
    """
    rng = random.Random(seed)
    model = Model(names)
    for number in range(commands):
        name = rng.choice(names)
        verb = rng.choice(["start", "start", "stop", "kill", "kill warden", "restart", "end"])
        note(f"{number}: {verb} {name}")
        _DO.get(verb, _command)(client, model, name, verb)
        _check(client, model, f"seed {seed}, after {number}: {verb} {name}")
    for name, state in model.states.items():
        if state != STOPPED:
            _command(client, model, name, "stop")
    _check(client, model, f"seed {seed}, at the end")
    return model.done


def _command(client, model, name, verb):
    was = model.states[name]
    reply = client.post(f"/api/v0/pipeline/{verb}", json={"pipeline_id": name})
    if verb == "start" and was == RUNNING:
        assert (reply.status_code, reply.json()) == (400, {"error": "Pipeline already exists"})
    elif verb == "stop" and was == STOPPED:
        assert (reply.status_code, reply.json()) == (400, {"error": "Pipeline not found"})
    else:
        assert reply.status_code == 200, reply.text
        assert reply.json()["message"].startswith(f"Pipeline {name} ")
        model.states[name] = STOPPED if verb == "stop" else RUNNING
        model.done[verb] += 1


def _kill(client, model, name, verb):
    """SIGKILL to the run, or to what watches it; SIGTERM to the run, which ends well then."""
    pid = listed(client)[name]["pid"]
    assert (pid is not None) == (model.states[name] == RUNNING)
    if pid is None:
        return
    victim = _parent(pid) if verb == "kill warden" else pid
    os.kill(victim, signal.SIGTERM if verb == "end" else signal.SIGKILL)
    wait_for(lambda: not is_alive(pid) and not is_alive(victim))
    wait_for(lambda: listed(client)[name]["status"] != RUNNING)
    model.states[name] = STOPPED if verb == "end" else ERROR
    model.done[verb] += 1


_DO = {"kill": _kill, "kill warden": _kill, "end": _kill}


def _parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _check(client, model, when):
    found = listed(client)
    states = {
        name: ERROR if isinstance(one["status"], dict) else one["status"]
        for name, one in found.items()
    }
    assert states == model.states, when
    for name, one in found.items():
        if states[name] == RUNNING:
            assert is_alive(one["pid"]), when
        else:
            assert one["pid"] is None, when
        if states[name] == ERROR:
            assert one["status"]["Error"].startswith("killed by SIGKILL"), when
