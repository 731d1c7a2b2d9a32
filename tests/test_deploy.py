"""What docs/deploy.md says, and the files next to it."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flowrun.runtime.cli import pipeline, serve
from flowrun.runtime.graph.plan import load_plan
from flowrun.runtime.links.certificates import Certificates, common_name, troubles
from support.model_servers.llama import free_port
from support.paths import ROOT

BIN = Path(sys.executable).parent
DEPLOY = ROOT / "docs" / "deploy"
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def arguments(*words: str) -> argparse.Namespace:
    """The arguments of a command, as flowrun takes them."""
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb")
    for module in (serve, pipeline):
        module.add_parser(verbs)
    return parser.parse_args(words)


def setting(name: str) -> str:
    """The only value of a setting in the systemd unit."""
    [value] = re.findall(rf"^{name}=(.*)$", (DEPLOY / "flowrun.service").read_text(), re.MULTILINE)
    return value


def instruction(name: str) -> list[str]:
    """The last instruction of that name in the Dockerfile, which is a JSON list."""
    found = re.findall(rf"^{name} .*?(\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    words: list[str] = json.loads(found[-1])
    return words


def test_every_command_of_the_files_is_one_that_flowrun_takes() -> None:
    program, *words = shlex.split(setting("ExecStart"))
    assert program == "/opt/flowrun/bin/flowrun"
    service = arguments(*words)
    assert service.log_dir == Path("runs")
    assert setting("WorkingDirectory") == "/var/lib/flowrun"
    assert instruction("ENTRYPOINT") == ["flowrun"]
    image = arguments(*instruction("CMD"))
    assert (image.host, image.port, image.folder) == ("0.0.0.0", 3000, Path("/graphs"))
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["flowrun"]
    composed = arguments(*compose["command"])
    assert (composed.folder, composed.log_dir) == (image.folder, image.log_dir)
    for args in (service, composed):
        assert (args.start, args.restart) == (["inference"], "on-failure")
    program, *words = instruction("HEALTHCHECK")
    assert program == "flowrun"
    assert arguments(*words).port == image.port
    for file in (DEPLOY / compose["build"]["context"] / compose["build"]["dockerfile"], DEPLOY):
        assert file.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flowrun.service", "flowrun-partition@.service"])
def test_systemd_takes_the_unit(tmp_path: Path, name: str) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not here")
    unit = tmp_path / name.replace("@", "@inference-0")
    text = (DEPLOY / name).read_text()
    unit.write_text(text.replace("/opt/flowrun/bin/flowrun", str(BIN / "flowrun")))
    done = subprocess.run(
        [program, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_of_a_partition_runs_the_one_that_its_name_says(tmp_path: Path) -> None:
    """systemd replaces %i, %% and $$; the rest is the shell's."""
    text = (DEPLOY / "flowrun-partition@.service").read_text()
    [line] = re.findall(r"^ExecStart=/bin/sh -c '(.*)'$", text, re.MULTILINE)
    echo = tmp_path / "echo"
    echo.write_text('#!/bin/sh\necho "$@"\n')
    echo.chmod(0o755)
    for name, partition in (("dock-dock-1", "dock/dock-1"), ("gpu-0", "gpu/0")):
        command = line.replace("%i", name).replace("%%", "%").replace("$$", "$")
        command = command.replace("/opt/flowrun/bin/flowrun", str(echo))
        done = subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, text=True, check=True
        )
        assert done.stdout == (
            f"/etc/flowrun/fleet.yaml --partition {partition} --log-dir /var/lib/flowrun/{name} "
            "--plain --exit\n"
        )


def test_each_container_of_a_fleet_runs_a_partition_of_its_graph() -> None:
    compose = yaml.safe_load((DEPLOY / "fleet.compose.yaml").read_text())
    seen = []
    for name, service in compose["services"].items():
        graph, *words = service["command"]
        assert graph == "/fleet/fleet.yaml"
        assert words[:2] == ["--partition", name]
        [node] = {service["environment"]["NODE"]}
        plan = load_plan(DEPLOY / "fleet.yaml", env={"NODE": node}, ready=False, partition=words[1])
        spec = plan.graph.spec
        assert spec.network.tls.cert == f"certs/{name}.pem"
        assert spec.network.allow[name] == (name,)
        seen.append(name)
    assert seen == [it.id for it in spec.partitions]
    for partition in spec.partitions:  # each is reached by the name of its container
        for address in partition.connect:
            assert address.partition("/")[2] in {f"{it}:7447" for it in seen}


@pytest.mark.slow
def test_certificates_that_are_made_as_the_page_says_fit(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here")
    [block] = re.findall(r"```sh\n(# an authority.*?)```", PAGE, re.DOTALL)
    made = subprocess.run(
        ["/bin/sh", "-e", "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    for name in ("camera", "inference", "broadcast"):
        files = Certificates(
            *(tmp_path / "certs" / it for it in ("ca.pem", f"{name}.pem", f"{name}.key"))
        )
        assert list(troubles(files, [name])) == []
        assert common_name(files) == name
        assert [it.text for it in troubles(files, ["elsewhere"])] == [
            f"{files.cert} is not for 'elsewhere'"
        ]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Where the first command of the page serves."""
    port = free_port()
    [command] = re.findall(r"^\$ (flowrun serve graphs .*)$", PAGE, re.MULTILINE)
    words = shlex.split(command.replace("3000", str(port)))[1:]
    log_dir = ["--log-dir", str(tmp_path / "runs")]
    with subprocess.Popen(
        [BIN / "flowrun", *words, *log_dir], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        graphs = len(list((ROOT / "graphs").glob("*.yaml")))
        assert f"\nserving {graphs} graphs of " in PAGE
        assert line == (
            f"serving {graphs} graphs of {ROOT / 'graphs'} at http://127.0.0.1:{port}/\n"
        )
        yield port
        server.terminate()
        server.communicate()


@pytest.mark.long
def test_the_commands_do_as_shown(port: int) -> None:
    [block] = re.findall(r"```console\n(\$ flowrun pipeline start .*?)```", PAGE, re.DOTALL)
    for step in block.split("$ ")[1:]:
        command, *lines = step.splitlines()
        words = shlex.split(command.replace("3000", str(port)))
        words += [] if words[1].endswith("-pipeline") else ["--port", str(port)]
        done = subprocess.run(
            [BIN / "flowrun", *words[1:]], capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        for line in lines:
            pattern = re.escape(line).replace("…", ".+")
            assert re.search(f"^{pattern}$", done.stdout, re.MULTILINE), f"{line}\n{done.stdout}"


@pytest.mark.real
@pytest.mark.timeout(1800)
def test_the_image_serves(tmp_path: Path) -> None:
    program = shutil.which("docker")
    if (
        program is None
        or subprocess.run([program, "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("Docker is not here")

    def docker(*words: str) -> str:
        done = subprocess.run([program, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    docker("build", "--tag", "flowrun-test", "--file", str(DEPLOY / "Dockerfile"), str(ROOT))
    (tmp_path / "counting.yaml").write_text(
        "tasks:\n  - {id: counter, type: Counter, config: {rate_hz: 5}}\n"
        "  - {id: square, type: Square}\ncnx: [{src: counter, dst: square, msg: IntMsg}]\n"
    )
    container = docker(
        "run", "--detach", "--rm", "--init", "--publish", "127.0.0.1::3000",
        "--env", "FLOWRUN_TOKEN=sesame", "--volume", f"{tmp_path}:/graphs:ro", "flowrun-test",
    )  # fmt: skip
    try:
        address = docker("port", container, "3000").splitlines()[0]
        request = urllib.request.Request(
            f"http://{address}/api/v0/pipeline/start",
            data=b'{"name": "counting"}',
            headers={"Authorization": "Bearer sesame"},
        )
        while True:
            try:
                with urllib.request.urlopen(request, timeout=240) as reply:
                    break
            except (ConnectionError, urllib.error.URLError):
                time.sleep(0.2)
        assert json.loads(reply.read()) == {"message": "Pipeline counting started"}
        assert "Running" in docker("exec", container, "flowrun", "pipeline", "list")
    finally:
        docker("stop", container)
