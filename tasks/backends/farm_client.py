"""The coroutines of `openai`: look for servers, ask the one whose turn it is, the next if it fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from flowrun.tasks.backends.chat import ServerError, chat_request
from flowrun.tasks.backends.farm import Farm, Member
from flowrun.tasks.backends.servers_health import ServersHealth
from flowrun.tasks.backends.settings import OpenAISettings
from flowrun.tasks.models.question import Answer, ModelError, Question

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

__all__ = ["FarmClient", "all_errors", "words_of"]

_CHECK_S = 0.5
"""How long a server that has failed may take to show that it is back."""
_LOAD_S = 10.0
"""How long a server may take to list its models."""
_OTHERS_S = 2.0
"""How long the others of a farm may take, once one has."""
_LOGGED_PAUSE_S = 1.0
"""A longer pause before a retry is logged."""


class FarmClient:
    """Asks servers; used on one loop at a time.

    seen: gets what is seen of each server.
    """

    def __init__(
        self,
        farm: Farm,
        settings: OpenAISettings,
        *,
        log: FilteringBoundLogger,
        seen: ServersHealth,
    ) -> None:
        self._farm = farm
        self._settings = settings
        self._log = log
        self._seen = seen

    # -- whether they are there ------------------------------------------------------------------

    async def look(
        self, *, limit_s: float = _LOAD_S, only_there: bool = False
    ) -> dict[Member, ServerError]:
        """Ask all for their models: those that did not list them, and why. Raises `ModelError` where a
        list says that the settings are wrong.

        limit_s: how long each may take; once one has listed them, the others have 2 s more at most.
        only_there: whether it is all the same what they list.
        """
        loop = asyncio.get_running_loop()
        find = self._list if only_there else self._find
        members = {asyncio.create_task(find(it)): it for it in self._farm.members}
        failed: dict[Member, ServerError] = {}
        pending = set(members)
        until_s = loop.time() + limit_s
        try:
            while pending and loop.time() < until_s:
                done, pending = await asyncio.wait(
                    pending, timeout=until_s - loop.time(), return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    try:
                        task.result()
                    except ServerError as error:
                        failed[members[task]] = error
                    else:
                        limit_s = min(limit_s, _OTHERS_S)
                        until_s = min(until_s, loop.time() + limit_s)
        finally:
            for task in members:
                task.cancel()
            await asyncio.gather(*members, return_exceptions=True)
        for task in pending:
            where = members[task].client.where
            failed[members[task]] = ServerError(f"{where}: no list of models within {limit_s:g} s")
        for member, why in failed.items():
            self._seen.note_failure(member.client.where, str(why))
        return {it: failed[it] for it in self._farm.members if it in failed}

    async def _list(self, member: Member) -> list[str]:
        found = await member.client.models()
        self._seen.note_ready(member.client.where)
        return found

    async def _find(self, member: Member) -> None:
        """See which model a server has."""
        client = member.client
        known = client.models_found, client.model
        found = await client.models()
        if self._settings.model is None:
            client.model = self._only_model(member, found)
        client.models_found = found
        self._seen.note_ready(client.where)
        if not known[0] or known[1] != client.model:
            self._log.info("model server found", url=client.where, model=client.model)

    def _only_model(self, member: Member, found: Sequence[str]) -> str:
        where = member.client.where
        if len(found) != 1:
            raise ModelError(
                f"{where} has {len(found)} models ({', '.join(found) or 'none'}); "
                "give one as 'model'"
            )
        [model] = found
        for other in self._farm.members:
            if other is member or other.backoff.error is not None:
                continue  # it may get another model too, before it is back
            name = other.client.model
            # llama-server names the file, which may be in another folder on another machine.
            if name is not None and PurePath(name).name != PurePath(model).name:
                raise ModelError(
                    f"{where} has the model {model}, and {other.client.where} has {name}; the "
                    "servers of one base_url have the same, or a name in common, as 'model'"
                )
        return model

    async def check(self, member: Member) -> bool:
        """Whether a server that has failed may be asked again: it lists its models."""
        where = member.client.where
        if member.backoff.is_wanted:
            return False
        try:
            async with asyncio.timeout(_CHECK_S):
                await self._find(member)
        except TimeoutError:
            self._seen.note_failure(where, f"{where}: no list of models within {_CHECK_S:g} s")
            return False
        except ModelError as error:
            self._seen.note_failure(where, str(error))
            return False
        member.backoff.note_health()
        member.is_back = not self._farm.is_one
        return True

    # -- questions -------------------------------------------------------------------------------

    async def answers(self, questions: Sequence[Question], limit_s: float) -> list[Answer]:
        """The answers to questions that are asked at the same time, in their order; raises the first
        error of that order, when all have ended. Meanwhile, servers are looked for that may be back."""
        asked = [asyncio.create_task(self._answer(it, limit_s)) for it in questions]
        back = [] if self._farm.is_one else self._farm.returning()
        looks = [asyncio.create_task(self.check(member)) for member in back]
        try:
            await asyncio.gather(*asked, *looks, return_exceptions=True)
        finally:
            for task in (*asked, *looks):
                task.cancel()
        return [task.result() for task in asked]

    async def _answer(self, question: Question, limit_s: float) -> Answer:
        """The answer of one server, or of the next: each is asked once."""
        words = words_of(question)
        until_s = asyncio.get_running_loop().time() + limit_s
        bodies = _Bodies(question, self._settings)
        tried: dict[Member, ServerError] = {}
        while (member := self._farm.take(words, tried)) is not None:
            where = member.client.where
            try:
                with self._counted(member):
                    async with asyncio.timeout_at(until_s):
                        answer = await self._ask(member, bodies, until_s)
            except TimeoutError:
                late = ServerError(f"{where}: no answer within {limit_s:g} s (timeout_s)")
                if not self._farm.is_one:  # the others do not wait for it
                    self._note_failure(member, late, words)
                raise ModelError(str(late)) from None
            except ServerError as error:
                if not (error.is_of_server or self._farm.is_one):
                    raise
                tried[member] = error
                self._note_failure(member, error, words)
                continue
            self._seen.note_answer(where)
            if member.note_answer() and not self._farm.is_one:
                self._log.info("model server answers again", url=where)
            return replace(answer, server=where)
        raise all_errors(list(tried.values()) or self._farm.errors())

    @contextlib.contextmanager
    def _counted(self, member: Member) -> Iterator[None]:
        self._seen.note_asked(member.client.where)
        try:
            yield
        finally:
            self._farm.give_back(member)
            self._seen.note_done(member.client.where)

    def _note_failure(self, member: Member, error: ServerError, words: Any) -> None:
        self._seen.note_failure(member.client.where, str(error), by_question=True)
        if member.note_failure(error, words) and not self._farm.is_one:
            self._log.warning("model server failed", url=member.client.where, error=str(error))

    async def _ask(self, member: Member, bodies: _Bodies, until_s: float) -> Answer:
        """The answer of a server. One that is alone is asked again, as often as the settings say."""
        client = member.client
        if client.model is None and not client.models_found:
            await self._find(member)  # one of a farm that was not there at the start
        retries = self._settings.retries if self._farm.is_one else 0
        tried = 0
        while True:
            try:
                return await client.ask(bodies.of(client.model), bodies.on_text)
            except ServerError as error:
                if tried == retries or not error.may_pass:
                    raise
                pause_s = member.backoff.retry_s(tried, error)
                if asyncio.get_running_loop().time() + pause_s >= until_s:
                    raise
                text = str(error)
            tried += 1
            if pause_s > _LOGGED_PAUSE_S:
                self._log.warning("waiting before a retry", error=text, pause_s=round(pause_s, 1))
            await asyncio.sleep(pause_s)


class _Bodies:
    """A question as a request to each server: made once for those that call the model the same."""

    def __init__(self, question: Question, settings: OpenAISettings) -> None:
        self._question = question
        self._settings = settings
        self._made: dict[str | None, bytes] = {}
        self.on_text = question.on_text

    def of(self, model: str | None) -> bytes:
        if model not in self._made:
            self._made[model] = chat_request(
                self._question,
                model=model,
                stream=self._settings.stream and self.on_text is not None,
                jpeg_quality=self._settings.jpeg_quality,
            )
        return self._made[model]


def words_of(question: Question) -> Any:
    """What of a question a server may fail at, whatever the picture."""
    return question.prompt, question.max_new_tokens, question.stop


def all_errors(errors: Iterable[ModelError]) -> ModelError:
    """What to raise where none answers: the only failure as it is, or one text of all."""
    found = list(errors)
    if len(found) == 1:
        return found[0]
    return ModelError("no server answers; " + "; ".join(map(str, found)))
