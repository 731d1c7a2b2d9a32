"""Recorded runs over HTTP, asked by a real client."""

import asyncio
import errno
import io
import itertools
import json
import os
import shutil
import struct
from functools import partial
from pathlib import Path

import av
import httpx
import pytest
import structlog
from PIL import Image

from flowrun.runtime.log.reader import Log
from flowrun.runtime.recorded import runs as recorded_runs
from flowrun.runtime.recorded.runs import RecordedRuns
from flowrun.runtime.server.app import create_view_app
from flowrun.runtime.server.serve import Server
from support.answer_tasks import answered
from support.fake_run import FakeRun


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of two runs: a whole one, and one that was cut off."""
    found = tmp_path_factory.mktemp("runs")
    run = answered(found)
    structlog.reset_defaults()
    (found / "cut").mkdir()
    data = (run / "log_0000.mcap").read_bytes()
    (found / "cut" / "log_0000.mcap").write_bytes(data[: len(data) // 2])
    return found


@pytest.fixture(scope="module")
def http(folder):
    app = partial(create_view_app, RecordedRuns.at(folder))
    server = Server.start_app(app, host="127.0.0.1", port=0, token=None)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client
    server.stop()


def got(http, path, **params):
    reply = http.get(f"/api/v0/runs{path}", params=params)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_what_cannot_be_read_is_listed_with_the_reason_and_no_folder_of_the_server(
    folder, tmp_path, monkeypatch
):
    shutil.copytree(folder / "run", tmp_path / "good")
    for name, data in (("empty", b""), ("text", b"nothing"), ("short", b"\x89MCAP0\r\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log_0000.mcap").write_bytes(data)
    (tmp_path / "closed").mkdir()
    (tmp_path / "no run").mkdir()
    iterdir = Path.iterdir

    def guarded(path):
        if path == tmp_path / "closed":  # root may read everything
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", guarded)
    app = partial(create_view_app, RecordedRuns.at(tmp_path))
    server = Server.start_app(app, host="127.0.0.1", port=0, token=None)
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        found = {run["id"]: (run["state"], run["why"]) for run in got(client, "")}
        assert found == {
            "good": ("ended", "end of sources"),
            "closed": ("unreadable", "closed: cannot be read: Permission denied"),
            "empty": ("unreadable", "empty/log_0000.mcap: the file is empty"),
            "text": (
                "unreadable",
                "text/log_0000.mcap: byte 0: not an MCAP file: it begins with b'nothing'",
            ),
            "short": (
                "unreadable",
                "short/log_0000.mcap: byte 8: truncated record: expected 9 bytes, got 0; "
                "the preamble is needed to read a slab",
            ),
        }
        for name, (state, why) in found.items():
            for path in ("", "/lanes", "/moment", "/lines", "/latencies", "/seen"):
                reply = client.get(f"/api/v0/runs/{name}{path}")
                if state == "ended":
                    assert reply.status_code == 200
                else:
                    assert (reply.status_code, reply.json()) == (404, {"error": why})
    server.stop()


def test_runs_of_a_folder_are_listed(http):
    found = {run["id"]: run for run in got(http, "")}
    assert found.keys() == {"run", "cut"}
    assert [found["run"][key] for key in ("state", "why", "cycles")] == [
        "ended",
        "end of sources",
        25,
    ]
    assert found["cut"]["state"] == "cut off"
    assert http.get("/api/v0/pipeline/list").json() == []


def test_a_run_is_shown(http, folder):
    details = got(http, "/run")
    assert (details["first_cycle"], details["last_cycle"]) == (0, 24)
    lanes = got(http, "/run/lanes", bins=5, **{"from": 10, "to": 20})
    assert (lanes["from_cycle"], lanes["to_cycle"], sum(lanes["frames"])) == (10, 20, 11)
    moment = got(http, "/run/moment", cycle=12)
    assert moment["answers"]["says"]["response"] == "second: 12"
    image = http.get(f"{moment['images']['cam']['url']}&width=32")
    assert (image.headers["content-type"], image.headers["x-cycle"]) == ("image/jpeg", "12")
    assert Image.open(io.BytesIO(image.content)).size == (32, 24)
    assert got(http, "/run/moment")["cycle"] == 24


def in_sequence(data):
    """The messages of a reply with packets: texts, and (cycle, number, packets)."""
    while data:
        (word,) = struct.unpack_from("<I", data)
        size = word & 0x7FFFFFFF
        message, data = data[4 : 4 + size], data[4 + size :]
        if word >> 31:
            yield json.loads(message)
            continue
        count, cycle, _, number, _ = struct.unpack_from("<4xIQQQQ", message)
        sizes = [it & 0x7FFFFFFF for it in struct.unpack_from(f"<{count}I", message, 40)]
        ends = list(itertools.accumulate(sizes, initial=40 + 4 * count))
        yield cycle, number, [message[a:b] for a, b in itertools.pairwise(ends)]


@pytest.mark.parametrize(
    ("query", "cycles"),
    [
        ({"cycle": 12}, range(8, 13)),
        ({"cycle": 12, "ahead": 2}, range(8, 15)),
        ({"cycle": 12, "ahead": 1000}, range(8, 16)),
        ({"cycle": 12, "from": 10}, range(10, 13)),
        ({"cycle": 24}, range(16, 24)),
        ({"cycle": 23, "from": 24, "ahead": 30}, range(0)),
    ],
)
def test_packets_from_a_key_frame_on_give_the_pictures(http, folder, query, cycles):
    reply = http.get("/api/v0/runs/run/packets/cam", params=query)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/octet-stream")
    messages = list(in_sequence(reply.content))
    if "from" not in query:
        configured = messages.pop(0)
        assert (configured["task"], configured["codec"]) == ("cam", "avc1.64000a")
    assert [it[0] for it in messages] == list(cycles)
    if "from" in query:
        return
    decoder = av.CodecContext.create("h264", "r")
    with Log(folder / "run") as log:
        recorded = {it.cycle: it.pixels for it in log.frames("/cam/image")}
    for cycle, _, packets in messages:
        [picture] = [found for data in packets for found in decoder.decode(av.Packet(data))]
        difference = picture.to_ndarray(format="rgb24").astype(int) - recorded[cycle]
        assert abs(difference).mean() < 3


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/nope", 404, "no run 'nope'; runs: cut, run"),
        ("/..%2Frun", 404, "no such path '/api/v0/runs/../run'; GET / lists all"),
        ("/%2e%2e", 404, "no run '..'; runs: cut, run"),
        ("/a%00b", 404, "no run 'a\\x00b'; runs: cut, run"),
        ("/current", 404, "no run 'current'; runs: cut, run"),
        ("/run~9", 404, "no run 'run~9'; runs: cut, run"),
        (
            "/run/moment?cycle=25",
            404,
            "cycle 25 is not in the log, which holds cycles 0 to 24",
        ),
        (
            "/run/moment?cycle=-1",
            422,
            "cycle: Input should be greater than or equal to 0, got '-1'",
        ),
        (
            "/run/moment?cycle=1&at_ns=1",
            422,
            "cycle and at_ns: give one of the two",
        ),
        (
            "/run/image/says?cycle=3",
            404,
            "no pictures of 'says' in the log; tasks with pictures: cam",
        ),
        (
            "/run/lanes?from=40&to=50",
            404,
            "cycles 40 to 50: the log holds none of them; it holds cycles 0 to 24",
        ),
        (
            "/run/packets/says?cycle=3",
            404,
            "no pictures of 'says' in the log; tasks with pictures: cam",
        ),
        (
            "/run/packets/cam?cycle=25",
            404,
            "cycle 25 is not in the log, which holds cycles 0 to 24",
        ),
        ("/run/clip?from=9&to=3", 422, "from=9 is after to=3"),
        ("/run/test?from=9&to=3", 422, "from=9 is after to=3"),
        ("/run/what-if/1", 404, "no what-if '1' of run 'run'; there are: none"),
    ],
)
def test_what_is_not_there_is_a_clear_error(http, path, status, error):
    reply = http.get(f"/api/v0/runs{path}")
    assert (reply.status_code, reply.json()) == (status, {"error": error})


def test_the_file_of_a_clip_is_removed_whether_it_is_taken_or_not(
    http, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = "/api/v0/runs/run/clip?from=12&to=14"
    assert http.get(path).status_code == 200
    app = create_view_app(RecordedRuns.at(folder), token=None, host="127.0.0.1", connections=8)
    scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "method": "GET"}
    scope |= {"path": path.partition("?")[0]}
    scope |= {"query_string": b"from=12&to=14", "headers": [(b"host", b"localhost")]}
    sent = []

    async def send(message):
        sent.append((message["type"], len(list(tmp_path.iterdir()))))
        if message["type"] == "http.response.body":
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(app(scope, None, send))
    app.state.close()
    assert sent == [("http.response.start", 1), ("http.response.body", 1)]
    assert list(tmp_path.iterdir()) == []


def test_the_whole_log_and_a_clip_are_downloaded(http, folder, tmp_path):
    whole = http.get("/api/v0/runs/run/log.mcap").content
    assert whole == (folder / "run" / "log_0000.mcap").read_bytes()
    for path, cycles in (("cut/log.mcap", None), ("run/clip?from=12&to=14", {12, 13, 14})):
        reply = http.get(f"/api/v0/runs/{path}")
        file = tmp_path / "x.mcap"
        file.write_bytes(reply.content)
        with Log(file) as log:
            held = {record.cycle for record in log}
            assert (log.finished, log.loss) == (True, None)
        assert held >= (cycles or {0, 1, 2})
    test = got(http, "/run/test", **{"from": 12, "to": 14})
    assert test == {
        "file": "run-12-14.mcap",
        "url": "api/v0/runs/run/clip?from=12&to=14",
        "text": "def test_run_cycles_12_to_14(assert_replays):\n"
        "    assert_replays('run-12-14.mcap', start=12, to=14)\n",
    }


def test_a_wrong_answer_is_marked(http, folder):
    body = {"cycle": 14, "task": "says", "label": "wrong", "expected": "a ball"}
    made = http.post("/api/v0/runs/run/labels", json=body).json()
    assert (made["cycle"], made["answer"], made["prompt"]) == (12, "second: 12", "second")
    assert got(http, "/run/labels") == [made]
    assert (folder / "run" / "labels.jsonl").read_text().count("\n") == 1
    http.post("/api/v0/runs/run/labels", json=body | {"label": ""})
    assert got(http, "/run/labels") == []


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("labels", {"cycle": 1.5}, "cycle: expected the number of a cycle, got 1.5"),
        (
            "labels",
            {"cycle": 1, "x": 2},
            "unknown key 'x'; keys: cycle, task, label, expected, note, field, who",
        ),
        (
            "labels",
            {"cycle": 5, "task": "cam", "label": "wrong"},
            "task 'cam' has no answer at cycle 5; those that have: says, finds",
        ),
        ("what-if", {"x": 1}, "unknown key 'x'; keys: set, from_cycle, to_cycle"),
        ("what-if", {"set": 3}, "set: expected an object of task.key and value, got 3"),
        (
            "what-if",
            {"set": {"says.command": "rm"}, "from_cycle": 0, "to_cycle": 3},
            "says.command is not changed over HTTP: it may say what is run, or where to; use "
            "flowrun replay --set",
        ),
    ],
)
def test_what_cannot_be_done_is_a_clear_error(http, path, body, error):
    reply = http.post(f"/api/v0/runs/run/{path}", json=body)
    assert (reply.status_code, reply.json()) == (422, {"error": error})


def test_another_sites_page_may_not_mark_or_ask(http):
    for path in ("labels", "what-if"):
        reply = http.post(f"/api/v0/runs/run/{path}", json={}, headers={"Origin": "http://evil"})
        assert reply.status_code == 403


def test_the_live_run_is_one_of_them(folder, tmp_path):
    """By its id and as `current`; its log is read while it grows."""
    copy = tmp_path / "live"
    shutil.copytree(folder / "cut", copy)
    run = FakeRun()
    run.directories = (copy,)
    server = Server.start(run, port=0)
    try:
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            assert got(client, "/live")["cycles"] == got(client, "/current")["cycles"] < 20
            shutil.copy(folder / "run" / "log_0000.mcap", copy / "log_0000.mcap")
            assert got(client, "/current/moment")["cycle"] == 24
            assert got(client, "")[0]["state"] == "ended"
    finally:
        server.stop()
        run.join()


def test_others_of_its_folder_are_there_with_the_live_run(folder, tmp_path, monkeypatch):
    for name, changed_s in (("older", 1), ("old", 2), ("live", 3)):
        shutil.copytree(folder / "run", tmp_path / name)
        os.utime(tmp_path / name, (changed_s, changed_s))
    (tmp_path / "no run").mkdir()
    run = FakeRun()
    run.directories = (tmp_path / "live",)
    server = Server.start(run, port=0)
    try:
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            assert {it["id"] for it in got(client, "")} == {"live", "old", "older"}
            assert got(client, "/old/moment", cycle=3)["cycle"] == 3
            assert got(client, "/current")["id"] == "live"
            (tmp_path / "no run").rmdir()
            monkeypatch.setattr(recorded_runs, "_MOST_BESIDES", 2)
            assert {it["id"] for it in got(client, "")} == {"live", "old"}
            assert got(client, "/older")["id"] == "older"
    finally:
        server.stop()
        run.join()


def test_a_run_without_a_log_has_none(new_run, new_server):
    with httpx.Client(base_url=new_server(new_run()).url, trust_env=False) as client:
        assert got(client, "") == []
        assert client.get("/api/v0/runs/current").json() == {
            "error": "no run 'current'; runs: none"
        }
