"""A run for Prometheus, what is said of its health, and of its machine."""

import platform
import socket
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.engine.policy import Raised
from flowrun.runtime.links.status import LinkStatus, PartStatus
from flowrun.runtime.run.observed import Replies
from flowrun.runtime.task import Health, ServerHealth


@pytest.fixture
def run(new_run):
    return new_run()


@pytest.fixture
def http(run, new_server):
    with httpx.Client(
        base_url=new_server(run).url, trust_env=False, timeout=240, verify=False
    ) as client:
        yield client


FARM = Health(
    "ok", 1.0, 1.0, "", used=True,
    servers={
        "http://gpu1/v1": ServerHealth("failing", 4.0, 1.0, "gone", 2, 7, 3),
        "http://gpu2/v1": ServerHealth("ok", 4.0, 1.0, "", 0, 9, 0),
    },
)  # fmt: skip
FAILING = Health("failing", 12.3, 0.4, "connection refused", used=True)


def samples(http):
    """(name, labels) -> value."""
    reply = http.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def reporting(run, **tasks):
    """Have the run report this of tasks."""
    plain = run.report

    def report():
        said = plain()
        changed = {id_: replace(said.tasks[id_], **changes) for id_, changes in tasks.items()}
        return replace(said, tasks={**said.tasks, **changed})

    run.report = report


def test_cycles_are_a_histogram_of_their_times(run, http):
    run.observed.durations[17] = 9  # from 65 to 131 us
    run.observed.durations[21] = 1  # from 1.05 to 2.1 ms
    run.observed.spent_ns = 3_000_000
    found = samples(http)
    assert found[("flowrun_cycle_seconds_bucket", ("le", "6.5536e-05"))] == 0
    assert found[("flowrun_cycle_seconds_bucket", ("le", "0.000131072"))] == 9
    assert found[("flowrun_cycle_seconds_bucket", ("le", "0.001048576"))] == 9
    assert found[("flowrun_cycle_seconds_bucket", ("le", "+Inf"))] == 10
    assert found[("flowrun_cycle_seconds_count",)] == 10
    assert found[("flowrun_cycle_seconds_sum",)] == 0.003


def test_a_models_answers_are_counted_with_their_tokens(run, http):
    run.observed.replies = {"vlm": Replies()}
    for latency_ms, tokens in ((90.0, 7), (110.0, 5)):
        run.observed.replies["vlm"].note(PromptResponseMsg(tokens=tokens, latency_ms=latency_ms))
    found = samples(http)
    task = ("task", "vlm")
    assert found[("flowrun_model_tokens_total", task)] == 12
    assert found[("flowrun_model_latency_seconds_count", task)] == 2
    assert found[("flowrun_model_latency_seconds_sum", task)] == 0.2
    assert found[("flowrun_model_latency_seconds_bucket", ("le", "0.131072"), task)] == 2
    assert found[("flowrun_model_latency_seconds_bucket", ("le", "0.065536"), task)] == 0


def test_errors_drops_states_and_the_log_are_there(run, http):
    run.cycle()
    run.cycle()
    run.observed.restarts["vlm"] = 2
    reporting(
        run,
        vlm={"raised": Raised(3, "ValueError: no", 1, 1), "backends": {"llama": FAILING}},
        cam0={"state": "lost", "dropped_by": {"too old": 4}},
    )
    found = samples(http)
    assert found[("flowrun_task_errors_total", ("task", "vlm"))] == 3
    assert found[("flowrun_task_restarts_total", ("task", "vlm"))] == 2
    assert found[("flowrun_dropped_total", ("cause", "too old"), ("task", "cam0"))] == 4
    assert found[("flowrun_dropped_total", ("cause", "replaced"), ("task", "vlm"))] == 3
    assert found[("flowrun_source_state", ("state", "lost"), ("task", "cam0"))] == 1
    assert found[("flowrun_source_state", ("state", "running"), ("task", "cam0"))] == 0
    backend = ("flowrun_backend_state", ("backend", "llama"))
    assert found[(*backend, ("state", "failing"), ("task", "vlm"))] == 1
    assert found[(*backend, ("state", "ok"), ("task", "vlm"))] == 0
    assert found[("flowrun_cycles_total",)] == 2
    assert found[("flowrun_log_bytes",)] == run.report().log.bytes
    assert found[("flowrun_task_step_seconds", ("quantile", "0.5"), ("task", "vlm"))] == 0.0814
    assert found[("flowrun_run_info", ("graph", "inference"), ("state", "Running"))] == 1
    assert found[("process_cpu_seconds_total",)] > 0


def test_each_server_of_a_farm_is_there(run, http):
    run.cycle()
    reporting(run, vlm={"backends": {"farm": FARM}})
    found = samples(http)
    at = (("backend", "farm"), ("server", "http://gpu1/v1"))
    state = "flowrun_backend_server_state"
    assert found[(state, *at, ("state", "failing"), ("task", "vlm"))] == 1
    assert found[(state, *at, ("state", "ok"), ("task", "vlm"))] == 0
    for name, value in (("outstanding", 2), ("answers_total", 7), ("failures_total", 3)):
        assert found[(f"flowrun_backend_server_{name}", *at, ("task", "vlm"))] == value


@pytest.mark.parametrize(
    ("tasks", "status", "word", "why"),
    [
        ({}, 200, "ok", ""),
        ({"cam0": {"state": "connecting", "code": "refused"}}, 200, "degraded",
         "source cam0 is connecting (refused)"),
        ({"cam0": {"state": "lost", "code": "timeout"}}, 200, "degraded",
         "source cam0 is lost (timeout)"),
        ({"screen": {"late_s": 12.4}}, 503, "stuck", "task screen for 12 s"),
        ({"vlm": {"late_s": 30.0}}, 200, "degraded", "task vlm is late"),
        ({"vlm": {"backends": {"llama": FAILING}}}, 200, "degraded",
         "backend llama of task vlm has failed for 12 s: connection refused"),
        ({"vlm": {"backends": {"llama": replace(FAILING, used=False)}}}, 200, "ok", ""),
        ({"vlm": {"backends": {"farm": FARM}}}, 200, "degraded",
         "server http://gpu1/v1 of backend farm of task vlm has failed for 4 s: gone"),
        ({"vlm": {"backends": {"farm": replace(FARM, used=False)}}}, 200, "ok", ""),
    ],
)  # fmt: skip
def test_health_is_a_word_and_a_status(run, http, tasks, status, word, why):
    run.cycle()
    reporting(run, **tasks)
    reply = http.get("/health")
    assert reply.status_code == status
    assert reply.json() == {
        "status": word, "why": why, "id": "inference", "cycles": 1,
        "cycle_rate_hz": run.report().cycle_rate_hz,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("ago_s", "expected"),
    [(59, ("degraded", "errors of task vlm: 3, the last one: ValueError: no")), (61, ("ok", ""))],
)
def test_only_what_was_raised_lately_is_a_sign(run, http, ago_s, expected):
    run.cycle()
    raised = Raised(3, "ValueError: no", 1, run.report().at_ns - ago_s * 10**9)
    reporting(run, vlm={"raised": raised})
    reply = http.get("/health").json()
    assert (reply["status"], reply["why"]) == expected


def test_a_run_that_starts_or_has_ended_says_so(run, http):
    assert http.get("/health").json()["status"] == "starting"
    run.end()
    reply = http.get("/health")
    assert (reply.status_code, reply.json()["status"]) == (503, "ended")


def test_whoami_has_the_seeds_keys(http):
    reply = http.get("/api/v0/stats/whoami").json()
    assert list(reply) == [
        "arch", "desktop_env", "device_name", "distro", "hostname", "platform", "realname",
        "username",
    ]  # fmt: skip
    assert (reply["hostname"], reply["arch"]) == (socket.gethostname(), platform.machine())
    assert all(reply.values())


def test_sysinfo_has_the_seeds_keys_and_true_figures(http):
    reply = http.get("/api/v0/stats/sysinfo").json()
    assert list(reply) == [
        "total_memory", "free_memory", "used_memory", "available_memory", "total_swap", "name",
        "kernel_version", "os_version", "host_name", "cpus", "disks", "global_cpu_usage",
    ]  # fmt: skip
    total = Path("/proc/meminfo").read_text(encoding="ascii").split()[1]
    assert reply["total_memory"] == int(total) * 1024
    assert list(reply["cpus"][0]) == ["name", "brand", "frequency", "usage"]
    assert 0 <= reply["global_cpu_usage"] <= 100
    for disk in reply["disks"]:
        assert list(disk) == [
            "name", "file_system", "mount_point", "total_space", "available_space",
        ]  # fmt: skip


def test_every_path_has_a_summary_of_its_own_words(http):
    described = http.get("/openapi.json").json()["paths"]
    for path, operations in described.items():
        for operation in operations.values():
            assert len(operation["summary"]) > 20, path
            assert (
                operation["description"]
                .replace("\n", " ")
                .replace("`", "")
                .startswith(operation["summary"])
            )


def test_links_to_other_partitions_are_there_and_a_lost_one_degrades_the_run(run, http):
    assert not any(name.startswith("flowrun_link") for name, *_ in samples(http))
    plain = run.report
    links = (
        LinkStatus("dock/0", "in", "lost", 7, 9, 3, gaps=1, skipped=5, clock_offset_ms=-4.0),
        LinkStatus("desk/0", "out", "connected", 9, 9, 0),
    )
    run.cycle()
    run.report = lambda: replace(plain(), part="gpu/0", links=links)
    found = samples(http)
    dock = (("direction", "in"), ("part", "gpu/0"), ("peer", "dock/0"))
    assert found[("flowrun_link_state", *dock, ("state", "lost"))] == 1
    assert found[("flowrun_link_state", *dock, ("state", "connected"))] == 0
    assert found[("flowrun_link_lag_cycles", *dock)] == 3
    assert found[("flowrun_link_gaps_total", *dock)] == 1
    assert found[("flowrun_link_skipped_total", *dock)] == 5
    assert found[("flowrun_link_clock_offset_seconds", *dock)] == -0.004
    health = http.get("/health").json()
    assert (health["status"], health["why"]) == ("degraded", "link from dock/0 is lost")


def test_all_processes_of_a_fleet_are_there_and_one_that_is_gone_degrades_the_run(run, http):
    plain = run.report
    sent = LinkStatus("gpu/0", "out", "lost", 7, 9, 3, reconnects=2)
    fleet = (
        PartStatus("dock/0", "running", cycles=9, cycle_rate_hz=3.0, links=(sent,)),
        PartStatus("gpu/0", "gone", cycles=7, errors=4, heard_s=12.5),
        PartStatus("desk/0", "failed", error="no camera"),
        PartStatus("hub/0"),
    )
    run.cycle()
    run.report = lambda: replace(plain(), part="dock/0", links=(sent,), fleet=fleet)
    found = samples(http)
    assert found[("flowrun_fleet_state", ("part", "gpu/0"), ("state", "gone"))] == 1
    assert found[("flowrun_fleet_state", ("part", "hub/0"), ("state", "unknown"))] == 1
    assert found[("flowrun_fleet_cycles_total", ("part", "dock/0"))] == 9
    assert found[("flowrun_fleet_cycle_rate_hz", ("part", "dock/0"))] == 3
    assert found[("flowrun_fleet_errors_total", ("part", "gpu/0"))] == 4
    assert found[("flowrun_fleet_heard_seconds", ("part", "gpu/0"))] == 12.5
    link = (("receiver", "gpu/0"), ("sender", "dock/0"))
    assert found[("flowrun_fleet_link_state", *link, ("state", "lost"))] == 1
    assert found[("flowrun_fleet_link_lag_cycles", *link)] == 3
    assert found[("flowrun_fleet_link_reconnects_total", *link)] == 2
    health = http.get("/health").json()
    assert (health["status"], health["why"]) == (
        "degraded",
        "link to gpu/0 is lost; partition desk/0 has failed: no camera",
    )
    run.report = lambda: replace(plain(), part="dock/0", fleet=fleet[:2])
    assert http.get("/health").json()["why"] == "partition gpu/0 is gone"
