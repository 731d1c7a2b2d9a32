"""All partitions in one process, on a network that fails by a seed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.errors import UsageError
from flowrun.runtime.fleet.ending import ending_order, ending_order_of_plans
from flowrun.runtime.fleet.replay import FleetReplay
from flowrun.runtime.fleet.simulation.fleet import Simulation
from flowrun.runtime.fleet.simulation.graphs import plan_of, simulated
from flowrun.runtime.fleet.simulation.invariants import links_of
from flowrun.runtime.fleet.simulation.mischief import FAULTS, chosen_faults
from flowrun.runtime.fleet.simulation.shrinking import shrunk
from flowrun.runtime.graph.read import load_graph
from flowrun.runtime.graph.spec import PartId
from flowrun.runtime.links import reached as reached_module
from flowrun.runtime.links.arrived import Arrived
from flowrun.runtime.links.inbound import Inbound
from flowrun.runtime.links.reached import last_cursor
from flowrun.runtime.links.runs import Cursor
from flowrun.runtime.links.spread import Spread
from flowrun.runtime.recorded.runs import RecordedRuns
from flowrun.runtime.replay.recorded import RecordedOutside
from support.paths import GRAPHS, MEDIA

GRAPH = """\
partitions:
  a: {}
  b: {}
tasks:
  - {id: n, type: Counter, config: {limit: 60, rate_hz: 50}, partition: a}
  - {id: square, type: Square, partition: b}
cnx:
  - {src: n, dst: square, msg: IntMsg}
"""
THINNED = GRAPH.replace("type: Square", "type: Square, rate_hz: 5")
"""What comes out depends on the time of the cycles."""
CAMERAS = f"""\
partitions:
  dock: {{instances: {{north: {{}}, south: {{cam.start_s: 3}}}}}}
  gpu: {{replicas: 2, recover: replay}}
  hub: {{}}
network: {{on_peer_lost: hold}}
tasks:
  - id: cam
    type: VideoCapture
    partition: dock
    config: {{source_uri: '{MEDIA / "shapes.mp4"}', realtime: true}}
  - id: infer
    type: Inference
    partition: gpu
    background: true
    config: {{backend: stub}}
  - {{id: text, type: BroadcastChat, partition: hub}}
cnx:
  - {{src: cam, dst: infer, msg: ImageRgb8Msg, link: {{deliver: latest, spread: instance}}}}
  - {{src: infer, dst: text, msg: PromptResponseMsg, link: {{deliver: lockstep}}}}
"""
SHARED = f"""\
partitions: {{dock: {{}}, gpu: {{replicas: 2}}}}
tasks:
  - id: cam
    type: VideoCapture
    partition: dock
    config: {{source_uri: '{MEDIA / "shapes.mp4"}', realtime: true}}
  - {{id: infer, type: Inference, partition: gpu, config: {{backend: stub}}}}
cnx:
  - {{src: cam, dst: infer, msg: ImageRgb8Msg}}
"""
LATE_PICTURES = f"""\
partitions: {{dock: {{}}, gpu: {{recover: replay}}}}
tasks:
  - id: cam
    type: VideoCapture
    partition: dock
    config: {{source_uri: '{MEDIA / "shapes.mp4"}', realtime: true}}
  - {{id: n, type: Counter, partition: gpu, config: {{limit: 85, rate_hz: 10}}}}
  - {{id: small, type: Resize, partition: gpu, rate_hz: 2, config: {{width: 64, height: 48}}}}
cnx:
  - {{src: cam, dst: small, msg: ImageRgb8Msg}}
"""
"""The first cycle of a gpu that is started again has what its tasks remember, and no picture."""
FEW_IN_STEP = """\
partitions: {a: {}, b: {}, c: {replicas: 2}}
tasks:
  - {id: n, type: Counter, config: {limit: 150, rate_hz: 20}, partition: a}
  - {id: few, type: Square, rate_hz: 2, partition: b}
  - {id: last, type: Square, partition: c}
cnx:
  - {src: n, dst: few, msg: IntMsg}
  - {src: few, dst: last, msg: IntMsg, link: {deliver: lockstep}}
"""
"""What follows goes to another replica in a cycle that has nothing for it."""
THERE_AND_BACK = """\
partitions: {dock: {instances: {one: {}, two: {n.rate_hz: 33}}, recover: replay}, brain: {}}
tasks:
  - {id: n, type: Counter, config: {limit: 60, rate_hz: 20}, partition: dock}
  - {id: think, type: Square, partition: brain}
  - {id: act, type: Print, partition: dock}
cnx:
  - {src: n, dst: think, msg: IntMsg}
  - {src: think, dst: act, msg: IntMsg}
"""
"""None ends before the other: what the brain sends last stays in its log."""
NOW_AND_THEN = """\
partitions: {a: {}, b: {}}
tasks:
  - {id: n, type: Counter, config: {limit: 150, rate_hz: 50}, partition: a}
  - {id: some, type: Square, rate_hz: 5, partition: a}
  - {id: newest, type: Square, partition: b}
  - {id: all, type: Square, partition: b}
cnx:
  - {src: n, dst: some, msg: IntMsg}
  - {src: n, dst: newest, msg: IntMsg, link: {deliver: latest}}
  - {src: some, dst: all, msg: IntMsg, link: {deliver: every}}
"""
"""Most cycles bring only what is to be delivered as the latest."""
ALL = ",".join(FAULTS)
pytestmark = pytest.mark.slow


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "g.yaml"
    path.write_text(GRAPH)
    return Path("g.yaml")


def executed(graph: Path, folder: Path, seed: int, faults: str, *parts: str) -> Simulation:
    plans = {}
    for name in parts or ("a", "b"):
        part = PartId(*name.split("/"))
        plans[part] = plan_of(simulated(load_graph(graph, env={}, partition=str(part))))
    simulation = Simulation(plans, folder / "fleet", seed, chosen_faults(faults), 4_000_000_000)
    simulation.folder.mkdir(parents=True)
    simulation.run()
    return simulation


def bytes_of(simulation: Simulation) -> dict[str, bytes]:
    folder = simulation.folder
    return {str(it.relative_to(folder)): it.read_bytes() for it in sorted(folder.rglob("*.mcap"))}


@pytest.mark.parametrize(
    ("text", "parts"),
    [(GRAPH, ()), (CAMERAS, ("dock/north", "dock/south", "gpu/0", "gpu/1", "hub"))],
)
def test_a_seed_gives_the_same_bytes_again(
    graph: Path, tmp_path: Path, text: str, parts: tuple[str, ...]
) -> None:
    graph.write_text(text)
    one = executed(graph, tmp_path / "one", 5, ALL, *parts)
    other = executed(graph, tmp_path / "other", 5, ALL, *parts)
    assert any(it.what.startswith("kill") for it in one.happened)
    assert (one.happened, one.digest, one.cycles) == (other.happened, other.digest, other.cycles)
    logs, again = bytes_of(one), bytes_of(other)
    assert logs.keys() == again.keys()
    assert [name for name in logs if logs[name] != again[name]] == []


def test_delays_are_by_one_clock_whatever_the_clocks_say(graph: Path, tmp_path: Path) -> None:
    differ_ms = []
    for seed in range(6):
        simulation = executed(graph, tmp_path / str(seed), seed, "skew")
        runs = RecordedRuns.at(simulation.folder)
        found = runs.fleet(str(runs.summaries()[0]["id"]), bins=10)
        assert found is not None
        [link] = found["links"]
        differ_ms.append(link["clock_offset_ms"])
        assert [it["ahead_ns"] for it in found["parts"]] == [0, round(-1e6 * differ_ms[-1])]
        assert link["cycles"] == 60
        assert 0 <= link["delay_ms"]["p50"] <= link["delay_ms"]["most"] < 100
    assert min(differ_ms) < -1000, differ_ms
    assert max(differ_ms) > 1000, differ_ms


def test_whatever_goes_wrong_each_message_comes_once(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", str(graph), "--seeds", "6", "--for", "3s", "--faults", ALL]) == 0
    said = capsys.readouterr().out
    assert said.startswith("6 seeds, ")
    assert " deliveries came once and in order, and all fleets replay identically (" in said


def test_what_is_taken_up_before_the_first_picture_is_in_the_replay(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph.write_text(LATE_PICTURES)
    options = ["--seed", "1", "--for", "4s", "--faults", "kill,slow,cut"]
    assert main(["simulate", str(graph), *options]) == 0, capsys.readouterr()


def test_a_replica_is_not_waited_for_that_was_sent_nothing(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph.write_text(FEW_IN_STEP)
    options = ["--seed", "11", "--for", "8s", "--faults", "kill"]
    assert main(["simulate", str(graph), *options]) == 0, capsys.readouterr()


@pytest.mark.parametrize("text", [THERE_AND_BACK, NOW_AND_THEN])
def test_partitions_may_send_to_each_other_and_several_streams_on_one_link(
    graph: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    graph.write_text(text)
    options = ["--seeds", "3", "--from", "4", "--for", "4s"]
    assert main(["simulate", str(graph), *options]) == 0, capsys.readouterr()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_cameras_replicas_and_background_tasks_are_simulated(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph.write_text(CAMERAS)
    assert main(["simulate", str(graph), "--seeds", "5", "--for", "8s"]) == 0, capsys.readouterr()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_fleet_that_comes_with_flowrun_is_simulated(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, model = str(GRAPHS / "fleet.yaml"), "inference.backend=stub"
    assert main(["simulate", fleet, "--seeds", "5", "--set", model]) == 0, capsys.readouterr()


# -- what is planted is found ------------------------------------------------------------------------


def takes_duplicates(patch: pytest.MonkeyPatch) -> None:
    right = Arrived.offer

    def careless(self: Arrived, head: Any, payload: bytes, **options: Any) -> bool:
        is_last = (head.run, head.cycle) == (self.cursor.run, self.cursor.cycle - 1)
        if is_last and not options.get("repaired"):
            return self.append(head, payload)
        return right(self, head, payload, **options)

    patch.setattr(Arrived, "offer", careless)


def goes_back_by_one(patch: pytest.MonkeyPatch) -> None:
    def careless(*args: Any) -> Cursor | None:
        found = last_cursor(*args)
        return None if found is None else Cursor(found.run, found.cycle - 1)

    patch.setattr(reached_module, "last_cursor", careless)


def acknowledges_too_early(patch: pytest.MonkeyPatch) -> None:
    right = Inbound.acknowledge

    def careless(self: Inbound, now_s: float, *, again: bool = False) -> None:
        self.look()
        right(self, now_s, again=again)

    patch.setattr(Inbound, "acknowledge", careless)


def reassigns_within_a_section(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Spread, "_begins", lambda _self, _cycle: True)


def replays_by_the_clock(patch: pytest.MonkeyPatch) -> None:
    right = RecordedOutside.begin

    def careless(self: RecordedOutside, cycle_time: Any, start_ns: int) -> Any:
        found = right(self, cycle_time, start_ns)
        cycle_time.now_ns = time.time_ns()
        return found

    patch.setattr(RecordedOutside, "begin", careless)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("plant", "text", "faults", "says"),
    [
        (takes_duplicates, GRAPH, "dup", " came twice, the second time in cycle "),
        (goes_back_by_one, GRAPH, "kill", " came twice, the second time in cycle "),
        (acknowledges_too_early, GRAPH, "kill", " was acknowledged before it was in "),
        (reassigns_within_a_section, SHARED, "kill", "/cam/image: nothing is shown, where "),
        (replays_by_the_clock, THINNED, "drop", "  the replay differs: "),
    ],
)
def test_a_planted_bug_is_found(
    graph: Path,
    capsys: pytest.CaptureFixture[str],
    plant: Callable[[pytest.MonkeyPatch], None],
    text: str,
    faults: str,
    says: str,
) -> None:
    graph.write_text(text)
    command = ["simulate", str(graph), "--seeds", "30", "--for", "6s", "--faults", faults]
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        assert main(command) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" fails:")
    assert any(says in it for it in lines), lines


def test_a_seed_that_fails_reproduces_with_less(
    graph: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    takes_duplicates(monkeypatch)
    assert main(["simulate", str(graph), "--seeds", "20", "--for", "3s", "--faults", "dup"]) == 1
    lines = capsys.readouterr().out.splitlines()
    seed = lines[0].removeprefix("seed ").removesuffix(" fails:")
    assert lines[1].startswith("  link a/0 -> b/0: cycle ")
    again = f"flowrun simulate g.yaml --seed {seed} --faults dup --for 3s"
    assert f"  again: {again}" in lines
    for line in [it for it in lines if it.startswith("  again: ")]:
        words = line.removeprefix("  again: flowrun ").split()
        assert main(words) == 1
        assert lines[0] in capsys.readouterr().out.splitlines()
    assert Path("runs", f"simulated-g-{seed}", "fleet.json").is_file()


@pytest.mark.parametrize(
    ("owner", "method", "where"),
    [
        (Arrived, "offer", "in b/0"),  # called by the network
        (Inbound, "acknowledge", "in [ab]/0"),  # by the process itself
        (Inbound, "_sender_is", "in b/0"),  # by another process that comes
        (FleetReplay, "run", "when the logs are checked"),
    ],
)
def test_a_defect_is_named_with_its_seed_its_process_and_its_traceback(
    graph: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    where: str,
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(owner, method, breaks)
    assert main(["simulate", str(graph), "--seeds", "3", "--for", "1s", "--faults", "dup"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "seed 0 fails:"
    assert re.fullmatch(f"  a defect of flowrun, {where}: KeyError: 'no such thing'", lines[1]), (
        lines[1]
    )
    kept = Path("runs/simulated-g-0/traceback.txt")
    assert f"  please report it with {kept}" in lines
    assert "  again: flowrun simulate g.yaml --seed 0 --faults dup --for 1s" in lines
    assert f", in {breaks.__name__}\n    raise KeyError" in kept.read_text()


def test_shrinking_leaves_what_a_failure_needs() -> None:
    def fails(without: frozenset[int]) -> bool:
        return not without & {3, 17}

    assert shrunk(range(40), fails, attempts=200) == frozenset(range(40)) - {3, 17}
    assert shrunk([], fails, attempts=200) == frozenset()


def test_senders_end_first_wherever_they_are_declared(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(GRAPH.replace("  a: {}\n  b: {}\n", "  b: {}\n  a: {}\n"))
    whole = load_graph(path, env={})
    plans = {
        it.parts[0]: plan_of(simulated(load_graph(path, env={}, partition=it.id)))
        for it in whole.partitions
    }
    assert ending_order_of_plans(plans) == ending_order(whole) == [[PartId("a")], [PartId("b")]]
    # So all that was sent must have come.
    assert [it.is_whole for it in links_of(plans)] == [True]


# -- what is not simulated ---------------------------------------------------------------------------


def test_a_camera_and_a_server_are_named_with_what_to_use_instead(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = "backends: {openai: {base_url: 'http://127.0.0.1:1/v1'}}, backend: openai"
    text = CAMERAS.replace(f"'{MEDIA / 'shapes.mp4'}', realtime: true", "rtsp://10.0.0.7/main")
    graph.write_text(text.replace("cam.start_s: 3", "").replace("backend: stub", server))
    assert main(["simulate", str(graph)]) == 2
    assert capsys.readouterr().err == (
        "not simulated: task 'cam' reads 'rtsp://10.0.0.7/main': set its source_uri to a film, or to "
        "test; task 'infer_north' asks a server, 'openai': set its backend to embedded, or to stub; "
        "task 'infer_south' asks a server, 'openai': set its backend to embedded, or to stub\n"
    )


def test_an_unknown_fault_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        chosen_faults("drop,kil")
    assert str(caught.value) == (
        "there is no fault 'kil'; faults: drop, dup, delay, flip, cut, kill, slow, skew (did you mean "
        "'kill'?)"
    )


def test_mishaps_are_left_out_of_one_seed_alone(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", str(graph), "--without", "3"]) == 2
    assert capsys.readouterr().err == "--without leaves out mishaps of one seed; give --seed\n"
    assert main(["simulate", str(graph), "--seed", "1", "--without", "3,x"]) == 2
    assert capsys.readouterr().err == "--without 3,x: expected numbers such as 3,7-12\n"


def test_a_graph_without_partitions_has_no_network(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph.write_text("tasks:\n  - {id: n, type: Counter}\n")
    assert main(["simulate", str(graph)]) == 2
    assert capsys.readouterr().err == (
        "g.yaml has no partitions: there is no network to simulate\n"
    )
