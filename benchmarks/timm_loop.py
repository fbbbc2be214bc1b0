"""Contestant (b): timm's own data, optimizer, scheduler and metric utilities, driven plainly.

A transformers ViT is given to timm's VisionTransformer by renaming its tensors (`timm_vit`): everyone starts from the
same weights. `--amp` is timm's own flag for mixed precision; here it is bf16.
"""

from __future__ import annotations

import io
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import timm
import torch
from contest import options, report
from PIL import Image
from timm.data import create_loader, create_transform, resolve_data_config
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, accuracy
from torch import nn


class Images(torch.utils.data.Dataset[Any]):
    """Encoded images of a parquet file and their classes, as timm's loaders want them."""

    def __init__(self, file: Path) -> None:
        table = pq.read_table(file)
        self.encoded = [row["bytes"] for row in table["image"].to_pylist()]
        self.labels = table["label"].to_pylist()
        self.transform: Any = None  # timm's create_loader sets it

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.open(io.BytesIO(self.encoded[index])).convert("RGB")
        return self.transform(image) if self.transform else image, self.labels[index]


def timm_vit(checkpoint: str, num_classes: int) -> nn.Module:
    """A transformers ViT classifier as timm's VisionTransformer, with a new head."""
    from timm.models.vision_transformer import VisionTransformer
    from transformers import ViTForImageClassification

    source = ViTForImageClassification.from_pretrained(checkpoint)
    config = source.config
    model = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        mlp_ratio=config.intermediate_size / config.hidden_size,
        num_classes=num_classes,
        norm_layer=partial(nn.LayerNorm, eps=config.layer_norm_eps),
    )
    state = {
        "cls_token": source.vit.embeddings.cls_token,
        "pos_embed": source.vit.embeddings.position_embeddings,
        "patch_embed.proj": source.vit.embeddings.patch_embeddings.projection,
        "norm": source.vit.layernorm,
    }
    for number, layer in enumerate(source.vit.layers):
        block, attention = f"blocks.{number}", layer.attention
        state |= {
            f"{block}.norm1": layer.layernorm_before,
            f"{block}.attn.qkv": [attention.q_proj, attention.k_proj, attention.v_proj],
            f"{block}.attn.proj": attention.o_proj,
            f"{block}.norm2": layer.layernorm_after,
            f"{block}.mlp.fc1": layer.mlp.fc1,
            f"{block}.mlp.fc2": layer.mlp.fc2,
        }
    missing, unexpected = model.load_state_dict(_tensors(state), strict=False)
    if unexpected or {name.split(".")[0] for name in missing} - {"head"}:
        raise RuntimeError(f"not a plain ViT: {checkpoint} lacks {missing} and has {unexpected}")
    return model


def _tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, source in state.items():
        if isinstance(source, torch.Tensor):
            tensors[name] = source.detach()
            continue
        layers = source if isinstance(source, list) else [source]
        for kind in ("weight", "bias"):
            tensors[f"{name}.{kind}"] = torch.cat([getattr(layer, kind).detach() for layer in layers])
    return tensors


def build(checkpoint: str, num_classes: int) -> nn.Module:
    """A timm model: of the Hub (owner "timm"), by architecture with random weights, or from a transformers ViT."""
    if checkpoint.startswith("timm/"):
        return timm.create_model(f"hf-hub:{checkpoint}", pretrained=True, num_classes=num_classes)
    if checkpoint in timm.list_models():
        return timm.create_model(checkpoint, num_classes=num_classes)
    return timm_vit(checkpoint, num_classes)


def freeze(model: Any, strategy: str, blocks: int) -> None:
    """Frozen parameters; what is frozen stays in train mode, as timm's scripts have it."""
    if strategy == "full":
        return
    model.requires_grad_(False)
    model.get_classifier().requires_grad_(True)
    if strategy == "freeze":
        model.blocks[-blocks:].requires_grad_(True)
        model.norm.requires_grad_(True)


def main() -> None:
    """Train, evaluate after each epoch, and write the scores down."""
    parser = options(__doc__)
    parser.add_argument("--amp", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--model", help="timm architecture with random weights, in place of --checkpoint's")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sets = {name: Images(args.data / f"{name}.parquet") for name in ("train", "test")}
    model = build(args.model or args.checkpoint, max(sets["train"].labels) + 1)
    freeze(model, args.strategy, args.train_blocks)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    loaders = _loaders(args, model, sets, device)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=args.learning_rate, weight_decay=0.01)
    steps = len(loaders["train"])
    schedule, epochs = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=args.epochs, updates_per_epoch=steps, step_on_epochs=False
    )
    loss_function = nn.CrossEntropyLoss()
    best, updates = 0.0, 0

    def precision() -> AbstractContextManager[Any]:
        return torch.autocast(device.type, dtype=torch.bfloat16) if args.amp else nullcontext()

    for epoch in range(epochs):
        model.train()
        losses = AverageMeter()
        for batch in loaders["train"]:
            images, labels = (each.to(device) for each in batch)
            with precision():
                loss = loss_function(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            schedule.step_update(num_updates=updates)
            if updates % 10 == 0:
                losses.update(loss.item(), images.size(0))
        schedule.step(epoch + 1)
        best = max(best, _evaluate(model, loaders["test"], device, precision))
    report(args.out, best, len(sets["test"]))


def _loaders(args: Any, model: nn.Module, sets: dict[str, Images], device: torch.device) -> dict[str, Any]:
    """timm's loaders with the checkpoint's own resize and normalisation in training too: no augmentation."""
    config = resolve_data_config({}, model=model)
    if not args.checkpoint.startswith("timm/") and args.model is None:
        from transformers import AutoConfig

        side = AutoConfig.from_pretrained(args.checkpoint).image_size
        config |= {"input_size": (3, side, side), "crop_pct": 1.0, "interpolation": "bilinear"}
        config |= {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    loaders = {}
    for name, images in sets.items():
        loaders[name] = create_loader(
            images,
            input_size=config["input_size"],
            batch_size=args.batch_size,
            is_training=name == "train",
            no_aug=True,
            interpolation=config["interpolation"],
            mean=config["mean"],
            std=config["std"],
            crop_pct=config["crop_pct"],
            num_workers=args.workers,
            use_prefetcher=device.type == "cuda",
            device=device,
            persistent_workers=args.workers > 0,
        )
        if name == "train":  # no_aug also leaves the crop out: the same resize as in evaluation
            loaders[name].dataset.transform = create_transform(
                **{key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")},
                is_training=False,
                use_prefetcher=device.type == "cuda",
            )
    return loaders


@torch.inference_mode()
def _evaluate(model: nn.Module, loader: Any, device: torch.device, precision: Any) -> float:
    model.eval()
    right = AverageMeter()
    for images, labels in loader:
        with precision():
            logits = model(images.to(device))
        right.update(accuracy(logits, labels.to(device))[0].item(), labels.size(0))
    return right.avg / 100


if __name__ == "__main__":
    main()
