"""`Inference`: a vision-language model answers a prompt about frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import (
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from flowrun.msgs.image import ImageRgb8Msg
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.broadcast import PartialAnswer, Shows
from flowrun.runtime.simulated import is_simulated
from flowrun.runtime.task import Context, Input, Live, Output, Task, TaskConfig
from flowrun.runtime.wording import listed, mask_urls, nearest
from flowrun.tasks.backends.backend import Backend
from flowrun.tasks.backends.budget import Budget, Spending, is_timed
from flowrun.tasks.backends.chain import Chain
from flowrun.tasks.backends.health import BackendHealth
from flowrun.tasks.backends.make import make_backend, make_embedded
from flowrun.tasks.backends.probe import ServerProbe
from flowrun.tasks.backends.remembered import RememberedBackend
from flowrun.tasks.backends.server import problems_of
from flowrun.tasks.backends.servers_health import ServersHealth
from flowrun.tasks.backends.settings import (
    KINDS,
    BackendSettings,
    Device,
    Dtype,
    OpenAISettings,
    TransformersSettings,
    problems_of_urls,
)
from flowrun.tasks.backends.similar import SimilarFrames
from flowrun.tasks.backends.stub import STUB, StubBackend
from flowrun.tasks.models.checkpoints import find_checkpoint
from flowrun.tasks.models.installed import packages_missing
from flowrun.tasks.models.question import Answer, ModelError, Question, Sampling
from flowrun.tasks.named_inputs import InputNames, batched_pairs

__all__ = ["Inference", "InferenceBatch"]

EMBEDDED = "embedded"

_LONGEST_PROMPT = 16_384
"""Characters. A prompt may come from anybody who sees the page, and what a model needs for a longer one
grows faster than its length."""


class Inference(Task):
    """Answer `prompt` about each frame that comes.

    `backend: embedded` is the model that ships with flowrun; `backend: transformers` loads `model`,
    a checkpoint folder or a hub id; further ones, such as servers with OpenAI's HTTP API, are
    listed under `backends`. Where one fails, those of `fallback` answer in its place until it works
    again. With `background: true` the graph's cycles go on meanwhile and the model always gets the
    newest frame.

    Models in this process give the same answers for the same frames and prompts, also with
    `do_sample`: what is drawn depends on `seed` and the frame's cycle alone. A server need not, so
    a replay takes the answers from the log if `backends` has one. An answer is a frame's: `tov_ns`,
    `frame_id` and `frame_cycle` say which.

    `latency_ms` is from the call of the model to its answer. A checkpoint that is missing, or is none
    for this, is an error before the first cycle; a backend that fails in a cycle, with no other in
    `fallback`, is one that `on_error` handles.
    """

    class Config(TaskConfig):
        prompt: Live[Annotated[str, Field(max_length=_LONGEST_PROMPT)]] = "cap en"
        """What the model is asked about each frame: at most 16,384 characters."""
        presets: list[str] = Field(default_factory=list)
        """Prompts that the page offers besides those that were asked."""
        max_new_tokens: Live[PositiveInt] = 50
        """The length at which an answer is cut off, in tokens."""
        stop: Live[list[str]] = Field(default_factory=list)
        """The answer ends before the first of these texts."""
        skip_similar: Live[Annotated[float, Field(ge=0, lt=256)]] = 0.0
        """Leave out a frame if, on a grid of 32 x 32 cells, every cell's mean colour differs by less
        than this (of 255) from that in the last frame that was answered; 0 leaves none out. The
        run's log says how many were left out."""
        budget: Budget | None = None
        """How often the model is asked at most: {per_hour, p99_ms}. What is left out for that is in the
        log, the report and the metrics, with the cause."""
        shadow: dict[str, Any] | None = None
        """A second model, asked about the same frames after this one, and acted on by nobody: keys of
        this config that are other for it, such as {backend: new}, {prompt: ...} or {model: ...}. Its
        answers are in the log, as those of task `<id>_shadow`; the report, the page and the metrics say
        how often it disagrees. Its `budget` is its own."""
        max_batch: PositiveInt = 1
        """How many frames a model in this process may answer together, where several tasks share
        it and wait for it. The last digits then depend on who waits, and with them, rarely, a
        token: with more than 1, a replay takes the answers from the log."""
        model: str | None = None
        """The checkpoint of `backend: transformers`: a folder (relative ones start at the graph
        file) or a hub id."""
        device: Device = "auto"
        """Where the model computes: auto, cpu, cuda or cuda:N; auto: the first GPU, if there is one."""
        dtype: Dtype = "auto"
        """The type that the model computes in; auto: bfloat16 on a GPU and on a CPU that computes in
        it, float32 on others; for the embedded model always float32."""
        threads: PositiveInt | None = None
        """CPU threads of torch, for the whole process. If not given: 1 for the embedded model,
        whose steps are too short to share (2 threads on 2 busy cores took 5 times as long), and
        torch's own number for others."""
        local_files_only: bool = False
        """Never look on the network for the model."""
        static_cache: bool = False
        """Give the model a cache of a fixed size: on a GPU transformers then compiles the decoding,
        which takes a minute at the first answer and makes all others faster."""
        do_sample: bool = False
        """Draw tokens instead of taking the likeliest."""
        temperature: PositiveFloat = 1.0
        """How freely `do_sample` draws: below 1 it favours the likelier tokens, above 1 less so."""
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
        """The seed of what `do_sample` draws."""
        backends: dict[str, BackendSettings] = Field(default_factory=dict)
        """Further backends by name. An entry says its `type`, transformers or openai, unless its
        name is that."""
        backend: Live[str] = EMBEDDED
        """embedded, transformers (with `model`), a name of `backends`, or stub, which asks no model: its
        answers depend on the picture and the prompt alone, for trying out a graph."""
        fallback: list[str] = Field(default_factory=list)
        """Backends that answer, in this order, while `backend` fails or takes too long."""

        @model_validator(mode="before")
        @classmethod
        def _type_by_name(cls, data: Any) -> Any:
            backends = data.get("backends") if isinstance(data, dict) else None
            if not isinstance(backends, dict):
                return data
            typed = {
                name: {"type": name, **entry}
                if name in KINDS and isinstance(entry, dict)
                else entry
                for name, entry in backends.items()
            }
            return {**data, "backends": typed}

        @field_validator("backends")
        @classmethod
        def _names_are_free(cls, backends: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
            if EMBEDDED in backends:
                raise ValueError(f"{EMBEDDED!r} is the model that ships with flowrun; use another")
            if "transformers" in backends and info.data.get("model") is not None:
                raise ValueError("'transformers' is given here and as 'model'; leave one out")
            return backends

        @field_validator("backend")
        @classmethod
        def _is_known(cls, backend: str, info: ValidationInfo) -> str:
            if "backends" in info.data:  # else there is a mistake in it, which is reported
                _must_be_known(backend, info.data)
            return backend

        @field_validator("stop")
        @classmethod
        def _says_something(cls, stop: list[str]) -> list[str]:
            if "" in stop:
                raise ValueError("an empty text would end every answer before it begins")
            return stop

        @field_validator("fallback")
        @classmethod
        def _are_known(cls, fallback: list[str], info: ValidationInfo) -> list[str]:
            for name in fallback if "backends" in info.data else ():
                _must_be_known(name, info.data)
            return fallback

        @property
        def names(self) -> list[str]:
            """All backends that there are to choose from."""
            own = ["transformers"] if self.model is not None else []
            chosen = [STUB] if STUB in self.order else []
            return list(dict.fromkeys([EMBEDDED, *own, *self.backends, *chosen]))

        @property
        def order(self) -> list[str]:
            """The backends to ask, one after another; each once."""
            return list(dict.fromkeys([self.backend, *self.fallback]))

        def is_server(self, backend: str) -> bool:
            """Whether `backend` runs no model in this process."""
            return isinstance(self.backends.get(backend), OpenAISettings)

    shows: ClassVar[Shows | None] = "partial answer"
    shadow_type: ClassVar[str | None] = "flowrun.tasks.inference.ShadowInference"
    leaves_out = True

    @classmethod
    def shadow_config(cls, config: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        of_model = {"backend", "model"}
        dropped = {"budget", "fallback", "presets", *(of_model if of_model & own.keys() else ())}
        made = {key: value for key, value in config.items() if key not in dropped} | dict(own)
        if "model" in own:
            made.setdefault("backend", "transformers")
        return made

    waits: ClassVar[bool] = True
    """Whether its start waits for a server that is starting, where there is no other backend."""
    _owner: str = ""
    """With whom models in this process are shared: with all tasks of the same owner."""

    @classmethod
    def check(cls, config: TaskConfig, graph_dir: Path) -> Iterator[tuple[str, str]]:
        assert isinstance(config, cls.Config)
        if config.shadow is not None:
            yield "shadow", f"{cls.__name__} has no shadow"
        if config.model is not None and "transformers" not in config.order:
            yield (
                "model",
                (
                    f"model is for backend: transformers, and backend is {config.backend!r}; to be "
                    "able to switch to it, name it under 'backends'"
                ),
            )
        for name in config.order:
            key = "backend" if name == config.backend else "fallback"
            is_model = name != STUB and not config.is_server(name)
            text = packages_missing(f"{key} {name!r}") if is_model else None
            if text is not None:
                yield key, text
        models = {"model": config.model} if config.model is not None else {}
        for name, settings in config.backends.items():
            if isinstance(settings, TransformersSettings):
                models[f"backends.{name}.model"] = settings.model
                continue
            for key, problem in problems_of_urls(settings):
                yield f"backends.{name}.{key}", problem
            if settings.server is not None:
                for problem in problems_of(settings.server, settings.api_key, graph_dir):
                    yield f"backends.{name}.server.command", problem
        for key, model in models.items():
            try:
                find_checkpoint(model, graph_dir)
            except ModelError as error:
                yield key, str(error)

    @classmethod
    def is_external(cls, config: TaskConfig) -> bool:
        assert isinstance(config, cls.Config)
        if is_timed(config.budget):
            return True
        return config.max_batch > 1 or any(map(config.is_server, config.backends))

    @classmethod
    def simulates(cls, config: TaskConfig) -> str | None:
        assert isinstance(config, cls.Config)
        servers = [it for it in config.order if config.is_server(it)]
        if servers:
            return f"asks a server, {servers[0]!r}: set its backend to embedded, or to stub"
        return None

    def start(self, ctx: Context) -> None:
        ctx.backends = self._health = self._new_health(ctx)
        self._chain = Chain(lambda name: self._make(name, ctx), ctx.log, self._health)
        self._similar = SimilarFrames()
        self._spending = Spending(self.config.budget)
        self._load(ctx)

    def _load(self, ctx: Context) -> None:
        self._chain.load(self.config.order, now_ns=ctx.now_ns)
        ctx.computes_on = self._chain.where

    def stop(self, ctx: Context) -> None:
        self._similar.report_to(ctx.log)
        self._spending.report_to(ctx.log)
        self._health.close()
        self._chain.close()

    def interrupt(self, ctx: Context) -> None:  # noqa: ARG002  # as `Task` has it
        self._chain.cancel()

    def freeze(self) -> Any:
        return {
            "chain": self._chain.freeze(),
            "similar": self._similar.freeze(),
            "spending": self._spending.freeze(),
        }

    def thaw(self, state: Any) -> None:
        self._chain.thaw(state["chain"])
        self._similar.thaw(state["similar"])
        self._spending.thaw(state["spending"])

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
    ) -> None:
        if self._spending.leaves_out(ctx):
            return
        question = self._question(ctx, image, self._similar)
        if question is None:
            return
        self._spending.report_to(ctx.log)
        self._spending.asked(ctx.now_ns)
        if ctx.broadcast.watched:
            question = replace(question, on_text=self._show(ctx, image.tov_ns, question.prompt))
        called = time.perf_counter()
        order = self.config.order
        backend, made = self._chain.answer(question, order, now_ns=ctx.now_ns)
        latency_ms = (time.perf_counter() - called) * 1000
        self._spending.answered(latency_ms, ctx.now_ns)
        self._publish(ctx, answer, image, question, backend, made, latency_ms)
        if self.config.skip_similar:
            self._similar.answered()

    def _question(
        self, ctx: Context, image: ImageRgb8Msg, similar: SimilarFrames, *numbers: int
    ) -> Question | None:
        """What to ask about a frame; None if it looks like the last one of `similar`.

        numbers: which frame of the cycle it is, if there are several.
        """
        config = self.config
        # Half a surrogate pair can come from JSON; no tokenizer and no encoding takes one.
        prompt = config.prompt.encode("utf-8", "replace").decode()
        sampling = None
        if config.do_sample:
            drawn = np.random.SeedSequence([config.seed, ctx.cycle, *numbers])
            sampling = Sampling(int(drawn.generate_state(1)[0]), config.temperature)
        if config.skip_similar:
            # Another prompt or backend is another question, whatever the frame.
            asked = [prompt, config.backend, config.max_new_tokens, *config.stop]
            if similar.skips(image, asked, ctx.cycle, limit=config.skip_similar):
                return None
            similar.report_to(ctx.log)
        return Question(
            image.pixels, prompt, config.max_new_tokens, sampling, stop=tuple(config.stop)
        )

    @staticmethod
    def _publish(
        ctx: Context,
        answer: PromptResponseMsg,
        image: ImageRgb8Msg,
        question: Question,
        backend: str,
        made: Answer,
        latency_ms: float,
    ) -> None:
        answer.latency_ms = latency_ms
        answer.prompt = question.prompt
        answer.response = made.text
        answer.reasoning = made.reasoning
        answer.truncated = made.truncated
        answer.tokens = made.tokens
        answer.backend = backend
        answer.server = made.server
        answer.frame_id = image.frame_id
        answer.frame_cycle = ctx.cycle
        answer.frame_width, answer.frame_height = image.width, image.height
        answer.publish(tov_ns=image.tov_ns)

    @staticmethod
    def _show(ctx: Context, tov_ns: int, prompt: str) -> Callable[[str], None]:
        """A callback that shows clients the answer as it grows."""
        cycle = ctx.cycle

        def show(text: str) -> None:
            ctx.broadcast.offer(PartialAnswer(tov_ns, cycle, prompt, text))

        return show

    def _new_health(self, ctx: Context) -> BackendHealth:
        settings_of = {
            name: settings
            for name, settings in self.config.backends.items()
            if isinstance(settings, OpenAISettings)
        }
        self._servers = {
            name: ServersHealth(map(mask_urls, settings.urls))
            for name, settings in settings_of.items()
            if len(settings.urls) > 1
        }
        probes = {
            name: ServerProbe(settings, log=ctx.log, seen=self._servers.get(name))
            for name, settings in settings_of.items()
            if settings.server is None
        }
        return BackendHealth(
            self.config.names,
            order=lambda: self.config.order,
            probes=probes,
            servers=self._servers,
        )

    def _make(self, name: str, ctx: Context) -> Backend:
        if name == STUB and STUB not in self.config.backends:
            return StubBackend()
        if is_simulated():
            config = self.config
            key = name, config.model, str(config.backends.get(name)), config.device, config.dtype
            return RememberedBackend((ctx.graph_dir, *key), partial(self._make_model, name, ctx))
        return self._make_model(name, ctx)

    def _make_model(self, name: str, ctx: Context) -> Backend:
        config = self.config
        others = [s for s in config.backends.values() if isinstance(s, TransformersSettings)]
        is_small = config.model is None and not others
        threads = config.threads or (1 if is_small else None)

        def tell(what: str, fraction: float | None) -> None:
            ctx.progress = what, fraction
            self._health.note_loading(name, what if fraction is None else f"{what} {fraction:.0%}")

        if name == EMBEDDED:
            return make_embedded(
                device=config.device,
                dtype=config.dtype,
                max_batch=config.max_batch,
                threads=threads,
                log=ctx.log,
                tell=tell,
                owner=self._owner,
            )
        settings = config.backends.get(name)
        if settings is None:
            assert config.model is not None
            settings = TransformersSettings(
                model=config.model,
                device=config.device,
                dtype=config.dtype,
                local_files_only=config.local_files_only,
                static_cache=config.static_cache,
            )
        return make_backend(
            settings,
            graph_dir=ctx.graph_dir,
            max_batch=config.max_batch,
            threads=threads,
            log=ctx.log,
            rng=ctx.rng,
            tell=tell,
            waits=self.waits and not config.fallback,
            seen=self._servers.get(name),
            owner=self._owner,
        )


class ShadowInference(Inference):
    """What `shadow` of an `Inference` makes: a second model on the same frames.

    It shares its model with nobody, so that the first one never waits for it. If the model does not
    load, the run goes on without it: its frames are left out ("not loaded"). A server is asked again.
    """

    shows = None
    shadow_type = None
    waits = False

    def start(self, ctx: Context) -> None:
        self._owner = ctx.task_id
        self._is_lost = False
        super().start(ctx)

    def _load(self, ctx: Context) -> None:
        try:
            super()._load(ctx)
        except Exception as error:  # noqa: BLE001  # whatever a library raises
            # Libraries load one model at a time, and while none computes: not later, beside others.
            self._is_lost = not any(map(self.config.is_server, self.config.order))
            ctx.log.warning("the shadow does not answer", error=str(error))

    def process(
        self, ctx: Context, image: Input[ImageRgb8Msg], answer: Output[PromptResponseMsg]
    ) -> None:
        if self._is_lost:
            ctx.dropped(1, "not loaded")
        else:
            super().process(ctx, image, answer)


class InferenceBatch(Inference):
    """Answer `prompt` about the frames of several cameras: those of one cycle in one batch.

    For each name of `inputs` there is an input port of that name, and `<name>_answer` with its answers.
    The frames that come in the same cycle are answered together, so that several cameras cost little
    more than one on a GPU; a camera that gives none has no answer then. Which frames are together
    depends on nothing but the cycle: a replay computes the same answers. Servers are asked about all of
    them at the same time, `max_batch` at most.
    """

    class Config(Inference.Config):
        inputs: InputNames
        """The names of the cameras: letters, digits and '_'."""
        max_batch: PositiveInt = 16
        """How many frames the model answers together at most, or a server is asked about at the same
        time; of more, the rest comes after that."""

    example_config = MappingProxyType({"inputs": ["front", "back"]})
    shows = None
    shadow_type = None

    @classmethod
    def is_external(cls, config: TaskConfig) -> bool:
        assert isinstance(config, cls.Config)
        return is_timed(config.budget) or any(map(config.is_server, config.backends))

    def start(self, ctx: Context) -> None:
        super().start(ctx)
        self._similar_of = {name: SimilarFrames() for name in self.config.inputs}

    def stop(self, ctx: Context) -> None:
        for similar in self._similar_of.values():
            similar.report_to(ctx.log)
        super().stop(ctx)

    def freeze(self) -> Any:
        similar = {name: it.freeze() for name, it in self._similar_of.items()}
        spending = self._spending.freeze()
        return {"chain": self._chain.freeze(), "similar": similar, "spending": spending}

    def thaw(self, state: Any) -> None:
        self._chain.thaw(state["chain"])
        self._spending.thaw(state["spending"])
        for name, similar in self._similar_of.items():
            similar.thaw(state["similar"].get(name))

    def process(
        self, ctx: Context, *answer: Input[ImageRgb8Msg] | Output[PromptResponseMsg]
    ) -> None:
        config = self.config
        asked: list[tuple[str, ImageRgb8Msg, PromptResponseMsg, Question]] = []
        for number, (name, (image, output)) in enumerate(
            zip(config.inputs, batched_pairs(answer), strict=True)
        ):
            if image is None or self._spending.leaves_out(ctx):
                continue
            question = self._question(ctx, image, self._similar_of[name], number)
            if question is not None:
                self._spending.asked(ctx.now_ns)
                asked.append((name, image, output, question))
        if not asked:
            return
        self._spending.report_to(ctx.log)
        called = time.perf_counter()
        questions = [question for *_, question in asked]
        backend, answers = self._chain.answers(questions, config.order, now_ns=ctx.now_ns)
        latency_ms = (time.perf_counter() - called) * 1000
        self._spending.answered(latency_ms, ctx.now_ns)
        for (name, image, output, question), made in zip(asked, answers, strict=True):
            self._publish(ctx, output, image, question, backend, made, latency_ms)
            if config.skip_similar:
                self._similar_of[name].answered()


def _must_be_known(name: str, config: dict[str, Any]) -> None:
    names = [EMBEDDED, *config["backends"]]
    if config.get("model") is not None:
        names.append("transformers")
    if name in names or name == STUB:
        return
    if name == "transformers":
        raise ValueError(
            "backend transformers needs a model: a checkpoint folder, or a hub id such as "
            "'google/paligemma-3b-mix-224'"
        )
    if name == "openai":
        raise ValueError(
            "backend openai needs the server's URL: "
            "backends: {openai: {base_url: http://127.0.0.1:8080/v1}}"
        )
    raise ValueError(f"unknown backend {name!r}; backends: {listed(names)}{nearest(name, names)}")
