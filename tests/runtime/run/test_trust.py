"""Whose run it is: the user's key, the signature of a run, and what is run of a log that has none."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.runtime.cli import main
from flowrun.runtime.clock import LiveClock
from flowrun.runtime.errors import NoKey, UntrustedRun
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from flowrun.runtime.run import trust
from flowrun.runtime.run.live import Run
from flowrun.runtime.run.trust import signed, user_key, why_not_own
from flowrun.runtime.testing import assert_replays

SENT = "it is signed with another key than yours, or was changed"


@pytest.fixture(autouse=True)
def _logs_as_they_were():
    yield
    structlog.reset_defaults()


# -- the key -----------------------------------------------------------------------------------


def test_the_key_is_made_once_for_the_users_eyes_only(tmp_path: Path) -> None:
    env = {"XDG_DATA_HOME": str(tmp_path / "data")}
    key = user_key(env)
    assert len(key) == 32
    assert user_key(env) == key
    folder = tmp_path / "data" / "flowrun"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert user_key({"XDG_DATA_HOME": str(tmp_path / "other")}) != key


def test_the_key_is_in_the_home_folder_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    user_key({"HOME": str(tmp_path)})
    user_key({"HOME": str(tmp_path), "XDG_DATA_HOME": "relative"})
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert found == [tmp_path / ".local" / "share" / "flowrun" / "key"]


def test_of_all_that_make_the_key_at_once_one_does(tmp_path: Path) -> None:
    for number in range(20):
        env = {"XDG_DATA_HOME": str(tmp_path / str(number))}
        with ThreadPoolExecutor(8) as pool:
            keys = set(pool.map(user_key, [env] * 16))
        assert len(keys) == 1


def no_key(path: Path) -> str:
    with pytest.raises(NoKey) as caught:
        user_key({"XDG_DATA_HOME": str(path)})
    return str(caught.value)


def test_a_key_that_is_none_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert no_key(tmp_path / "file").endswith("/file/flowrun/key: Not a directory")
    key = tmp_path / "flowrun" / "key"
    user_key({"XDG_DATA_HOME": str(tmp_path)})
    key.chmod(0o640)
    assert no_key(tmp_path) == (
        f"the key {key} can be read by other users, who can sign with it; remove it, and flowrun "
        "makes another"
    )
    key.chmod(0o600)
    key.write_bytes(b"short")
    assert no_key(tmp_path) == (f"the key {key} is damaged; remove it, and flowrun makes another")
    key.unlink()
    os.mkfifo(key, 0o600)
    assert no_key(tmp_path) == f"the key {key} is not a file"
    key.unlink()
    key.touch(0o600)  # as a start that was cut off leaves it
    assert len(user_key({"XDG_DATA_HOME": str(tmp_path)})) == 32


def test_a_run_without_a_key_is_recorded_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    record_marked(tmp_path, "unsigned_tasks")
    said = capsys.readouterr().err
    assert "the run is not signed: a replay will not know that it is yours" in said
    with pytest.raises(UntrustedRun, match="it is not signed"):
        Replay(tmp_path / "run")
    assert Replay(tmp_path / "run", trust=True).run().differing == 0


# -- the signature -----------------------------------------------------------------------------


TEXTS = st.text(max_size=8)
METADATA = st.dictionaries(
    st.sampled_from([*trust._DECIDE, "code_a", "code_b", "version_numpy"]), TEXTS
)


@settings(max_examples=40)
@given(METADATA, st.binary(max_size=8), st.data())
def test_a_change_of_what_a_replay_runs_is_found(
    metadata: dict[str, str], graph: bytes, data: st.DataObject
) -> None:
    written = signed(metadata, graph, os.environ)
    assert why_not_own(written, graph, os.environ) is None
    assert why_not_own(written, graph + b"#", os.environ) == SENT
    assert why_not_own({**written, "signature": "0" * 64}, graph, os.environ) == SENT
    assert why_not_own({**written, "signature": "é"}, graph, os.environ) == SENT
    assert why_not_own(metadata, graph, os.environ) == "it is not signed"
    name = data.draw(st.sampled_from([*trust._DECIDE, "code_a", "code_b", "code_c"]))
    text = data.draw(TEXTS)
    if metadata.get(name) != text:
        assert why_not_own({**written, name: text}, graph, os.environ) == SENT
    if name in metadata:
        del written[name]
        assert why_not_own(written, graph, os.environ) == SENT


# -- a log that somebody sent ------------------------------------------------------------------


def record_marked(folder: Path, module: str) -> Path:
    """A run of tasks whose module leaves a mark when it is imported; the file of the mark, which is
    gone again."""
    mark = folder / f"{module}.mark"
    (folder / f"{module}.py").write_text(
        dedent(f"""\
        from pathlib import Path

        from flowrun.msgs import IntMsg
        from flowrun.runtime.task import Context, Input, Output, Task

        Path({str(mark)!r}).touch()

        class Twice(Task):
            def process(self, ctx: Context, number: Input[IntMsg], out: Output[IntMsg]) -> None:
                out.value = 2 * number.value
                out.publish()
        """)
    )
    graph = folder / f"{module}.yaml"
    graph.write_text(
        "tasks:\n"
        "  - {id: counter, type: Counter, config: {limit: 3}}\n"
        f"  - {{id: twice, type: {module}.Twice}}\n"
        "cnx:\n"
        "  - {src: counter, dst: twice, msg: IntMsg}\n"
        "logging: {slab_size_mib: 1, section_size_mib: 1}\n"
    )
    plan = load_plan(graph, env={})
    result = Run(plan, clock=LiveClock(), directory=folder / "run").run()
    assert result.error is None
    assert mark.exists()
    mark.unlink()
    del sys.modules[module]
    return mark


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a graph, `sent_tasks.yaml`, and its `run`, which another user has recorded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path / "another user"))
        record_marked(tmp_path, "sent_tasks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "sent_tasks", None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "sent_tasks")
    return tmp_path


@pytest.mark.parametrize("verb", ["replay", "debug"])
def test_a_run_that_was_sent_runs_nothing_and_says_what_to_type(
    sent: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "run"]) == 2
    assert capsys.readouterr().err == (
        f"run: {SENT}, so it may not be yours, and nothing that its graph names is run:\n"
        f"  code: sent_tasks.Twice, from {sent}, the module path or a package\n"
        f"to run it all the same: flowrun {verb} run --trust\n"
        f"to run a graph of your own on its sources: flowrun {verb} run GRAPH\n"
    )
    assert not (sent / "sent_tasks.mark").exists()
    commands = ["-c", "next"] if verb == "debug" else []
    assert main([verb, "run", "--trust", *commands]) == 0
    assert (sent / "sent_tasks.mark").exists()
    assert main([verb, "run", "sent_tasks.yaml", *commands]) == 0


def test_in_python_it_is_an_argument(sent: Path) -> None:
    with pytest.raises(UntrustedRun) as caught:
        Replay("run")
    assert str(caught.value) == (
        f"run: {SENT}, so nothing that its graph names is run\n"
        f"  code: sent_tasks.Twice, from {sent}, the module path or a package\n"
        "replay it with a graph of your own, or say that you trust it"
    )
    with pytest.raises(AssertionError, match="may not|another key"):
        assert_replays("run")
    assert not (sent / "sent_tasks.mark").exists()
    assert_replays("run", graph="sent_tasks.yaml")
    assert_replays("run", trust=True)
    assert Replay("run", graph="sent_tasks.yaml").run().compared == 3


def test_opening_a_run_that_was_sent_runs_nothing(sent: Path) -> None:
    for words in (
        "info run", "ls run", "cat run", "check run", "diff run run", "recover run",
        "export run -o out.jsonl", "export run -o out.json --to trace",
    ):  # fmt: skip
        assert main(["log", *words.split()]) in (0, 1), words
    assert not (sent / "sent_tasks.mark").exists()


def test_the_commands_of_a_run_that_was_sent_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    graph = tmp_path / "g.yaml"
    graph.write_text(
        dedent(f"""\
        tasks:
          - {{id: camera, type: support.scene_tasks.Scenes}}
          - id: inference
            type: Inference
            config:
              backend: llama
              backends:
                llama:
                  type: openai
                  base_url: "http://127.0.0.1:9/v1"
                  server: {{command: [touch, {mark}]}}
        cnx:
          - {{src: camera, dst: inference, msg: ImageRgb8Msg}}
        logging: {{slab_size_mib: 1, section_size_mib: 1}}
        """)
    )
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another user"))
    plan = load_plan(graph, env={})
    recording = Run(plan, clock=LiveClock(), directory=tmp_path / "run")._recording
    recording.finish("end", None, cycles=0)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with pytest.raises(UntrustedRun) as caught:
        Replay(tmp_path / "run", only=["inference"])
    assert caught.value.would_run == (
        f"code: support.scene_tasks.Scenes, from {tmp_path}, the module path or a package",
        f"command: touch {mark}",
    )
    assert not mark.exists()


def test_ones_own_runs_may_be_moved_and_copied(tmp_path: Path) -> None:
    record_marked(tmp_path, "moved_tasks")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert Replay(tmp_path / "elsewhere").run().compared == 3
    with Log(tmp_path / "elsewhere") as log:
        [slab] = [slab.path for slab in log.slabs]
    assert Replay(slab).run().compared == 3


def test_what_a_replay_writes_is_ones_own(tmp_path: Path) -> None:
    record_marked(tmp_path, "again_tasks")
    again, third = str(tmp_path / "again"), str(tmp_path / "third")
    assert main(["replay", str(tmp_path / "run"), "--log-dir", again]) == 0
    assert main(["replay", again, "--log-dir", third]) == 0
    assert Replay(third).run().compared == 3


@pytest.mark.long
@pytest.mark.slow
def test_another_process_of_the_user_knows_its_runs(tmp_path: Path) -> None:
    record_marked(tmp_path, "process_tasks")
    done = subprocess.run(
        [sys.executable, "-m", "flowrun", "replay", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("3 messages identical (twice 3)\n"), done.stderr
