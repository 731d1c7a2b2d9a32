"""`runtime: {affinity, nice, background}`: on which cores threads run, and how nice they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flowrun.runtime import threads
from flowrun.runtime.errors import GraphError
from flowrun.runtime.graph.masking import masked_graph
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.threads import refused_affinity, refused_nice, settled

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux only")

TASKS = """
import json, os, threading
from pathlib import Path
from flowrun.msgs import IntMsg
from flowrun.runtime.task import Context, Input, Output, Task


def here(name):
    said = [sorted(os.sched_getaffinity(0)), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())]
    Path(name + ".json").write_text(json.dumps(said))


class Front(Task):
    def start(self, ctx: Context) -> None:
        thread = threading.Thread(target=here, args=("started",))
        thread.start()
        thread.join()

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        here("front")
        out.value = number.value
        out.publish()


class Back(Front):
    def start(self, ctx: Context) -> None: ...

    def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
        here("back")
        out.value = number.value
        out.publish()
"""
GRAPH = """
tasks:
  - {{id: n, type: Counter, config: {{limit: 3}}}}
  - {{id: front, type: where.Front}}
  - {{id: back, type: where.Back, background: true}}
cnx:
  - {{src: n, dst: front, msg: IntMsg}}
  - {{src: n, dst: back, msg: IntMsg}}
runtime: {runtime}
"""


@pytest.mark.slow
def test_cycles_what_tasks_start_and_workers_run_where_the_graph_says(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    now = os.getpriority(os.PRIO_PROCESS, 0)
    runtime = {
        "affinity": cores[:1],
        "nice": min(19, now + 2),
        "background": {"affinity": cores[-1:], "nice": min(19, now + 3)},
    }
    (tmp_path / "where.py").write_text(TASKS)
    (tmp_path / "g.yaml").write_text(GRAPH.format(runtime=json.dumps(runtime)))
    command = [sys.executable, "-m", "flowrun.runtime.cli", "g.yaml", "--plain"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in
             ("front", "started", "back")}  # fmt: skip
    assert found == {
        "front": [cores[:1], min(19, now + 2)],
        "started": [cores[:1], min(19, now + 2)],
        "back": [cores[-1:], min(19, now + 3)],
    }
    [run] = (tmp_path / "runs").glob("g-*")
    replayed = subprocess.run(
        [*command[:3], "replay", str(run)], cwd=tmp_path, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


def test_a_thread_gets_its_cores_back() -> None:
    cores = os.sched_getaffinity(0)
    with settled(sorted(cores)[:1], None):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == cores


def test_trying_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cores, now = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    assert refused_affinity(sorted(cores)[:1]) is None
    assert refused_nice(now) is None
    assert (os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)) == (cores, now)

    def refuse(which: int, who: int, priority: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(threads.os, "setpriority", refuse)
    assert refused_nice(-5) == (
        f"the system refuses -5: Permission denied; from {now} to 19 is always allowed, less with "
        "CAP_SYS_NICE or a higher limit (ulimit -e)"
    )


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("{affinity: [9999]}", "g.yaml:2:21: 'runtime.affinity': this process may not use core 9999; "
         "its cores: "),
        ("{background: {affinity: [9999]}}", "g.yaml:2:34: 'runtime.background.affinity': this process "
         "may not use core 9999; its cores: "),
        ("{affinity: []}", "g.yaml:2:21: 'affinity' is empty; name at least one core, or leave it out"),
        ("{affinity: 1}", "g.yaml:2:21: 'affinity' must be a list (- ...); got 1"),
        ("{affinity: [-1]}", "g.yaml:2:22: an item of 'affinity' must be the number of a core, 0 or "
         "more; got -1"),
        ("{nice: 20}", "g.yaml:2:17: 'nice' must be a whole number from -20 to 19; got 20"),
        ("{nice: high}", "g.yaml:2:17: 'nice' must be a whole number from -20 to 19; got 'high'"),
        ("{nise: 2}", "g.yaml:2:11: unknown key 'nise' in 'runtime'; valid keys: "),
    ],
)  # fmt: skip
def test_each_mistake_has_an_answer(tmp_path: Path, runtime: str, said: str) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(f"tasks: [{{id: n, type: Counter}}]\nruntime: {runtime}\n")
    with pytest.raises(GraphError) as caught:
        load_plan(path, env={})
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(said)


def test_a_graph_for_another_machine_may_name_its_cores(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(
        textwrap.dedent("""\
        tasks: [{id: n, type: Counter}]
        runtime: {affinity: [9998, 9999], background: {nice: 5}}
        """)
    )
    graph = load_plan(path, env={}, ready=False).graph.spec
    runtime = masked_graph(graph)["runtime"]
    assert list(runtime["affinity"]) == [9998, 9999]
    assert runtime["background"] == {"nice": 5}
    assert "nice" not in runtime


def test_elsewhere_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.sys, "platform", "darwin")
    assert refused_affinity([0]) == "threads are bound to cores on Linux only; leave it out"
    assert refused_nice(0) == "a niceness for single threads is of Linux only; leave it out"
