"""The doctor on real photos with known faults: flipped labels, copies across splits, broken files."""

import datasets
import numpy as np
import pytest

from hf_finetune.advice import examine
from hf_finetune.recipes.schema import Recipe

FLIPS, COPIES = 10, 5


def spoiled_photos(root, seed):
    """ants_bees as class folders with 10 flipped labels, 5 copies across splits and 3 broken files.

    Returns:
        the flipped files, the copies with their originals, the broken files.
    """
    source = datasets.load_dataset("local/ants_bees")
    files = []
    for split, rows in source.items():
        for n, row in enumerate(rows):
            place = root / split / rows.features["label"].int2str(row["label"])
            place.mkdir(parents=True, exist_ok=True)
            row["image"].convert("RGB").save(place / f"{n:03}.jpg", quality=95)
            files.append(place / f"{n:03}.jpg")
    rng = np.random.default_rng(seed)
    flipped = set()
    for number in rng.choice(len(files), FLIPS, replace=False):
        old = files[number]
        new = old.parent.parent / ("bees" if old.parent.name == "ants" else "ants") / f"moved_{old.name}"
        flipped.add(str(old.rename(new)))
        files[number] = None
    left = [file for file in files if file is not None and file.parent.parent.name == "train"]
    copies = {}
    for number in rng.choice(len(left), COPIES, replace=False):
        copy = root / "validation" / left[number].parent.name / f"copy_{left[number].name}"
        copy.write_bytes(left[number].read_bytes())
        copies[str(left[number])] = str(copy)
    whole = left[0].read_bytes()
    broken = {
        root / "train" / "ants" / "half.jpg": whole[: len(whole) // 2],
        root / "train" / "bees" / "notes.jpg": b"these are notes, not an image",
        root / "validation" / "bees" / "empty.jpg": b"",
    }
    for path, content in broken.items():
        path.write_bytes(content)
    return flipped, copies, set(map(str, broken))


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_doctor_finds_what_was_spoiled(tmp_path, seed):
    flipped, copies, broken = spoiled_photos(tmp_path, seed)
    recipe = Recipe(
        task="image-classification",
        model={"checkpoint": "WinKawaks/vit-tiny-patch16-224"},
        data={"dataset": str(tmp_path), "test_split": "validation"},
    )
    report = examine(recipe)
    assert {row["path"] for row in report["Broken rows"].facts["rows"]} == broken
    found = {pair["path"]: pair["copy_of"]["path"] for pair in report["Copies"].facts["exact"]}
    assert found == copies
    suspects = [suspect["path"] for suspect in report["Likely label errors"].facts["suspects"]]
    hits = flipped & set(suspects[:20])
    print(f"seed {seed}: {len(hits)} of {FLIPS} flips among the first 20 of {len(suspects)} suspects")
    assert len(hits) >= 7
    words = report.in_words()
    assert "data.on_error=skip" in words and "by heart" in words
