"""`Training`: the `training:` section of a recipe, which is transformers' TrainingArguments by its own names.

The names, types and help texts are read from the *source* of the installed transformers, so that they are never
declared twice and nothing heavy is imported: parsing takes about 20 ms, importing TrainingArguments several seconds.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import math
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from hf_finetune.recipes.optimizer_names import PLAIN_OPTIMIZERS
from hf_finetune.recipes.training_keys import OWN
from hf_finetune.recipes.yaml_text import Plain, as_yaml

_PRECISION = "it belongs to the machine: give precision=auto|no|bf16|fp16 on the command line, or an accelerate config"
_LAUNCH = "how processes share the work belongs to the accelerate config: see accelerate_configs/"
_BEST = "the best checkpoint is always the one saved: choose its metric with evaluation.best"
_PUSH = "a recipe does not say where files are pushed"
_FIXED = "hf_finetune sets this itself"

# Fields of TrainingArguments that are not a recipe's to set, each with where to say it instead.
ELSEWHERE: dict[str, str] = {
    "output_dir": "this is the recipe's own key output_dir",
    "seed": "this is the recipe's own key seed",
    "data_seed": "the recipe's own key seed covers the order of the data too",
    **dict.fromkeys(("bf16", "fp16", "bf16_full_eval", "fp16_full_eval"), _PRECISION),
    **dict.fromkeys(("deepspeed", "fsdp", "fsdp_config", "parallelism_config", "accelerator_config"), _LAUNCH),
    "local_rank": _LAUNCH,
    "use_cpu": "the device belongs to the launch: `accelerate launch --cpu`, or ACCELERATE_USE_CPU=true",
    **dict.fromkeys(("metric_for_best_model", "greater_is_better", "load_best_model_at_end"), _BEST),
    **dict.fromkeys(("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id"), _PUSH),
    **dict.fromkeys(("hub_strategy", "hub_always_push", "hub_revision"), _PUSH),
    "resume_from_checkpoint": "give resume=auto|never|PATH on the command line",
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "a run always trains, validates and tests"),
    **dict.fromkeys(("remove_unused_columns", "label_names"), f"{_FIXED} from the data section"),
    **dict.fromkeys(("include_for_metrics", "batch_eval_metrics"), f"{_FIXED}; choose metrics with evaluation.metrics"),
    **dict.fromkeys(("prediction_loss_only", "eval_do_concat_batches"), f"{_FIXED}: the metrics need every prediction"),
    "restore_callback_states_from_checkpoint": f"{_FIXED}: a resumed run keeps its early-stopping count",
    "logging_nan_inf_filter": f"{_FIXED}: a loss that is not a number is never logged as 0",
    "disable_tqdm": f"{_FIXED}: it has its own progress bars",
    "enable_jit_checkpoint": f"{_FIXED}: SIGTERM ends every run behind a saved step",
    "save_only_model": "exact resume needs the optimizer's and the generators' states too; limit disk use with "
    "training.save_total_limit",
}

# Names that older releases of transformers had, each with today's.
REMOVED: dict[str, str] = {
    "warmup_ratio": "today training.warmup_steps, where a number below 1 is a share of all steps",
    "evaluation_strategy": "today training.eval_strategy",
    "overwrite_output_dir": "hf_finetune never overwrites another run; resume=never starts this one anew",
    "no_cuda": ELSEWHERE["use_cpu"],
    "use_mps_device": "the device is found by itself",
    "group_by_length": "today training.train_sampling_strategy=group_by_length",
    "logging_dir": "today the environment variable TENSORBOARD_LOGGING_DIR",
    "save_safetensors": "weights are always saved as safetensors",
    "adafactor": "today training.optim=adafactor",
    "per_gpu_train_batch_size": "today training.per_device_train_batch_size",
    "per_gpu_eval_batch_size": "today training.per_device_eval_batch_size",
    "include_inputs_for_metrics": ELSEWHERE["include_for_metrics"],
    "push_to_hub_model_id": _PUSH,
    "push_to_hub_organization": _PUSH,
    "push_to_hub_token": _PUSH,
    "split_batches": _LAUNCH,
    "dispatch_batches": _LAUNCH,
    "fp16_backend": _PRECISION,
    "half_precision_backend": _PRECISION,
    "fp16_opt_level": _PRECISION,
}

# What logs or pushes to a service of somebody's choosing: never taken from a recipe of the Hub.
REPORTING = ("report_to", "project", "run_name", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id")


class TrainingBase(BaseModel):
    """What the generated `Training` adds to TrainingArguments' names: every field may be left unset (None)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    def values(self) -> dict[str, Any]:
        """The keys that are set."""
        return {name: value for name, value in self if value is not None}

    def arguments(self) -> dict[str, Any]:
        """The keys that are set, as keyword arguments of `transformers.TrainingArguments`.

        Left out are this project's own keys, and an optimizer's plain name with its `optim_args`.
        """
        values = {name: value for name, value in self.values().items() if name not in OWN}
        if values.get("optim") in PLAIN_OPTIMIZERS:
            values.pop("optim")
            values.pop("optim_args", None)
        return values


def _transformers_folder() -> Path:
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise ImportError("hf_finetune needs transformers: pip install 'transformers>=5.23'")
    return Path(spec.origin).parent


def _enums(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """The text values of every enumeration of a module, by class name."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            assigned = [item.value for item in node.body if isinstance(item, ast.Assign)]
            values = [item.value for item in assigned if isinstance(item, ast.Constant) and isinstance(item.value, str)]
            if values and any("Enum" in ast.unparse(base) for base in node.bases):
                found[node.name] = tuple(values)
    return found


def _leaves(value: Any) -> Any:
    """Values inside a mapping have no declared type: unquoted text reads as YAML there, tuples become lists."""
    if isinstance(value, dict):
        return {str(key): _leaves(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_leaves(item) for item in value]
    value = as_yaml(value) if isinstance(value, Plain) else value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a finite number")
    return value


_SCALARS = {"bool": bool, "int": int, "float": float}
_FALSE = Annotated[Literal[False], BeforeValidator(lambda value: False if value in ("false", "False") else value)]


def _field_type(annotation: ast.expr, enums: dict[str, tuple[str, ...]], choices: tuple[str, ...]) -> Any:
    """The type of a field, narrowed to what a recipe writes: an enumeration's values, mappings, no JSON text."""
    names: list[str] = []

    def flatten(node: ast.expr) -> None:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            flatten(node.left)
            flatten(node.right)
        else:
            names.append(ast.unparse(node))

    flatten(annotation)
    members: list[Any] = []
    text: list[Any] = [Literal[choices]] if choices else [str]
    for name in names:
        if name.startswith("dict"):
            members.append(Annotated[dict[str, Any], BeforeValidator(_leaves)])
            text = []  # JSON text is only for transformers' own command line
        elif name in enums or name.removeprefix("list[").removesuffix("]") in enums:
            literal: Any = Literal[enums[name.removeprefix("list[").removesuffix("]")]]
            members.append(list[literal] if name.startswith("list[") else literal)
            text = text if name.startswith("list[") else []
        elif name == "Literal[False]":
            members.append(_FALSE)
        elif name in _SCALARS:
            members.append(_SCALARS[name])
        elif name == "list[str]":
            members.append(list[str])
        elif name not in ("str", "None"):
            return Any
    if "str" in names:
        members += text  # last, so that `true` is a bool where a bool is allowed
    return (
        Annotated[reduce(or_, members) | None, Field(union_mode="left_to_right")]
        if len(members) > 1
        else members[0] | None
    )


def _metadata(call: ast.expr | None) -> dict[str, Any]:
    """The literal entries of a dataclass field's `metadata=`."""
    if not isinstance(call, ast.Call):
        return {}
    given = next((word.value for word in call.keywords if word.arg == "metadata"), None)
    entries = zip(given.keys, given.values, strict=True) if isinstance(given, ast.Dict) else ()
    found = {}
    for key, value in entries:
        # What is computed at import, such as `trainer_log_levels.keys()`, is left out.
        with contextlib.suppress(ValueError, TypeError):
            found[ast.literal_eval(key)] = ast.literal_eval(value)  # type: ignore[arg-type]
    return found


def build_training() -> type[TrainingBase]:
    """Make the `Training` model from the installed transformers.

    Raises:
        ImportError: transformers is missing, or its training_args.py holds no TrainingArguments.
    """
    folder = _transformers_folder()
    tree = ast.parse((folder / "training_args.py").read_text(encoding="utf-8"))
    enums = _enums(tree)
    for module in ("trainer_utils.py", "debug_utils.py"):
        enums |= _enums(ast.parse((folder / module).read_text(encoding="utf-8")))
    # The plain names, beside transformers' own; where both have one (sgd), ours is taken.
    enums["OptimizerNames"] = tuple(dict.fromkeys((*PLAIN_OPTIMIZERS, *enums["OptimizerNames"])))
    source = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "TrainingArguments"), None)
    if source is None:
        raise ImportError(
            f"{folder / 'training_args.py'} holds no TrainingArguments: this transformers is not supported"
        )
    fields: dict[str, Any] = {}
    for node in source.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        name = node.target.id
        if name in ELSEWHERE or name.startswith("_") or not isinstance(node.value, ast.Call):
            continue
        metadata = _metadata(node.value)
        kind = _field_type(node.annotation, enums, tuple(metadata.get("choices", ())))
        fields[name] = (kind, Field(None, description=metadata.get("help", "").replace("%%", "%") or None))
    fields |= OWN
    return create_model(
        "Training", __base__=TrainingBase, __doc__="transformers.TrainingArguments, by its own names.", **fields
    )


if TYPE_CHECKING:

    class Training(TrainingBase):
        """transformers.TrainingArguments, by its own names."""

else:
    Training = build_training()
