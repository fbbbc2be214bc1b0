"""The image processor or tokenizer that a checkpoint was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedModel
from transformers.utils import cached_file

from hf_finetune.errors import UserError
from hf_finetune.model.quiet import quiet

if TYPE_CHECKING:
    from hf_finetune.recipes.schema import Task


def load_processor(path: str, checkpoint: str, task: Task, **hub: Any) -> Any:
    """The checkpoint's image processor or tokenizer.

    Args:
        path: folder or Hub id to load from.
        checkpoint: what the user wrote, for messages.
        task: decides which of the two.
        hub: `revision`, `trust_remote_code`.

    Raises:
        UserError: the checkpoint comes without one.
    """
    with quiet():
        if task == "image-classification":
            try:
                return AutoImageProcessor.from_pretrained(path, **hub)
            except (OSError, ValueError, TypeError, AttributeError, KeyError) as fault:
                if "trust_remote_code" in str(fault):
                    raise UserError(_own_code(checkpoint)) from fault
                raise UserError(
                    f"{checkpoint} has no preprocessor_config.json, which says how its images are resized and "
                    "normalised. Copy one "
                    "from the model that it was made from into its folder, or use another checkpoint."
                ) from fault
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, **hub)
        except (OSError, ValueError) as fault:
            if "trust_remote_code" in str(fault):
                raise UserError(_own_code(checkpoint)) from fault
            raise UserError(_no_tokenizer(checkpoint)) from fault
        except BaseException as fault:  # `tokenizers` raises bare Exceptions, and panics, which are none
            if not isinstance(fault, Exception) and type(fault).__name__ != "PanicException":
                raise
            raise UserError(f"{checkpoint}: its tokenizer cannot be read: {fault}") from fault
    # Without a vocabulary transformers 5 makes an empty tokenizer, and every word becomes the same unknown token.
    files = {"tokenizer.json", "tokenizer.model", *tokenizer.vocab_files_names.values()} - {"tokenizer_config.json"}
    if not any(_exists(path, file, hub.get("revision")) for file in files):
        raise UserError(_no_tokenizer(checkpoint))
    if not tokenizer.model_max_length >= 1:
        raise UserError(f"{checkpoint}: its tokenizer says model_max_length={tokenizer.model_max_length}: at least 1.")
    return tokenizer


def _own_code(checkpoint: str) -> str:
    return (
        f"{checkpoint} comes with Python code of its own. Read it; to let it run, add --trust-remote-code on the "
        "command line."
    )


def _no_tokenizer(checkpoint: str) -> str:
    return (
        f"{checkpoint} has no tokenizer files (tokenizer.json or a vocabulary). Copy them from the model that it was "
        "made from into "
        "its folder, or use another checkpoint."
    )


def _exists(path: str, file: str, revision: str | None) -> bool:
    if Path(path).is_dir():
        return (Path(path) / file).is_file()
    return bool(cached_file(path, file, revision=revision, _raise_exceptions_for_missing_entries=False))


def limit_length(model: PreTrainedModel, processor: Any) -> None:
    """Tells a tokenizer how many tokens the model has positions for, where its own files know no limit or a larger one.

    Without it a text longer than the position embeddings fails inside the model.
    """
    if not hasattr(processor, "model_max_length"):
        return
    positions = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return  # XLNet has no such limit
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions = min(positions, module.num_embeddings - module.padding_idx - 1)  # RoBERTa and its relatives
    processor.model_max_length = min(processor.model_max_length, positions)


def give_padding_token(model: PreTrainedModel, processor: Any, checkpoint: str) -> None:
    """Lets GPT-2 and its like pad, with their end-of-text token, and on the side where padding cannot be read.

    Their classifiers read the last token that is not padding, which the config names, and count positions from the
    left; XLNet's reads the last place and knows distances alone.

    Raises:
        UserError: the tokenizer has neither a padding nor an end-of-text token.
    """
    if not hasattr(processor, "pad_token"):
        return
    if processor.pad_token is None:
        if processor.eos_token is None:
            raise UserError(
                f"{checkpoint}: its tokenizer has neither a padding nor an end-of-text token; use another checkpoint."
            )
        processor.pad_token = processor.eos_token
    reads_last = isinstance(getattr(model, "score", None), nn.Linear)  # the head's name in all models of that kind
    if reads_last or getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = processor.pad_token_id
    if reads_last or model.config.model_type == "xlnet":
        # In init_kwargs too: saved is what a tokenizer was made with, not what it is.
        processor.padding_side = processor.init_kwargs["padding_side"] = "right" if reads_last else "left"
