"""What a request asks: images as they are, in a form or in JSON; texts in JSON."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_finetune.publish.serve_images import UnsafeImage, open_safely
from hf_finetune.publish.serve_limits import Limits, Refusal

if TYPE_CHECKING:
    from starlette.requests import Request

_IMAGE_BODIES = ("image/", "application/octet-stream")
_SHAPES = 'a text, {"text": ..., "text_pair": ...}, or a list of them'


@dataclass(frozen=True)
class Asked:
    """A request in our words.

    Args:
        values: images or (text,) or (text, text_pair), each with its cost.
        many: a list was asked, so a list is answered.
        top: the best so many labels; all that is usual if None.
    """

    values: list[tuple[Any, int]]
    many: bool
    top: int | None = None


@dataclass(frozen=True)
class Reader:
    """Reads requests for one model.

    Args:
        image: whether it takes images.
        pairs: whether it takes pairs of texts alone (True), single texts alone (False), or it is not known (None).
        applied: the function that makes scores of logits: softmax, sigmoid or none; None where each task has its own.
        limits: of the server.
    """

    image: bool
    pairs: bool | None
    applied: str | None
    limits: Limits

    async def __call__(self, request: Request) -> Asked:
        """What is asked.

        Raises:
            Refusal: it is nothing that this model takes; 400, 413 or 415.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return self._of_json(await request.body())
        if self.image and kind == "multipart/form-data":
            return await self._of_form(request)
        if self.image and (not kind or kind.startswith(_IMAGE_BODIES)):
            return Asked([self._image(await request.body())], many=False)
        if self.image:
            takes = "an image (Content-Type: image/jpeg, ...), a form with files, or JSON with the image in base64"
        else:
            takes = 'JSON: Content-Type: application/json and {"inputs": "a text"}'
        raise Refusal(415, f"This model takes {takes}; {kind or 'a body of no named type'} was sent.")

    async def _of_form(self, request: Request) -> Asked:
        from starlette.datastructures import UploadFile

        try:
            form = await request.form(
                max_files=self.limits.inputs, max_fields=self.limits.inputs, max_part_size=self.limits.bytes
            )
        except Exception as error:  # MultiPartException, which starlette turns into an answer of its own
            raise Refusal(400, f"The form cannot be read: {getattr(error, 'detail', error)}") from None
        try:
            files = [await part.read() for _, part in form.multi_items() if isinstance(part, UploadFile)]
            top = form.get("top_k")
        finally:
            await form.close()
        if not files:
            raise Refusal(400, "The form holds no file: send an image as a part with a file name.")
        return Asked([self._image(content) for content in files], len(files) > 1, _top(top, text=True))

    def _of_json(self, body: bytes) -> Asked:
        try:
            said = json.loads(body)
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
            raise Refusal(400, f"The body is no JSON: {error}") from None
        if not isinstance(said, dict) or "inputs" not in said:
            raise Refusal(400, 'The JSON must be an object with "inputs" (and "parameters", if any).')
        if strange := sorted(set(said) - {"inputs", "parameters", "options"}):
            raise Refusal(400, f'"{strange[0][:40]}" is not known: "inputs" and "parameters" are.')
        top = self._parameters(said.get("parameters"))
        inputs = said["inputs"]
        many = isinstance(inputs, list)
        each = inputs if many else [inputs]
        if not each:
            raise Refusal(400, '"inputs" is an empty list.')
        if len(each) > self.limits.inputs:
            raise Refusal(413, f"{len(each):,} inputs in one request; at most {self.limits.inputs:,} are taken.")
        return Asked([self._from_base64(one) if self.image else self._text(one) for one in each], many, top)

    def _parameters(self, given: Any) -> int | None:
        given = {} if given is None else given
        if not isinstance(given, dict):
            raise Refusal(400, '"parameters" must be an object, such as {"top_k": 3}.')
        if strange := sorted(set(given) - {"top_k", "function_to_apply"}):
            raise Refusal(400, f'The parameter "{strange[0][:40]}" is not known: top_k is.')
        function = given.get("function_to_apply")
        if function is not None and self.applied is None:
            raise Refusal(400, "function_to_apply: each task of this model has a function of its own; leave it out.")
        if function not in (None, self.applied):
            raise Refusal(400, f'function_to_apply must be "{self.applied}", as the model was trained, or left out.')
        return _top(given.get("top_k"))

    def _image(self, content: bytes) -> tuple[Any, int]:
        try:
            return open_safely(content, self.limits.pixels)
        except UnsafeImage as error:
            large = "at most" in str(error) or "more pixels" in str(error)
            raise Refusal(413 if large else 400, f"{error}"[:1].upper() + f"{error}."[1:]) from None

    def _from_base64(self, value: Any) -> tuple[Any, int]:
        if not isinstance(value, str):
            raise Refusal(400, "This model takes images: an input is an image as text in base64, or a list of them.")
        text = value.partition(",")[2] if value.startswith("data:") else value
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(400, "This model takes images, and the input is no base64 of one.") from None
        return self._image(content)

    def _text(self, value: Any) -> tuple[tuple[str, ...], int]:
        if isinstance(value, dict):
            if set(value) - {"text", "text_pair"} or value.get("text") is None:
                raise Refusal(400, f"An input is {_SHAPES}.")
            value = [value[key] for key in ("text", "text_pair") if value.get(key) is not None]
        texts = tuple(value) if isinstance(value, list) else (value,)
        if len(texts) not in (1, 2) or not all(isinstance(text, str) for text in texts):
            raise Refusal(400, f"An input is {_SHAPES}.")
        if self.pairs is not None and (len(texts) == 2) is not self.pairs:
            takes = 'pairs of texts: {"text": ..., "text_pair": ...}' if self.pairs else "single texts"
            raise Refusal(400, f"This model takes {takes}.")
        if not any(text.strip() for text in texts):
            raise Refusal(400, "The text is empty.")
        for text in texts:
            if len(text) > self.limits.characters:
                most = self.limits.characters
                raise Refusal(413, f"A text of {len(text):,} characters; at most {most:,} are taken.")
            try:
                text.encode()
            except UnicodeEncodeError:
                raise Refusal(400, "A text holds half a character (a lone surrogate).") from None
        return texts, 1


def _top(value: Any, text: bool = False) -> int | None:
    if text and isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise Refusal(400, "top_k must be a whole number from 1 on.")
    return value
