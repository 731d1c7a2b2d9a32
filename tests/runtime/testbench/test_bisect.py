"""Which commit, or value, changes what a run gives: in repositories that the tests make."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flowrun.runtime.cli import main
from flowrun.runtime.errors import UsageError
from flowrun.runtime.testbench import bisect
from flowrun.runtime.testbench.bisect import Change, Trial, Wanted, bisect_commits, bisect_values

CHANGE = Change(3, "x", "scaled", "value", "30", "36", None)


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    done = subprocess.run(
        ["git", *names, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with 64 commits on top of the first, each of which writes its number."""
    git(tmp_path, "init", "-q")
    stream = ["blob", "mark :1000", "data 2", "0", ""]
    lines = list(stream)
    for number in range(65):
        lines += ["blob", f"mark :{1000 + number}", f"data {len(str(number))}", str(number)]
        lines += ["commit refs/heads/main", f"mark :{number + 1}"]
        lines += [f"committer a <a@example.com> {1_700_000_000 + number} +0000"]
        message = f"Change {number}"
        lines += [f"data {len(message)}", message]
        lines += [f"from :{number}"] if number else []
        lines += [f"M 100644 :{1000 + number} number.txt"]
    subprocess.run(
        ["git", "fast-import", "--quiet"],
        cwd=tmp_path,
        input="\n".join(lines[5:]) + "\n",
        text=True,
        check=True,
    )
    git(tmp_path, "symbolic-ref", "HEAD", "refs/heads/main")
    git(tmp_path, "reset", "-q", "--hard")
    return tmp_path


def replays_by(
    monkeypatch: pytest.MonkeyPatch, first: int, *, broken: tuple[int, ...] = ()
) -> None:
    """In place of a replay: from commit `first` on it differs; at others there is none."""

    def replayed(arguments, wanted, *, place, env):
        number = int((place / "number.txt").read_text())
        if number in broken:
            return None, "no module x"
        return (CHANGE if number >= first else None), None

    monkeypatch.setattr(bisect, "_replayed", replayed)


def commits_of(repository: Path, good: str = "HEAD~64", bad: str = "HEAD"):
    trials: list[Trial] = []
    found = bisect_commits(
        Path("/run"), [], folder=repository, good=good, bad=bad, wanted=Wanted(), tell=trials.append
    )
    assert git(repository, "worktree", "list").count("\n") == 0
    assert git(repository, "status", "--short") == ""
    return found, trials


@pytest.mark.parametrize("first", [1, 30, 64])
def test_one_of_64_commits_is_found_with_7_replays(repository, monkeypatch, first):
    replays_by(monkeypatch, first)
    found, trials = commits_of(repository)
    assert found.first is not None
    assert found.first.name.endswith(f" Change {first}")
    assert found.first.change == CHANGE
    assert found.trials == len(trials) <= 7


@pytest.mark.parametrize("first", [45, 52, 59, 64])
def test_one_of_20_commits_is_found_with_5_replays(repository, monkeypatch, first):
    replays_by(monkeypatch, first)
    found, trials = commits_of(repository, good="HEAD~20")
    assert found.first is not None
    assert found.first.name.endswith(f" Change {first}")
    assert found.trials == len(trials) <= 5


def test_commits_that_cannot_be_replayed_are_passed_over(repository, monkeypatch):
    replays_by(monkeypatch, 40, broken=(31, 32, 33))
    found, trials = commits_of(repository)
    assert found.first is not None
    assert found.first.name.endswith(" Change 40")
    assert any(it.error == "no module x" for it in trials)
    replays_by(monkeypatch, 40, broken=(38, 39))
    found, _ = commits_of(repository)
    assert found.first is None
    assert {name.split()[-1] for name in found.candidates} == {"38", "39", "40"}


@pytest.mark.parametrize(
    "subject",
    [
        f"Revert: {'a' * 40} is the first bad commit",
        "There are only 'skip'ped commits left to test.",
        "# first bad commit: [a]",
        "caf\udce9",  # not UTF-8
    ],
)
def test_subjects_of_commits_lead_no_search_astray(repository, monkeypatch, subject):
    git(repository, "config", "i18n.commitEncoding", "latin-1")
    for number in range(65, 69):
        (repository / "number.txt").write_text(f"{number}")
        git(repository, "commit", "-qam", subject)
    git(repository, "config", "--unset", "i18n.commitEncoding")
    git(repository, "config", "i18n.logOutputEncoding", "latin-1")
    replays_by(monkeypatch, 67, broken=(66,))
    found, _ = commits_of(repository)
    assert found.first is None
    assert len(found.candidates) == 2
    replays_by(monkeypatch, 67)
    found, _ = commits_of(repository)
    assert found.first is not None
    assert found.first.name.startswith(git(repository, "log", "-1", "--format=%h ", "HEAD~1"))


@pytest.mark.parametrize(
    ("first", "ends", "said"),
    [
        (65, ("HEAD~64", "HEAD"), "at HEAD the run is as it was recorded"),
        (0, ("HEAD~64", "HEAD"), "at HEAD~64 the run is not as it was recorded either"),
        (9, ("nix", "HEAD"), "'nix': the repository has no such commit"),
    ],
)
def test_ends_that_are_none_are_refused(repository, monkeypatch, first, ends, said):
    replays_by(monkeypatch, first)
    with pytest.raises(UsageError, match=said):
        commits_of(repository, *ends)
    assert git(repository, "worktree", "list").count("\n") == 0


def test_of_a_folder_of_runs_one_must_be_named(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log_0000.mcap").write_bytes(b"x")
    assert main(["bisect", str(tmp_path), "--over", "x.y=1,2"]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}: it holds 2 runs; name one, such as {tmp_path}/a\n"
    )


def test_a_folder_that_is_no_repository_is_refused(tmp_path):
    with pytest.raises(
        UsageError,
        match="is in no git repository, whose commits could be tried; --over TASK.KEY=A,B tries",
    ):
        commits_of(tmp_path)


def replays_of(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In place of a replay: it differs where the file `name` begins with bad."""

    def replayed(arguments, wanted, *, place, env):
        try:
            said = (place / name).read_text()
        except OSError:
            return None, f"there is no {name}"
        assert not list(place.rglob("*.pyc"))
        (place / "left.pyc").write_text("of this commit")
        return (CHANGE if said.startswith("bad") else None), None

    monkeypatch.setattr(bisect, "_replayed", replayed)


def committed(folder: Path, name: str, *texts: str) -> None:
    for text in texts:
        (folder / name).write_text(text)
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", text)


def test_submodules_are_those_of_each_commit_and_need_no_remote(tmp_path, monkeypatch):
    lib, own = tmp_path / "lib", tmp_path / "own"
    for folder in (lib, own):
        folder.mkdir()
        git(folder, "init", "-q")
    committed(lib, "said", "ok 0")
    local = ("-c", "protocol.file.allow=always")
    git(own, *local, "submodule", "--quiet", "add", str(lib), "a sub")
    git(own, "commit", "-qm", "ok 0")
    for text in ("ok 1", "ok 2", "bad 3", "bad 4"):
        committed(lib, "said", text)
        git(own / "a sub", *local, "pull", "-q")
        git(own, "commit", "-qam", text)
    lib.rename(tmp_path / "out of reach")
    config = (own / ".git" / "config").read_text()
    replays_of(monkeypatch, "a sub/said")
    found, _ = commits_of(own, "HEAD~4")
    assert found.first is not None
    assert found.first.name.endswith(" bad 3")
    assert (own / ".git" / "config").read_text() == config


def test_what_is_not_committed_and_hooks_play_no_part(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    committed(tmp_path, "said", "ok 0", "ok 1", "bad 2", "bad 3")
    hook = tmp_path / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    replays_of(monkeypatch, "said")
    found, _ = commits_of(tmp_path, "HEAD~3")
    assert found.first is not None
    assert found.first.name.endswith(" bad 2")
    (tmp_path / "said").write_text("bad, not committed")
    with pytest.raises(UsageError) as error:
        bisect_commits(
            Path("/run"), [], folder=tmp_path, good="HEAD~3", bad="HEAD~2", wanted=Wanted(), tell=id
        )
    assert str(error.value) == (
        "at HEAD~2 the run is as it was recorded; --bad takes a commit at which it is not; what is not "
        "committed is not tried"
    )
    assert (tmp_path / "said").read_text() == "bad, not committed"


def test_a_merge_is_searched_on_both_sides(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "-b", "main")
    committed(tmp_path, "said", "ok 0")
    git(tmp_path, "checkout", "-qb", "side")
    committed(tmp_path, "other", "side 1")
    committed(tmp_path, "said", "bad on the side")
    git(tmp_path, "checkout", "-q", "main")
    committed(tmp_path, "third", "main 1")
    git(tmp_path, "merge", "-q", "--no-ff", "-m", "merge", "side")
    replays_of(monkeypatch, "said")
    found, _ = commits_of(tmp_path, "HEAD~2")
    assert found.first is not None
    assert found.first.name.endswith(" bad on the side")


def test_a_shallow_clone_says_what_it_lacks(tmp_path, monkeypatch):
    whole, clone = tmp_path / "whole", tmp_path / "clone"
    whole.mkdir()
    git(whole, "init", "-q")
    committed(whole, "said", "ok 0", "ok 1", "ok 2", "bad 3", "bad 4")
    git(tmp_path, "clone", "-q", "--depth", "3", whole.as_uri(), str(clone))
    replays_of(monkeypatch, "said")
    found, _ = commits_of(clone, "HEAD~2")
    assert found.first is not None
    assert found.first.name.endswith(" bad 3")
    with pytest.raises(UsageError) as error:
        commits_of(clone, "HEAD~4")
    assert str(error.value) == (
        "'HEAD~4': the repository has no such commit; it is a shallow clone: git fetch --unshallow gets "
        "them all"
    )


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        (
            "HEAD",
            "HEAD",
            (
                "HEAD and HEAD are the same commit; --good takes one before it, at which the run is as "
                "it was recorded"
            ),
        ),
        ("HEAD", "HEAD~1", "--good HEAD comes after --bad HEAD~1; expected it before"),
    ],
)
def test_ends_in_the_wrong_order_are_refused(tmp_path, good, bad, said):
    git(tmp_path, "init", "-q")
    committed(tmp_path, "said", "ok 0", "bad 1")
    with pytest.raises(UsageError) as error:
        commits_of(tmp_path, good, bad)
    assert str(error.value) == said


def test_the_first_of_several_values_is_found(monkeypatch):
    asked: list[str] = []

    def replayed(arguments, wanted):
        asked.append(arguments[-1])
        return (CHANGE if int(arguments[-1].partition("=")[2]) > 300 else None), None

    monkeypatch.setattr(bisect, "_replayed", replayed)
    values = [str(it) for it in range(1000)]
    found = bisect_values(Path("run"), [], "x.factor", values, Wanted(), lambda _: None)
    assert found.first is not None
    assert found.first.name == "x.factor=301"
    assert found.trials == len(asked) <= 10
    with pytest.raises(UsageError, match="as it was recorded also with x.factor=99"):
        bisect_values(Path("run"), [], "x.factor", values[:100], Wanted(), lambda _: None)


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        (Wanted(), True),
        (Wanted("x"), True),
        (Wanted("x", "scaled", 3), True),
        (Wanted("y"), False),
        (Wanted("x", "other"), False),
        (Wanted("x", cycle=4), False),
    ],
)
def test_only_changes_that_are_wanted_count(wanted, holds):
    assert wanted.holds(CHANGE) is holds


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected --good COMMIT"),
        (["--good", "HEAD", "--over", "x.factor=1,2"], "expected --good COMMIT"),
        (["--over", "factor=1"], "expected TASK.KEY=A,B"),
        (["--over", "x.factor=5..1"], "expected TASK.KEY=A,B"),
        (["--over", "x.factor=1,,2"], "expected TASK.KEY=A,B"),
    ],
)
def test_command_lines_that_say_no_search_are_refused(tmp_path, capsys, arguments, said):
    from support.helpers import plan_of, record

    record(plan_of(tmp_path, "n=Numbers(limit: 2)", ""), tmp_path / "run")
    assert main(["bisect", str(tmp_path / "run"), *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.long
def test_the_command_names_the_commit_and_what_it_changed(tmp_path, monkeypatch, capsys):
    git(tmp_path, "init", "-q")
    (tmp_path / "g.yaml").write_text(
        "tasks: [{id: n, type: nines.Nines}, {id: x, type: nines.times}]\n"
        "cnx: [{src: n, dst: x, msg: IntMsg}]\n"
    )
    code = (
        "from flowrun.msgs import IntMsg\n"
        "from flowrun.runtime.task import Context, Output, Task, task\n"
        "class Nines(Task):\n"
        "    def process(self, ctx: Context, nine: Output[IntMsg]) -> None:\n"
        "        nine.value = 9\n"
        "        nine.publish()\n"
        "@task\n"
        "def times(nine: IntMsg) -> IntMsg:\n"
        "    return IntMsg(value=nine.value * FACTOR)\n"
    )
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        factor = 10 if number < 3 else 11
        (tmp_path / "nines.py").write_text(f"{code}# {number}\nFACTOR = {factor}\n")
        if not number:
            assert main(["g.yaml", "--plain", "--cycles", "2", "--log-dir", "golden"]) == 0
        git(tmp_path, "add", "nines.py", "g.yaml")
        git(tmp_path, "commit", "-qm", f"Change {number}")
    [run] = (tmp_path / "golden").glob("g-*")
    capsys.readouterr()
    assert main(["bisect", str(run), "--good", "HEAD~4", "--recorded-graph"]) in (0, 1)
    capsys.readouterr()
    assert main(["bisect", str(run), "--good", "HEAD~4", "--output", "x"]) == 0
    said = capsys.readouterr().out
    assert "found with 2 replays: " in said
    assert "Change 3" in said.partition("found with")[2]
    assert "recorded: 90\n    there:    99" in said
