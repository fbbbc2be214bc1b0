"""Sources, labels, splits, checks, and samples as models take them."""

from hf_finetune.data.columns import Columns
from hf_finetune.data.image_samples import collate_images, image_samples
from hf_finetune.data.images import decode_image
from hf_finetune.data.labels import LabelSpace
from hf_finetune.data.levels import normalized
from hf_finetune.data.load import TaskData
from hf_finetune.data.read_once import load_data
from hf_finetune.data.scored_rows import labels_of, load_test
from hf_finetune.data.sources import MEMORY
from hf_finetune.data.text_samples import TEXT_OF_WINDOW, TextCollator, text_samples

__all__ = [
    "MEMORY",
    "TEXT_OF_WINDOW",
    "Columns",
    "LabelSpace",
    "TaskData",
    "TextCollator",
    "collate_images",
    "decode_image",
    "image_samples",
    "labels_of",
    "load_data",
    "load_test",
    "normalized",
    "text_samples",
]
