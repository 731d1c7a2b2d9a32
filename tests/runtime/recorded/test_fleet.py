"""All recorded runs of a fleet as one: which there are, what came how late, what never came."""

import pytest

from flowrun.runtime.events import Met
from flowrun.runtime.recorded.runs import RecordedRuns
from support.fleets import (
    HOUR,
    T0,
    S,
    chain_of_clocks,
    origin,
    sent_numbers,
    took_numbers,
    two_processes,
)

MS_1_5 = 1_500_000
AT_A = T0 + MS_1_5
"""`T0` of b's clock, which is 1.5 ms behind, by the clock of a."""


@pytest.fixture
def folder(tmp_path):
    two_processes(tmp_path / "f")
    return tmp_path / "f"


def test_a_fleet_says_when_each_process_ran_and_how_its_links_did(folder):
    found = RecordedRuns.at(folder).fleet("b1", bins=4)
    assert (found["from_ns"], found["to_ns"]) == (T0 + S, T0 + 23 * S)
    a, b, c = found["parts"]
    assert [it["part"] for it in found["parts"]] == ["a/0", "b/0", "c/left"]
    assert [it["restarts"] for it in found["parts"]] == [1, 0, 0]
    assert [(it["id"], it["state"], it["cycles"]) for it in a["runs"]] == [
        ("a1", "cut off", 10),
        ("a2", "ended", 3),
    ]
    assert (b["cycles"], b["errors"], b["dropped"]) == (5, 1, 7)
    assert (b["runs"][0]["from_ns"], b["runs"][0]["to_ns"]) == (AT_A + S + S // 2, AT_A + 22 * S)
    assert [it["ahead_ns"] for it in found["parts"]] == [0, -MS_1_5, None]
    assert c["runs"] == []
    assert found["links"] == [
        {
            "sender": "a/0",
            "receiver": "b/0",
            "cycles": 3,
            "skipped": 2,
            "gaps": [
                {
                    "at_ns": AT_A + 21 * S + S // 2,
                    "cycle": 3,
                    "text": "cycles 4 to the end of its run of a/0 never come: gone",
                }
            ],
            "reconnects": 1,
            "clock_offset_ms": 1.5,
            # By what was measured before each: the sender's clock was 2.5 ms behind, then 1.5 ms ahead.
            "delay_ms": {"p50": 497.5, "p99": 991.42, "most": 1001.5},
            "delays_ms": [497.5, None, None, 1001.5],
            "left": 2,
        }
    ]


def test_a_time_line_is_by_one_clock_also_beyond_those_that_met(tmp_path):
    chain_of_clocks(tmp_path / "f")
    found = RecordedRuns.at(tmp_path / "f").fleet("c1", bins=2)
    assert (found["from_ns"], found["to_ns"]) == (T0 + S, T0 + 3 * S)
    assert [(it["part"], it["ahead_ns"]) for it in found["parts"]] == [
        ("a/0", 0),
        ("b/0", -HOUR),
        ("c/0", -HOUR + 60 * S),
    ]
    spans = [(it["from_ns"], it["to_ns"]) for part in found["parts"] for it in part["runs"]]
    assert spans == [(T0 + S, T0 + 3 * S), (T0 + 1.5 * S, T0 + 2.5 * S), (T0 + 2 * S, T0 + 3 * S)]
    [_, to_c] = found["links"]
    assert [it["at_ns"] for it in to_c["gaps"]] == [T0 + 3 * S]


def test_how_late_what_came_was_is_by_one_clock(tmp_path):
    chain_of_clocks(tmp_path / "f")
    links = RecordedRuns.at(tmp_path / "f").fleet("c1", bins=2)["links"]
    assert [(it["receiver"], it["clock_offset_ms"]) for it in links] == [
        ("b/0", 3_600_000.0),
        ("c/0", -60_000.0),
    ]
    half = {"p50": 500.0, "p99": 500.0, "most": 500.0}
    assert [it["delay_ms"] for it in links] == [half, half]
    assert [it["delays_ms"] for it in links] == [[500.0, 500.0], [500.0, None]]


def test_a_clock_that_no_log_speaks_of_is_not_known(tmp_path):
    chain_of_clocks(tmp_path / "f", c_knows=False)
    found = RecordedRuns.at(tmp_path / "f").fleet("c1", bins=2)
    assert [it["ahead_ns"] for it in found["parts"]] == [0, -HOUR, None]
    [_, to_c] = found["links"]
    assert (to_c["clock_offset_ms"], to_c["reconnects"]) == (None, None)
    assert to_c["delay_ms"] == {"p50": 60_500.0, "p99": 60_500.0, "most": 60_500.0}


def test_a_link_that_says_nothing_of_clocks_has_them_from_others(tmp_path):
    chain_of_clocks(tmp_path / "f", c_knows=False)
    # A number of a's came to c as well, which said then by how much the clock of a was ahead.
    said = origin(0, 0, time_s=1), [Met("from_a", HOUR - 60 * S)]
    graph = {"partitions": {name: {"replicas": 1} for name in "abc"}}
    less_s = -3540
    took_numbers(
        tmp_path / "f" / "c-0" / "c0", "c/0", less_s, [(less_s + 1.25, *said)], graph=graph
    )
    found = RecordedRuns.at(tmp_path / "f").fleet("c1", bins=2)
    assert [it["ahead_ns"] for it in found["parts"]] == [0, -HOUR, -HOUR + 60 * S]
    assert {(it["sender"], it["receiver"]): it["delay_ms"]["most"] for it in found["links"]} == {
        ("a/0", "b/0"): 500.0,
        ("a/0", "c/0"): 250.0,
        ("b/0", "c/0"): 500.0,
    }
    assert [it["clock_offset_ms"] for it in found["links"]][-1] == -60_000.0


def test_what_went_to_replicas_is_not_counted_as_left(folder):
    shared = {"partitions": {"a": {"replicas": 1}, "b": {"replicas": 2}}}
    cycles = [(1.5, origin(0, 0, time_s=1), ())]
    took_numbers(folder / "b-1" / "b2", "b/1", 0.5, cycles, graph=shared)
    found = RecordedRuns.at(folder).fleet("b2", bins=4)
    assert [(it["receiver"], it["left"]) for it in found["links"]] == [("b/0", 2), ("b/1", None)]


def test_each_run_of_a_folder_of_fleets_is_of_its_own_one(folder, tmp_path):
    for part in ("a", "b"):
        sent_numbers(tmp_path / "other" / part / f"x{part}", f"{part}/0", 5, 6)
    sent_numbers(tmp_path / "alone", "a/0", 5, 6)
    runs = RecordedRuns.at(tmp_path)
    ids = {
        name: [it["id"] for part in found["parts"] for it in part["runs"]]
        for name in ("a2", "xa")
        if (found := runs.fleet(name, bins=1))
    }
    assert ids == {"a2": ["a1", "a2", "b1"], "xa": ["xa", "xb"]}
    assert runs.fleet("alone", bins=1) is None
    # As they are when they are copied from several machines into one folder.
    assert RecordedRuns.at(folder / "b-0").fleet("b1", bins=1) is None


def test_a_damaged_origin_is_not_counted(folder):
    path = next((folder / "b-0" / "b1").glob("*.mcap"))
    before, after = path.read_bytes().rsplit(b"\xa8instance\xa10", 1)
    path.write_bytes(before + b"\xa8instance\xc1\xc1" + after)
    [link] = RecordedRuns.at(folder).fleet("b1", bins=1)["links"]
    assert link["cycles"] == 2
