"""The parts of `serve` in this process: batches, limits, images that are not decoded, a missing package."""

import asyncio
import importlib.util
import io
import threading

import numpy as np
import PIL.Image
import pytest
from serving_samples import bomb, encoded

from hf_finetune.data import decode_image
from hf_finetune.errors import UserError
from hf_finetune.publish.serve_batches import Batcher
from hf_finetune.publish.serve_images import UnsafeImage, open_safely
from hf_finetune.publish.serve_limits import Guard, Limits, Refusal

GREY = PIL.Image.new("RGB", (20, 10), (90, 90, 90))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_usual_images_are_opened_and_not_yet_decoded(kind):
    image, pixels = open_safely(encoded(GREY, kind), 1000)
    assert pixels == 200
    assert np.abs(np.asarray(decode_image(image)).astype(int) - 90).max() < 6


def test_what_is_never_decoded():
    many_scans = encoded(GREY, "JPEG") + b"\xff\xda" * 200
    for content, words in (
        (b"", "empty"),
        (b"GIF89a", "cannot be read|no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no image of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image of a known format"),
        (encoded(GREY), "at most 0.0001 megapixels"),
        (bomb(2**31 - 1, 2**31 - 1), "pixels"),
        (many_scans, "scans"),
    ):
        with pytest.raises(UnsafeImage, match=words):
            open_safely(content, 100 if words.startswith("at most") else 10**7)


def test_an_array_is_read_only_where_its_header_tells_the_truth():
    kept = io.BytesIO()
    np.save(kept, np.zeros((6, 5, 4), np.uint8))
    content = kept.getvalue()
    assert open_safely(content, 100)[0] == content
    with pytest.raises(UnsafeImage, match="does not fit"):
        open_safely(content[:-1], 100)
    objects = io.BytesIO()
    np.save(objects, np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(UnsafeImage, match="does not fit"):
        open_safely(objects.getvalue(), 100)
    assert b"(6, 5, 4)" in content
    lies = content.replace(b"(6, 5, 4)", b"(6000000000, 5, 4)")
    with pytest.raises(UnsafeImage):
        open_safely(lies, 100)


def test_values_that_wait_together_are_answered_together_and_in_one_thread():
    seen, threads = [], set()
    held = threading.Event()

    def answer(values):
        held.wait(10)
        seen.append(list(values))
        threads.add(threading.current_thread().name)
        return [value * 10 for value in values]

    async def ask():
        async with Batcher(answer, most=4, seconds=0) as batcher:
            jobs = [asyncio.ensure_future(batcher(value)) for value in range(10)]
            await asyncio.sleep(0)
            held.set()
            return await asyncio.gather(*jobs)

    assert asyncio.run(ask()) == [value * 10 for value in range(10)]
    assert max(map(len, seen)) == 4 and sum(map(len, seen)) == 10 and len(seen) < 10
    assert len(threads) == 1


def test_a_batch_is_bounded_by_cost_and_a_bad_value_is_alone_in_its_fault():
    seen = []

    def answer(values):
        seen.append(list(values))
        if "bad" in values:
            raise UserError("no good")
        return list(values)

    async def ask():
        async with Batcher(answer, most=8, seconds=0.01, most_cost=10) as batcher:
            asked = [("a", 6), ("b", 6), ("bad", 1), ("c", 1), ("large", 99)]
            return await asyncio.gather(*[batcher(value, cost) for value, cost in asked], return_exceptions=True)

    found = asyncio.run(ask())
    assert [*found[:2], *found[3:]] == ["a", "b", "c", "large"]
    assert isinstance(found[2], Refusal) and found[2].status == 400
    assert ["a"] in seen and ["b", "bad", "c"] in seen and ["large"] in seen


def test_who_has_given_up_is_not_computed():
    seen = []

    async def ask():
        async with Batcher(lambda values: seen.extend(values) or list(values), most=1, seconds=0) as batcher:
            jobs = [asyncio.ensure_future(batcher(value)) for value in "abc"]
            await asyncio.sleep(0)
            jobs[2].cancel()
            await asyncio.gather(*jobs, return_exceptions=True)

    asyncio.run(ask())
    assert seen == ["a", "b"]


def asked(guard, *chunks, headers=(), method="POST", last=True):
    """Status of what a guard answers to a body in chunks."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if messages and last:
        messages[-1]["more_body"] = False
    sent = []

    async def receive():
        if messages:
            return messages.pop(0)
        return await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:80"), *headers]
    asyncio.run(guard({"type": "http", "method": method, "headers": headers}, receive, send))
    return sent[0]["status"]


def test_the_guard_reads_no_more_than_is_allowed_and_for_no_longer():
    got = []

    async def app(scope, receive, send):
        got.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    limits = Limits(megabytes=1 / 1024, seconds=0.2)
    guard = Guard(app, limits)
    assert asked(guard, b"a" * 500, b"b" * 524) == 200 and got == [b"a" * 500 + b"b" * 524]
    assert asked(guard, b"a" * 500, b"b" * 525) == 413
    assert asked(guard, b"a", headers=[(b"content-length", b"99999999999")]) == 413
    assert asked(guard, b"a", headers=[(b"content-length", b"9" * 5000)]) == 413  # no number that Python reads
    assert asked(guard, b"a", headers=[(b"content-length", b"\xb2")]) == 200  # a digit, and no number
    assert asked(guard, *[b"a" * 1000] * 100) == 413  # chunked: nobody said how much
    assert asked(guard, b"a", last=False) == 408
    assert asked(Guard(app, Limits(pending=0)), b"a") == 503
    assert len(got) == 2


def test_on_loopback_only_its_own_names_are_answered():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def status(host, loopback=True):
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "headers": [(b"host", host)]}
        asyncio.run(Guard(app, Limits(), loopback)(scope, None, send))
        return sent[0]["status"]

    assert [status(host) for host in (b"localhost:8000", b"127.0.0.1", b"[::1]:80", b"LOCALHOST")] == [200] * 4
    assert [status(host) for host in (b"evil.example", b"", b"127.0.0.1.evil.example")] == [421] * 3
    assert status(b"evil.example", loopback=False) == 200


def test_a_missing_package_is_said_with_what_to_install(call, monkeypatch):
    find = importlib.util.find_spec
    missing = ("uvicorn", "gradio")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in missing else find(name, *rest))
    for verb, extra in (("serve", "serve"), ("demo", "demo")):
        result = call(verb, "anything")
        assert result.returncode == 2 and f'pip install "hf_finetune[{extra}]"' in result.stderr


@pytest.mark.parametrize(
    "words",
    ["serve", "serve x --port 70000", "serve x --max-batch 0", "serve x --timeout nan", "demo x --repo a/b"],
)
def test_a_wrong_command_line_is_refused(call, words):
    result = call(*words.split())
    assert result.returncode == 2 and "--help tells more" in result.stderr
