"""The command line itself: which verb, which exit status, what on stderr."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowrun.runtime import cli
from flowrun.runtime.cli import check, main
from flowrun.runtime.errors import LogError
from flowrun.runtime.printing import print_text
from support.helpers import plan_of, record
from support.paths import GRAPHS

VERBS = ", ".join([*cli._VERBS, *cli._offered()])


@pytest.mark.parametrize(
    ("words", "verb", "rest"),
    [
        (["check", "g.yaml"], "check", ["g.yaml"]),
        (["g.yaml"], "run", ["g.yaml"]),
        (["g.yml", "--cycles", "3"], "run", ["g.yml", "--cycles", "3"]),
        (["--cycles", "3", "g.yaml"], "run", ["--cycles", "3", "g.yaml"]),
        (["graphs/door"], "run", ["graphs/door"]),
        (["--version"], None, ["--version"]),
        (["log", "info", "runs/x"], "log", ["info", "runs/x"]),
        (["--verbose", "log", "info"], "log", ["--verbose", "info"]),
        (["ask", "embedded", "a.jpg"], "ask", ["embedded", "a.jpg"]),
        ([], None, []),
    ],
)
def test_the_first_word_says_the_verb(words: list[str], verb: str | None, rest: list[str]) -> None:
    assert cli._verb(words) == (verb, rest)


def test_an_unknown_word_names_the_nearest_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chekc", "graphs/minimal.yaml"]) == 2
    assert main(["xyzzy"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"unknown command 'chekc' (did you mean 'check'?); commands: {VERBS}",
        f"unknown command 'xyzzy'; commands: {VERBS}",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("module", ["flowrun", "flowrun.runtime.cli"])
def test_the_command_without_its_script(module: str, tmp_path: Path) -> None:
    (tmp_path / "http.py").write_text("raise RuntimeError('the current folder hides a module')")
    done = subprocess.run(
        [sys.executable, "-m", module, "replay", "--help"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("usage: flowrun replay ")
    assert done.stderr == ""


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("flowrun 0.")
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS.split(", "))
    assert main([]) == 2
    assert main(["debug"]) == 2
    assert "the following arguments are required: RUN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            "g.yaml --mision=day",
            "flowrun run: unknown option '--mision=day' (did you mean '--mission'?)",
        ),
        (
            "log cat r --topc /n",
            "flowrun log cat: unknown option '--topc' (did you mean '--topic'?)",
        ),
        ("g.yaml h.yaml", "flowrun run: unknown argument 'h.yaml'"),
        ("--plan", "flowrun: unknown option '--plan'"),
    ],
)
def test_what_a_verb_does_not_know_names_the_verb_and_the_nearest_option(
    capsys: pytest.CaptureFixture[str], words: str, text: str
) -> None:
    assert main(words.split()) == 2
    of = text.partition(":")[0]
    assert capsys.readouterr().err == f"{text}; {of} --help lists all\n"


LACKS = "flowrun: the system gives it"


def of_system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (LogError("log broke"), 1, "log broke\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            MemoryError(),
            1,
            f"{LACKS} no more memory: see `ulimit -v`, and the limits of the container\n",
        ),
        (of_system(errno.ENOMEM), 1, f"{LACKS} {cli._NO_MEMORY}\n"),
        (of_system(errno.EMFILE), 1, f"{LACKS} no more open files: see `ulimit -n`\n"),
        (of_system(errno.ENFILE), 1, f"{LACKS} {cli._LACKS[errno.ENFILE]}\n"),
    ],
)
def test_errors_become_an_exit_status_and_one_text(
    raised: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_args: object) -> int:
        raise raised

    monkeypatch.setattr(check, "run", fail)
    assert main(["check", "g.yaml"]) == status
    assert capsys.readouterr().err == said


def test_a_file_that_the_machine_refuses_is_named_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/mnt/small/x.json")

    monkeypatch.setattr(check, "run", refuse)
    assert main(["check", "g.yaml"]) == 1
    assert capsys.readouterr().err == "flowrun: /mnt/small/x.json: No space left on device\n"


def test_a_run_without_more_threads_says_so_wherever_it_is(tmp_path: Path) -> None:
    """As in a container with a limit of processes: each thread that flowrun begins may be the one."""
    code = """
import sys, threading
from flowrun.runtime.cli import main

begin = threading._start_new_thread

def limited(*args, **names):
    global left
    if not left:
        raise RuntimeError("can't start new thread")
    left -= 1
    return begin(*args, **names)

threading._start_new_thread = limited
for count in range(20):
    left = count
    if not main(["run", sys.argv[1], "--cycles", "3", "--plain", "--port", "-1", "--log-dir", "runs"]):
        print("threads:", count, file=sys.stderr)
        break
"""
    done = subprocess.run(
        [sys.executable, "-c", code, GRAPHS / "caterpillar.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr
    assert int(done.stderr.rpartition("threads:")[2]) > 2
    assert done.stderr.count("gives it no more threads: see `ulimit -u`") >= 2


def test_another_error_of_the_system_is_ours_and_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_args: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(check, "run", refuse)
    with pytest.raises(OSError, match="Invalid argument"):
        main(["check", "g.yaml"])


def test_help_imports_no_verb_that_is_heavy() -> None:
    code = (
        "import sys; from flowrun.runtime.cli import main; main(['--help']); "
        "print(*{'av', 'msgpack', 'numpy', 'pydantic', 'rich', 'structlog', 'torch', 'yaml'}"
        " & set(sys.modules), file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ask a model about a picture" in shown.stdout
    assert shown.stderr.strip() == ""


def offer(folder: Path, package: str, commands: str) -> None:
    """Installs a package of which only its name and its commands are there."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[flowrun.commands]\n{commands}\n")


def test_a_package_offers_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    offer(tmp_path, "plug", "hello = plug_hello\nbroken = plug_broken\ntwice = plug_twice")
    offer(tmp_path, "plug2", "twice = plug2")
    (tmp_path / "plug_hello.py").write_text(
        "def add_parser(verbs):\n    verbs.add_parser('hello', help='greet')\n"
        "def run(args):\n    print('good day')\n    return 0\n"
    )
    (tmp_path / "plug_broken.py").write_text("raise ValueError('out of order')\n")
    assert main(["hello"]) == 0
    assert capsys.readouterr().out == "good day\n"
    assert main(["--help"]) == 0
    assert "greet" in capsys.readouterr().out
    assert main(["broken"]) == 2
    assert main(["twice"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "the command 'broken' (plug_broken) cannot be imported: ValueError: out of order",
        "two packages offer the command 'twice': plug2 and plug_twice; uninstall one",
    ]


@pytest.mark.slow
def test_checking_a_graph_loads_no_model_library() -> None:
    graph = GRAPHS / "minimal.yaml"
    code = (
        f"import sys; from flowrun.runtime.cli import main; main(['check', {str(graph)!r}]); "
        "print(*{'av', 'fastapi', 'torch', 'transformers'} & set(sys.modules), file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stderr.strip() == ""


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error() -> None:
    graph = GRAPHS / "caterpillar.yaml"
    command = (
        f"{sys.executable} -c 'from flowrun.runtime.cli import main; raise SystemExit(main())'"
    )
    shown = subprocess.run(
        ["bash", "-c", f"{command} plan {graph} --format svg | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout in {"141\n", "0\n"}  # 0: it was written before the reader went
    assert shown.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_stdout_cannot_encode_is_escaped(tmp_path: Path, encoding: str) -> None:
    directory = tmp_path / "ünï\udcff … 😀"
    record(plan_of(tmp_path, "n=Numbers(limit: 2)"), tmp_path / "run")
    (tmp_path / "run").rename(directory)
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "flowrun.runtime.cli", "log", "info", str(directory)]
    shown = subprocess.run(command, capture_output=True, check=True, env=env)
    assert shown.stderr == b""
    assert "\\udcff" in shown.stdout.decode(encoding)


def test_json_on_a_stdout_that_is_not_utf_8_is_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "ü … 😀"
    plan = plan_of(tmp_path, f"n=Says(text: '{text}')")
    record(plan, tmp_path / "run")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["log", "cat", str(tmp_path / "run"), "--json", "--topic", "/n/text"]) == 0
    stream.seek(0)
    assert json.loads(stream.read())["fields"] == {"value": text}


@pytest.fixture
def ends_with_main() -> Iterator[None]:
    """For a test that calls `main` as the process's own command, after which Ctrl-C ends the process."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ends_with_main")
def test_a_call_that_is_left_running_does_not_abort_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = threading.Event()
    left = threading.Thread(target=ended.wait, name="flowrun-vlm", daemon=True)
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    here = threading.main_thread()  # other tests may have left threads
    monkeypatch.setattr(
        threading, "enumerate", lambda: [here, *([left] if left.is_alive() else [])]
    )
    monkeypatch.setattr(sys, "argv", ["flowrun", "--version"])
    assert main() == 0
    assert codes == []
    left.start()
    try:
        assert main(["--version"]) == 0
        assert codes == []
        main()
    finally:
        ended.set()
        left.join()
    assert codes == [0]


IDLE_POOL = """
import sys
from concurrent.futures import ThreadPoolExecutor
from flowrun.runtime.cli import main
ThreadPoolExecutor().submit(print).result()
sys.exit(main())
"""


def test_idle_threads_of_a_pool_are_not_waited_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IDLE_POOL, "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
def test_a_library_that_still_computes_does_not_change_the_exit_status(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "g.yaml").write_text(
        "tasks:\n"
        "  - {id: n, type: Counter, config: {limit: 5}}\n"
        "  - {id: busy, type: busy.Busy, background: true}\n"
        "cnx: [{src: n, dst: busy, msg: IntMsg}]\n"
    )
    (tmp_path / "busy.py").write_text(
        "import torch\n"
        "from flowrun.msgs import IntMsg\n"
        "from flowrun.runtime.task import Context, Input, Task\n"
        "big = torch.ones(200, 200)\n"
        "class Busy(Task):\n"
        "    def process(self, ctx: Context, n: Input[IntMsg]) -> None:\n"
        "        ctx.log.info('at work')\n"
        "        while True:\n"
        "            big @ big\n"
    )
    program = (
        "import sys; from flowrun.runtime.engine import executor; "
        "from flowrun.runtime.cli import main; executor.WORKER_STOP_S = 0.6; "
        "sys.argv = ['flowrun', 'g.yaml', '--no-log', '--plain']; sys.exit(main())"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if "at work" in line:
            break
    child.terminate()
    said, _ = child.communicate(timeout=240)
    assert child.returncode == 0, said
    assert "still running; the run ends without it" in said
    assert "ended by SIGTERM" in said


@pytest.mark.parametrize("where", ["__init__", "start", "process"])
def test_a_task_that_raises_an_interrupt_is_not_taken_for_ctrl_c(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("g.yaml").write_text(
        "tasks:\n"
        "  - {id: n, type: support.helpers.Numbers, config: {limit: 2}}\n"
        f"  - {{id: r, type: support.engine_tasks.Raises,"
        f" config: {{what: interrupt, where: {where}, at: 1}}}}\n"
        "cnx: [{src: n, dst: r, msg: IntMsg}]\n"
    )
    assert main(["g.yaml", "--plain", "--log-dir", "runs"]) == 1
    cycle = ", cycle 1" if where == "process" else ""
    said = f"error: task 'r' failed in {where}{cycle}: KeyboardInterrupt: by a library\n"
    assert said in capsys.readouterr().err
    if cycle:
        [run] = Path("runs").glob("g-*")
        assert main(["replay", str(run), "g.yaml"]) == 0
        again = "the recorded error came again: task 'r', cycle 1: KeyboardInterrupt: by a library"
        assert again in capsys.readouterr().out


@pytest.mark.parametrize("stream", ["closed", None])
def test_what_a_command_says_is_not_lost_with_a_stream_that_a_task_has_closed(
    stream: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed if stream else None)
    print_text("3 messages\x1b[2J identical")
    assert capfd.readouterr().out == "3 messages\\u001b[2J identical\n"
