"""Whether a model that starts in its middle answers and learns as it does from its beginning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hf_finetune.model.replay import GIVEN, Replay

Batch = Mapping[str, torch.Tensor]


def received(replay: Replay, inputs: Batch) -> torch.Tensor:
    """What the border receives in the model's own pass, (B, ...); nothing behind it is computed.

    Raises:
        RuntimeError: the pass never came to the border.
    """
    module, place = replay.model.get_submodule(replay.border.name), replay.border.place
    caught: list[torch.Tensor] = []

    def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        caught.append(args[place] if isinstance(place, int) else kwargs[place])
        raise _Caught

    hook = module.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        replay.model(**inputs)
    except _Caught:
        return caught[0]
    finally:
        hook.remove()
    raise RuntimeError(f"{replay.border.name} did not run")


class _Caught(BaseException):
    """Ends a pass at the border; no `except Exception` of a model may stop it."""


def proved(replay: Replay, inputs: Batch) -> bool:
    """Whether the replay gives the model's own logits, and in train mode its gradients too."""
    model = replay.model
    with modes_kept(model), _buffers_kept(model):
        model.eval()
        with torch.no_grad():
            given = received(replay, inputs)
            rest = {} if replay.bare else dict(inputs)
            try:
                with torch.no_grad():
                    same = _close(replay(model, {**rest, GIVEN: given}).logits, model(**inputs).logits)
                if not same:
                    return False
            except Exception:  # whatever a family does with tensors that are not there
                return False
        model.train()
        try:
            logits, gradients = _with_gradients(model, lambda: model(**inputs).logits)
            others, those = _with_gradients(model, lambda: replay(model, {**rest, GIVEN: given}).logits)
        except Exception:
            return False
    if not _close(others, logits) or gradients.keys() != those.keys():
        return False
    return all(_close(those[name], gradients[name]) for name in gradients)


def knows_no_padding(replay: Replay, inputs: Batch) -> bool:
    """Whether what the border receives of a text is the same whatever it is padded to; images have no padding.

    ConvBERT, for one, lets its convolutions see the padding: its features belong to one batch alone.
    """
    if "input_ids" not in inputs:
        return True
    mask = inputs.get("attention_mask")
    if mask is None:
        return False
    sides = (3, 0) if bool((mask[:, 0] == 0).any()) else (0, 3)
    token = int(getattr(replay.model.config, "pad_token_id", None) or 0)
    wider = {
        name: nn.functional.pad(value, sides, value=token if name == "input_ids" else 0)
        for name, value in inputs.items()
    }
    with modes_kept(replay.model), torch.no_grad():
        replay.model.eval()
        one, other = received(replay, inputs), received(replay, wider)
    if other.shape == one.shape:
        return _close(other, one)
    if one.dim() < 3 or one.shape[:2] != mask.shape:
        return False
    return _close(other[wider["attention_mask"].bool()], one[mask.bool()])


def _with_gradients(model: nn.Module, run: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        logits = run()
        logits.float().square().sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for parameter in model.parameters():
        parameter.grad = None
    return logits.detach(), found


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    scale = float(other.abs().max()) if other.numel() else 0.0
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5 * scale + 1e-12)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards every module is in train or eval mode as before."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])
