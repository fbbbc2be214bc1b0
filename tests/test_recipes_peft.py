"""The recipe's side of adapters: methods, options and what is refused, before peft is imported."""

from __future__ import annotations

import dataclasses

import pytest

from hf_finetune.errors import RecipeError
from hf_finetune.recipes import load_recipe
from hf_finetune.recipes.peft_options import OPTIONS, OWNED
from hf_finetune.recipes.rates import default_learning_rate


def recipe(*pairs, name="sst2"):
    return load_recipe(name, *pairs) if pairs else load_recipe(name)


def faults(*pairs, name="sst2"):
    with pytest.raises(RecipeError) as caught:
        recipe(*pairs, name=name)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_options_given_as_text_take_their_type_and_survive_yaml(tmp_path):
    given = recipe(
        "strategy=peft",
        "strategy.method=lokr",
        "strategy.options.r=4",
        "strategy.options.rank_dropout=1e-1",
        "strategy.options.decompose_both=true",
    )
    assert given.strategy.options == {"r": 4, "rank_dropout": 0.1, "decompose_both": True}
    (tmp_path / "again.yaml").write_text(given.to_yaml())
    assert load_recipe(str(tmp_path / "again.yaml")) == given
    ia3 = recipe("strategy=peft", "strategy.method=ia3", "strategy.options.feedforward_modules=[fc2]")
    assert ia3.strategy.options == {"feedforward_modules": ("fc2",)}
    (tmp_path / "ia3.yaml").write_text(ia3.to_yaml())
    assert load_recipe(str(tmp_path / "ia3.yaml")) == ia3


def test_unknown_options_name_the_valid_ones_and_ours_say_where():
    found = faults(
        "strategy=peft",
        "strategy.method=vera",
        "strategy.options.rank=4",
        "strategy.options.task_type=SEQ_CLS",
        "strategy.options.target_modules=[query]",
        "strategy.options.modules_to_save=[classifier]",
        "strategy.options.d_initial=-1",
        "strategy.merge=true",
    )
    assert "it has r, projection_prng_key, vera_dropout, d_initial" in found["strategy.options.rank"]
    assert "the recipe's task" in found["strategy.options.task_type"]
    assert "strategy.targets" in found["strategy.options.target_modules"]
    assert "the head always learns" in found["strategy.options.modules_to_save"]
    assert "must be a number more than 0" in found["strategy.options.d_initial"]


def test_two_options_that_decide_the_same_are_refused():
    found = faults("strategy=peft", "strategy.method=oft", "strategy.options={r: 2, oft_block_size: 4}")
    assert "give it or r" in found["strategy.options.oft_block_size"]


@pytest.mark.parametrize("method", OPTIONS)
def test_every_field_of_pefts_configuration_is_an_option_or_ours(method):
    from hf_finetune.strategy.peft_methods import _configuration_class

    fields = {field.name for field in dataclasses.fields(_configuration_class(method))}
    assert set(OPTIONS[method]) <= fields
    assert fields - set(OPTIONS[method]) <= set(OWNED)


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning"])
def test_prompts_are_refused_with_the_reason(method):
    text = faults("strategy=peft", f"strategy.method={method}")["strategy.method"]
    assert "transformers 5.23" in text
    assert "pipeline()" in text
    image = faults("strategy=peft", f"strategy.method={method}", name="cifar10")["strategy.method"]
    assert "image-classification" in image


def test_vera_is_saved_merged():
    assert "vera needs strategy.merge=true" in faults("strategy=peft", "strategy.method=vera")["strategy.merge"]


def test_statistics_beside_adapters_do_not_move():
    assert "beside adapters" in faults("strategy=lora", "model.batch_norm=train", name="cifar10")["model.batch_norm"]


def test_a_method_is_needed_and_rates_are_the_methods_own():
    assert "strategy.method" in faults("strategy=peft")
    for method in OPTIONS:
        rate = default_learning_rate(recipe("strategy=peft", f"strategy.method={method}", "strategy.merge=true"))
        assert rate > default_learning_rate(recipe("strategy=full"))
