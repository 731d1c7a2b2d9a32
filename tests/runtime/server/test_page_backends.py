"""The page says of each backend whether it answers."""

import pytest

from support.axe import violations
from support.model_servers.fault_server import FaultServer
from support.model_servers.llama import free_port
from support.paths import MEDIA
from support.stages import SHOWN, STATE, TEXT

pytestmark = [pytest.mark.slow, pytest.mark.real]

GRAPH = """
tasks:
  - {{id: cam0, type: VideoCapture, config: {{source_uri: {film}, realtime: true, loop: true}}}}
  - id: vlm
    type: Inference
    background: true
    config:
      backend: near
      fallback: [embedded]
      backends:
        near: {{type: openai, base_url: "http://127.0.0.1:{near}/v1", start_timeout_s: 0}}
        other: {{type: openai, base_url: "http://127.0.0.1:{other}/v1", retries: 0}}
  - {{id: chat, type: BroadcastChat}}
  - {{id: screen, type: BroadcastImage}}
cnx:
  - {{src: cam0, dst: vlm, msg: ImageRgb8Msg}}
  - {{src: vlm, dst: chat, msg: PromptResponseMsg}}
  - {{src: cam0, dst: screen, msg: ImageRgb8Msg}}
"""


def how(name):
    return f"document.querySelector('[data-backend={name}]')?.innerText"


def test_backends_are_seen_to_fail_to_recover_and_to_be_switched(new_stage, browser, tmp_path):
    other = FaultServer()
    near_port = free_port()
    graph = tmp_path / "backends.yaml"
    graph.write_text(
        GRAPH.format(film=MEDIA / "shapes.mp4", near=near_port, other=other.port), encoding="utf-8"
    )
    stage = new_stage(graph, "--plain", "--port", "0", "--log-dir", tmp_path / "runs")
    browser.size(1440, 900)
    browser.open(stage.url)
    # The one in force is not there, and a fallback answers: that is no healthy run.
    browser.wait_for(f"/^near failing for .* in force\\s+.*Connection refused/.test({how('near')})")
    browser.wait_for(f"{STATE} == 'degraded' && {TEXT}.includes('vlm: near fails') && !!{SHOWN}")
    browser.wait_for(f"{how('embedded')} == 'embedded ok fallback'")
    browser.wait_for(f"{how('other')} == 'other ok'")  # though it answers nothing
    assert other.bodies == []
    for dark in (False, True):
        browser.size(1440, 900, dark=dark)
        assert violations(browser) == []
        assert browser.evaluate("document.documentElement.scrollHeight") <= 900

    near = FaultServer(near_port)
    browser.wait_for(f"{how('near')} == 'near ok in force' && {STATE} == 'running'", timeout_s=240)
    browser.open(stage.url)
    browser.wait_for(f"{how('near')} == 'near ok in force'")
    other.faults.extend(["500"] * 1000)
    browser.evaluate(
        "(select => { select.value = 'other';"
        " select.dispatchEvent(new Event('change', {bubbles: true})) })"
        "(document.getElementById('set-backend'))"
    )
    browser.wait_for(
        f"/^other failing for .* in force\\s+.*asked to give 500/.test({how('other')})"
    )
    browser.wait_for(f"{TEXT}.includes('vlm: other fails')")
    browser.wait_for(f"{how('near')} == 'near ok'")
    near.close()
    browser.wait_for(
        f"{how('near')}.startsWith('near failing for')"
    )  # nobody has asked it anything
    other.close()


def test_each_server_of_a_farm_is_seen(new_stage, browser, tmp_path):
    servers = [FaultServer(), FaultServer()]
    urls = [server.base_url for server in servers]
    text = GRAPH.format(film=MEDIA / "shapes.mp4", near=1, other=free_port())
    graph = tmp_path / "farm.yaml"
    graph.write_text(text.replace('"http://127.0.0.1:1/v1"', str(urls)), encoding="utf-8")
    stage = new_stage(graph, "--plain", "--port", "0", "--log-dir", tmp_path / "runs")
    browser.size(1440, 900)
    browser.open(stage.url)
    first, second = (
        f"document.querySelector('[data-server=\"{url}\"]')?.innerText" for url in urls
    )
    for seen in (first, second):
        browser.wait_for(f"/ ok .*[1-9] answers/s.test({seen})")
    servers[0].faults.extend(["500"] * 1000)
    browser.wait_for(f"{STATE} == 'degraded' && {TEXT}.includes('vlm: near lacks 1 of 2 servers')")
    browser.wait_for(f"{first}.includes('asked to give 500')")
    browser.wait_for(f"/ ok .*[1-9] answers/s.test({second})")
    assert violations(browser) == []
    for server in servers:
        server.close()
