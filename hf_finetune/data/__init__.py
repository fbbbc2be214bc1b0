"""Sources, labels, splits, checks, and samples as models take them."""

from hf_finetune.data.columns import Columns
from hf_finetune.data.image_samples import collate_images, image_samples
from hf_finetune.data.images import decode_image
from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.load import TaskData, load_data, load_test
from hf_finetune.data.text_samples import TextCollator, text_samples

__all__ = [
    "Columns",
    "LabelSpace",
    "TaskData",
    "TextCollator",
    "collate_images",
    "decode_image",
    "image_samples",
    "load_data",
    "load_test",
    "text_samples",
]
