"""Recorded frames asked again: prompts, models, labels, what is known, and after an interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from flowrun.runtime.cli import main
from flowrun.runtime.errors import GraphError, LogError, UsageError
from flowrun.runtime.log.message import Topic
from flowrun.runtime.recorded.run import RecordedRun
from flowrun.runtime.replay.page import Board
from flowrun.runtime.testbench import spread
from flowrun.runtime.testbench.store import Store
from flowrun.tasks.embedded import MODEL_DIR
from flowrun.tasks.evaluation import evaluate as module
from flowrun.tasks.evaluation.answers_page import page_of
from flowrun.tasks.evaluation.evaluate import RECORDING, evaluate
from flowrun.tasks.evaluation.leaderboard import as_json, as_markdown, as_text
from flowrun.tasks.evaluation.recorded import _askings
from flowrun.tasks.evaluation.variants import variants_of
from support.answer_tasks import answered
from support.held import held
from support.helpers import plan_of, record
from support.in_process import spread_here
from support.paths import MEDIA, ROOT


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """A run of `Says` and `Finds`; each third picture is answered, from picture 9 on to "second"."""
    return answered(tmp_path_factory.mktemp("answers"))


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def here(monkeypatch) -> list[int]:
    """Do the work of the worker processes in this one; the numbers of pieces that were done."""
    done: list[int] = []

    monkeypatch.setattr(spread, "spread", spread_here(done))
    return done


def shares(found: module.Evaluation) -> dict[str, tuple[int, int]]:
    return {it.name: (it.right, it.scored) for it in found.standings}


def test_each_prompt_is_asked_about_the_recorded_pictures_once(recorded, tmp_path, here):
    variants = variants_of([], [], ["first", "second"])
    progress: list[tuple[int, int]] = []
    with Store(tmp_path / "s.sqlite") as store:
        found = evaluate(
            [recorded],
            variants,
            tasks=["says"],
            store=store,
            progress=lambda *it: progress.append(it),
        )
        asked, firsts = len(found.asked), 3
        assert [it.answer["response"] for it in found.asked][:4] == [
            "first: 0", "first: 3", "first: 6", "second: 9"
        ]  # fmt: skip
        assert shares(found) == {"'first'": (firsts, asked), "'second'": (asked - firsts, asked)}
        assert found.standings[0].name == "'second'"
        assert (found.known, found.made, progress[-1]) == (0, 2 * asked, (2 * asked, 2 * asked))
        del here[:]
        again = evaluate([recorded], variants, tasks=["says"], store=store)
        assert (again.known, again.made, here) == (2 * asked, 0, [])
        assert shares(again) == shares(found)
        more = evaluate(
            [recorded], variants_of([], [], ["first", "third"]), tasks=["says"], store=store
        )
        assert (more.known, more.made) == (asked, asked)
        elsewhere = shutil.copytree(recorded, tmp_path / "copied")
        copied = evaluate([elsewhere], variants, tasks=["says"], store=store)
        assert copied.made == 0


def test_where_all_is_known_no_process_is_started_and_no_model_or_decoder_loaded(
    recorded, tmp_path, here
):
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        evaluate([recorded], variants_of([], [], ["first"]), tasks=["says"], store=store)
    words = ["eval", str(recorded), "--task", "says", "--prompt", "first", "--cache", str(path)]
    code = (
        "import json, sys\n"
        "from flowrun.runtime.cli import main\n"
        f"assert main({[*words, '--json']}) == 0\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT / "tests"
    )
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    heavy = {"PIL", "av", "multiprocessing", "networkx", "pydantic", "rich", "scipy", "torch"}
    assert {name.partition(".")[0] for name in modules} & heavy == set()
    assert modules & {"flowrun.runtime.pictures.decode", "flowrun.runtime.graph.plan"} == set()


def test_detections_are_compared_by_overlap_and_all_tasks_are_asked(recorded, here):
    found = evaluate([recorded], variants_of([], [], []))
    assert shares(found) == {"asked again": (len(found.asked), len(found.asked))}
    assert {it.asking.name for it in found.asked} == {"says", "finds.out"}
    assert evaluate([recorded], variants_of([], [], []), most=7).notes == [
        f"7 of {len(found.asked)} answers, spread evenly"
    ]


def test_with_labels_only_labelled_answers_count(recorded, tmp_path, here):
    run = shutil.copytree(recorded, tmp_path / "run")
    opened = RecordedRun("run", run)
    cycles = {it.answer["response"]: it.cycle for it in evaluate([run], variants_of([], [], [])).asked
              if "response" in it.answer}  # fmt: skip
    opened.label(cycles["first: 3"], "right", task="says")
    opened.label(cycles["first: 6"], "wrong", task="says", expected="second: 6.")
    opened.label(cycles["second: 9"], "wrong", task="says")
    labels = {run: [*opened.labels.all()]}
    opened.close()
    found = evaluate([run], variants_of([], [], ["first", "second"]), labels=labels)
    # Of picture 9 is only known that "second: 9" is wrong.
    assert shares(found) == {"'first'": (1, 2), "'second'": (1, 3), RECORDING: (1, 3)}
    assert found.by == "labels"
    text = as_text(found)
    assert text.startswith("3 answers of 1 run, compared with what is labelled as right")
    assert text.splitlines()[2].split()[:4] == ["#", "right", "of", "95"]
    assert text.endswith("Each p is corrected for 3 comparisons (Holm).")
    changed = as_json(found, command="c")["changed"]
    assert {it["wrong"] for it in changed} == {"", "second: 9"}


def test_reports_say_who_is_first_and_show_each_changed_answer(recorded, here):
    found = evaluate([recorded], variants_of([], [], ["first", "second"]), tasks=["says"])
    assert "| 1 | 'second' |" in as_markdown(found)
    whole = as_json(found, command="c")
    assert [it["rank"] for it in whole["standings"]] == [1, 2]
    page = page_of(found, Board((), (), ()), lead="l", command="c")
    assert len(page.entries) == len(whole["changed"]) == len(found.asked)
    assert all(len(it.pictures) == 1 for it in page.entries)
    assert page.pictures[page.entries[0].pictures[0][1]].startswith(b"\xff\xd8")
    assert "'second' is first of 2" in page.text()


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ((["a"], [], []), "'model'"),
        (([], ["gpt"], []), "'backend'"),
        ((["embedded"], [], ["x", "x"]), "'x' is given twice"),
    ],
)
def test_what_a_task_does_not_take_is_said_before_anything_is_asked(recorded, here, given, error):
    with pytest.raises((GraphError, UsageError), match=error):
        evaluate([recorded], variants_of(*given), tasks=["says"])
    assert here == []


def test_an_unknown_task_and_a_run_without_pictures_are_named(recorded, here):
    with pytest.raises(UsageError, match="no task 'say' that answers about pictures; there are: "):
        evaluate([recorded], variants_of([], [], []), tasks=["say"])


def test_a_run_that_cannot_be_read_or_lacks_the_task_is_left_out(recorded, tmp_path, here):
    torn = shutil.copytree(recorded, tmp_path / "torn")
    for slab in torn.glob("*.mcap"):
        slab.write_bytes(b"no log")
    numbers = tmp_path / "numbers"
    record(plan_of(tmp_path, "n=Numbers(limit: 4)"), numbers)
    found = evaluate([torn, numbers, recorded], variants_of([], [], []), tasks=["says"])
    assert [it.path for it in found.runs] == [recorded]
    assert {it.run for it in found.asked} == {0}
    whole = evaluate([recorded], variants_of([], [], []), tasks=["says"])
    assert shares(found) == shares(whole)
    first, second = found.notes
    assert first.startswith(f"left out: {torn}/log_0000.mcap: ")
    assert second == (
        f"left out: {numbers}: no task 'says' that answers about pictures; there are: none"
    )
    with pytest.raises(LogError, match="torn/log_0000.mcap"):
        evaluate([torn, numbers], variants_of([], [], []), tasks=["says"])


def test_on_a_full_disk_the_leaderboard_comes_and_says_what_is_not_kept(recorded, tmp_path, here):
    with Store(tmp_path / "s.sqlite") as store:
        [(pages,)] = store._file.execute("PRAGMA page_count")
        store._file.execute(f"PRAGMA max_page_count = {pages}")
        found = evaluate([recorded], variants_of([], [], []), store=store)
    assert shares(found) == {"asked again": (len(found.asked), len(found.asked))}
    assert found.notes == [
        f"{store.path}: results are not kept: database or disk is full; what was asked now will be "
        "asked again"
    ]


def test_where_nothing_can_be_kept_the_leaderboard_comes_all_the_same(
    recorded, tmp_path, here, monkeypatch, capsys
):
    (tmp_path / "flowrun").write_text("a file, where the folder of the cache would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = ["eval", str(recorded), "--task", "says", "--json"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["standings"][0]["share"] == 1
    path = tmp_path / "flowrun" / "results.sqlite"
    assert printed.err == (
        f"what is computed now is not kept: {path}: no results can be kept there: [Errno 17] File "
        f"exists: '{path.parent}'; choose another folder\n"
    )
    assert main([*words, "--cache", str(path)]) == 2
    assert "no results can be kept there" in capsys.readouterr().err


def test_a_shadow_is_no_recorded_truth():
    def topic(task: str, port: str, kind: str, encoding: str) -> Topic:
        return Topic(f"/{task}/{port}", encoding, kind, "", b"", {"task": task, "port": port})

    topics = [
        topic("cam", "image", "foxglove.RawImage", "protobuf"),
        topic("vlm", "answer", "PromptResponseMsg", "msgpack"),
        topic("vlm_shadow", "answer", "PromptResponseMsg", "msgpack"),
    ]
    tasks = [
        {"id": "cam", "type": "VideoCapture"},
        {"id": "vlm", "type": "Inference", "config": {"shadow": {"backend": "embedded"}}},
        {"id": "vlm_shadow", "type": "flowrun.tasks.inference.ShadowInference", "config": {}},
    ]
    cnx = [{"src": "cam", "dst": name} for name in ("vlm", "vlm_shadow")]
    found = _askings({"tasks": tasks, "cnx": cnx}, {it.name: it for it in topics}, {"vlm_shadow"})
    assert [(it.task, it.camera, it.topic) for it in found] == [("vlm", "cam", "/cam/image")]


# -- with the model that ships ---------------------------------------------------------------------

GRAPH = """
tasks:
  - {id: cam, type: VideoCapture, config: {source_uri: FILM, realtime: false}}
  - {id: caption, type: Inference, every: EVERY, config: {prompt: cap en, max_new_tokens: 30}}
cnx:
  - {src: cam, dst: caption, msg: ImageRgb8Msg}
"""


def filmed(folder: Path, *, cycles: int, every: int) -> Path:
    """A run of the shipped model on the shipped film."""
    text = GRAPH.replace("FILM", str(MEDIA / "shapes.mp4")).replace("EVERY", str(every))
    (folder / "shapes.yaml").write_text(text)
    words = ["run", str(folder / "shapes.yaml"), "--cycles", str(cycles), "--port", "-1", "--plain"]
    assert main([*words, "--log-dir", str(folder / "runs")]) == 0
    [run] = (it for it in (folder / "runs").iterdir() if it.is_dir())
    return run


def worse_model(folder: Path) -> Path:
    """The shipped model, with weights that somebody has stirred."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(MODEL_DIR, folder)
    [path] = folder.glob("*.safetensors")
    stirred = torch.Generator().manual_seed(7)
    weights = load_file(path)
    for name, it in weights.items():
        if it.ndim > 1:
            noise = torch.randn(it.shape, generator=stirred, dtype=torch.float32) * it.float().std()
            weights[name] = (it.float() + 0.6 * noise).to(it.dtype)
    save_file(weights, path, metadata={"format": "pt"})
    return folder


@pytest.mark.long
def test_a_worse_model_and_a_worse_prompt_rank_last_and_nothing_is_asked_twice(tmp_path, capsys):
    run = filmed(tmp_path, cycles=80, every=8)
    worse = worse_model(tmp_path / "worse")
    words = [
        "eval",
        str(run),
        "--model",
        "embedded",
        str(worse),
        "--cache",
        str(tmp_path / "s.sqlite"),
    ]
    words += ["--prompt", "cap en", "answer en how many shapes are there?", "--json"]
    capsys.readouterr()
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    shares = {it["name"]: it["share"] for it in found["standings"]}
    assert found["standings"][0]["name"] == "embedded, 'cap en'"
    assert shares.pop("embedded, 'cap en'") == 1
    assert len(shares) == 3
    assert max(shares.values()) < 0.5
    assert main(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["known"], again["asked"]) == (found["asked"], 0)
    assert again["standings"] == [it | {"cached": 10} for it in found["standings"]]
    # Another file of the model, and all its answers are asked for again, but not those of the other.
    (worse / "generation_config.json").write_text(
        (worse / "generation_config.json").read_text() + " "
    )
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["asked"] == 20


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_was_answered_before_it_was_ended_is_not_asked_again(tmp_path, here, number, capsys):
    run = filmed(tmp_path, cycles=40, every=4)
    store = tmp_path / "s.sqlite"
    words = ["eval", str(run), "--prompt", "cap en", "cap de", "--cache", str(store), "--json"]
    command = held("flowrun.runtime.testbench.spread", *words)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ}) as process:
        while process.poll() is None and _kept(store) < 1:
            time.sleep(0.05)  # it needs the processor
        process.send_signal(number)
        assert process.wait(60) == (130 if number == signal.SIGINT else -9)
    before = _kept(store)
    assert 0 < before < 20
    capsys.readouterr()
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["known"], found["asked"]) == (before, 20 - before)


def _kept(path: Path) -> int:
    """The number of answers in a store that others write; what the run asked is a row of it, too."""
    import sqlite3

    if not path.exists():
        return 0
    with sqlite3.connect(path) as file:
        try:
            [(count,)] = file.execute("SELECT count(*) FROM results WHERE length(value) > 100")
        except sqlite3.Error:
            return 0
    found: int = count - 1
    return found
