"""Heads and poolings. Saved models bring this file along: it imports nothing but torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_ACTIVATIONS = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
}
_SMALLEST = 1e-6  # of what GeM raises to a power


class MlpHead(nn.Module):
    """Hidden layers, each with norm, activation and dropout, and an output layer: (..., in) to (..., out)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (),
        activation: str = "relu",
        dropout: float = 0.0,
        norm: str = "none",
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        layers: list[nn.Module] = []
        width = in_features
        for hidden_width in hidden:
            layers.append(nn.Linear(width, hidden_width))
            if norm != "none":
                layers.append(HeadBatchNorm(hidden_width) if norm == "batch" else nn.LayerNorm(hidden_width))
            layers += [_ACTIVATIONS[activation](), nn.Dropout(dropout)]
            width = hidden_width
        # Not `layers`: transformers renames weights of that name while it loads some families' adapters.
        self.stack = nn.Sequential(*layers, nn.Linear(width, out_features))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (..., out_features) of pooled features (..., in_features)."""
        return self.stack(features)

    @property
    def output(self) -> nn.Linear:
        """The last layer, which gives the logits."""
        return self.stack[-1]  # type: ignore[return-value]

    @torch.no_grad()
    def initialize(self) -> None:
        """He et al. 2015 (arXiv:1502.01852) for hidden layers, a small normal for the output layer, zero biases."""
        linears = [layer for layer in self.stack if isinstance(layer, nn.Linear)]
        for layer in linears[:-1]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(linears[-1].weight, std=0.02)
        nn.init.zeros_(linears[-1].bias)
        for norm in self.stack:
            if isinstance(norm, HeadBatchNorm | nn.LayerNorm):
                norm.reset_parameters()


class HeadBatchNorm(nn.BatchNorm1d):
    """Batch norm that takes an epoch's last batch, should it hold a single sample, by its running statistics."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, features) to the same."""
        if self.training and len(features) == 1:
            return functional.batch_norm(
                features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(features)


class CosineHead(nn.Module):
    """Cosine of features and class directions times a learned scale (Gidaris and Komodakis 2018, arXiv:1804.09458)."""

    def __init__(self, in_features: int, out_features: int, scale: float = 16.0) -> None:
        super().__init__()
        self.in_features, self.out_features, self.start = in_features, out_features, scale
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.scale = nn.Parameter(torch.empty(1))
        self.initialize()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (..., out_features), between -scale and scale, of pooled features (..., in_features)."""
        directions = functional.normalize(self.weight, dim=-1)
        return self.scale * functional.linear(functional.normalize(features, dim=-1), directions)

    @torch.no_grad()
    def initialize(self) -> None:
        """Random directions, and the scale that was asked for."""
        nn.init.normal_(self.weight)
        self.scale.fill_(self.start)


class NeighboursHead(nn.Module):
    """The mean label of the nearest training rows, which are its weights; nothing in it learns.

    Args:
        in_features: width of the features, D.
        out_features: number of outputs, C.
        rows: number of training rows, N.
        neighbours: how many of them vote.
        problem: of the labels, as transformers' `problem_type`.
    """

    def __init__(self, in_features: int, out_features: int, rows: int, neighbours: int, problem: str) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.neighbours, self.problem = neighbours, problem
        self.features = nn.Parameter(torch.zeros(rows, in_features), requires_grad=False)
        self.values = nn.Parameter(torch.zeros(rows, out_features), requires_grad=False)
        self.mean = nn.Parameter(torch.zeros(in_features), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(in_features), requires_grad=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (batch, out_features) of pooled features (batch, in_features)."""
        standard = (features.float() - self.mean) / self.scale
        exact = "donot_use_mm_for_euclid_dist"
        distances = torch.cdist(standard, self.features, compute_mode=exact)
        nearest = distances.topk(self.neighbours, dim=1, largest=False).indices
        return neighbours_logits(self.values[nearest].mean(dim=1), self.problem)

    def initialize(self) -> None:
        """Nothing: the rows are put in."""


def neighbours_logits(shares: torch.Tensor, problem: str) -> torch.Tensor:
    """Logits whose softmax, or sigmoid for several labels, are these shares (batch, C); numbers stay numbers."""
    if problem == "regression":
        return shares
    if problem == "multi_label_classification":
        return shares.logit(_SMALLEST)
    return shares.clamp(min=_SMALLEST).log()


class Pooling(nn.Module):
    """One vector of many tokens: (batch, tokens, width) to (batch, width).

    "gem" is the generalised mean (Radenovic et al. 2017, arXiv:1711.02512) with a learned power p that starts at 3;
    what is below zero keeps its sign, so that p = 1 is the mean. "attention" weighs the tokens by their products with
    one learned query; it starts at zero, where it is the mean.
    """

    def __init__(self, kind: str, width: int, prefix_tokens: int = 0) -> None:
        super().__init__()
        self.kind, self.prefix_tokens = kind, prefix_tokens
        if kind == "gem":
            self.p = nn.Parameter(torch.empty(1))
        if kind == "attention":
            self.query = nn.Parameter(torch.empty(width))
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """The power 3, and a query of zeros."""
        if self.kind == "gem":
            self.p.fill_(3.0)
        if self.kind == "attention":
            self.query.zero_()

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Pools the tokens where `mask` (batch, tokens) is not zero, all of them without a mask."""
        if self.kind == "cls":
            return tokens[:, 0]
        tokens = tokens[:, self.prefix_tokens :]
        real = tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        if self.kind == "last":
            places = torch.arange(tokens.shape[1], device=tokens.device)
            return tokens[torch.arange(len(tokens), device=tokens.device), (places * real).argmax(dim=1)]
        if self.kind == "max":
            return tokens.masked_fill(~real[..., None], torch.finfo(tokens.dtype).min).amax(dim=1)
        values = tokens.float()
        if self.kind == "attention":
            scores = (values @ self.query.float()) / values.shape[-1] ** 0.5
            weights = scores.masked_fill(~real, torch.finfo(scores.dtype).min).softmax(dim=1)
            return (weights[..., None] * values).sum(dim=1).to(tokens.dtype)
        weights = real / real.sum(dim=1, keepdim=True).clamp(min=1)
        if self.kind == "mean":
            return (weights[..., None] * values).sum(dim=1).to(tokens.dtype)
        power = self.p.float().clamp(min=0.1)
        mean = (weights[..., None] * _signed_power(values, power)).sum(dim=1)
        return _signed_power(mean, 1 / power).to(tokens.dtype)


def _signed_power(values: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    return values.sign() * values.abs().clamp(min=_SMALLEST).pow(power)


class MapPooling(nn.Module):
    """A `Pooling` in the place of timm's SelectAdaptivePool2d, with its layout of input and output."""

    def __init__(self, pooling: Pooling, replaced: Any) -> None:
        super().__init__()
        self.pooling = pooling
        self.keeps_map = not (isinstance(replaced.flatten, nn.Flatten) or getattr(replaced.pool, "flatten", False))
        self.channels_last = pools_channels_last(replaced)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps of one layout to (batch, channels), or to maps of one pixel where the net goes on with maps."""
        pooled = self.pooling(as_tokens(maps, self.channels_last))
        if not self.keeps_map:
            return pooled
        return pooled[:, None, None] if self.channels_last else pooled[:, :, None, None]


def pools_channels_last(layer: Any) -> bool:
    """Whether a SelectAdaptivePool2d takes maps (batch, height, width, channels)."""
    return getattr(getattr(layer, "pool", None), "dim", None) == (1, 2)


def as_tokens(features: torch.Tensor, channels_last: bool = False) -> torch.Tensor:
    """Maps as tokens (batch, pixels, width); tokens as they are."""
    if features.ndim == 4:
        return features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
    return features


def make_head(
    settings: Mapping[str, Any], in_features: int, out_features: int
) -> MlpHead | CosineHead | NeighboursHead:
    """The head that the settings describe; a linear one is an mlp without hidden layers."""
    options = {name: value for name, value in settings.items() if name != "kind"}
    kinds: dict[str, Any] = {"cosine": CosineHead, "knn": NeighboursHead}
    head = kinds.get(settings["kind"], MlpHead)(in_features, out_features, **options)
    head.initialize()
    return head
