"""What export refuses, and how; and what a processor's settings say of an image."""

import importlib.util

import numpy as np
import pytest
import transformers
from PIL import Image

from hf_finetune.data.final_pixels import FinalPixels
from hf_finetune.errors import UserError
from hf_finetune.publish.export import export_run
from hf_finetune.publish.export_inputs import image_steps, prepared


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "nowhere", "--format", "merged"], "nowhere holds no finished run"),
        (["export", "nowhere", "--format", "merged", "--quantize", "int8"], "say --format onnx"),
        (["export", "nowhere", "--format", "torchscript"], "invalid choice: 'torchscript'"),
        (["export", "nowhere", "--format", "merged", "--samples", "1"], "at least 2"),
        (["export", "nowhere"], "--format"),
    ],
)
def test_what_cannot_be_is_told(call, arguments, words):
    done = call(*arguments)
    assert done.returncode == 2 and words in done.stderr


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxscript" else find(name, *a))
    with pytest.raises(UserError, match=r"onnxscript.*pip install 'hf_finetune\[onnx\]'"):
        export_run(tmp_path, "onnx")


PROCESSORS = {
    "square": lambda: transformers.ViTImageProcessor(size={"height": 48, "width": 32}),
    "mobilenet": lambda: transformers.MobileNetV2ImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 33, "width": 32}
    ),
    "convnext": lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 48}, crop_pct=0.8),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_steps_make_what_the_processor_makes(name):
    processor = PROCESSORS[name]()
    steps, final = image_steps(processor), FinalPixels(processor)
    noise = np.random.default_rng(1).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    for size in ((51, 70), (90, 41)):
        image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        [expected] = final.pixels([image])
        gaps = np.abs(prepared(image, steps) - expected.numpy()) / final.scale.numpy()
        assert gaps.max() < 2.5 and gaps.mean() < 0.5


def test_a_processor_whose_steps_cannot_be_said_is_told():
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    processor.do_resize = False
    with pytest.raises(UserError, match="not resize, crop and a linear scale"):
        image_steps(processor)
