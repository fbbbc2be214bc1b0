"""LoRA, its relatives and peft's other methods: which layers each can adapt, and its configuration."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from hf_finetune.errors import UserError

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Lora, Peft

_LAYERS = {"linear": "linear layers", "conv1d": "GPT-2's Conv1D", "conv2d": "convolutions without groups"}


@dataclass(frozen=True)
class Method:
    """One way to adapt layers.

    Args:
        said: as a recipe says it, for messages.
        layers: the kinds that it adapts: of "linear", "conv1d" (GPT-2's transposed linear layers), "conv2d".
    """

    said: str
    layers: tuple[str, ...]

    def fits(self, layer: nn.Module) -> bool:
        """Whether it can adapt this layer. Depthwise and other grouped convolutions it never can."""
        return kind_of_layer(layer) in self.layers

    @property
    def layers_in_words(self) -> str:
        """Such as "linear layers and convolutions without groups"."""
        return " and ".join(_LAYERS[kind] for kind in self.layers if kind != "conv1d")


_ALL = ("linear", "conv1d", "conv2d")
LORA = Method("strategy=lora", _ALL)
_LORA_VARIANTS = {
    "lora": LORA,
    "dora": Method("strategy.variant=dora", _ALL),
    "rslora": Method("strategy.variant=rslora", _ALL),
    # By singular values of a matrix; peft has no such start for convolutions.
    "pissa": Method("strategy.variant=pissa", ("linear", "conv1d")),
}
_METHODS = {
    # Liu et al. 2022, arXiv:2205.05638: one factor for each output of a layer (or input, for feedforward_modules).
    "ia3": Method("strategy.method=ia3", _ALL),
    # Kopiczko et al. 2023, arXiv:2310.11454: one pair of random matrices for all layers, and scales.
    "vera": Method("strategy.method=vera", ("linear", "conv1d")),
    # Hyeon-Woo et al. 2021, arXiv:2108.06098: the Hadamard product of two low-rank matrices.
    "loha": Method("strategy.method=loha", ("linear", "conv2d")),
    # Yeh et al. 2023, arXiv:2309.14859: a Kronecker product.
    "lokr": Method("strategy.method=lokr", ("linear", "conv2d")),
    # Qiu et al. 2023, arXiv:2306.07280: a rotation in blocks. peft's for convolutions fails on strides and kernels
    # above 1 ("maximum size for tensor at dimension 2"), or merges to another output.
    "oft": Method("strategy.method=oft", ("linear",)),
    # Liu et al. 2023, arXiv:2311.06243: a rotation by butterfly factors.
    "boft": Method("strategy.method=boft", ("linear", "conv2d")),
}


def method_of(settings: Lora | Peft) -> Method:
    """The method that a strategy names."""
    return _LORA_VARIANTS[settings.variant] if settings.kind == "lora" else _METHODS[settings.method]


def kind_of_layer(layer: nn.Module) -> str | None:
    """ "linear", "conv1d" or "conv2d"; None for what no method adapts."""
    if isinstance(layer, nn.Linear):
        return "linear"
    if type(layer).__name__ == "Conv1D":
        return "conv1d"
    if isinstance(layer, nn.Conv2d) and layer.groups == 1 and set(layer.dilation) == {1}:
        return "conv2d"
    return None


def configuration(
    settings: Lora | Peft, model: nn.Module, targets: Sequence[str], head: Sequence[str], seed: int, *, text: bool
) -> Any:
    """The method's peft configuration.

    Args:
        settings: the strategy.
        model: before it is adapted.
        targets: names of the layers to adapt.
        head: names of the modules that learn whole.
        seed: of VeRA's shared projections, unless the options give one.
        text: only text has a task type in peft; with it, peft's auto class for sequence classification loads the
            adapter.

    Raises:
        UserError: the rank is larger than a layer, or an option names a layer that is not adapted.
    """
    from peft import TaskType

    shared: dict[str, Any] = {
        "target_modules": list(targets),
        "modules_to_save": list(head),
        "task_type": TaskType.SEQ_CLS if text else None,
    }
    transposed = any(kind_of_layer(model.get_submodule(name)) == "conv1d" for name in targets)
    if settings.kind == "lora":
        return _lora(settings, model, targets, {**shared, "fan_in_fan_out": transposed})
    options = dict(settings.options)
    if settings.method in ("ia3", "vera"):
        shared["fan_in_fan_out"] = transposed
    if settings.method == "ia3":
        options["feedforward_modules"] = _named(options.get("feedforward_modules", ()), targets)
    elif settings.method == "vera":
        options.setdefault("projection_prng_key", seed)
    elif settings.method == "oft" and "r" in options:
        options["oft_block_size"] = 0  # it follows from r
    elif settings.method == "boft" and "boft_block_num" in options:
        options["boft_block_size"] = 0
    return _configuration_class(settings.method)(**shared, **options)


def _configuration_class(method: str) -> Any:
    import peft

    names = {"ia3": "IA3", "vera": "Vera", "loha": "LoHa", "lokr": "LoKr", "oft": "OFT", "boft": "BOFT"}
    return getattr(peft, f"{names[method]}Config")


def _lora(settings: Lora, model: nn.Module, targets: Sequence[str], shared: dict[str, Any]) -> Any:
    from peft import LoraConfig

    if settings.variant == "pissa":
        smallest = min(min(model.get_submodule(name).weight.shape) for name in targets)  # type: ignore[arg-type,union-attr]
        if settings.r > smallest:
            raise UserError(
                f"strategy.r={settings.r}: a layer of {type(model).__name__} has {smallest} principal components. "
                f"Give at most r={smallest}."
            )
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        use_dora=settings.variant == "dora",
        use_rslora=settings.variant == "rslora",
        init_lora_weights="pissa" if settings.variant == "pissa" else True,
        **shared,
    )


def _named(endings: Collection[str], targets: Sequence[str]) -> list[str]:
    """The adapted layers that an option's endings name."""
    for ending in endings:
        if not any(ends_with(name, ending) for name in targets):
            raise UserError(
                f"strategy.options.feedforward_modules: '{ending}' matches none of the adapted layers, such as "
                f"{', '.join(targets[:8])}."
            )
    return [name for name in targets if any(ends_with(name, ending) for ending in endings)]


def ends_with(name: str, ending: str) -> bool:
    """Whether the last pieces of a module's dotted name are these."""
    return name == ending or name.endswith(f".{ending}")
