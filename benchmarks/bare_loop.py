"""Contestant (d) for images: a bare PyTorch loop with everything tuned by hand; the practical limit.

uint8 pixels in memory, one batched resize on the device, the frozen part once, bf16 where a short measurement finds it
faster, channels last for convolutions, a fused optimizer, no checkpoints, no logs. `--synthetic` trains on one random
batch that is always there: what the model alone can do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from bare_pixels import View, read
from contest import options, report
from torch import Tensor, nn
from transformers import AutoModelForImageClassification

Forward = Callable[[Tensor], Tensor]


def main() -> None:
    """Train, evaluate after each epoch, and write the scores down."""
    parser = options(__doc__)
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    view = View.of(args.checkpoint)
    (train, train_labels), (test, test_labels) = (
        read(args.data / f"{name}.parquet", view) for name in ("train", "test")
    )
    model = AutoModelForImageClassification.from_pretrained(
        args.checkpoint, num_labels=int(train_labels.max()) + 1, ignore_mismatched_sizes=True
    ).to(device)
    convolutions = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules()) or (
        model.config.model_type == "resnet"
    )
    if convolutions:
        model = model.to(memory_format=torch.channels_last)

    def resized(pixels: Tensor) -> Tensor:
        return view(pixels.to(device, non_blocking=True), convolutions)

    see: Forward = resized

    precision = _faster(model, see(train[: args.batch_size]), args.strategy)
    prefix, rest, learning = _cut(model, args)
    if args.compile:
        rest = torch.compile(rest)
    if args.synthetic:
        batch = see(train[: args.batch_size])
        see = lambda part: batch[: len(part)]  # noqa: E731
    fill = 0.0
    if prefix is not None:
        started = time.perf_counter()
        train, test = (_once(prefix, see, each, precision, args.batch_size) for each in (train, test))
        fill, see = time.perf_counter() - started, lambda part: part.to(device).float()
    best = _train(args, rest, learning, see, precision, (train, train_labels), (test, test_labels), device)
    report(args.out, best, len(test_labels), fill_seconds=round(fill, 4), bf16=not isinstance(precision(), nullcontext))


def _precision(device: torch.device, bf16: bool) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def _faster(model: nn.Module, batch: Tensor, strategy: str) -> Callable[[], AbstractContextManager[Any]]:
    """bf16 or fp32, whichever takes a batch faster: the best of two after one to warm up."""
    seconds: dict[bool, float] = {}
    for bf16 in (False, True):
        precision = _precision(batch.device, bf16)
        for attempt in range(3):
            if batch.device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            with torch.set_grad_enabled(strategy != "head"), precision():
                logits = model(batch).logits
            if strategy != "head":
                logits.float().logsumexp(-1).mean().backward()
            if batch.device.type == "cuda":
                torch.cuda.synchronize()
            if attempt:
                seconds[bf16] = min(seconds.get(bf16, 1e9), time.perf_counter() - started)
    model.zero_grad(set_to_none=True)
    return _precision(batch.device, seconds[True] < seconds[False])


def _cut(model: Any, args: Any) -> tuple[Forward | None, Forward, nn.Module]:
    """The frozen prefix (None where there is none), the rest up to the logits, and the module that learns."""
    if args.strategy == "full":
        return None, lambda pixels: model(pixels).logits, model
    if args.strategy == "lora":
        from plain_image import choose_who_learns

        adapted = choose_who_learns(model, "lora", 0)
        return None, lambda pixels: adapted(pixels).logits, adapted
    model.requires_grad_(False).eval()
    if args.strategy == "head":
        head = model.timm_model.get_classifier() if hasattr(model, "timm_model") else model.classifier
        head.requires_grad_(True)
        return lambda pixels: _before(model, head, pixels), head, head
    vit, blocks = model.vit, args.train_blocks
    learning = nn.ModuleList([*vit.layers[-blocks:], vit.layernorm, model.classifier]).requires_grad_(True)

    def prefix(pixels: Tensor) -> Tensor:
        return _through(vit.layers[:-blocks], vit.embeddings(pixels))

    def rest(states: Tensor) -> Tensor:
        return model.classifier(vit.layernorm(_through(vit.layers[-blocks:], states))[:, 0])

    return prefix, rest, learning


def _through(layers: Any, states: Tensor) -> Tensor:
    for layer in layers:
        output = layer(states)
        states = output if isinstance(output, Tensor) else output[0]
    return states


class _Reached(Exception):
    """The head's input is known: nothing behind it needs to run."""


def _before(model: nn.Module, head: nn.Module, pixels: Tensor) -> Tensor:
    """What the head receives."""
    seen = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])
        raise _Reached

    handle = head.register_forward_pre_hook(keep)
    try:
        model(pixels)
    except _Reached:
        pass
    finally:
        handle.remove()
    return seen[0]


@torch.no_grad()
def _once(prefix: Forward, see: Forward, pixels: Tensor, precision: Any, batch_size: int) -> Tensor:
    """The prefix of every image, bf16 on the CPU's memory."""
    with precision():
        parts = [prefix(see(part)).to("cpu", torch.bfloat16) for part in pixels.split(batch_size)]
    return torch.cat(parts)


def _train(
    args: Any,
    forward: Forward,
    learner: nn.Module,
    see: Forward,
    precision: Any,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    device: torch.device,
) -> float:
    """AdamW with a linear schedule after a warm-up, as the others; the best epoch's accuracy."""
    learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=args.learning_rate, weight_decay=0.01, fused=True)
    steps = args.epochs * (len(train[0]) // args.batch_size)
    warm_up = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))
    )
    best = 0.0
    for _ in range(args.epochs):
        learner.train()
        order = torch.randperm(len(train[0]))
        for rows in order.split(args.batch_size)[: len(order) // args.batch_size]:
            with precision():
                logits = forward(see(train[0][rows]))
            loss = nn.functional.cross_entropy(logits.float(), train[1][rows].to(device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        best = max(best, _score(learner, forward, see, precision, *test, args.batch_size))
    return best


@torch.no_grad()
def _score(
    learner: nn.Module,
    forward: Forward,
    see: Forward,
    precision: Any,
    pixels: Tensor,
    labels: Tensor,
    batch_size: int,
) -> float:
    learner.eval()
    with precision():
        guesses = torch.cat([forward(see(part)).argmax(-1).cpu() for part in pixels.split(batch_size)])
    return float((guesses == labels).float().mean())


if __name__ == "__main__":
    main()
