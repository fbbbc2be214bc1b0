"""What a model tells accelerate about itself before it is sharded: no module twice, none that is not there."""

from __future__ import annotations

import pytest
from model_samples import sweep, tiny

from hf_finetune.training.sharding import shard_embeddings_once


@pytest.mark.parametrize("family", sweep(core=("vit", "resnet", "bert")))
def test_embeddings_are_sharded_once(family):
    """accelerate shards the kinds that are named, and then the input embeddings: with ViT and BERT it stopped there."""
    model = tiny(family)
    shard_embeddings_once(model)
    embeddings = model.get_input_embeddings()
    named = [module for module in model.modules() if type(module).__name__ in model._no_split_modules]
    assert {type(module).__name__ for module in named} == set(model._no_split_modules)
    assert not [module for module in named for part in module.modules() if part is embeddings and module is not part]
    if family in ("vit", "bert"):
        assert named and embeddings is not None
