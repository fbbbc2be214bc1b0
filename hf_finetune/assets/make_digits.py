"""Makes digits.parquet, the embedded data set: scikit-learn's copy of the UCI digits, as PNGs.

    python hf_finetune/assets/make_digits.py

1,797 handwritten digits, 8 x 8 pixels of 17 grey levels (E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten
Digits, UCI 1998, CC BY 4.0). A stratified fifth, chosen once by seed 0, is the test split.
"""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hf_finetune.data.packages import ASSETS, DIGIT_FEATURES, encode_png


def main() -> None:
    """Write digits.parquet beside this file."""
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    _, test = train_test_split(np.arange(len(pixels)), test_size=360, stratify=digits.target, random_state=0)
    split = np.full(len(pixels), "train", dtype=object)
    split[test] = "test"
    rows = {
        "image": [{"bytes": encode_png(image), "path": None} for image in pixels],
        "label": digits.target.tolist(),
        "split": split.tolist(),
    }
    Dataset.from_dict(rows, features=DIGIT_FEATURES).to_parquet(ASSETS / "digits.parquet")


if __name__ == "__main__":
    main()
