"""All partitions of a graph on one page, with real processes: all well, one gone, one behind, a gap."""

import os
import signal
from pathlib import Path

import pytest

from flowrun.runtime.fleet.record import fleet_runs
from support.axe import violations
from support.stages import STATE, TEXT

pytest.importorskip("zenoh")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.real,
    pytest.mark.timeout(1500),
]

TASKS = """
import time
from pathlib import Path
from flowrun.msgs import TextMsg
from flowrun.runtime.task import Context, Input, Output, Task, task

class Texts(Task):
    def start(self, ctx: Context) -> None:
        self.due_ns = 0
    def process(self, ctx: Context, text: Output[TextMsg]) -> None:
        if ctx.now_ns >= self.due_ns:
            self.due_ns = ctx.now_ns + 20_000_000
            text.value = "x" * 40_000
            text.publish()
        ctx.wake_at(self.due_ns)

@task
def reads(text: TextMsg) -> TextMsg:
    if Path("slow").exists():
        time.sleep(0.2)
    return TextMsg(value="read")
"""
GRAPH = """
partitions: {a: {}, b: {}}
tasks:
  - {id: texts, type: texts.Texts, partition: a}
  - {id: reads, type: texts.reads, partition: b}
cnx:
  - {src: texts, dst: reads, msg: TextMsg}
logging: {mode: ring, keep_slabs: 2, slab_size_mib: 2, section_size_mib: 1}
"""


def part(name):
    return f"document.querySelector('[data-part=\"{name}\"]')"


LINK = "document.querySelector('[data-link=\"a/0 b/0\"]')"


def pid_of(part):
    """The process of a partition of the graph in this folder."""
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            is_here = (process / "cwd").samefile(Path.cwd())
        except OSError:
            continue
        is_warden = any(word.endswith(b"warden.py") for word in words)
        if is_here and part.encode() in words and not is_warden:
            return int(process.name)
    raise AssertionError(f"no process runs {part}")


def test_one_page_shows_all_partitions_and_the_links_between_them(
    new_stage, browser, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("texts.py").write_text(TASKS)
    Path("g.yaml").write_text(GRAPH)
    stage = new_stage("up", "g.yaml", "--port", "0", env={"PYTHONPATH": str(tmp_path)})
    browser.size(1440, 900)
    browser.open(stage.url)
    # All is well.
    browser.wait_for(f"{part('a/0')}?.dataset.state == 'running'", timeout_s=150)
    browser.wait_for(f"{part('b/0')}?.dataset.state == 'running'", timeout_s=150)
    browser.wait_for(f"{LINK}?.dataset.state == 'connected' && {STATE} == 'running'")
    browser.wait_for("document.getElementById('tab-fleet').textContent == 'Fleet 2/2'")
    for dark in (False, True):
        browser.size(1440, 900, dark=dark)
        assert violations(browser) == []
        assert browser.evaluate("document.documentElement.scrollHeight") <= 900
    browser.size(390, 844)
    assert violations(browser) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    browser.size(1440, 900)

    # A link is behind.
    Path("slow").touch()
    browser.wait_for(f"{LINK}?.dataset.state == 'behind'", timeout_s=150)
    Path("slow").unlink()
    browser.wait_for(f"{LINK}?.dataset.state == 'connected'", timeout_s=150)

    # A partition is gone, for so long that the log of the other no longer has what it lacks.
    process = pid_of("b/0")
    os.kill(process, signal.SIGSTOP)
    try:
        browser.wait_for(
            f"{part('b/0')}.dataset.state == 'gone' && {STATE} == 'degraded'"
            f" && {TEXT}.includes('b/0 is gone')",
            timeout_s=150,
        )
        browser.wait_for("document.getElementById('tab-fleet').textContent == 'Fleet 1/2'")
        assert violations(browser) == []
        browser.wait_for(f"{LINK}.dataset.state == 'lost'", timeout_s=150)
        browser.wait_for(
            f"parseInt({LINK}.children[2].title.replace(',', '')) > 1000", timeout_s=150
        )
    finally:
        os.kill(process, signal.SIGCONT)
    browser.wait_for(f"{part('b/0')}.dataset.state == 'running'", timeout_s=150)
    browser.wait_for(f"{LINK}.dataset.state == 'connected'", timeout_s=150)
    # A gap.
    browser.wait_for(f"{LINK}.children[3].textContent == '1'", timeout_s=150)
    assert browser.evaluate(f"Number({LINK}.children[6].textContent)") >= 1

    # It is killed, and started again.
    os.kill(pid_of("b/0"), signal.SIGKILL)
    browser.wait_for(f"{part('b/0')}.children[6].textContent == '1'", timeout_s=150)
    browser.wait_for(f"{part('b/0')}.dataset.state == 'running'", timeout_s=150)
    stage.close()
    [folder] = Path("runs").iterdir()
    assert [str(run.part) for run in fleet_runs(folder)].count("b/0") == 2
