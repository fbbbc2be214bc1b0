"""Checkpoints of strangers: a tiny BERT or ViT with one thing changed, given to `train` or `evaluate`."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from faults.hostile import Case, Runs, payload

_ROWS = "text,label\n" + "".join(f"w{3 + n % 40} w{4 + n % 30},{'ab'[n % 2]}\n" for n in range(32))
_RECIPE = """\
task: text-classification
model: {checkpoint: model}
data: {dataset: rows.csv, text: text, label: label, validation: 0.25, test_split: 0.25, max_length: 8}
training: {num_train_epochs: 1, per_device_train_batch_size: 8, learning_rate: 0.01}
evaluation: {bootstrap: 0}
output_dir: out
"""

Change = Callable[[Path, Path], None]  # the checkpoint, the folder around it


def train(change: Change, *pairs: str) -> Callable[[Path], list[str]]:
    """`hf-finetune train` on the changed checkpoint."""

    def make(folder: Path) -> list[str]:
        from model_samples import save_checkpoint

        change(save_checkpoint("bert", folder / "model", num_labels=2), folder)
        (folder / "rows.csv").write_text(_ROWS)
        (folder / "mine.yaml").write_text(_RECIPE)
        return ["train", "recipe=mine.yaml", "precision=no", *pairs]

    return make


def evaluate(change: Change, family: str = "vit") -> Callable[[Path], list[str]]:
    """`hf-finetune predict` with the changed checkpoint, as a finished model."""

    def make(folder: Path) -> list[str]:
        from model_samples import save_checkpoint

        change(save_checkpoint(family, folder / "model"), folder)
        return ["predict", "model", "picture.png" if family != "bert" else "w3 w4"]

    return make


def config(name: str = "config.json", **changes: Any) -> Change:
    """Other values in one of the JSON files."""

    def change(model: Path, folder: Path) -> None:
        file = model / name
        value = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(value | changes))

    return change


def text(name: str, content: str | bytes) -> Change:
    """Another content of one file."""

    def change(model: Path, folder: Path) -> None:
        (model / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def _pickled(name: str, *gone: str) -> Change:
    def change(model: Path, folder: Path) -> None:
        for old in gone:
            (model / old).unlink()
        (model / name).write_bytes(pickle.dumps(Runs(folder)))

    return change


def _pickled_shard(model: Path, folder: Path) -> None:
    _pickled("pytorch_model-00001-of-00001.bin", "model.safetensors")(model, folder)
    _index("pytorch_model-00001-of-00001.bin")(model, folder)


def _index(*shards: str) -> Change:
    def change(model: Path, folder: Path) -> None:
        (model / "model.safetensors").unlink(missing_ok=True)
        weights = {f"weight{n}": shard for n, shard in enumerate(shards)}
        (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))

    return change


def _remote(name: str, key: str, *, kind: str | None = None) -> Change:
    """A file that points at code beside it."""

    def change(model: Path, folder: Path) -> None:
        (model / "evil.py").write_text(f"{payload(folder)}\nclass Evil: pass\n")
        more = {"model_type": kind} if kind else {}
        config(name, auto_map={key: "evil.Evil", "AutoConfig": "evil.Evil"}, **more)(model, folder)

    return change


def _remote_tokenizer(model: Path, folder: Path) -> None:
    (model / "evil.py").write_text(f"{payload(folder)}\nclass Evil: pass\n")
    where = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    config("tokenizer_config.json", auto_map=where, tokenizer_class="Evil")(model, folder)


def _header(header: bytes, length: int | None = None) -> Change:
    size = len(header) if length is None else length
    return text("model.safetensors", struct.pack("<Q", size) + header)


def _pickled_metadata(model: Path, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    told = {"format": "pt", "pickle": pickle.dumps(Runs(folder), protocol=0).decode("latin-1")}
    save_file(load_file(model / "model.safetensors"), model / "model.safetensors", told)


def _adapter(**changes: Any) -> Change:
    def change(model: Path, folder: Path) -> None:
        settings = {"peft_type": "LORA", "base_model_name_or_path": ".", "r": 4, "target_modules": ["query"]}
        (model / "adapter_config.json").write_text(json.dumps(settings | changes))

    return change


def _pickled_adapter(model: Path, folder: Path) -> None:
    _adapter()(model, folder)
    (model / "adapter_model.bin").write_bytes(pickle.dumps(Runs(folder)))


def _left_over(model: Path, folder: Path) -> None:
    """Pickles that nobody asks for, beside a good checkpoint."""
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin", "x.pkl"):
        torch.save(Runs(folder), model / name, pickle_protocol=2)


def _resumed(folder: Path) -> list[str]:
    """A checkpoint to go on from, sealed, whose state is pickled."""
    words = train(lambda model, folder: None, "resume=theirs")(folder)
    theirs = folder / "theirs"
    theirs.mkdir()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "pytorch_model.bin"):
        (theirs / name).write_bytes(pickle.dumps(Runs(folder)))
    (theirs / "trainer_state.json").write_text('{"global_step": 1, "epoch": 0.1, "log_history": []}')
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in theirs.iterdir()}
    (theirs / "sealed.json").write_text(json.dumps(sums))
    return words


def _timm(**options: Any) -> Callable[[Path], list[str]]:
    def change(model: Path, folder: Path) -> None:
        config(**options)(model, folder)

    return evaluate(change, "timm_resnet")


_HUGE = {"type": "BPE", "vocab": {}, "merges": []}
_BROKEN_TOKENIZER = json.dumps({"version": "1.0", "added_tokens": [], "model": {**_HUGE, "merges": [["a", "b"]]}})
_CANNOT = ("cannot be loaded",)

_CASES = [
    ("pickled weights", train(_pickled("pytorch_model.bin", "model.safetensors")), ("Convert it",)),
    ("pickled weights of a finished model", evaluate(_pickled("pytorch_model.bin", "model.safetensors")),
     ("Convert it",)),
    ("weights called safetensors, and pickled", train(_pickled("model.safetensors")), _CANNOT),
    ("an index whose shard is pickled", train(_pickled_shard), ("no safetensors file beside it",)),
    ("an index whose shard lies further up", train(_index("../../x.safetensors")), ("no safetensors file beside",)),
    ("an index whose shard is /etc/passwd", train(_index("/etc/passwd")), ("no safetensors file beside it",)),
    ("an index of 20,000 shards", train(_index(*(f"m{n}.safetensors" for n in range(20_000)))), ("more than",)),
    ("an index that is a list", train(text("model.safetensors.index.json", "[]")), ("no settings by name",)),
    ("a pickle in the metadata", train(_pickled_metadata), (), None),
    ("a header of 2^63 bytes", train(_header(b"{}", 2**63 - 1)), _CANNOT),
    ("a header of 90 MB that is not there", train(_header(b"{}", 90_000_000)), _CANNOT),
    ("a header nested 100,000 deep", train(_header(b'{"a":' * 100_000)), _CANNOT),
    ("a tensor of 2^60 values", train(_header(
        b'{"bert.x":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4611686018427387904]}}')), _CANNOT),
    ("weights of no bytes", train(text("model.safetensors", b"")), _CANNOT),
    ("hidden_size 10^9", train(config(hidden_size=10**9, num_attention_heads=1)), ("GB of memory", "can be built")),
    ("hidden_size 10^9 of a finished model", evaluate(config(hidden_size=10**9, num_attention_heads=1)),
     ("GB of memory", "can be built")),
    ("hidden_size 10^9 from scratch", train(config(hidden_size=10**9, num_attention_heads=1), "strategy=scratch"),
     ("GB of memory", "can be built")),
    ("intermediate_size 10^15", train(config(intermediate_size=10**15)), ("GB of memory", "can be built")),
    ("a vocabulary of 10^13", train(config(vocab_size=10**13)), ("GB of memory", "can be built")),
    ("10^12 positions", train(config(max_position_embeddings=10**12)), ("GB of memory", "can be built")),
    ("10^9 layers", train(config(num_hidden_layers=10**9)), ("at most 2,000 layers",)),
    ("10^9 labels", train(config(num_labels=10**9)), ("at most 1,000,000 labels",)),
    ("images of 10^9 pixels a side", evaluate(config(image_size=10**9)), ("GB of memory", "can be built")),
    ("a processor that makes images of 10^9", evaluate(config("preprocessor_config.json",
     size={"height": 10**9, "width": 10**9})), ("at most 16,384 pixels",)),
    ("a processor inside another that makes images of 10^9", evaluate(config("processor_config.json",
     image_processor={"size": {"height": 10**9, "width": 10**9}})), ("at most 16,384 pixels",)),
    ("hidden_size -1", train(config(hidden_size=-1)), _CANNOT),
    ("hidden_size a text", train(config(hidden_size="x")), _CANNOT),
    ("no attention heads", train(config(num_attention_heads=0)), _CANNOT),
    ("a number of 5,000 digits", train(text("config.json", f'{{"model_type": "bert", "x": {"9" * 5000}}}')),
     ("cannot be read",)),
    ("a config nested 100,000 deep", train(text("config.json", '{"a":' * 100_000)), ("cannot be read",)),
    ("a config that is a list", train(text("config.json", "[]")), ("no settings by name",)),
    ("code of its own", train(_remote("config.json", "AutoModelForSequenceClassification", kind="evil")),
     ("--trust-remote-code",)),
    ("code in place of a known kind", train(_remote("config.json", "AutoModelForSequenceClassification")), (), None),
    ("a tokenizer of its own code", train(_remote_tokenizer), (), None),
    ("an image processor of its own code", evaluate(_remote("preprocessor_config.json", "AutoImageProcessor")),
     (), None),
    ("compiled attention of the Hub", train(config(attn_implementation="them/kernel")), ("compiled code",)),
    ("a pickled adapter", train(_pickled_adapter), ("adapter_model.bin",)),
    ("an adapter that imports a module", train(_adapter(megatron_config={"a": 1}, megatron_core="evil")),
     ("megatron_config",)),
    ("an adapter of rank 10^9", train(_adapter(r=10**9)), ("at most 65,536",)),
    ("pickles beside a good checkpoint", train(_left_over), (), 0),
    ("a checkpoint to resume from, with pickles", _resumed, (), None),
    ("timm: a pickled file to load after all", _timm(model_args={"checkpoint_path": "evil.pth"}), ("opens other",)),
    ("timm: another repository", _timm(architecture="hf-hub:them/evil"), ("another repository",)),
    ("timm: a file of its own", _timm(architecture="local-dir:/etc"), ("another repository",)),
    ("a tokenizer that breaks its reader", train(text("tokenizer.json", _BROKEN_TOKENIZER)), ("tokenizer",)),
    ("a tokenizer that is a pickle", train(_pickled("tokenizer.json", "tokenizer.json")), ("tokenizer",)),
    ("a tokenizer of -5 tokens", train(config("tokenizer_config.json", model_max_length=-5)), ("at least 1",)),
]  # fmt: skip

CHECKPOINTS = [Case(f"checkpoint: {name}", make, words, *code) for name, make, words, *code in _CASES]
