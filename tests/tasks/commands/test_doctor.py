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
