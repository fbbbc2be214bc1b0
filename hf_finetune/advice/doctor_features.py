"""What the recipe's checkpoint sees in each row, before it has learnt anything: its frozen, pooled features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_finetune.data import TextCollator, collate_images, image_samples, text_samples
from hf_finetune.evaluation.predict import predict_logits
from hf_finetune.model import LoadedModel, load_pretrained
from hf_finetune.model.heads import output_layer
from hf_finetune.recipes.schema import Model
from hf_finetune.training.precision import choose_precision
from hf_finetune.training.teacher import inputs_of, pooled

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_finetune.data import LabelSpace
    from hf_finetune.recipes.schema import Recipe

_BATCH = 32


def load_checkpoint(recipe: Recipe, labels: LabelSpace, trust_remote_code: bool = False) -> LoadedModel:
    """The recipe's checkpoint with a plain head, changed only where it could not read the images (in_channels).

    Untrained, a model sees worse by the other changes.

    Raises:
        UserError: it cannot be found or loaded.
    """
    given = recipe.model
    return load_pretrained(
        Model(
            checkpoint=given.checkpoint,
            revision=given.revision,
            in_channels=given.in_channels,
            stem_weights=given.stem_weights,
        ),
        recipe.task,
        num_labels=labels.num_labels,
        label_names=labels.names,
        problem_type=labels.problem_type,
        seed=recipe.seed,
        trust_remote_code=trust_remote_code,
    )


def pooled_features(loaded: LoadedModel, recipe: Recipe, rows: Dataset) -> np.ndarray:
    """What the head would see of images, and the mean over the tokens of texts: float32 (rows, width).

    Raises:
        UserError: the processor gives images of different sizes, or one alone does not fit into memory.
    """
    rows = rows.remove_columns("label")
    model = _Pooled(loaded, recipe.task == "text-classification")
    if recipe.task == "text-classification":
        limit = recipe.data.max_length
        most = loaded.processor.model_max_length
        samples: Any = text_samples(rows, loaded.processor, max_length=min(limit, most) if limit else None)
        collate: Any = TextCollator(loaded.processor)
    else:
        samples, collate = image_samples(rows, loaded.processor), collate_images
    return predict_logits(model, samples, collate, _BATCH, progress="Features")


class _Pooled(nn.Module):
    """A classifier whose answer is what its output layer is given, or the mean of its last layer's tokens."""

    def __init__(self, loaded: LoadedModel, of_texts: bool) -> None:
        super().__init__()
        self.model = loaded.model
        self.of_texts = of_texts
        self.in_bf16 = choose_precision("auto").name == "bf16"
        self.layer = loaded.model.get_submodule(output_layer(loaded.model, loaded.anatomy))

    def forward(self, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        """Features (batch, width), as `logits`."""
        device = next(self.model.parameters()).device.type
        options: dict[str, Any] = {"output_hidden_states": True} if self.of_texts else {}
        with torch.autocast(device, torch.bfloat16, enabled=self.in_bf16), inputs_of(self.layer) as seen:
            output = self.model(**inputs, **options)
        hidden = getattr(output, "hidden_states", None) if self.of_texts else None
        if hidden is not None and hidden[-1].shape[:2] == inputs["input_ids"].shape:
            mask = inputs["attention_mask"].unsqueeze(-1).float()
            features = (hidden[-1].float() * mask).sum(1) / mask.sum(1)
        else:
            features = pooled(seen, inputs)
        return SequenceClassifierOutput(logits=features)  # type: ignore[arg-type]
