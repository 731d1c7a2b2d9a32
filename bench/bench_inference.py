"""How long an answer takes, and how much of that is flowrun's own.

    python bench/bench_inference.py [--answers 200] [--rounds 5] [--only embedded server gpu] [--tiny]

embedded: captions by the model that ships with flowrun, through the task, one CPU thread; what of it
is not generating: the picture's preparation by the model's processor, and what flowrun adds.
server: `backend: openai` with a real llama-server that serves the same model (`make llama-server`),
compared with a bare HTTP client that posts the same bytes; the difference is flowrun's: the JPEG, the
request, the reading of the answer. The two take turns, answer by answer.
gpu: models of the size of PaliGemma-3B and SmolVLM-500M with random weights, 20 tokens a caption, a
static cache, compiled decoding. The floor of decoding is to read all weights of the text side once a
token, at the bandwidth that a copy reaches here. Without CUDA this part is left out; `--tiny` runs it
on small models on the CPU, to see that it works, and its figures then mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import structlog

from flowrun.msgs import ImageRgb8Msg
from flowrun.msgs.text import PromptResponseMsg
from flowrun.runtime.broadcast import Broadcast
from flowrun.runtime.context import CycleTime
from flowrun.runtime.task import Context
from flowrun.tasks.backends.chat import chat_request
from flowrun.tasks.backends.openai import OpenAIBackend
from flowrun.tasks.backends.settings import OpenAISettings
from flowrun.tasks.inference import Inference
from flowrun.tasks.models.question import Question

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

TARGET_TASK_PERCENT, TARGET_TASK_MS, TARGET_HTTP_MS = 5.0, 3.0, 5.0
TARGET_FLOOR, TARGET_SMOLVLM_MS, TARGET_BATCH = 0.6, 100.0, 4.0
TOKENS, BATCH = 20, 8


def milliseconds(seconds: list[float]) -> str:
    p50, p99 = np.percentile(np.array(seconds) * 1000, [50, 99])
    return f"p50 {p50:7.2f} ms   p99 {p99:7.2f} ms"


def verdict(*, reached: bool) -> str:
    return "reached" if reached else "MISSED"


def frames(count: int) -> list[np.ndarray]:
    """Of the demo video, spread over all of it."""
    import av

    with av.open(str(ROOT / "graphs" / "media" / "shapes.mp4")) as film:
        found = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    return [found[i * len(found) // count] for i in range(count)]


# -- the embedded model ------------------------------------------------------------------------


@contextlib.contextmanager
def running(config: dict[str, Any]) -> Iterator[tuple[Inference, Context]]:
    ctx = Context(
        "vlm",
        time=CycleTime(),
        log=structlog.get_logger(),
        graph_dir=Path(),
        seed=0,
        broadcast=Broadcast(),
    )
    task = Inference(Inference.Config(**config))
    task.start(ctx)
    try:
        yield task, ctx
    finally:
        task.stop(ctx)


def bench_embedded(answers: int, _rounds: int) -> None:
    print("embedded: captions of the demo video's frames through the task, one thread")
    with running({"backend": "embedded"}) as (task, ctx):
        model = task._chain._members["embedded"].backend._model.model
        generate, inside = clocked(model._generate)
        prepare, preparing = clocked(model._processor)
        model._generate, model._processor = generate, prepare
        whole, cpu, tokens = [], [], []
        message = PromptResponseMsg()
        message.bind_time(CycleTime())
        for number, pixels in enumerate(frames(answers)):
            image = ImageRgb8Msg(pixels=pixels, frame_id=number)
            message.clear()
            began, used = time.perf_counter(), time.thread_time()
            task.process(ctx, image, message)
            whole.append(time.perf_counter() - began)
            cpu.append(time.thread_time() - used)
            tokens.append(message.tokens)
    around = [all_ - part for all_, part in zip(whole, inside, strict=True)]
    own = [all_ - part for all_, part in zip(around, preparing, strict=True)]
    median = statistics.median(around)
    percent = 100 * median / statistics.median(whole)
    reached = percent <= TARGET_TASK_PERCENT or median * 1000 <= TARGET_TASK_MS
    print(f"  caption           {milliseconds(whole)}   ({statistics.mean(tokens):.1f} tokens)")
    print(f"  in CPU time       {milliseconds(cpu)}   (what other work on the machine leaves out)")
    print(f"  generating        {milliseconds(inside)}")
    print(f"  all around it     {milliseconds(around)}   {percent:.1f} % of a caption")
    print(f"  model's processor {milliseconds(preparing)}   (part of that: transformers' own)")
    print(f"  flowrun's own     {milliseconds(own)}   (the rest)")
    load = "  ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"  load average of the machine: {load}, on {os.cpu_count()} cores")
    print(
        f"  <= {TARGET_TASK_PERCENT:g} % or <= {TARGET_TASK_MS:g} ms around generate: "
        f"{verdict(reached=reached)}"
    )


def clocked(function: Callable[..., Any]) -> tuple[Callable[..., Any], list[float]]:
    """`function`, and the seconds of its calls."""
    seconds: list[float] = []

    def call(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            seconds.append(time.perf_counter() - began)

    return call, seconds


# -- llama-server ------------------------------------------------------------------------------


def bench_server(answers: int, rounds: int) -> None:
    from support.model_servers.build_llama import server_path

    if not server_path().exists():
        print("server: left out: llama-server is not built; `make llama-server` builds it")
        return
    from support.model_servers.llama import LlamaServer, make_gguf

    print("server: captions of the demo video's frames by llama-server, and by a bare HTTP call")
    with tempfile.TemporaryDirectory() as folder:
        server = LlamaServer(make_gguf(Path(folder)))
        server.start()
        try:
            for stream in (True, False):
                _bench_stream(server.base_url, answers // rounds, rounds, stream=stream)
        finally:
            server.stop()


def _bench_stream(base_url: str, answers: int, rounds: int, *, stream: bool) -> None:
    url = f"{base_url}/chat/completions"
    backend = OpenAIBackend(
        OpenAISettings(base_url=base_url, stream=stream),
        graph_dir=Path(),
        log=structlog.get_logger(),
        rng=np.random.default_rng(0),
    )
    backend.load()
    client = httpx.Client(trust_env=False, headers={"Content-Type": "application/json"})
    watch: Callable[[str], None] | None = (lambda _text: None) if stream else None
    questions = [Question(pixels, "cap en", 50, on_text=watch) for pixels in frames(answers)]
    bodies = [chat_request(q, model=None, stream=stream, jpeg_quality=90) for q in questions]
    ours, bare, jpeg, more, cpu = [], [], [], [], []

    def ask(question: Question) -> tuple[float, float]:
        began, used = time.perf_counter(), time.process_time()
        backend.answer(question)
        return time.perf_counter() - began, time.process_time() - used

    def post(body: bytes) -> tuple[float, float]:
        while True:
            began, used = time.perf_counter(), time.process_time()
            # llama-server closes a connection after 100 requests, perhaps just when it is used.
            with contextlib.suppress(httpx.RemoteProtocolError):
                client.post(url, content=body).raise_for_status().read()
                return time.perf_counter() - began, time.process_time() - used

    for number in range(rounds):
        for question, body in zip(questions, bodies, strict=True):
            post(body)  # so that the server has this prompt in its cache
            if number % 2:
                asked, posted = ask(question), post(body)
            else:
                posted, asked = post(body), ask(question)
            ours.append(asked[0])
            bare.append(posted[0])
            more.append(asked[0] - posted[0])
            cpu.append(asked[1] - posted[1])
            began = time.perf_counter()
            jpeg(question.pixels, 90)
            jpeg.append(time.perf_counter() - began)
    backend.close()
    client.close()
    name = "streamed" if stream else "whole"
    print(f"  {name}: backend    {milliseconds(ours)}")
    print(f"  {name}: bare call  {milliseconds(bare)}")
    print(f"  {name}: above it   {milliseconds(more)}   of it the JPEG {milliseconds(jpeg)}")
    print(f"  {name}: in CPU     {milliseconds(cpu)}   (what other work on the machine leaves out)")
    reached = statistics.median(more) * 1000 <= TARGET_HTTP_MS
    print(f"  {name}: <= {TARGET_HTTP_MS:g} ms above a bare call: {verdict(reached=reached)}")


# -- large models ------------------------------------------------------------------------------


def paligemma(*, tiny: bool) -> Any:
    from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

    text = {
        "model_type": "gemma",
        "vocab_size": 257216,
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "projection_dim": 2048,
        "vision_use_head": False,
    }
    if tiny:
        text |= {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "vocab_size": 1000,
            "head_dim": 8,
        }
        vision |= {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "projection_dim": 64,
        }
    image_token = text["vocab_size"] - 1
    config = PaliGemmaConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=text["hidden_size"],
        image_token_id=image_token,
    )
    return _made(PaliGemmaForConditionalGeneration, config), image_token, 256, (3, 224, 224)


def smolvlm(*, tiny: bool) -> Any:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    text = {
        "model_type": "llama",
        "vocab_size": 49280,
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "pad_token_id": 2,
    }
    vision = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    }
    if tiny:
        text |= {
            "hidden_size": 60,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "vocab_size": 1000,
            "head_dim": 4,
        }
        vision |= {"hidden_size": 48, "intermediate_size": 128, "num_hidden_layers": 2}
    image_token = text["vocab_size"] - 1
    config = Idefics3Config(
        text_config=text,
        vision_config=vision,
        scale_factor=4,
        image_token_id=image_token,
        pad_token_id=2,
    )
    return _made(Idefics3ForConditionalGeneration, config), image_token, 64, (1, 3, 512, 512)


def _made(model_class: Any, config: Any) -> Any:
    """The model with random weights, on the GPU if there is one."""
    import torch

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    try:
        with torch.device(device):
            model = model_class(config).eval()
    finally:
        torch.set_default_dtype(before)
    model.generation_config.cache_implementation = "static"
    return model


def bench_gpu(answers: int, _rounds: int, *, tiny: bool) -> None:
    import torch

    if not torch.cuda.is_available() and not tiny:
        print("gpu: left out: torch sees no CUDA device")
        return
    bandwidth = copy_bandwidth()
    print(f"gpu: {device_name()}, a copy moves {bandwidth / 1e9:,.0f} GB/s")
    for name, make in (("PaliGemma-3B", paligemma), ("SmolVLM-500M", smolvlm)):
        model, image_token, image_tokens, shape = make(tiny=tiny)
        with torch.inference_mode():
            _bench_model(name, model, image_token, image_tokens, shape, bandwidth, answers)
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _bench_model(
    name: str,
    model: Any,
    image_token: int,
    image_tokens: int,
    shape: Any,
    bandwidth: float,
    answers: int,
) -> None:
    import torch

    def inputs(batch: int) -> dict[str, Any]:
        ids = [image_token] * image_tokens + list(range(10, 22))
        device, dtype = model.device, model.dtype
        made = {
            "input_ids": torch.tensor([ids] * batch, device=device),
            "pixel_values": torch.rand((batch, *shape), device=device, dtype=dtype),
            "attention_mask": torch.ones((batch, len(ids)), device=device, dtype=torch.long),
        }
        if "PaliGemma" in type(model).__name__:
            made["token_type_ids"] = torch.zeros_like(made["input_ids"])
        return made

    def seconds(given: dict[str, Any], tokens: int) -> float:
        call: Callable[[], Any] = lambda: model.generate(  # noqa: E731
            **given, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False
        )
        return timed(call, repeats=max(3, answers // 20))

    text = sum(
        weights.numel() * weights.element_size()
        for part, weights in model.named_parameters()
        if "vision" not in part and "projector" not in part and "connector" not in part
    )
    one, eight = inputs(1), inputs(BATCH)
    caption, first = seconds(one, TOKENS), seconds(one, 1)
    decode = (caption - first) / (TOKENS - 1)
    of_floor = text / bandwidth / decode
    parameters = sum(weights.numel() for weights in model.parameters())
    print(f"  {name}-sized, {parameters / 1e9:.2f} billion weights, batch 1, {TOKENS} tokens")
    print(
        f"    caption {caption * 1000:.1f} ms: the first token {first * 1000:.1f} ms, then "
        f"{decode * 1000:.2f} ms a token, {1 / decode:,.0f} tokens/s"
    )
    print(
        f"    {of_floor:.0%} of the floor of {text / bandwidth * 1000:.2f} ms a token "
        f"({text / 1e9:.2f} GB read); >= {TARGET_FLOOR:.0%}: {verdict(reached=of_floor >= TARGET_FLOOR)}"
    )
    if name.startswith("SmolVLM"):
        reached = caption * 1000 < TARGET_SMOLVLM_MS
        print(f"    caption < {TARGET_SMOLVLM_MS:g} ms: {verdict(reached=reached)}")
    many = seconds(eight, TOKENS)
    gain = BATCH * caption / many
    print(
        f"    {BATCH} at once: {many * 1000:.1f} ms, {BATCH / many:,.1f} captions/s, {gain:.1f} times "
        f"those of batch 1; >= {TARGET_BATCH:g}: {verdict(reached=gain >= TARGET_BATCH)}"
    )


def timed(call: Callable[[], Any], *, repeats: int) -> float:
    """The median of `repeats` calls, after three that compile and warm up."""
    import torch

    found = []
    for number in range(repeats + 3):
        synchronize(torch)
        began = time.perf_counter()
        call()
        synchronize(torch)
        if number >= 3:
            found.append(time.perf_counter() - began)
    return statistics.median(found)


def synchronize(torch: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def copy_bandwidth() -> float:
    """Bytes a second that a copy reads and writes."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 2**30 if device == "cuda" else 2**26
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / timed(lambda: target.copy_(source), repeats=20)


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU (no figures)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=["embedded", "server", "gpu"])
    parser.add_argument("--tiny", action="store_true", help="small models for the part gpu")
    args = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    for name in args.only or ["embedded", "server", "gpu"]:
        if name == "embedded":
            bench_embedded(args.answers, args.rounds)
        elif name == "server":
            bench_server(args.answers, args.rounds)
        else:
            bench_gpu(args.answers, args.rounds, tiny=args.tiny)


if __name__ == "__main__":
    main()
