"""`backend: stub`: answers without a model, which depend on the picture and the prompt alone."""

from __future__ import annotations

from collections.abc import Sequence

from zlib_ng.zlib_ng import crc32

from flowrun.tasks.models.question import Answer, Question

__all__ = ["STUB", "StubBackend"]

STUB = "stub"
_DETECT = "detect "
_STEP = 64
"""Between the edges of boxes, of the 1024 steps of a `<loc>`."""


class StubBackend:
    """See `Backend`. The prompt `detect WHAT` gets one box, as the models' answers write it; any other
    one a few words: another picture or prompt has other ones."""

    where = ""

    def load(self) -> None: ...

    def answer(self, question: Question) -> Answer:
        seen = crc32(question.pixels.tobytes(), crc32(question.prompt.encode()))
        if question.prompt.startswith(_DETECT):
            what = question.prompt.removeprefix(_DETECT).partition(";")[0].strip()
            top, left = seen % 8 * _STEP, seen // 8 % 8 * _STEP
            places = (top, left, top + 4 * _STEP, left + 4 * _STEP)
            return Answer("".join(f"<loc{it:04}>" for it in places) + f" {what}", 5)
        return Answer(f"stub {seen:08x}", 2)

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        return [self.answer(it) for it in questions]

    def healthy(self) -> bool:
        return True

    def cancel(self) -> None: ...

    def close(self) -> None: ...
