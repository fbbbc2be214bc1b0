"""Contestant (a) for images: a Trainer script as transformers' documentation teaches it.

AutoImageProcessor in `set_transform`, the body frozen by requires_grad, evaluation and saving every epoch, the best
epoch's score. `--bf16` is the one improvement that users commonly find; `--workers` is for machines with many cores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from contest import options, report
from datasets import load_dataset
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)


def main() -> None:
    """Train, evaluate after each epoch, and write the scores down."""
    parser = options(__doc__)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()

    data = load_dataset(
        "parquet", data_files={"train": str(args.data / "train.parquet"), "test": str(args.data / "test.parquet")}
    )
    names = data["train"].features["label"].names
    processor = AutoImageProcessor.from_pretrained(args.checkpoint)

    def transform(batch: dict[str, Any]) -> dict[str, Any]:
        pixels = processor([image.convert("RGB") for image in batch["image"]], return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels, "label": batch["label"]}

    data.set_transform(transform)

    def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = torch.stack([example["pixel_values"] for example in examples])
        return {"pixel_values": pixels, "labels": torch.tensor([example["label"] for example in examples])}

    def accuracy(prediction: EvalPrediction) -> dict[str, float]:
        return {"accuracy": float((np.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean())}

    model = AutoModelForImageClassification.from_pretrained(
        args.checkpoint,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        ignore_mismatched_sizes=True,
    )
    model = choose_who_learns(model, args.strategy, args.train_blocks)

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir="plain",
            remove_unused_columns=False,
            eval_strategy="epoch",
            save_strategy="epoch",
            learning_rate=args.learning_rate,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=args.batch_size,
            num_train_epochs=args.epochs,
            warmup_steps=0.1,
            logging_steps=10,
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
            save_total_limit=2,
            bf16=args.bf16,
            use_cpu=not torch.cuda.is_available(),  # without it bf16 is refused where there is no GPU
            dataloader_num_workers=args.workers,
            seed=args.seed,
        ),
        data_collator=collate,
        train_dataset=data["train"],
        eval_dataset=data["test"],
        compute_metrics=accuracy,
    )
    trainer.train()
    report(args.out, trainer.state.best_metric, len(data["test"]))


def choose_who_learns(model: Any, strategy: str, blocks: int) -> Any:
    """Freezing by requires_grad, or LoRA by peft, as their guides show it."""
    if strategy == "full":
        return model
    if strategy == "lora":
        from peft import LoraConfig, get_peft_model

        convolutions = model.config.model_type == "resnet"
        targets = ["convolution"] if convolutions else ["q_proj", "v_proj"]
        head = "classifier.1" if convolutions else "classifier"
        return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=targets, modules_to_save=[head]))
    learning = ["classifier."]
    if strategy == "freeze":
        last = len(model.vit.layers)
        learning += ["vit.layernorm.", *(f"vit.layers.{number}." for number in range(last - blocks, last))]
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(tuple(learning)) or "timm_model.classifier" in name
    return model


if __name__ == "__main__":
    main()
