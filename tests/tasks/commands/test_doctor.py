"""`flowrun doctor`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from flowrun.tasks.commands import doctor
from support.certificates import Authority
from support.model_servers.fault_server import FaultServer

SUBJECTS = [
    "flowrun", "ffmpeg", "decoders", "encoders", "hwaccel", "display", "gpu", "disk", "memory", "clock",
    "port", "models", "completion",
]  # fmt: skip


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(doctor, "_DISK_S", 0.01)


def found(capsys, *words):
    status = main(["doctor", "--json", *map(str, words)])
    return status, {it["subject"]: it for it in json.loads(capsys.readouterr().out)}


def test_everything_is_looked_at_and_nothing_left_behind(tmp_path, capsys):
    status, findings = found(capsys, "--log-dir", tmp_path / "runs" / "deep")
    assert set(SUBJECTS) <= findings.keys()
    assert status == any(it["state"] == "fail" for it in findings.values())
    assert findings["ffmpeg"]["text"].endswith(f"by PyAV {__import__('av').__version__}")
    assert "h264" in findings["decoders"]["text"]
    assert findings["[models]"]["text"] == "installed"
    assert str(tmp_path) in findings["disk"]["text"]
    assert all(it["hint"] for it in findings.values() if it["state"] != "ok")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_run_fails(tmp_path, capsys):
    (tmp_path / "file").touch()
    status, findings = found(capsys, "--log-dir", tmp_path / "file")
    assert status == 1
    assert findings["disk"] == {
        "subject": "disk",
        "state": "fail",
        "text": f"{tmp_path}/file is a file",
        "hint": "name another folder: --log-dir",
    }


def test_what_hangs_or_raises_is_named_and_the_others_go_on(capsys, monkeypatch):
    hanging = threading.Event()
    monkeypatch.setattr(doctor, "_WITHIN_S", 0.05)
    monkeypatch.setattr(doctor, "_display", lambda: hanging.wait(60) and ())
    monkeypatch.setattr(doctor, "_memory", lambda: iter([1 / 0]))
    assert main(["doctor"]) in (0, 1)
    said = capsys.readouterr().out
    hanging.set()
    assert "warn  display " in said
    assert "not known within 0.05 s" in said


def test_little_room_is_said(tmp_path, capsys, monkeypatch):
    usage = doctor.shutil.disk_usage(tmp_path)
    for free, state in ((1 << 30, "fail"), (5 << 30, "warn")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, f=free: usage._replace(free=f))
        assert found(capsys, "--log-dir", tmp_path)[1]["disk"]["state"] == state
    monkeypatch.setattr(doctor, "_limit_of_memory", lambda: 500 << 20)
    assert found(capsys)[1]["memory"]["state"] == "warn"


def test_what_is_no_camera_is_an_error():
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        doctor._capability(Path("/dev/null"))


@pytest.mark.long
def test_torch_is_not_imported():
    code = (
        "import sys; from flowrun.runtime.cli import main; main(['doctor', '--json']);"
        "sys.exit(int('torch' in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# -- of a graph --------------------------------------------------------------------------------------

FARM = """
tasks:
  - {{id: cam, type: VideoCapture, config: {{source_uri: none.mp4}}}}
  - id: vlm
    type: Inference
    config: {{backend: farm, backends: {{farm: {{type: openai, base_url: {urls}}}}}}}
cnx: [{{src: cam, dst: vlm, msg: ImageRgb8Msg}}]
"""
FLEET = """
partitions:
  one: {listen: ["tls/0.0.0.0:7447"]}
  two: {connect: ["tls/127.0.0.1:7447"]}
network: {tls: {ca: ca.pem, cert: "${NODE}.pem", key: "${NODE}.key"}, allow: {one: [box], two: [far]}}
tasks:
  - {id: a, type: Counter, partition: one}
  - {id: b, type: Print, partition: two}
cnx: [{src: a, dst: b, msg: IntMsg}]
"""


def of_graph(capsys, *words):
    assert main(["doctor", "--json", *map(str, words)]) in (0, 1)
    return [
        (it["subject"], it["state"], it["text"])
        for it in json.loads(capsys.readouterr().out)
        if it["subject"].startswith(("vlm", "tls", "allow", "connect"))
    ]


def test_each_model_server_of_a_graph_is_asked(tmp_path, capsys, fault_server):
    gone = FaultServer()
    gone.close()
    urls = [fault_server.base_url.replace("://", "://me:sesame@"), gone.base_url]
    (tmp_path / "g.yaml").write_text(FARM.format(urls=urls), encoding="utf-8")
    assert of_graph(capsys, tmp_path / "g.yaml") == [
        ("vlm.farm", "ok", f"{urls[0].replace('me:sesame', '***')} lists its models"),
        ("vlm.farm", "fail", f"{urls[1]}: no answer (Connection refused); is the server running?"),
    ]
    assert fault_server.bodies == []


def test_certificates_of_a_graph_fit_or_are_named(tmp_path, capsys, monkeypatch):
    ca = Authority(tmp_path)
    cert, _ = ca.certify("box", host="127.0.0.1", days=40.5)
    ca.certify("box", file="away", host="10.0.0.1", days=3.5)
    (tmp_path / "g.yaml").write_text(FLEET, encoding="utf-8")
    graph = tmp_path / "g.yaml"
    monkeypatch.setenv("NODE", "box")
    fits = [
        ("tls", "ok", f"{cert} is 'box', for 40 days more"),
        ("allow", "ok", "'box' may come as one"),
    ]
    assert of_graph(capsys, graph) == fits
    assert of_graph(capsys, graph, "--partition", "one") == fits
    assert of_graph(capsys, graph, "--partition", "two")[1:2] == [
        ("allow", "fail", "'box' may come as one")
    ]
    monkeypatch.setenv("NODE", "away")
    assert of_graph(capsys, graph, "--partition", "one") == [
        ("tls cert", "fail", f"{tmp_path}/away.pem is not for '127.0.0.1'")
    ]
    assert of_graph(capsys, graph)[0][1:] == (
        "warn",
        f"{tmp_path}/away.pem is 'box', for 3 days more",
    )


def test_a_partition_without_its_graph_is_an_error(capsys):
    assert main(["doctor", "--partition", "one"]) == 2
    assert capsys.readouterr().err.endswith(
        "--partition names a process of a graph; give the graph: doctor GRAPH\n"
    )
