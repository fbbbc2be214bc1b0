"""Contestant (a) for text: a Trainer script after transformers' run_glue.py.

Every sentence is padded to 128 tokens, which is that script's default; `--dynamic` pads to the longest of the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from contest import options, report
from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

MAX_LENGTH = 128


def main() -> None:
    """Train, evaluate after each epoch, and write the scores down."""
    parser = options(__doc__)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--dynamic", action="store_true")
    args = parser.parse_args()

    data = load_dataset(
        "parquet", data_files={"train": str(args.data / "train.parquet"), "test": str(args.data / "test.parquet")}
    )
    tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)
    longest = min(MAX_LENGTH, tokenizer.model_max_length)

    def tokenize(batch: dict[str, Any]) -> Any:
        return tokenizer(
            batch["text"], padding=False if args.dynamic else "max_length", max_length=longest, truncation=True
        )

    data = data.map(tokenize, batched=True)

    def accuracy(prediction: EvalPrediction) -> dict[str, float]:
        return {"accuracy": float((np.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean())}

    model = AutoModelForSequenceClassification.from_pretrained(
        args.checkpoint, num_labels=len(data["train"].features["label"].names)
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir="plain",
            eval_strategy="epoch",
            save_strategy="epoch",
            learning_rate=args.learning_rate,
            per_device_train_batch_size=args.batch_size,
            per_device_eval_batch_size=args.batch_size,
            num_train_epochs=args.epochs,
            warmup_steps=0.1,
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
            save_total_limit=2,
            bf16=args.bf16,
            use_cpu=not torch.cuda.is_available(),  # without it bf16 is refused where there is no GPU
            seed=args.seed,
        ),
        data_collator=DataCollatorWithPadding(tokenizer) if args.dynamic else default_data_collator,
        train_dataset=data["train"],
        eval_dataset=data["test"],
        compute_metrics=accuracy,
    )
    trainer.train()
    report(args.out, trainer.state.best_metric, len(data["test"]))


if __name__ == "__main__":
    main()
