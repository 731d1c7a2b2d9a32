"""What a keyframe holds of a task, and what a task gets back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import field_serializer

from flowrun.msgs import IntMsg
from flowrun.runtime.context import CycleTime
from flowrun.runtime.engine.background import Job, Jobs, JobState
from flowrun.runtime.engine.instances import make_instances
from flowrun.runtime.engine.keyframes import (
    Keyframes,
    changed_values,
    freeze_after,
    freeze_task,
    is_frozen,
    restored_config,
    thaw_task,
    unpack_keyframe,
)
from flowrun.runtime.engine.rates import Rate
from flowrun.runtime.task import Context, Input, Live, Task, TaskConfig
from support.helpers import Scale, Sum, plan_of

NO_SECRETS: frozenset[str] = frozenset()


class Keeper(Task):
    """Remembers what the test says; notes what it is told."""

    class Config(TaskConfig):
        gain: Live[int] = 1
        word: Live[str] = "a"
        fixed: int = 0

    config: Config
    state: Any = None
    refuses: ClassVar[tuple[int, ...]] = ()

    def start(self, ctx: Context) -> None:
        self.said: list[Any] = ["start"]

    def process(self, ctx: Context, number: Input[IntMsg]) -> None: ...

    def configure(self, ctx: Context, changed: frozenset[str]) -> None:
        self.said.append(sorted(changed))
        if self.config.gain in self.refuses:
            raise ValueError("no such gain")

    def freeze(self) -> Any:
        if isinstance(self.state, Exception):
            raise self.state
        return self.state

    def thaw(self, state: Any) -> None:
        self.state = state
        self.said.append("thaw")


class Lossy(Task):
    """Its live value does not come back from JSON."""

    class Config(TaskConfig):
        gain: Live[int] = 1

        @field_serializer("gain")
        def _shorter(self, gain: int) -> int:
            return gain // 10

    def process(self, ctx: Context, number: Input[IntMsg]) -> None: ...


def made_of(tmp_path, kind=Keeper, keys=""):
    plan = plan_of(tmp_path, f"n=Numbers; t=Scale{keys}", "n > t")
    made = make_instances(plan, CycleTime(), source=lambda _id: None)["t"]
    bound = SimpleNamespace(
        id="t", config=kind.Config(), spec=made.bound.spec, task_class=kind, is_source=False
    )
    made.bound, made.task = bound, kind(bound.config)
    made.task.start(made.ctx)
    return made


def frozen_and_back(tmp_path, state):
    before, after = made_of(tmp_path), made_of(tmp_path)
    before.task.state = state
    frozen = freeze_task(before, before.bound.config, secrets=NO_SECRETS)
    assert "error" not in frozen, frozen["error"]
    thaw_task(after, after.bound.config, frozen)
    return after.task.state


def test_a_class_that_defines_freeze_says_what_it_remembers():
    assert (is_frozen(Sum), is_frozen(Keeper), is_frozen(Scale)) == (True, True, False)


@pytest.mark.parametrize(
    ("state", "back"),
    [
        (None, None),
        ({"n": 1, 2: [b"x", 0.5, "t"]}, {"n": 1, 2: [b"x", 0.5, "t"]}),
        ((1, (2,)), [1, [2]]),
        (np.int64(3), 3),
        ({"f": np.float32(0.5), "b": np.bool_(True)}, {"f": 0.5, "b": True}),
    ],
)
def test_plain_values_come_back(tmp_path, state, back):
    assert frozen_and_back(tmp_path, state) == back


def test_arrays_come_back_with_shape_type_and_order(tmp_path):
    arrays = [
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.zeros((0, 2)),
        np.array(1.5),
        np.array("x"),
    ]
    for array, back in zip(arrays, frozen_and_back(tmp_path, arrays), strict=True):
        assert (back.dtype, back.shape, back.tolist()) == (array.dtype, array.shape, array.tolist())
        back.flags.writeable = True  # the task goes on with it


CANNOT = (
    "which a keyframe cannot hold: numbers, texts, bytes, NumPy arrays, None, and lists and dicts "
    "of these"
)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (np.array([object()]), "WrongReturnError: freeze gave a ndarray, " + CANNOT),
        (np.ma.array([1]), "WrongReturnError: freeze gave a MaskedArray, " + CANNOT),
        (object(), "WrongReturnError: freeze gave an object, " + CANNOT),
        (
            {"last": IntMsg(value=1)},
            f"WrongReturnError: freeze gave an IntMsg, {CANNOT}; of a message, give its fields",
        ),
        ({(1, 2): 3}, "WrongReturnError: freeze gave a dict whose keys are not texts or numbers"),
        (OSError("gone"), "OSError: gone"),
    ],
)
def test_a_state_that_cannot_be_kept_says_why(tmp_path, state, error):
    made = made_of(tmp_path)
    made.task.state = state
    frozen = freeze_task(made, made.bound.config, secrets=NO_SECRETS)
    assert frozen == {"live": {}, "error": error}
    assert made.freeze_error is not None


def test_what_the_task_changes_later_does_not_reach_the_keyframe(tmp_path):
    made = made_of(tmp_path)
    made.task.state = {"list": [1]}
    frozen = freeze_task(made, made.bound.config, secrets=NO_SECRETS)
    made.task.state["list"].append(2)
    assert frozen["state"] == {"list": [1]}
    thaw_task(made, made.bound.config, frozen)
    made.task.state["list"].append(3)
    thaw_task(made, made.bound.config, frozen)
    assert made.task.state == {"list": [1]}


def test_random_numbers_are_kept_once_one_was_drawn(tmp_path):
    made = made_of(tmp_path)
    assert freeze_task(made, made.bound.config, secrets=NO_SECRETS).keys() == {"live", "state"}
    made.ctx.rng.random()
    frozen = freeze_task(made, made.bound.config, secrets=NO_SECRETS, with_state=False)
    assert frozen.keys() == {"live", "rng"}
    following = made.ctx.rng.random()
    thaw_task(made, made.bound.config, frozen)
    assert made.ctx.rng.random() == following
    assert made.task.said == ["start"]  # without a state there is nothing to thaw


def test_only_live_values_that_differ_are_kept(tmp_path):
    made = made_of(tmp_path)
    new = made.bound.config.model_copy(update={"gain": 5})
    assert changed_values(made.bound, made.bound.config) == {}
    assert changed_values(made.bound, Keeper.Config()) == {}
    assert changed_values(made.bound, new) == {"gain": 5}
    assert freeze_task(made, new, secrets=NO_SECRETS)["live"] == {"gain": 5}
    assert restored_config(made.bound, {"gain": 5}) == new
    assert restored_config(made.bound, {}) is made.bound.config


def test_live_values_that_do_not_come_back_are_named(tmp_path):
    made = made_of(tmp_path, Lossy)
    config = Lossy.Config(gain=57)
    with pytest.raises(ValueError, match="^live values that JSON does not give back: gain$"):
        changed_values(made.bound, config)
    frozen = freeze_task(made, config, secrets=NO_SECRETS)
    assert frozen == {"error": "ValueError: live values that JSON does not give back: gain"}


def test_a_task_is_told_of_the_config_that_it_had(tmp_path, monkeypatch):
    made = made_of(tmp_path)
    thaw_task(made, Keeper.Config(), {"state": 1})
    thaw_task(made, Keeper.Config(gain=2, word="b"), {"state": 2})
    assert made.task.said == ["start", "thaw", ["gain", "word"], "thaw"]
    assert (made.task.config.gain, made.task.state) == (2, 2)
    monkeypatch.setattr(Keeper, "refuses", (3,))
    thaw_task(made, Keeper.Config(gain=3), {"state": 3})
    assert made.task.said == ["start", "thaw"]  # made again: a restart had given it that
    assert (made.task.config.gain, made.task.state) == (3, 3)


def test_after_a_job_the_config_is_the_one_that_the_task_accepted(tmp_path):
    made = made_of(tmp_path)
    job = Job(0, 0, Keeper.Config(gain=2), {})
    assert freeze_after(made, job, secrets=NO_SECRETS)["live"] == {"gain": 2}
    job.accepted = Keeper.Config(gain=1)
    assert freeze_after(made, job, secrets=NO_SECRETS)["live"] == {}


SECRETS = frozenset({"s3c", "s3cr", "camera", "letters", "p@ss/word"})


@pytest.mark.parametrize(
    ("state", "masked"),
    [
        ("my s3c", "my s3c"),
        ("s3c", "s3c"),
        ("my s3cr", "my ***"),
        ("a camera here", "a camera here"),
        ("camera", "***"),
        ("of letters", "of ***"),
        (b"s3c s3cr letters camera", b"s3c *** *** camera"),
        (b"camera", b"***"),
        ({"s3cr": ["s3cr", {"deep": "s3cr"}]}, {"***": ["***", {"deep": "***"}]}),
        ("http://u:camera@h/x", "http://***@h/x"),
        ("p%40ss%2Fword", "***"),
        (7, 7),
    ],
)
def test_a_state_is_kept_without_secrets_but_with_mere_words(tmp_path, state, masked):
    made = made_of(tmp_path)
    made.task.state = state
    assert freeze_task(made, made.bound.config, secrets=SECRETS)["state"] == masked
    assert freeze_task(made, made.bound.config, secrets=NO_SECRETS)["state"] == state


def test_an_array_that_looks_like_a_secret_stays(tmp_path):
    made = made_of(tmp_path)
    made.task.state = np.frombuffer(b"s3cr", np.uint8)
    thaw_task(made, made.bound.config, freeze_task(made, made.bound.config, secrets=SECRETS))
    assert bytes(made.task.state) == b"s3cr"


@pytest.mark.parametrize("data", [b"\x01", b"\x80", b"\x81\xa5tasks\x01", b"\x91\xa5tasks"])
def test_other_bytes_are_no_keyframe(data):
    with pytest.raises(ValueError, match="^not a keyframe$"):
        unpack_keyframe(data)


class Policy:
    """An error policy, as a keyframe asks it."""

    def __init__(self, is_down):
        self.is_down = is_down

    def freeze(self):
        return {"failures": 2, "until_ns": 9}


def keyframes_of(made, *, is_down=None, jobs=None):
    background = {} if jobs is None else {"t": SimpleNamespace(jobs=jobs)}
    policies = {} if is_down is None else {"t": Policy(is_down)}
    rate = Rate(every=1, rate_hz=1)
    keyframes = Keyframes(
        [made], policies=policies, rates={"t": rate}, background=background, secrets=NO_SECRETS
    )
    return keyframes, rate


def taken(keyframes):
    return unpack_keyframe(keyframes.take())["t"]


def test_a_keyframe_holds_state_rate_and_policy(tmp_path):
    made = made_of(tmp_path)
    made.task.state = 5
    keyframes, rate = keyframes_of(made)
    assert taken(keyframes) == {"live": {}, "state": 5}
    assert rate.admits(CycleTime(0, 7))
    assert taken(keyframes) == {"live": {}, "state": 5, "due_ns": 1_000_000_007}
    down = {"live": {}, "failures": 2, "until_ns": 9}
    assert taken(keyframes_of(made, is_down=True)[0]) == down
    assert taken(keyframes_of(made, is_down=False)[0]) == {**down, "state": 5}


def test_a_freeze_that_fails_again_and_again_is_logged_once(tmp_path):
    made, lines = made_of(tmp_path), []
    made.ctx.log = SimpleNamespace(error=lambda text, **fields: lines.append(fields["error"]))
    keyframes, _ = keyframes_of(made)
    for state in (OSError("one"), OSError("two"), 3, OSError("three")):
        made.task.state = state
        taken(keyframes)
    assert lines == ["OSError: one", "OSError: three"]


def job(cycle, *, state=JobState.WAITING, restarts=False, gain=1):
    return Job(cycle, 0, Keeper.Config(gain=gain), {}, restarts=restarts, state=state)


def test_a_keyframe_holds_the_jobs_in_flight_and_what_was_frozen_after_the_last(tmp_path):
    made = made_of(tmp_path)
    jobs = Jobs(Keeper.Config(gain=4))
    keyframes, _ = keyframes_of(made, jobs=jobs)
    made.task.state = "at the start"
    keyframes.begin()
    made.task.state = "later, on its worker"
    assert taken(keyframes) == {
        "live": {}, "state": "at the start", "config": {"gain": 4}, "jobs": [],
    }  # fmt: skip
    jobs._jobs = [job(3, state=JobState.TAKEN, gain=2), job(5, state=JobState.DONE, restarts=True)]
    jobs.frozen = {"live": {"gain": 2}, "state": "after job 2"}
    assert taken(keyframes) == {
        "live": {"gain": 2}, "state": "after job 2", "config": {"gain": 4},
        "jobs": [[3, {"gain": 2}, True, False], [5, {}, False, True]],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("is_down", "restarts", "keeps"),
    [
        (False, [], True),
        (True, [], False),
        (True, [False, True], True),
        (False, [True, False], False),
    ],
)
def test_a_task_whose_next_job_begins_with_a_restart_remembers_nothing(
    tmp_path, is_down, restarts, keeps
):
    made = made_of(tmp_path)
    jobs = Jobs(Keeper.Config())
    keyframes, _ = keyframes_of(made, is_down=is_down, jobs=jobs)
    jobs.frozen = {"state": 1, "error": "no", "rng": "r"}
    jobs._jobs = [job(at, restarts=it) for at, it in enumerate(restarts)]
    assert ({"state", "error"} <= taken(keyframes).keys()) is keeps
    assert taken(keyframes)["rng"] == "r"
    assert jobs.frozen == {"state": 1, "error": "no", "rng": "r"}


def test_live_values_of_a_job_that_do_not_come_back_cost_the_keyframe(tmp_path):
    made = made_of(tmp_path, Lossy)
    made.ctx.log = SimpleNamespace(error=lambda *_args, **_fields: None)
    keyframes, _ = keyframes_of(made, jobs=Jobs(Lossy.Config(gain=57)))
    assert taken(keyframes) == {
        "error": "ValueError: live values that JSON does not give back: gain"
    }
