"""A page to try the model on: `pip install -r requirements.txt`, then `python app.py`. Made by hf_finetune."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from hf_finetune.data.images import decode_image
from hf_finetune.publish.demo_page import Page, Shown, Task, build, launch_options, refuse
from hf_finetune.publish.demo_shown import shown

HERE = Path(__file__).resolve().parent
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Model:
    """The model behind the page.

    Args:
        page: what is shown.
        settings: of settings.json: where the model is, and how it reads.
    """

    def __init__(self, page: Page, settings: dict[str, Any]) -> None:
        self.page = page
        where = settings["model"] or str(HERE / "model")
        options = {"revision": settings["revision"], "trust_remote_code": settings["own_code"]}
        one = AutoModelForImageClassification if page.image else AutoModelForSequenceClassification
        kind: Any = AutoModel if page.tasks[0].name else one
        self.model = kind.from_pretrained(where, use_safetensors=True, dtype=torch.float32, **options).eval()
        self.temperature = float((getattr(self.model.config, "hf_finetune", None) or {}).get("temperature", 1.0))
        reader: Any = AutoImageProcessor if page.image else AutoTokenizer
        self.processor = reader.from_pretrained(where, **options)
        self.channels = settings["channels"]
        self.max_length = settings["max_length"] or self._limit()

    def _limit(self) -> int | None:
        """Tokens that the model takes."""
        said = getattr(self.processor, "model_max_length", None)
        return said if said is not None and said < 100_000 else None

    def __call__(self, given: Any, about: int) -> Shown:
        """Scores, and what mattered for the answer of one task."""
        if self.page.image:
            try:
                image = decode_image(given, _MODES[self.channels])
            except OSError as error:
                raise refuse(f"The image cannot be decoded: {error}.") from None
            given = {"pixel_values": self.processor(image, return_tensors="pt")["pixel_values"][0]}
            inputs = {"pixel_values": given["pixel_values"][None]}
        else:
            inputs = dict(
                self.processor(
                    *given, truncation=self.max_length is not None, max_length=self.max_length, return_tensors="pt"
                )
            )
        with torch.no_grad():
            logits = self.model(**inputs).logits[0].float() / self.temperature
        return shown(self.page, self.model, self.processor, given, logits, about, self.max_length)


def main() -> None:
    """Show the page."""
    settings = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
    image = settings["image"]
    page = Page(
        title=settings["title"],
        image=image,
        pair=settings["pair"],
        tasks=tuple(Task(one["name"], one["problem"], tuple(one["labels"])) for one in settings["tasks"]),
        examples=[HERE / "examples" / one if image else tuple(one) for one in settings["examples"]],
        note=settings["note"],
    )
    blocks = build(page, Model(page, settings))
    # Hugging Face's machines say where to listen; elsewhere it is this machine alone.
    blocks.launch(server_name=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), **launch_options())


if __name__ == "__main__":
    main()
