"""Train the embedded model: `python -m flowrun.tasks.embedded.training.train --out DIR`.

It begins with random weights, or with `--start` with those of a checkpoint, whose tokenizer may be
another one. `make train-model` has the options of the model that ships.

The loss is that of the next answer token (every answer weighs the same, whatever its length: by the
token, captions drown the questions) plus an auxiliary dense one: throw-away linear heads read
shape, colour and box of the object under each patch, off the vision tokens and off the image tokens
that the language model gets. Without it the vision side learns nothing for long. The first steps
train the vision side alone.

`--out` gets `checkpoint.pt` (a run that is started again goes on from it) and `model/`, the folder
to ship, each time progress is measured. Each of `--processes` draws and learns from its share of a
batch on one thread, and gradients are averaged once a step; threads would wait for each other at
every operation, which is slow where cores are shared with other work. With `--steps` a run is
reproducible on one machine; with `--minutes` the learning rate follows the clock, so that a run
ends annealed whatever shares its cores.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
from torch import distributed, nn
from torch.nn import functional

from flowrun.tasks.embedded.training import network
from flowrun.tasks.embedded.training.batches import IGNORED, Batches, Encoder, held_out_batch
from flowrun.tasks.embedded.training.scenes import COLORS, SHAPES

Batch = dict[str, torch.Tensor]

# Progress is measured on held-out scenes that neither `evaluate` nor the demo video draws.
_PROGRESS_SEEDS = range(500_000, 500_256)
_DENSE_OUTPUTS = (len(SHAPES) + 1, len(COLORS) + 1, 4)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does. Exactly one of `steps` and `minutes` is set."""

    steps: int | None
    minutes: float | None
    seed: int
    batch_size: int
    learning_rate: float
    matrix_rate: float
    vision_share: float
    decay_share: float
    start: Path | None = None
    bfloat16: bool = False
    warmup_steps: int = 50
    weight_decay: float = 0.02

    def progress(self, step: int, elapsed_s: float) -> float:
        """Return how much of the run is done, 0 to 1."""
        if self.steps is not None:
            return step / self.steps
        assert self.minutes is not None
        return elapsed_s / (self.minutes * 60)

    def rate(self, step: int, progress: float) -> float:
        """Return the learning rate's factor: a warm-up, 1, and at last a straight line to 0."""
        left = max(1.0 - progress, 0.0)
        return min(1.0, (step + 1) / self.warmup_steps, left / self.decay_share)


class DenseHeads(nn.Module):  # type: ignore[misc]
    """The throw-away heads: what lies under each patch, from vision and from image tokens."""

    def __init__(self) -> None:
        super().__init__()
        outputs = sum(_DENSE_OUTPUTS)
        self.vision = nn.Linear(network.WIDTH, outputs)
        self.image = nn.Linear(network.WIDTH, outputs * network.SCALE_FACTOR**2)

    def forward(self, vision: torch.Tensor, image: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the mean of both heads' losses."""
        near = _dense_loss(self.vision(vision), batch)
        return (near + _dense_loss(_spread(self.image(image)), batch)) / 2


@dataclass(frozen=True, slots=True)
class Team:
    """The processes that train together, and which of them this one is."""

    rank: int
    size: int

    def average(self, model: Any, heads: nn.Module, elapsed_s: float) -> float:
        """Set every gradient to its mean over the team; return the mean of `elapsed_s`.

        All processes go by the same clock so that they agree on the rate and on when to end.
        """
        if self.size == 1:
            return elapsed_s
        grads = [p.grad for m in (model, heads) for p in m.parameters() if p.grad is not None]
        clock = torch.tensor([elapsed_s])
        self.add_up([*grads, clock])
        for grad in grads:
            grad.div_(self.size)
        return float(clock) / self.size

    def add_up(self, tensors: list[torch.Tensor]) -> None:
        """Set every tensor to its sum over the team."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


class Muon(torch.optim.Optimizer):  # type: ignore[misc]
    """Momentum made orthogonal, for the matrices of hidden layers.

    As Keller Jordan's Muon, in float32: torch's own computes in bfloat16, which is slow on CPUs
    without instructions for it. Each process of a team makes the matrices of its share orthogonal.
    """

    def __init__(
        self, params: list[nn.Parameter], *, lr: float, weight_decay: float, team: Team
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": 0.95, "weight_decay": weight_decay})
        self._team = team

    def step(self, closure: Any = None) -> None:
        """Update every matrix that has a gradient."""
        assert closure is None
        with torch.no_grad():
            for group in self.param_groups:
                self._update(group)

    def _update(self, group: dict[str, Any]) -> None:
        # Matrices of one shape go through the iteration together: it is many small products.
        stacks: dict[Any, list[tuple[nn.Parameter, torch.Tensor]]] = defaultdict(list)
        updates: list[tuple[nn.Parameter, torch.Tensor]] = []
        for number, param in enumerate(p for p in group["params"] if p.grad is not None):
            update = self._momentum(param, group["momentum"])
            updates.append((param, update))
            if number % self._team.size == self._team.rank:
                stacks[param.shape].append((param, update))
            else:
                update.zero_()
        for members in stacks.values():
            made = _orthogonal(torch.stack([update for _, update in members]))
            for (_, update), orthogonal in zip(members, made, strict=True):
                update.copy_(orthogonal)
        self._team.add_up([update for _, update in updates])
        for param, update in updates:
            scale = group["lr"] * max(1.0, param.shape[0] / param.shape[1]) ** 0.5
            param.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)

    def _momentum(self, param: nn.Parameter, momentum: float) -> torch.Tensor:
        assert param.grad is not None
        buffer = self.state[param].setdefault("momentum", torch.zeros_like(param))
        buffer.lerp_(param.grad, 1 - momentum)
        return param.grad.lerp(buffer, momentum)


@dataclass(slots=True)
class Run:
    """A training run's state: all of it is in the checkpoint."""

    model: Any
    heads: DenseHeads
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    elapsed_s: float = 0.0

    def save(self, path: Path) -> None:
        """Write the state to `path`; a crash leaves the former file whole."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Take the state that `save` wrote to `path`."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = _parse(arguments)
    plan = Plan(
        steps=options.steps,
        minutes=options.minutes if options.steps is None else None,
        seed=options.seed,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        matrix_rate=options.matrix_rate,
        vision_share=options.vision_share,
        decay_share=options.decay_share,
        start=options.start,
        bfloat16=options.bfloat16,
    )
    if options.processes == 1:
        train(plan, options.out, Team(0, 1), every=options.every)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            _work,
            args=(options.processes, plan, options.out, options.every, folder),
            nprocs=options.processes,
        )


def train(plan: Plan, out: Path, team: Team, *, every: int) -> None:
    """Train as `plan` says, or go on from `out/checkpoint.pt`; measure every `every` steps."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    processor = network.build_processor()
    encoder = Encoder.of(processor)
    run = start(plan, processor, team)
    if plan.start is not None:
        network.carry_over(run.model, processor, plan.start)
    if (out / "checkpoint.pt").exists():
        run.load(out / "checkpoint.pt")
    leads = team.rank == 0
    if leads:
        print(f"{asdict(plan)}, {team.size} processes, from step {run.step}", flush=True)
    first = run.step * team.size + team.rank
    size = plan.batch_size // team.size
    batches = iter(
        Batches(encoder=encoder, seed=plan.seed, size=size, start=first, stride=team.size)
    )
    parts = [_PROGRESS_SEEDS[k : k + 32] for k in range(0, len(_PROGRESS_SEEDS), 32)]
    held_out = [held_out_batch(encoder, part) for part in parts] if leads else []
    begin = time.monotonic() - run.elapsed_s
    losses: list[tuple[float, float]] = []
    while (done := plan.progress(run.step, run.elapsed_s)) < 1.0:
        losses.append(learn(run, plan, next(batches), done))
        run.elapsed_s = team.average(run.model, run.heads, time.monotonic() - begin)
        update(run, plan, done)
        run.step += 1
        if leads and (run.step % every == 0 or plan.progress(run.step, run.elapsed_s) >= 1.0):
            _report(run, held_out, losses)
            losses.clear()
            run.save(out / "checkpoint.pt")
            network.save(run.model, processor, out / "model")


def start(plan: Plan, processor: Any, team: Team) -> Run:
    """Return a run at step 0, its weights drawn from the plan's seed."""
    model = network.build_model(processor, seed=plan.seed)
    heads = DenseHeads()
    hidden: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, param in model.named_parameters():
        is_hidden = param.ndim == 2 and "embed" not in name and "lm_head" not in name
        (hidden if is_hidden else others).append(param)
    decay = plan.weight_decay
    adam = torch.optim.AdamW(
        [*others, *heads.parameters()], lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=decay
    )
    if not plan.matrix_rate:
        adam.add_param_group({"params": hidden})
        return Run(model, heads, [adam])
    return Run(
        model, heads, [adam, Muon(hidden, lr=plan.matrix_rate, weight_decay=decay, team=team)]
    )


def learn(run: Run, plan: Plan, batch: Batch, done: float) -> tuple[float, float]:
    """Set gradients; return the language and the dense loss (the former 0 while it is off)."""
    with torch.autocast("cpu", torch.bfloat16, enabled=plan.bfloat16):
        vision, image = see(run.model, batch)
        dense = run.heads(vision, image, batch)
        language = torch.zeros(())
        if done >= plan.vision_share:
            logits, labels = answer_logits(run.model, image, batch)
    if done >= plan.vision_share:
        losses = functional.cross_entropy(logits.float(), labels, reduction="none")
        weights = batch["weights"][batch["labels"] != IGNORED]
        language = (losses * weights).sum() / weights.sum()
    (language + dense).backward()
    return float(language.detach()), float(dense.detach())


def update(run: Run, plan: Plan, done: float) -> None:
    """Make one update from the gradients, and clear them."""
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    factor = plan.rate(run.step, done)
    rates = (plan.learning_rate, plan.matrix_rate)
    for optimizer, rate in zip(run.optimizers, rates, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def see(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vision tokens (N 64 W) and the image tokens (N 16 W) of a batch's pictures."""
    pixels = network.normalize(batch["pixels"])
    mask = torch.ones(len(pixels), network.GRID, network.GRID, dtype=torch.bool)
    seen = model.model.vision_model(pixel_values=pixels, patch_attention_mask=mask)
    vision = seen.last_hidden_state
    return vision, model.model.connector(vision)


def answer_logits(
    model: Any, image: torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels of all answer tokens of the batch (T V, T)."""
    ids, segments = batch["ids"], batch["segments"]
    embedded = model.model.text_model.embed_tokens(ids)
    is_image = ids == model.config.image_token_id
    embedded = embedded.masked_scatter(is_image[:, :, None], image.to(embedded.dtype))
    hidden = model.model.text_model(
        inputs_embeds=embedded,
        attention_mask=_attention(segments),
        position_ids=batch["positions"],
        use_cache=False,
    ).last_hidden_state
    labels = batch["labels"]
    asked = labels != IGNORED
    return model.lm_head(hidden[asked]), labels[asked]


def exact_rates(model: Any, batches: list[Batch]) -> dict[str, float]:
    """Return the share of answers that greedy decoding gets right to the last token.

    Keys: `captions` with 0, 1, 2, 3 objects, `captions` and `questions` in all. No text is
    generated: greedy decoding is right just when every next token is, given the right ones before.
    """
    hits: dict[str, list[bool]] = defaultdict(list)
    for batch in batches:
        with torch.no_grad():
            _, image = see(model, batch)
            logits, labels = answer_logits(model, image, batch)
        right = torch.ones_like(batch["labels"], dtype=torch.bool)
        right[batch["labels"] != IGNORED] = logits.argmax(-1) == labels
        for row, count in enumerate(batch["counts"].tolist()):
            for segment in range(1, int(batch["segments"][row].max()) + 1):
                hit = bool(right[row, batch["segments"][row] == segment].all())
                hits["captions" if segment == 1 else "questions"].append(hit)
                if segment == 1:
                    hits[f"captions of {count}"].append(hit)
    return {name: sum(values) / len(values) for name, values in sorted(hits.items())}


def _attention(segments: torch.Tensor) -> torch.Tensor:
    """Return what sees what (N 1 L L): earlier tokens of the same segment and of the prefix."""
    length = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    seen = same | (segments == 0)[:, None, :]
    return (seen & torch.ones(length, length, dtype=torch.bool).tril())[:, None]


def _dense_loss(outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
    shapes, colors, boxes = outputs.float().split(_DENSE_OUTPUTS, dim=-1)
    there = batch["shapes"] > 0
    loss = functional.cross_entropy(shapes.transpose(1, 2), batch["shapes"])
    loss = loss + functional.cross_entropy(colors.transpose(1, 2), batch["colors"])
    return loss + 5 * functional.l1_loss(boxes[there], batch["boxes"][there])


def _spread(outputs: torch.Tensor) -> torch.Tensor:
    """Return the image tokens' outputs (N 16 4*D), one row a patch (N 64 D), in patch order."""
    side, factor = network.GRID // network.SCALE_FACTOR, network.SCALE_FACTOR
    blocks = outputs.view(len(outputs), side, side, factor, factor, -1)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(len(outputs), network.GRID**2, -1)


def _orthogonal(stack: torch.Tensor) -> torch.Tensor:
    """Return each matrix with its singular values drawn near 1 (quintic Newton-Schulz)."""
    tall = stack.shape[1] > stack.shape[2]
    x = stack.transpose(1, 2) if tall else stack
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


def _work(rank: int, size: int, *work: Any) -> None:
    plan, out, every, folder = work
    meeting = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    train(plan, out, Team(rank, size), every=every)
    distributed.destroy_process_group()


def _report(run: Run, held_out: list[Batch], losses: list[tuple[float, float]]) -> None:
    language, dense = (sum(values) / max(len(losses), 1) for values in zip(*losses, strict=True))
    rates = exact_rates(run.model, held_out)
    shares = "  ".join(f"{name} {100 * rate:.0f}%" for name, rate in rates.items())
    spent = f"{run.elapsed_s / 60:6.1f} min  step {run.step:6d}"
    print(f"{spent}  language {language:.3f}  dense {dense:.3f}  {shares}", flush=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flowrun.tasks.embedded.training.train")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and model")
    parser.add_argument(
        "--start", type=Path, help="checkpoint folder to begin with (random weights)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="updates to make; reproducible")
    length.add_argument("--minutes", type=float, default=75.0, help="wall-clock time (75)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3, help="peak, AdamW")
    parser.add_argument("--matrix-rate", type=float, default=0.02, help="peak, Muon; 0: AdamW")
    parser.add_argument("--vision-share", type=float, default=0.03, help="share of vision alone")
    parser.add_argument("--decay-share", type=float, default=0.4, help="share of falling rate")
    parser.add_argument("--bfloat16", action="store_true", help="compute in it, where the CPU can")
    parser.add_argument("--every", type=int, default=250, help="steps between measurements")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
