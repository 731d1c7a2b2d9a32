"""`Inference` where a model is shared, and where answers are cut short, shown early or left out."""

from __future__ import annotations

import gc
import re
import sys
import threading
from collections.abc import Sequence
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pytest
import structlog
from PIL import Image
from structlog.testing import capture_logs

from flowrun.msgs import ImageRgb8Msg
from flowrun.runtime.broadcast import Broadcast, PartialAnswer
from flowrun.runtime.testing import run_task
from flowrun.tasks.backends.local import _MODELS, LocalBackend
from flowrun.tasks.backends.similar import SimilarFrames
from flowrun.tasks.embedded import MODEL_DIR
from flowrun.tasks.embedded.training.scenes import HELD_OUT_SEEDS, caption, draw, make_scene
from flowrun.tasks.inference import Inference
from flowrun.tasks.models.question import Answer, ModelError, Question, Sampling
from flowrun.tasks.models.shared import SharedModel, _Waiting
from flowrun.tasks.models.vlm import VisionLanguageModel

pytestmark = pytest.mark.slow

STOP = " in the "
SCENES = [make_scene(seed) for seed in HELD_OUT_SEEDS[:8]]


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    import torch

    torch.set_num_threads(1)
    return VisionLanguageModel.load(MODEL_DIR, device="cpu", dtype="float32", local_files_only=True)


def reachable_bytes(thing: Any) -> int:
    """Size of `thing` and of all that only data leads to from it."""
    seen: dict[int, Any] = {}
    left = [thing]
    while left:
        item = left.pop()
        if id(item) in seen or isinstance(item, (type, FunctionType, ModuleType)):
            continue
        seen[id(item)] = item
        left += gc.get_referents(item)
    return sum(sys.getsizeof(item) for item in seen.values())


def embedded() -> LocalBackend:
    return LocalBackend(
        MODEL_DIR,
        device="cpu",
        dtype="float32",
        local_files_only=True,
        max_batch=8,
        log=structlog.get_logger(),
    )


def picture(number: int, *, noise: int = 0) -> dict[str, Any]:
    pixels = draw(SCENES[number]).astype(int)
    pixels += np.random.default_rng(noise).integers(-noise, noise + 1, pixels.shape)
    image = ImageRgb8Msg(pixels=pixels.clip(0, 255).astype(np.uint8), frame_id=number)
    image.publish(tov_ns=1000 + number)
    return {"image": image}


# -- one answer --------------------------------------------------------------------------------


def test_an_answer_ends_before_a_stop_text(model: VisionLanguageModel) -> None:
    whole = caption(SCENES[0])
    assert STOP in whole
    [answer] = model.answers([Question(draw(SCENES[0]), "cap en", 50, stop=("xyz", STOP))])
    assert answer.text == whole.partition(STOP)[0]
    [all_of_it] = model.answers([Question(draw(SCENES[0]), "cap en", 50)])
    assert answer.tokens < all_of_it.tokens


def test_an_answer_shows_as_it_grows(model: VisionLanguageModel) -> None:
    shown: list[str] = []
    question = Question(draw(SCENES[0]), "cap en", 50, on_text=shown.append)
    [answer] = model.answers([question])
    assert len(shown) == answer.tokens
    assert shown[-1].strip() == answer.text == caption(SCENES[0])
    assert all(answer.text.startswith(part.strip()) for part in shown)


def test_the_task_shows_clients_that_watch_the_answer_in_part() -> None:
    broadcast = Broadcast()
    run_task(Inference, inputs=[picture(0)], broadcast=broadcast)
    assert broadcast.number == 0  # nobody watches
    items: list[PartialAnswer] = []
    broadcast.subscribe(lambda: items.append(broadcast.newest))
    [out] = run_task(Inference, inputs=[picture(0)], broadcast=broadcast)
    assert len(items) == out["answer"].tokens
    last = items[-1]
    assert (last.tov_ns, last.cycle, last.prompt) == (1000, 0, "cap en")
    assert last.text.strip() == out["answer"].response


def test_the_task_takes_stop_texts() -> None:
    [out] = run_task(Inference, inputs=[picture(0)], config={"stop": [STOP]})
    assert out["answer"].response == caption(SCENES[0]).partition(STOP)[0]


# -- too much, and too late ---------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_is_refused_before_it_is_computed(
    model: VisionLanguageModel,
) -> None:
    hook = model._model.register_forward_pre_hook(lambda *_: pytest.fail("it was computed"))
    try:
        with pytest.raises(ModelError) as caught:
            model.answers([Question(draw(SCENES[0]), "word " * 20_000, 50)])
    finally:
        hook.remove()
    found = re.fullmatch(
        "the prompt and the picture take ([0-9,]+) tokens, but the model's context holds 512, the "
        "answer included; shorten the prompt",
        str(caught.value),
    )
    assert found is not None
    assert int(found[1].replace(",", "")) > 20_000


def test_an_answer_ends_with_the_context_and_says_so(model: VisionLanguageModel) -> None:
    picture = Image.fromarray(draw(SCENES[0]))
    inputs = model._processor(text=[model._text("cap en")], images=[[picture]])
    whole, model._context = model._context, len(inputs["input_ids"][0]) + 4
    try:
        [answer] = model.answers([Question(draw(SCENES[0]), "cap en", 50)])
    finally:
        model._context = whole
    assert (answer.tokens, answer.truncated) == (4, True)
    assert caption(SCENES[0]).startswith(answer.text)


def test_an_answer_says_whether_it_was_cut_off(model: VisionLanguageModel) -> None:
    pixels = draw(SCENES[0])
    [whole] = model.answers([Question(pixels, "cap en", 50)])
    exact, short, stopped = model.answers(
        [
            Question(pixels, "cap en", whole.tokens),
            Question(pixels, "cap en", whole.tokens - 1),
            Question(pixels, "cap en", 50, stop=(STOP,)),
        ]
    )
    assert [it.truncated for it in (whole, exact, short, stopped)] == [False, False, True, False]


def test_a_question_that_is_withdrawn_ends_the_model_soon(model: VisionLanguageModel) -> None:
    asked = 0

    def withdrawn() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(ModelError, match="^the question was withdrawn$"):
        model.answers([Question(draw(SCENES[0]), "cap en", 50, withdrawn=withdrawn)])
    assert asked == 4  # within the first forward pass
    assert model.answers([Question(draw(SCENES[0]), "cap en", 50)])[0].text == caption(SCENES[0])


def test_a_withdrawn_question_leaves_the_others_of_its_batch_alone(
    model: VisionLanguageModel,
) -> None:
    pixels = draw(SCENES[0])
    _, other = model.answers(
        [
            Question(pixels, "cap en", 50, withdrawn=lambda: True),
            Question(pixels, "cap en", 50),
        ]
    )
    assert other.text == caption(SCENES[0])


def test_a_cancelled_backend_answers_no_more() -> None:
    backend = embedded()
    backend.load()
    backend.cancel()
    with pytest.raises(ModelError, match="^the question was withdrawn$"):
        backend.answer(Question(draw(SCENES[0]), "cap en", 50))
    backend.close()


# -- several at once ---------------------------------------------------------------------------


def test_answers_of_a_batch_are_those_of_each_alone(model: VisionLanguageModel) -> None:
    prompts = ["cap en", "answer en how many shapes are there?", "cap en", "detect circle"]
    questions = [
        Question(draw(scene), prompts[i % 4], 3 if i % 4 == 2 else 50)
        for i, scene in enumerate(SCENES)
    ]
    alone = [model.answers([question])[0] for question in questions]
    assert model.answers(questions) == alone
    assert alone[2].tokens == 3
    assert alone[0].text == caption(SCENES[0])


def test_loading_tells_how_far_it_is() -> None:
    shown: list[tuple[str, float | None]] = []
    VisionLanguageModel.load(
        MODEL_DIR,
        device="cpu",
        dtype="float32",
        local_files_only=True,
        tell=lambda what, fraction: shown.append((what, fraction)),
    )
    assert shown[0] == ("loading the libraries", None)
    assert ("loading weights", 0.0) in shown
    assert shown[-1] == ("loading weights", 1.0)


def test_stop_texts_in_a_batch_end_their_own_answer_only(model: VisionLanguageModel) -> None:
    pixels = draw(SCENES[0])
    short, whole = model.answers(
        [Question(pixels, "cap en", 50, stop=(STOP,)), Question(pixels, "cap en", 50)]
    )
    assert whole.text == caption(SCENES[0])
    assert short.text == whole.text.partition(STOP)[0]


def test_tasks_with_the_same_checkpoint_share_one_model() -> None:
    first, second = embedded(), embedded()
    first.load()
    second.load()
    assert first._model is second._model
    first.close()
    assert second.answer(Question(draw(SCENES[1]), "cap en", 50)).text == caption(SCENES[1])
    second.close()
    assert not _MODELS._entries


class Recorder:
    """In a model's place: the first batch waits until the test has let others queue up."""

    def __init__(self, model: VisionLanguageModel) -> None:
        self._model = model
        self.batches: list[int] = []
        self.began, self.gate = threading.Event(), threading.Event()

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        self.batches.append(len(questions))
        if len(self.batches) == 1:
            self.began.set()
            assert self.gate.wait(20)
        return self._model.answers(questions)


def test_those_who_wait_together_are_answered_together(model: VisionLanguageModel) -> None:
    recorder = Recorder(model)
    shared = SharedModel(recorder, recorder.answers)
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        sampling = Sampling(1, 1.0) if number == 7 else None  # is drawn, so goes alone
        question = Question(draw(SCENES[number]), "cap en", 50, sampling)
        answers[number] = shared.answer(question, max_batch=4).text

    threads = [threading.Thread(target=ask, args=[number]) for number in range(8)]
    threads[0].start()
    assert recorder.began.wait(20)
    for thread in threads[1:]:
        thread.start()
    while len(shared._waiting) < 7:
        threading.Event().wait(0.005)
    recorder.gate.set()
    for thread in threads:
        thread.join()
    assert sum(recorder.batches) == 8
    assert sorted(recorder.batches) in ([1, 1, 2, 4], [1, 1, 3, 3])
    assert [answers[n] for n in range(7)] == [caption(SCENES[n]) for n in range(7)]


def test_an_error_in_a_batch_reaches_each_who_asked() -> None:
    class Fails:
        def answers(self, questions: Sequence[Question]) -> list[Answer]:
            raise MemoryError("out of it")

    shared = SharedModel(Fails(), Fails().answers)
    for _ in range(2):
        with pytest.raises(MemoryError, match="out of it"):
            shared.answer(Question(draw(SCENES[0]), "cap en", 50), max_batch=4)
    assert not shared._waiting


class Numbered:
    """A question to a model that keeps which were asked together."""

    joins = "all"

    def __init__(self, name: Any) -> None:
        self.name = name


def test_each_keeps_its_own_max_batch() -> None:
    batches: list[list[str]] = []
    began, gate = threading.Event(), threading.Event()

    def answers(questions: Sequence[Numbered]) -> list[str]:
        batches.append([question.name for question in questions])
        began.set()
        assert gate.wait(20)
        return [question.name for question in questions]

    shared = SharedModel(None, answers)
    limits = [("first", 4), ("a", 1), ("b", 4), ("c", 2), ("d", 4), ("e", 1), ("f", 4)]
    threads = []
    for name, limit in limits:
        ask = threading.Thread(
            target=shared.answer, args=[Numbered(name)], kwargs={"max_batch": limit}
        )
        ask.start()
        threads.append(ask)
        assert began.wait(20)
        while len(shared._waiting) < len(threads):
            threading.Event().wait(0.001)
    gate.set()
    for thread in threads:
        thread.join()
    assert sorted(name for batch in batches for name in batch) == sorted(name for name, _ in limits)
    most = dict(limits)
    assert all(len(batch) <= min(most[name] for name in batch) for batch in batches)
    assert max(map(len, batches)) > 1


def test_an_error_of_one_question_does_not_reach_the_others_of_its_batch() -> None:
    model = SharedModel(None, lambda asked: [10 // question.name for question in asked])
    some = [_Waiting(Numbered(number), 4) for number in (5, 0, 2)]
    model._answer_some(some)
    assert [item.answers for item in some] == [(2,), (), (5,)]
    assert isinstance(some[1].error, ZeroDivisionError)


# -- similar frames ----------------------------------------------------------------------------


def test_similar_frames_are_left_out_and_counted_in_the_log() -> None:
    inputs = [
        picture(0),
        picture(0, noise=4),
        picture(0, noise=5),
        picture(1),
        picture(1),
        picture(0),
    ]
    with capture_logs() as records:
        out = run_task(Inference, inputs=inputs, config={"skip_similar": 12})
    assert ["answer" in made for made in out] == [True, False, False, True, False, True]
    lines = [r for r in records if r["event"] == "similar frames skipped"]
    assert [(r["frames"], r["first_cycle"], r["last_cycle"]) for r in lines] == [
        (2, 1, 2),
        (1, 4, 4),
    ]


def test_frames_left_out_are_counted_not_kept() -> None:
    frames = SimilarFrames()
    pixels = np.zeros((32, 32, 3), np.uint8)
    frames.skips(ImageRgb8Msg(pixels=pixels), ["p"], 0, limit=5)
    frames.answered()
    sizes = set()
    for cycle in range(1, 2001):
        assert frames.skips(ImageRgb8Msg(pixels=pixels), ["p"], 10**9 + cycle, limit=5)
        if cycle % 500 == 0:
            sizes.add(reachable_bytes(frames))
    assert len(sizes) == 1
    with capture_logs() as records:
        frames.report_to(structlog.get_logger())
        frames.report_to(structlog.get_logger())
    [line] = records
    assert (line["frames"], line["first_cycle"], line["last_cycle"]) == (
        2000,
        10**9 + 1,
        10**9 + 2000,
    )


def test_no_frame_is_left_out_by_default() -> None:
    assert all("answer" in made for made in run_task(Inference, inputs=[picture(0)] * 3))


def test_another_prompt_is_another_question() -> None:
    frames, pixels = SimilarFrames(), draw(SCENES[0])
    assert not frames.skips(ImageRgb8Msg(pixels=pixels), ["cap en"], 0, limit=5)
    frames.answered()
    assert frames.skips(ImageRgb8Msg(pixels=pixels), ["cap en"], 1, limit=5)
    assert not frames.skips(ImageRgb8Msg(pixels=pixels), ["detect circle"], 2, limit=5)


def test_a_small_thing_that_moves_makes_another_frame() -> None:
    before = np.full((480, 640, 3), 90, np.uint8)
    after = before.copy()
    after[100:115, 200:220] = 250  # one cell of 1,024
    frames = SimilarFrames()
    frames.skips(ImageRgb8Msg(pixels=before), [], 0, limit=12)
    frames.answered()
    assert not frames.skips(ImageRgb8Msg(pixels=after), [], 1, limit=12)


def test_a_frame_that_was_not_answered_is_not_compared_with() -> None:
    frames = SimilarFrames()
    assert not frames.skips(ImageRgb8Msg(pixels=draw(SCENES[0])), [], 0, limit=12)
    assert not frames.skips(
        ImageRgb8Msg(pixels=draw(SCENES[0])), [], 1, limit=12
    )  # the model failed meanwhile


def test_a_thawed_one_compares_with_the_same_frame() -> None:
    frames, thawed = SimilarFrames(), SimilarFrames()
    thawed.thaw(frames.freeze())
    frames.skips(ImageRgb8Msg(pixels=draw(SCENES[0])), ["cap en", 5], 0, limit=12)
    frames.answered()
    thawed.thaw(frames.freeze())
    assert thawed.skips(ImageRgb8Msg(pixels=draw(SCENES[0])), ["cap en", 5], 1, limit=1)
    assert not thawed.skips(ImageRgb8Msg(pixels=draw(SCENES[1])), ["cap en", 5], 2, limit=12)
