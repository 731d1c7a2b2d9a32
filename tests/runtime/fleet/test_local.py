"""All processes of a graph on this machine: started, started again, ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.fleet import local
from flowrun.runtime.fleet.ending import ending_order
from flowrun.runtime.fleet.local import Fleet, addresses
from flowrun.runtime.graph.read import load_graph
from flowrun.runtime.graph.spec import GraphSpec, PartId
from support.pipelines import wait_for

GRAPH = """\
partitions:
  c: {}
  b: {on_error: B}
  a: {replicas: 2}
tasks:
  - {id: n, type: Counter, partition: a}
  - {id: square, type: Square, partition: b}
  - {id: show, type: Print, partition: c}
cnx:
  - {src: n, dst: square, msg: IntMsg}
  - {src: square, dst: show, msg: IntMsg}
"""
FOREVER = """\
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
(folder / part.replace("/", "-")).touch()
signal.sigwait([signal.SIGTERM])
print("asked", file=sys.stderr)
"""


def graph_in(folder: Path, on_error: str = "restart") -> GraphSpec:
    path = folder / "g.yaml"
    path.write_text(GRAPH.replace("B}", f"{on_error}}}"))
    return load_graph(path, env={})


@pytest.fixture
def made() -> Iterator[list[Fleet]]:
    fleets: list[Fleet] = []
    yield fleets
    for fleet in fleets:
        fleet.stop()


def fleet_of(
    made: list[Fleet], folder: Path, script: str, on_error: str = "restart", **options: Any
) -> tuple[Fleet, list[str]]:
    """A fleet of which each process runs `script`, with its part as `part`."""
    said: list[str] = []
    program = folder / "program.py"
    program.write_text(
        f"import sys, pathlib\npart = sys.argv[3]\nfolder = pathlib.Path({str(folder)!r})\n{script}\n"
    )
    fleet = Fleet(
        graph_in(folder, on_error),
        folder / "fleet",
        options=lambda part: ["--plain"],
        say=said.append,
        first_pause_s=0.01,
        command=["-I", "-S", str(program)],
        **options,
    )
    made.append(fleet)
    return fleet, said


HEARS = """\
for line in sys.stdin:
    print("hears", line.strip(), file=sys.stderr, flush=True)
    if line == "stop\\n" or (part == "b/0" and not (folder / "again").exists()):
        break
if part == "b/0" and not (folder / "again").exists():
    (folder / "again").touch()
    sys.exit(1)
"""


def test_each_hears_which_others_have_ended_for_good(made: list[Fleet], tmp_path: Path) -> None:
    fleet, said = fleet_of(made, tmp_path, f"if part == 'a/1': sys.exit(0)\n{HEARS}")
    fleet.start()
    # One that is started again hears it again: b/0 fails when it has heard it first.
    wait_for(lambda: said.count("b/0 | hears ended a/1") == 2)
    wait_for(lambda: {f"{it} | hears ended a/1" for it in ("a/0", "c/0")} <= set(said))
    fleet.stop()
    heard = [it for it in said if it.startswith("b/0 | hears")]
    assert heard[:2] == ["b/0 | hears ended a/1"] * 2
    assert heard[2] in ("b/0 | hears stop", "b/0 | hears ended a/0")
    assert "b/0 | hears ended b/0" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_somebody_ends_is_not_started_again(
    made: list[Fleet], tmp_path: Path, number: signal.Signals
) -> None:
    script = f"{FOREVER.partition('print')[0]}sys.exit(1)"
    script = f"import os, signal\nif part == 'a/0': os.kill(os.getpid(), {int(number)})\n{script}"
    fleet, said = fleet_of(made, tmp_path, script)
    fleet.start()
    wait_for(lambda: "a/0 | ended" in said)
    assert fleet.restarts(PartId("a", "0")) == 0
    assert fleet.failed == {}
    assert not fleet.wait(0)


def test_one_that_has_to_be_killed_at_the_end_is_named(
    made: list[Fleet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "PATIENCE_S", 0.2)
    script = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    script += "(folder / part.replace('/', '-')).touch()\nwhile part == 'b/0': time.sleep(1)"
    fleet, said = fleet_of(made, tmp_path, script)
    fleet.start()
    wait_for((tmp_path / "b-0").exists)
    fleet.stop()
    assert fleet.failed == {PartId("b"): "did not end within 0.2 s, and was killed"}
    assert "b/0 | failed: did not end within 0.2 s, and was killed" in said


def test_all_run_until_they_end(made: list[Fleet], tmp_path: Path) -> None:
    fleet, said = fleet_of(made, tmp_path, "print(part, 'was here', file=sys.stderr)")
    fleet.start()
    assert fleet.wait(60)
    fleet.stop()
    assert fleet.failed == {}
    assert sorted(said) == [
        f"{part} | {text}"
        for part in ("a/0", "a/1", "b/0", "c/0")
        for text in (f"{part} was here", "ended", "started")
    ]


def test_one_that_is_killed_is_started_again(made: list[Fleet], tmp_path: Path) -> None:
    fleet, said = fleet_of(made, tmp_path, FOREVER)
    fleet.start()
    part = PartId("a", "1")
    first = wait_for(lambda: fleet.pid(part))
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: fleet.pid(part) not in (None, first))
    assert fleet.restarts(part) == 1
    assert not fleet.wait(0)
    assert (
        "a/1 | failed: killed by SIGKILL: by somebody, or by the system for want of memory; starts "
        "again in 0.01 s"
    ) in said


def test_one_that_is_not_to_be_started_again_ends_the_others(
    made: list[Fleet], tmp_path: Path
) -> None:
    script = f"if part == 'b/0': sys.exit('error: no such camera')\n{FOREVER}"
    fleet, said = fleet_of(made, tmp_path, script, on_error="stop")
    fleet.start()
    assert fleet.wait(60)
    fleet.stop()
    assert fleet.failed == {PartId("b"): "no such camera"}
    assert "b/0 | failed: no such camera" in said


def test_a_mistake_in_the_graph_is_not_tried_again(made: list[Fleet], tmp_path: Path) -> None:
    fleet, _ = fleet_of(made, tmp_path, "if part == 'b/0': sys.exit(2)\n" + FOREVER)
    fleet.start()
    assert fleet.wait(60)
    assert fleet.restarts(PartId("b")) == 0


def test_senders_end_first(made: list[Fleet], tmp_path: Path) -> None:
    fleet, said = fleet_of(made, tmp_path, FOREVER)
    fleet.start()
    wait_for(lambda: len(list(tmp_path.glob("?-?"))) == 4)
    fleet.stop()
    asked = [line[0] for line in said if line.endswith("| asked")]
    assert asked == ["a", "a", "b", "c"]


def test_the_order_of_the_end_is_that_of_the_links(tmp_path: Path) -> None:
    order = ending_order(graph_in(tmp_path))
    assert [[str(part) for part in group] for group in order] == [["a/0", "a/1"], ["b/0"], ["c/0"]]


def test_addresses_are_of_this_machine_and_differ() -> None:
    parts = [PartId("a", str(i)) for i in range(50)]
    found = addresses(parts)
    assert len(set(found.values())) == 50
    assert all(it.startswith("tcp/127.0.0.1:2") or "127.0.0.1:3" in it for it in found.values())


def test_each_process_looks_for_those_before_it(made: list[Fleet], tmp_path: Path) -> None:
    fleet, said = fleet_of(made, tmp_path, "print(*sys.argv[1:], file=sys.stderr)")
    fleet.start()
    assert fleet.wait(60)
    lines = {line[:3]: line[6:] for line in said if "--partition" in line}
    own = {part: line.split("listen=[")[1:] for part, line in lines.items()}
    listens = {
        part: next(it.split("]")[0] for it in texts if it[0] != "]") for part, texts in own.items()
    }
    assert lines["c/0"].count("tcp/") == 1
    assert lines["b/0"].count("tcp/") == 2
    assert f"partitions.b.connect=[{listens['c/0']}]" in lines["b/0"]
    assert (
        f"partitions.a.connect=[{listens['c/0']}, {listens['b/0']}, {listens['a/0']}]"
        in lines["a/1"]
    )
