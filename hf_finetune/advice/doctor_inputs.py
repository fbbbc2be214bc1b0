"""What the inputs are like: sizes and modes of images, lengths of texts in tokens."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from hf_finetune.advice.doctor_material import Material
from hf_finetune.advice.doctor_report import Section, count, spread
from hf_finetune.data.tokens import tokenize
from hf_finetune.model.quiet import quiet

_NO_LIMIT = 1_000_000  # tokenizers without a limit of their own say 10**30
_MANY = 0.01  # of the texts cut: worth a word


def images(material: Material) -> Section:
    """Sizes, modes and formats of the images, and those of one colour."""
    section = Section("Images")
    for split in material.splits:
        facts = split.facts
        if facts is None or not len(split.readable):
            continue
        widths, heights = facts.widths[split.readable], facts.heights[split.readable]
        modes = Counter(facts.modes[row] for row in split.readable)
        formats = Counter(facts.formats[row] or "unknown" for row in split.readable)
        sizes = Counter(zip(widths.tolist(), heights.tolist(), strict=True))
        section.facts[split.name] = {
            "width": _three(widths),
            "height": _three(heights),
            "sizes": len(sizes),
            "modes": dict(modes),
            "formats": dict(formats),
            "one_colour": [row for row, plain in enumerate(split.looked.plain) if plain],
        }
        size = (
            f"all {widths[0]} x {heights[0]}"
            if len(sizes) == 1
            else f"width {spread(widths)}; height {spread(heights)}"
        )
        told = ", ".join(f"{number:,} {mode}" for mode, number in modes.most_common())
        kinds = ", ".join(f"{number:,} {form}" for form, number in formats.most_common())
        section.lines.append(f"{split.name}: {size}; {told}; {kinds}")
    plain = {name: len(facts["one_colour"]) for name, facts in section.facts.items() if facts["one_colour"]}
    if plain:
        where = ", ".join(f"{rows:,} in {name}" for name, rows in plain.items())
        section.lines.append(f"images of one colour: {where}")
        section.advice.append("images of one colour show nothing: data.clean='{empty: true}' drops them from train")
    if len({frozenset(facts["modes"]) for facts in section.facts.values()}) > 1:
        section.advice.append("the splits differ in their images' modes: were they made in the same way?")
    return section


def _three(values: np.ndarray) -> dict[str, float]:
    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}


def texts(material: Material, tokenizer: Any, limit: int) -> Section:
    """Lengths in tokens, special ones included, and the share that is cut."""
    section = Section("Texts")
    most = tokenizer.model_max_length if tokenizer.model_max_length < _NO_LIMIT else None
    kept = material.recipe.data.max_length or most
    lengths: list[np.ndarray] = []
    for split, rows in material.sample(limit):
        with quiet():  # transformers warns of texts longer than the model takes, which is what is counted here
            lengths.append(tokenize(split.rows.select(rows), tokenizer, None).lengths)
        tokens = lengths[-1]
        cut = float((tokens > kept).mean()) if kept else 0.0
        section.facts[split.name] = {"tokens": _three(tokens), "samples": len(tokens), "cut": cut}
        of = f" ({count(len(tokens), 'text')} looked at)" if len(rows) < len(split.readable) else ""
        section.lines.append(f"{split.name}: tokens {spread(tokens)}{of}; {cut:.1%} longer than {kept or 'any limit'}")
    if not lengths or not kept:
        return section
    everything = np.concatenate(lengths)
    cut = float((everything > kept).mean())
    if cut >= _MANY and material.recipe.data.long_text == "truncate":
        longer = int(np.ceil(np.quantile(everything, 0.99) / 8) * 8)
        remedies = [f"data.max_length={min(longer, most or longer)}"] if most is None or kept < most else []
        remedies += [] if material.columns.text_pair else ["data.long_text=windows"]
        section.advice.append(f"{cut:.1%} of the texts are cut: {' or '.join(remedies) or 'use shorter texts'}")
    return section
