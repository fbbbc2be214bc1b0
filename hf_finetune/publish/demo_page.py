"""The page: an image or a text in; labels with probabilities, or numbers, and what mattered out.

A Space gets a copy of this file. Needs gradio.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from hf_finetune.publish.serve_images import UnsafeImage, open_safely

_TOP = 5
_MOST_PIXELS = 40_000_000
_MOST_TEXT = 20_000  # characters
_AT_ONCE = 32  # people in the queue; the next one is told to come back
Given = Any  # an image (PIL, or the bytes of a stored array), or a tuple of one or two texts


@dataclass(frozen=True)
class Task:
    """What is answered.

    Args:
        name: empty where there is only one.
        problem: single_label_classification, multi_label_classification or regression.
        labels: names of the outputs.
    """

    name: str
    problem: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """What the page says.

    Args:
        title: the model's name.
        image: whether it takes images.
        pair: whether it takes pairs of texts.
        tasks: what it answers.
        examples: paths of images, or tuples of texts.
        note: a sentence below the title.
    """

    title: str
    image: bool
    pair: bool
    tasks: tuple[Task, ...]
    examples: Sequence[Any] = ()
    note: str = ""


@dataclass
class Shown:
    """An answer.

    Args:
        scores: of each task, one number for each of its outputs.
        picture: what the model sees, with what mattered; of images.
        pieces: for each text its pieces with weights from -1 to 1; of texts.
        said: how it was found, or why it was not.
    """

    scores: list[list[float]]
    picture: Image.Image | None = None
    pieces: list[list[tuple[str, float]]] = field(default_factory=list)
    said: str = ""


# What is asked, and the number of the task to be explained.
Answer = Callable[[Given, int], Shown]


def build(page: Page, answer: Answer) -> gr.Blocks:
    """The page, ready to be launched."""
    with gr.Blocks(title=page.title, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {_inert(page.title)}\n\n{_inert(page.note)}")
        with gr.Row():
            with gr.Column():
                inputs = _inputs(page)
                names = [task.name for task in page.tasks]
                about = gr.Dropdown(
                    names, value=names[0], type="index", label="Explain", visible=len(names) > 1, interactive=True
                )
                button = gr.Button("Predict", variant="primary", elem_id="predict")
            with gr.Column():
                answers = [_answer_box(page, task) for task in page.tasks]
                mattered = _mattered(page)
                said = gr.Markdown(elem_id="how")

        def predict(*given: Any) -> list[Any]:
            found = answer(_read(page, given[:-1]), int(given[-1] or 0))
            shown = [_in_words(task, scores) for task, scores in zip(page.tasks, found.scores, strict=True)]
            pieces = [*found.pieces, *[None] * len(mattered)][: len(mattered)]
            return [*shown, *([found.picture] if page.image else pieces), _inert(found.said)]

        asked = {"inputs": [*inputs, about], "outputs": [*answers, *mattered, said], "concurrency_limit": 1}
        gr.on([button.click, *([inputs[0].upload] if page.image else [one.submit for one in inputs])], predict, **asked,
              concurrency_id="model", api_name="predict")  # fmt: skip
        if page.examples:
            rows = [[str(one)] if page.image else list(one) for one in page.examples]
            # Not run by the click itself: the page would show the answer to what stood there before.
            gr.Examples(rows, inputs, label="Examples of the test split", cache_examples=False)
    blocks.queue(max_size=_AT_ONCE, default_concurrency_limit=1)
    return blocks


def launch_options(max_file_size: str = "10mb") -> dict[str, Any]:
    """What `launch` gets beside an address: no pages of other servers, no link for others, small uploads."""
    theme = gr.themes.Soft(
        primary_hue="indigo", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return {"theme": theme, "share": False, "max_file_size": max_file_size, "ssr_mode": False, "footer_links": []}


def _inputs(page: Page) -> list[Any]:
    if page.image:
        # As a path: what is uploaded is opened by us, and only where that is safe.
        return [gr.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Image", height=320)]
    boxes = [gr.Textbox(lines=4, max_length=_MOST_TEXT, label="Text", elem_id="text")]
    if page.pair:
        boxes.append(gr.Textbox(lines=3, max_length=_MOST_TEXT, label="Second text", elem_id="text_pair"))
    return boxes


def _answer_box(page: Page, task: Task) -> Any:
    name = task.name or ("Prediction" if task.problem == "regression" else "Label")
    if task.problem == "regression":
        return gr.Textbox(label=name, interactive=False, elem_classes="answer")
    return gr.Label(num_top_classes=_TOP, label=name, elem_classes="answer")


def _mattered(page: Page) -> list[Any]:
    if page.image:
        return [gr.Image(label="What mattered", interactive=False, buttons=[], elem_id="mattered", format="png")]
    names = ["What mattered", "What mattered in the second"][: 1 + page.pair]
    return [gr.HighlightedText(label=name, combine_adjacent=False, elem_classes="mattered") for name in names]


def _read(page: Page, given: Sequence[Any]) -> Given:
    if not page.image:
        texts = tuple(str(one or "") for one in given)
        if not all(text.strip() for text in texts):
            raise gr.Error("Write a text first.", print_exception=False)
        if any(len(text) > _MOST_TEXT for text in texts):
            raise gr.Error(f"At most {_MOST_TEXT:,} characters are taken.", print_exception=False)
        return texts
    if not given[0]:
        raise gr.Error("Upload an image first.", print_exception=False)
    try:
        return open_safely(Path(given[0]).read_bytes(), _MOST_PIXELS)[0]
    except UnsafeImage as error:
        raise gr.Error(_inert(f"{error}."), print_exception=False) from None


def _in_words(task: Task, scores: list[float]) -> Any:
    if task.problem == "regression":
        if len(scores) == 1:
            return f"{scores[0]:.5g}"
        return "\n".join(f"{name}: {value:.5g}" for name, value in zip(task.labels, scores, strict=True))
    return dict(zip(task.labels, scores, strict=True))


def refuse(words: str) -> Exception:
    """What an `Answer` raises where it cannot answer."""
    return gr.Error(_inert(words), print_exception=False)


def _inert(text: str) -> str:
    """Words that no browser takes for HTML."""
    return html.escape(text)
