"""What mattered: found where it was put, for every family or a sentence why not, and the model left as it was."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation_samples import text_model
from model_samples import IMAGE_FAMILIES, sweep, tiny
from torch import nn

from hf_finetune.evaluation.attribution_images import _grid, explain_images
from hf_finetune.evaluation.attribution_texts import explain_texts


class Red(nn.Module):
    """Tells red from blue by two channels of one convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, stride=4, bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0, 0] = self.conv.weight[1, 2] = 1.0

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.conv(pixel_values).relu().mean(dim=(2, 3)))


def test_grad_cam_points_at_what_the_answer_rests_on():
    pixels = torch.zeros(3, 32, 32)
    pixels[0, 4:12, 4:12] = 1.0  # red, upper left
    pixels[2, 20:28, 20:28] = 1.0  # blue, lower right
    found = explain_images(Red(), [{"pixel_values": pixels}] * 2, [0, 1])
    assert not found.skipped and "Grad-CAM" in found.method
    red, blue = found.found[0], found.found[1]
    assert red[2, 2] == 1 and red[6, 6] == 0 and blue[6, 6] == 1 and blue[2, 2] == 0


@pytest.mark.parametrize("family", sweep(IMAGE_FAMILIES))
def test_every_family_gives_maps_and_is_left_as_it_was(family):
    torch.manual_seed(0)
    model = tiny(family).train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # a frozen model can be asked too
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attention = getattr(model.config, "_attn_implementation", None)
    size = 96 if "inception" in family else 64 if "xception" in family else 32
    samples = [{"pixel_values": torch.randn(3, size, size)} for _ in range(3)]
    found = explain_images(model, samples, [0, 1, 2])
    assert found.found or found.skipped
    for heat in found.found.values():
        assert heat.ndim == 2 and heat.min() >= 0 and heat.max() == pytest.approx(1) and np.isfinite(heat).all()
    assert model.training and getattr(model.config, "_attn_implementation", None) == attention
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())


def test_a_config_may_name_an_attention_that_its_model_cannot_be_asked_for():
    """As that of a ResNet that keeps its neighbours: its page was not drawn."""
    model = tiny("resnet")
    model.config._attn_implementation = "sdpa"
    found = explain_images(model, [{"pixel_values": torch.randn(3, 32, 32)}], [1])
    assert found.found and model.config._attn_implementation == "sdpa"


def test_a_vit_is_followed_through_its_attention():
    found = explain_images(tiny("vit"), [{"pixel_values": torch.randn(3, 32, 32)}], [1])
    assert "attention" in found.method and found.found[0].shape == (4, 4)


def test_patches_are_told_from_the_tokens_before_them():
    assert _grid(197, (224, 224)) == (14, 14, 1)
    assert _grid(198, (224, 224)) == (14, 14, 2)
    assert _grid(196, (224, 224)) == (14, 14, 0)
    assert _grid(14 * 28 + 1, (224, 448)) == (14, 28, 1)
    assert _grid(3, (224, 224)) is None


def test_the_pieces_joined_are_the_text_and_weights_stay_within_one():
    model, tokenizer = text_model()
    texts = [("The very  bad film",), ("great",), ("awful plot, not good",)]
    truncation = tokenizer.backend_tokenizer.truncation
    found = explain_texts(model, tokenizer, texts, [0, 1, 1])
    assert not found.skipped and found.method
    for place, (text,) in enumerate(texts):
        pieces = found.found[place][0]
        assert "".join(piece for piece, _ in pieces) == text
        weights = [abs(weight) for _, weight in pieces]
        assert max(weights) == pytest.approx(1) and all(weight <= 1 for weight in weights)
        assert all(weight == 0 for piece, weight in pieces if not piece.strip())
    assert tokenizer.backend_tokenizer.truncation == truncation  # what is saved with the tokenizer stays as it was


class Bag(nn.Module):
    """The sum of a number for each word: which word mattered is known."""

    def __init__(self, vocabulary, word):
        super().__init__()
        self.table = nn.Embedding(vocabulary, 2)
        with torch.no_grad():
            self.table.weight.zero_()
            self.table.weight[word] = torch.tensor([-3.0, 3.0])

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        return SimpleNamespace(logits=self.table(input_ids).sum(dim=1))


def test_gradient_times_input_points_at_the_word_that_decides():
    _, tokenizer = text_model()
    model = Bag(len(tokenizer), tokenizer.convert_tokens_to_ids("great"))
    found = explain_texts(model, tokenizer, [("the great film",), ("the great film",)], [1, 0])
    assert dict(found.found[0][0])["great"] == pytest.approx(1)  # speaks for it
    assert dict(found.found[1][0])["great"] == pytest.approx(-1)  # speaks against the other
    assert dict(found.found[0][0])["film"] == 0


def test_pairs_have_two_parts_and_a_text_that_is_cut_says_so():
    model, tokenizer = text_model()
    found = explain_texts(model, tokenizer, [("good film", "bad plot")], [0])
    assert ["".join(piece for piece, _ in part) for part in found.found[0]] == ["good film", "bad plot"]
    cut = explain_texts(model, tokenizer, [("good film bad plot",)], [0], max_length=4)
    assert "".join(piece for piece, _ in cut.found[0][0]) == "good film …"


def test_time_that_is_used_up_is_said():
    model, tokenizer = text_model()
    found = explain_texts(model, tokenizer, [("good",)] * 3, [0] * 3, seconds=-1)
    assert not found.found and "0 of 3" in found.skipped
