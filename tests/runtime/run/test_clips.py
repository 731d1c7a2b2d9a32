"""What a run keeps of its alerts: films of recorded packets, whatever ends the run."""

from __future__ import annotations

import email
import json
import shutil
from email.policy import default
from pathlib import Path
from typing import Any

import av
import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.export.cases import CLIPS, make_missing
from flowrun.runtime.log.reader import Log
from flowrun.runtime.replay.replay import Replay
from support.answer_tasks import ran
from support.films import draw

GRAPH = """\
tasks:
  - {id: cam, type: VideoCapture, config: {source_uri: FILM}, logging: {codec: CODEC}}
  - {id: says, type: support.answer_tasks.Says, on_error: skip}
  - id: watch
    type: Alert
    config: {contains: "NUMBER", text: it burns, severity: critical, clip: {before_s: 0.1, after_s: 0.1}}
cnx:
  - {src: cam, dst: says, msg: ImageRgb8Msg}
  - {src: says, dst: watch, msg: PromptResponseMsg}
logging: {slab_size_mib: 8, section_size_mib: 1}
"""
S = 1_000_000_000


def run_of(folder: Path, *, number: int = 12, codec: str = "packets") -> Path:
    """A run of 24 pictures, every eighth a key frame, and an alert about one of them."""
    film = draw(folder / "film.mp4", bf="0")
    text = GRAPH.replace("FILM", str(film)).replace("NUMBER", str(number))
    return ran(text.replace("CODEC", codec), folder)


def case_of(run: Path) -> tuple[Path, dict[str, Any]]:
    [folder] = (run / CLIPS).iterdir()
    return folder, json.loads((folder / "case.json").read_text())


def packets_of(path: Path) -> list[tuple[bool, float]]:
    """Of each packet, whether it is a key frame, and when its picture is shown."""
    with av.open(str(path)) as container:
        [stream] = container.streams
        found = [it for it in container.demux(stream) if it.size]
        return [(it.is_keyframe, float(it.pts * stream.time_base)) for it in found]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("clips"))


def test_the_film_of_an_alert_is_copied_from_the_key_frame_before_it_on(run: Path) -> None:
    folder, case = case_of(run)
    assert folder.name == "00000012-watch"
    [film] = case["films"]
    packets = packets_of(folder / film["file"])
    assert [is_key for is_key, _ in packets] == [True, *[False] * 7]
    assert [round(at * 30) for _, at in packets] == list(range(8))
    assert (film["copied"], film["pictures"], film["notes"]) == (True, 8, [])
    assert (film["first_cycle"], film["last_cycle"]) == (8, 15)
    assert film["alert_at_s"] == pytest.approx(4 / 30, abs=1e-3)
    assert film["from_ns"] <= case["tov_ns"] - S // 10 < film["from_ns"] + 8 * S // 30
    with Log(run) as log:
        own = [bytes(it.payload) for it in log.messages("/cam/image", 8, 16)]
    with av.open(str(folder / film["file"])) as container:
        copied = [bytes(it) for it in container.demux(video=0) if it.size]
    assert all(data[-64:] in payload for data, payload in zip(copied, own, strict=True))


def test_a_case_says_what_was_raised_and_how_to_open_it(run: Path) -> None:
    folder, case = case_of(run)
    assert (case["run"], case["task"], case["cycle"], case["frame_id"]) == ("run", "watch", 12, 12)
    assert (case["text"], case["severity"], case["rule"]) == ("it burns", "critical", "contains 12")
    assert case["values"] == {"answer.response": "say: 12"}
    assert case["open"] == "flowrun view run --cycle 12"
    lines = [json.loads(it) for it in (folder / case["messages"]).read_text().splitlines()]
    assert [(it["topic"], it["cycle"]) for it in lines] == [
        ("/says/answer", 9),
        ("/says/answer", 12),
        ("/watch/alert", 12),
        ("/says/answer", 15),
    ]
    mail = email.message_from_bytes((folder / "alert.eml").read_bytes(), policy=default)
    assert mail["Subject"] == "[critical] it burns"
    [picture] = mail.iter_attachments()
    assert picture.get_content() == (folder / "picture.jpg").read_bytes()
    assert picture.get_content()[:2] == b"\xff\xd8"


def test_a_run_that_ends_within_the_film_keeps_what_there_is(tmp_path: Path) -> None:
    folder, case = case_of(run_of(tmp_path, number=21))
    [film] = case["films"]
    assert (film["first_cycle"], film["last_cycle"]) == (16, 23)
    assert film["notes"] == ["ends early: the log holds no later picture"]
    assert len(packets_of(folder / film["file"])) == 8


def test_pictures_without_packets_are_encoded(tmp_path: Path) -> None:
    folder, case = case_of(run_of(tmp_path, codec="zstd"))
    [film] = case["films"]
    assert (film["copied"], film["pictures"]) == (False, 7)
    assert packets_of(folder / film["file"])[0] == (True, 0)


def test_recovering_a_run_makes_the_clips_that_it_was_killed_over(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {it.name: it.read_bytes() for it in case_of(run)[0].iterdir()}
    killed = shutil.copytree(run, tmp_path / "run")
    made = killed / CLIPS / "00000012-watch"
    made.rename(killed / CLIPS / ".00000012-watch.part")  # as a process leaves it that is killed
    assert main(["log", "recover", str(killed)]) == 0
    assert f"made the clip {made}" in capsys.readouterr().out
    assert {it.name: it.read_bytes() for it in made.iterdir()}.keys() == kept.keys()
    assert (made / "cam.mp4").read_bytes() == kept["cam.mp4"]
    assert [it.name for it in (killed / CLIPS).iterdir()] == [made.name]
    assert make_missing(killed) == []


def test_a_replay_keeps_no_clips(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns(CLIPS))
    with Log(copy) as log:
        report = Replay(log).run()
    assert report.first is None
    assert not (copy / CLIPS).exists()
