"""Every technique on four kinds of model: what docs/techniques.md says is what these runs did.

python tests/technique_table.py > docs/techniques.md
"""

import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Image
from model_samples import save_checkpoint, tokenizer
from technique_papers import papers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from hf_finetune import finetune, load_recipe
from hf_finetune.errors import UserError
from hf_finetune.recipes import schema

COLUMNS = {"ViT": "vit", "ResNet": "resnet", "timm CNN": "timm_efficientnet", "BERT": "bert"}
TEXT = ("BERT",)
STAGES = "[{strategy: head, epochs: 1}, {strategy: full, epochs: 1}]"

# Section -> technique -> what is written on the command line.
TECHNIQUES: dict[str, dict[str, tuple[str, ...]]] = {
    "Who learns, and how fast": {
        "full": ("strategy=full",),
        "layer-wise decay": ("strategy=full", "strategy.layer_decay=0.75"),
        "zones": ("strategy=full", "strategy.zones=[0, 0.1, 1]"),
        "head (linear probe)": ("strategy=head",),
        "freeze all but the last blocks": ("strategy=freeze", "strategy.train_blocks=1"),
        "head first, then everything": ("strategy=lp_ft",),
        "gradual unfreezing": ("strategy=gradual", "strategy.blocks_per_stage=8"),
        "stages of your own": ("strategy=stages", f"strategy.stages={STAGES}"),
        "biases (BitFit)": ("strategy=bitfit",),
        "norms": ("strategy=norms",),
        "random weights": ("strategy=scratch",),
        "re-initialised top blocks": ("model.reinit_blocks=1",),
        "fixed features, logistic regression": ("strategy=features",),
        "fixed features, ridge": ("strategy=features", "strategy.classifier=ridge"),
        "fixed features, linear SVM": ("strategy=features", "strategy.classifier=svm"),
        "fixed features, neighbours": ("strategy=features", "strategy.classifier=knn"),
        "features of the middle": ("strategy=features", "strategy.layer=middle"),
    },
    "Adapters": {
        "LoRA": ("strategy=lora",),
        "LoRA, merged": ("strategy=lora", "strategy.merge=true"),
        "LoRA+": ("strategy=lora", "strategy.b_lr_multiplier=16"),
        **{name: ("strategy=lora", f"strategy.variant={name.lower()}") for name in ("DoRA", "rsLoRA", "PiSSA")},
        "IA3": ("strategy=peft", "strategy.method=ia3"),
        "VeRA": ("strategy=peft", "strategy.method=vera", "strategy.merge=true"),
        "LoHa": ("strategy=peft", "strategy.method=loha"),
        "LoKr": ("strategy=peft", "strategy.method=lokr"),
        "OFT": ("strategy=peft", "strategy.method=oft"),
        "BOFT": ("strategy=peft", "strategy.method=boft"),
        "prompt tuning": ("strategy=peft", "strategy.method=prompt_tuning"),
        "prefix tuning": ("strategy=peft", "strategy.method=prefix_tuning"),
    },
    "Changing the model": {
        "mlp head": ("model.head=mlp", "model.head.hidden=[8, 8]", "model.head.norm=batch", "model.head.dropout=0.5"),
        "cosine head": ("model.head=cosine",),
        **{f"pooling: {name}": (f"model.pooling={name}",) for name in ("cls", "mean", "max", "gem", "attention")},
        "another activation": ("model.activation=silu",),
        "dropout": ("model.dropout=0.2",),
        "stochastic depth": ("model.drop_path=0.1",),
        "BatchNorm frozen": ("model.batch_norm=frozen",),
        "BatchNorm momentum": ("model.batch_norm_momentum=0.05",),
        "top block removed": ("model.drop_blocks=1",),
        "four channels": ("model.in_channels=4",),
        "another image size": ("model.image_size=64",),
        "another length": ("model.max_length=24",),
    },
    "What is minimised": {
        **{f"loss: {name}": (f"loss.kind={name}",) for name in ("cross_entropy", "focal", "bce", "coral")},
        "label smoothing": ("training.label_smoothing_factor=0.1",),
        "class weights": ("loss.class_weights=balanced",),
        "balanced sampling": ("loss.sampling=balanced",),
        "logit adjustment": ("loss.logit_adjustment=1",),
        "R-Drop": ("loss.r_drop=1", "model.dropout=0.1"),
        "L2-SP": ("loss.l2_sp=0.01",),
        **{
            f"optimizer: {name}": (f"training.optim={name}",)
            for name in ("sgd", "adam", "adamw", "adagrad", "rmsprop", "adadelta", "adamax", "lion", "muon")
        },
        "time budget": ("training.max_minutes=5",),
        "moving average of weights": ("average.ema=0.9",),
        "soup": ("average.soup=greedy",),
    },
    "Data": {
        **{
            f"augmentation: {name}": (f"data.augment={{{name}: {value}}}",)
            for name, value in {
                "crop": "[0.5, 1.0]", "pad_crop": 4, "flip": 0.5, "vertical_flip": 0.5, "rotation": 15,
                "color_jitter": 0.4, "grey": 0.2, "blur": 0.2, "rand_augment": 9, "trivial_augment": "true",
                "aug_mix": 3, "erasing": 0.25, "word_dropout": 0.1, "span_dropout": 0.2,
            }.items()
        },
        "mixup": ("data.mixup=0.2",),
        "CutMix": ("data.cutmix=1.0",),
        "test-time augmentation": ("evaluation.tta=flip",),
        "windows over long texts": ("data.long_text=windows", "data.max_length=null"),
        "cleaning": ("data.clean={duplicates: true}",),
    },
}  # fmt: skip
if hasattr(schema, "Distill") and "distill" in schema.Recipe.model_fields:
    TECHNIQUES["Two models"] = {
        "distillation": ("distill.teacher={teacher}",),
        "distillation of features": ("distill.teacher={teacher}", "distill.on=features"),
    }
TASKS = ("tasks={kind: {label: label}, size: {label: size}}", "evaluation.metrics=null")
TECHNIQUES["Several tasks"] = {
    "classes and numbers at once": TASKS,
    "balance: uncertainty": (*TASKS, "loss.balance=uncertainty"),
    "balance: equal": (*TASKS, "loss.balance=equal"),
    "several tasks, LoRA": (*TASKS, "strategy=lora"),
    "several tasks, fixed features": (*TASKS, "strategy=features"),
}


def rows(text: bool) -> DatasetDict:
    """Some random rows of three classes."""
    generator = np.random.default_rng(0)
    labels = [index % 3 for index in range(36)]
    if text:
        columns = {"text": [" ".join(f"w{n}" for n in generator.integers(3, 50, 6)) for _ in labels]}
    else:
        columns = {"image": [generator.integers(0, 255, (32, 32, 3)).astype(np.uint8) for _ in labels]}
    columns |= {"label": labels, "size": [float(label) + 0.5 for label in labels]}
    split = Dataset.from_dict(columns).cast_column("label", ClassLabel(names=["a", "b", "c"]))
    split = split if text else split.cast_column("image", Image())
    return DatasetDict({"train": split, "test": split.select(range(12))})


def with_class_token() -> PreTrainedTokenizerFast:
    """The tests' tokenizer, with the special tokens that BERT's puts around a text."""
    words = tokenizer()
    places = [("[CLS]", 1), ("[SEP]", 2)]
    words.backend_tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=places)
    return words


def outcome(family: str, text: bool, pairs: tuple[str, ...], folder: Path) -> str:
    """`works`, or why not in the words that a user reads."""
    checkpoint = folder / family
    if not checkpoint.exists():
        save_checkpoint(family, checkpoint)
        if text:
            with_class_token().save_pretrained(checkpoint)
    run = Path(tempfile.mkdtemp(dir=folder))
    teacher = folder / f"teacher-{'text' if text else 'image'}"
    base = "sst2" if text else "cifar10"
    common = (
        f"model.checkpoint={checkpoint}", "data.image=null" if not text else "data.text=null", "data.label=null",
        "data.train_split=train", "data.test_split=test", "data.validation=0.25", "training.num_train_epochs=2",
        "training.per_device_train_batch_size=9", "evaluation.bootstrap=0", *(["data.max_length=16"] if text else []),
    )  # fmt: skip
    try:
        if any("{teacher}" in pair for pair in pairs) and not teacher.exists():
            recipe = load_recipe(base, *common, "strategy=head", f"output_dir={teacher}")
            finetune(recipe, data=rows(text), precision="no")
        pairs = tuple(pair.replace("{teacher}", str(teacher)) for pair in pairs)
        finetune(load_recipe(base, *common, f"output_dir={run / 'run'}", *pairs), data=rows(text), precision="no")
    except UserError as error:
        return reason(str(error), folder)
    return "works"


def reason(message: str, folder: Path) -> str:
    """The first line that says something, without places of this machine."""
    lines = [line.strip() for line in message.splitlines() if not re.match(r"\d+ faults? in the recipe", line)]
    text = re.sub(rf"{re.escape(str(folder))}/\w+", "the checkpoint", lines[0]).replace("|", "/")
    return re.sub(r" \((command line|override)\)", "", text)


def table(folder: Path, only: str = "") -> str:
    """The page."""
    lines = [
        "# Every technique on every kind of model", "",
        "Made by running each line on a tiny model of each kind "
        "(`python tests/technique_table.py > docs/techniques.md`); a test compares. "
        "A number points to the reason below.",
    ]  # fmt: skip
    reasons: list[str] = []
    for section, techniques in TECHNIQUES.items():
        lines += ["", f"## {section}", "", f"| technique | written | {' | '.join(COLUMNS)} |", "|---" * 6 + "|"]
        for name, pairs in techniques.items():
            cells = []
            for column, family in COLUMNS.items():
                result = outcome(family, column in TEXT, pairs, folder) if only in name else "-"
                if result != "works" and result != "-":
                    if result not in reasons:
                        reasons.append(result)
                    result = f"refused ({reasons.index(result) + 1})"
                cells.append(result)
            shown = " ".join(pairs).replace("{teacher}", "RUN").replace("|", "/")
            lines.append(f"| {name} | `{shown}` | {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    lines += ["", "## Reasons", "", *(f"{number}. {text}" for number, text in enumerate(reasons, 1))]
    lines += ["", papers()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import contextlib
    import io

    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        page = table(Path(scratch))
    sys.stdout.write(page)
