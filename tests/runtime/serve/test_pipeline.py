"""A graph as a child process: its states, its restarts, its end."""

import os
import signal
import threading

import pytest

from flowrun.runtime.serve.graphs import Graphs
from flowrun.runtime.serve.pipeline import PipelineError, State
from flowrun.runtime.serve.pipelines import Pipelines, UnknownPipelineError
from support.pipelines import (
    FOREVER,
    KILLED,
    STUCK,
    is_alive,
    scripted_pipelines,
    wait_for,
    write_script,
)


@pytest.fixture
def new_pipeline(tmp_path):
    """Makes the pipeline of a script, and ends it."""
    made = []

    def make(script, **options):
        write_script(tmp_path, "it", script)
        pipelines, said = scripted_pipelines(tmp_path, **options)
        made.append(pipelines)
        return pipelines.find("it"), said

    yield make
    for pipelines in made:
        pipelines.stop_all()


def test_a_pipeline_runs_until_it_is_stopped(new_pipeline):
    pipeline, said = new_pipeline(FOREVER)
    assert pipeline.state() == State("stopped")
    pipeline.start()
    pid = wait_for(lambda: pipeline.state().pid)
    assert pipeline.state() == State("running", pid=pid)
    with pytest.raises(PipelineError, match="^Pipeline already exists$"):
        pipeline.start()
    pipeline.stop()
    assert pipeline.state() == State("stopped")
    assert not is_alive(pid)
    with pytest.raises(PipelineError, match="^Pipeline not found$"):
        pipeline.stop()
    assert said == ["it: started", "it: stopped"]


def test_the_command_is_that_of_a_run(new_pipeline, tmp_path):
    pipeline, all_said = new_pipeline("echo $0 $@ >&2; echo $FLOWRUN_TOKEN >&2", token="secret")
    pipeline.start()
    wait_for(lambda: pipeline.state().phase == "stopped")
    said = [line for line in all_said if " | " in line]
    assert said == [
        f"it | {tmp_path}/it.yaml --socket {pipeline.socket} --log-dir {tmp_path}/runs "
        "--root-path /pipelines/it --plain",
        "it | secret",
    ]


def test_a_run_that_ends_well_has_stopped(new_pipeline):
    pipeline, said = new_pipeline("echo hidden; echo shown >&2")
    pipeline.start()
    wait_for(lambda: "it: ended" in said)
    assert pipeline.state() == State("stopped")
    assert said == ["it: started", "it | shown", "it: ended"]


def test_a_run_that_fails_says_its_error_until_it_is_started_again(new_pipeline, tmp_path):
    pipeline, said = new_pipeline(
        "echo log >&2; echo 'error: task x failed' >&2; echo '  at x.py:1' >&2; exit 1"
    )
    pipeline.start()
    with pytest.raises(PipelineError, match="^task x failed\n  at x.py:1$"):
        pipeline.wait_until_serving(60)
    assert pipeline.state() == State("failed", error="task x failed\n  at x.py:1")
    assert said[-1] == "it: failed: task x failed"
    write_script(tmp_path, "it", FOREVER)
    pipeline.start()
    assert pipeline.state().phase == "running"
    assert pipeline.state().error is None


def test_stopping_a_failed_pipeline_forgets_its_error(new_pipeline):
    pipeline, _ = new_pipeline("exit 3")
    pipeline.start()
    wait_for(lambda: pipeline.state().phase == "failed")
    assert pipeline.state().error == "ended with status 3"
    pipeline.stop()
    assert pipeline.state() == State("stopped")


def test_a_killed_run_is_named_as_that(new_pipeline):
    pipeline, _ = new_pipeline(FOREVER)
    pipeline.start()
    os.kill(wait_for(lambda: pipeline.state().pid), signal.SIGKILL)
    wait_for(lambda: pipeline.state().phase == "failed")
    assert pipeline.state() == State("failed", error=KILLED)


def test_a_run_that_fails_is_started_again_after_pauses(new_pipeline):
    pipeline, said = new_pipeline("exit 1")
    pipeline.start("on-failure")
    wait_for(lambda: len(said) >= 5)
    state = wait_for(lambda: (it := pipeline.state()).phase == "waiting" and it)
    assert state.error == "ended with status 1"
    assert state.restarts >= 3
    assert state.next_start_s > 0
    pipeline.stop()
    assert pipeline.state().phase == "stopped"
    pauses = [line.rpartition("; ")[2] for line in said[1:5]]
    assert pauses == [f"starts again in {pause} s" for pause in ("0.01", "0.02", "0.04", "0.08")]


def test_a_run_that_ends_well_is_started_again_only_if_always(new_pipeline):
    pipeline, said = new_pipeline("exit 0")
    pipeline.start("on-failure")
    wait_for(lambda: len(said) == 2)
    assert said[1] == "it: ended"
    pipeline.start("always")
    wait_for(lambda: len(said) >= 5)
    assert said[3:5] == [f"it: ended; starts again in {pause} s" for pause in ("0.01", "0.02")]


def test_a_waiting_pipeline_may_be_started_at_once(new_pipeline, tmp_path):
    pipeline, _ = new_pipeline("exit 1", first_pause_s=1000)
    pipeline.start("always")
    wait_for(lambda: pipeline.state().phase == "waiting")
    write_script(tmp_path, "it", FOREVER)
    pipeline.start()
    assert pipeline.state().phase == "running"
    assert pipeline.state().restart == "never"


def test_a_stuck_run_is_killed(new_pipeline, monkeypatch):
    monkeypatch.setattr("flowrun.runtime.serve.pipeline._PATIENCE_S", 0.2)
    pipeline, said = new_pipeline(f"echo stuck >&2; {STUCK}")
    pipeline.start()
    wait_for(lambda: "it | stuck" in said)
    pid = pipeline.state().pid
    pipeline.stop()
    assert not is_alive(pid)
    assert pipeline.state() == State("stopped")


def test_a_stop_while_a_pipeline_starts_ends_the_wait(new_pipeline):
    pipeline, _ = new_pipeline(FOREVER)
    pipeline.start()
    waiting = threading.Thread(target=pipeline.wait_until_serving, args=[1000.0])
    waiting.start()
    pipeline.stop()
    waiting.join(60)
    assert not waiting.is_alive()


def test_a_stop_during_a_restart_is_done_after_it(new_pipeline):
    pipeline, said = new_pipeline("trap 'sleep 0.2; exit 0' TERM; sleep 1000 & wait")
    pipeline.start("always")
    first = wait_for(lambda: pipeline.state().pid)
    restart = threading.Thread(target=pipeline.restart)
    restart.start()
    wait_for(lambda: pipeline.state().phase == "stopping" or pipeline.state().pid != first)
    pipeline.stop()
    restart.join()
    assert pipeline.state() == State("stopped", restart="always")
    assert said == ["it: started", "it: stopped"] * 2


def test_of_many_starts_at_once_one_is_done(new_pipeline):
    pipeline, said = new_pipeline(FOREVER)
    refused = []

    def start():
        try:
            pipeline.start()
        except PipelineError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == ["Pipeline already exists"] * 7
    assert said == ["it: started"]


def test_a_folder_has_the_graphs_that_are_in_it_now(tmp_path):
    pipelines, _ = scripted_pipelines(tmp_path)
    with pytest.raises(UnknownPipelineError) as caught:
        pipelines.find("cam")
    assert str(caught.value) == (
        f"Pipeline not supported. Try none: {tmp_path} holds no graph file"
    )
    write_script(tmp_path, "camera", FOREVER)
    write_script(tmp_path, ".hidden", FOREVER)
    (tmp_path / "compose.yaml").write_text("services:\n  tasks: {}\n")
    (tmp_path / "b.yml").write_text('{"tasks": [')
    assert [it.name for it in pipelines.all()] == ["b", "camera"]
    with pytest.raises(UnknownPipelineError) as caught:
        pipelines.find("camra")
    assert str(caught.value) == ("Pipeline not supported. Try b, camera (did you mean 'camera'?)")


def test_a_pipeline_whose_file_is_gone_is_listed_while_it_runs(tmp_path):
    write_script(tmp_path, "it", FOREVER)
    pipelines, _ = scripted_pipelines(tmp_path)
    try:
        pipelines.find("it").start()
        (tmp_path / "it.yaml").unlink()
        assert [one.name for one in pipelines.all()] == ["it"]
        assert pipelines.find("it").is_running
    finally:
        pipelines.stop_all()
    assert pipelines.all() == []


def test_sockets_fit_wherever_temporary_files_are(tmp_path, monkeypatch):
    (tmp_path / ("long" * 25)).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 25)))
    graphs = Graphs(tmp_path)
    with Pipelines.open(graphs, log_dir=tmp_path, token=None, say=print) as pipelines:
        assert len(str(pipelines.place.sockets / "1000.sock")) < 107
        assert pipelines.place.sockets.stat().st_mode & 0o777 == 0o700
