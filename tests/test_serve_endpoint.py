"""`hf-finetune serve` as a process on loopback: answers are the run's own, bad requests are told so."""

import base64
import contextlib
import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
from report_samples import run_of
from serving_samples import Server, bomb, encoded

for needed in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(needed, reason='needs the extra: pip install "hf_finetune[serve]"')
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    run = run_of(folder, "vit")
    server = Server("serve", str(run.path), "--port", "0", "--max-mb", "1", "--wait-ms", "50", folder=folder)
    yield run, server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    run = run_of(folder, "bert")
    server = Server("serve", str(run.path), "--port", "0", folder=folder)
    yield run, server
    assert server.stop() == 0


def picture(level: int) -> bytes:
    noise = np.random.default_rng(level).integers(0, 20, (40, 40, 3))
    return encoded(PIL.Image.fromarray((np.full((40, 40, 3), level) + noise).astype(np.uint8)))


def same(found, wanted):
    assert [one["label"] for one in found] == [one["label"] for one in wanted]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in wanted], abs=1e-5)


def test_one_image_in_every_form_is_what_the_run_says(images):
    run, server = images
    content = picture(200)
    wanted = run.predict(content, top=3)
    text = base64.b64encode(content).decode()
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + content + b"\r\n--x--\r\n"
    for body, kind in (
        (content, "image/png"),
        (content, "application/octet-stream"),
        (form, "multipart/form-data; boundary=x"),
        ({"inputs": text}, None),
        ({"inputs": f"data:image/png;base64,{text}"}, None),
    ):
        status, answer = server.post(body, kind)
        assert status == 200
        same(answer, wanted)
    assert server.post({"inputs": text, "parameters": {"top_k": 1}})[1] == [answer[0]]


CLIENT = """
import json, sys
from huggingface_hub import InferenceClient

image, text, picture = sys.argv[1:]
client = InferenceClient(model=image)
content = open(picture, "rb").read()
found = [client.image_classification(content), client.image_classification(content, top_k=2)]
found.append(InferenceClient(model=text).text_classification("w4 w5 w6"))
print(json.dumps([[{"label": one.label, "score": one.score} for one in answer] for answer in found]))
"""


def test_the_client_of_the_hub_understands_it(images, texts, run_in):
    (run, server), (other, second) = images, texts
    (run.path / "a.png").write_bytes(picture(30))
    urls = [f"{one.url}/predict" for one in (server, second)]
    # In a process of its own: offline, as the tests are, the client asks nobody, not even loopback.
    done = run_in("python", "-c", CLIENT, *urls, str(run.path / "a.png"), HF_HUB_OFFLINE="0")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    wanted = run.predict(picture(30), top=3)
    same(found[0], wanted)
    same(found[1], wanted[:2])
    same(found[2], other.predict("w4 w5 w6", top=3))


def test_a_list_is_answered_in_its_order(images, texts):
    run, server = images
    contents = [picture(level) for level in range(0, 240, 30)]
    status, answers = server.post({"inputs": [base64.b64encode(one).decode() for one in contents]})
    assert status == 200
    for answer, wanted in zip(answers, run.predict(contents, top=3), strict=True):
        same(answer, wanted)
    run, server = texts
    words = ["w4", "w40 w41 w42 w43 w44", "w20 w7"]
    status, answers = server.post({"inputs": words})
    assert status == 200
    for answer, wanted in zip(answers, run.predict(words, top=3), strict=True):
        same(answer, wanted)


def test_requests_at_the_same_time_share_batches_and_get_their_own_answers(images):
    run, server = images
    contents = [picture(level) for level in range(0, 240, 10)]
    before = server.ask("GET", "/health")[1]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(server.post, contents))
    assert all(status == 200 for status, _ in found)
    for (_, answer), wanted in zip(found, run.predict(contents, top=3), strict=True):
        same(answer, wanted)
    after = server.ask("GET", "/health")[1]
    assert after["status"] == "ok" and after["task"] == "image-classification"
    assert after["answered"] - before["answered"] == len(contents)
    assert after["batches"] - before["batches"] < len(contents)


def test_a_bad_image_spoils_no_other_in_its_batch(images):
    run, server = images
    good, torn = picture(100), picture(120)[:-1500]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(server.post, [good, torn] * 4))
    wanted = run.predict(good, top=3)
    for place, (status, answer) in enumerate(found):
        if place % 2:
            assert status == 400 and "cannot be" in answer["error"]
        else:
            same(answer, wanted)


@pytest.mark.parametrize(
    ("body", "kind", "status", "words"),
    [
        (b"no image", "image/png", 400, "no image of a known format"),
        (b"", "image/png", 400, "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/eps", 400, "no image of a known format"),
        (bomb(50_000, 50_000), "image/png", 413, "pixels"),
        (bomb(8_000, 8_000), "image/png", 413, "at most 40 megapixels"),
        (bomb(500, 500), "image/png", 400, "cannot be decoded"),
        (b"x" * (2**20 + 1), "image/png", 413, "larger than 1 MB"),
        (b"x" * (20 * 2**20), "image/png", 413, "larger than 1 MB"),
        (b"a=1", "application/x-www-form-urlencoded", 415, "This model takes an image"),
        (b"{", "application/json", 400, "no JSON"),
        (b"[" * 500_000, "application/json", 400, "no JSON"),
        (b"\xff\xfe", "application/json", 400, "no JSON"),
        ({"inputs": "a plain text"}, None, 400, "takes images"),
        ({"inputs": 7}, None, 400, "takes images"),
        ({"inputs": []}, None, 400, "empty list"),
        ({"input": "x"}, None, 400, '"inputs"'),
        ({"inputs": "x", "parameters": {"top_k": 0}}, None, 400, "top_k"),
        ({"inputs": "x", "parameters": {"top_p": 1}}, None, 400, "top_p"),
        ({"inputs": "x", "parameters": {"function_to_apply": "sigmoid"}}, None, 400, "softmax"),
        ({"inputs": ["x"] * 257}, None, 413, "at most 256"),
        (b"--x\r\n", "multipart/form-data; boundary=x", 400, "form"),
        (b"", "multipart/form-data", 400, "form"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(images, body, kind, status, words):
    _, server = images
    try:
        found, answer = server.post(body, kind)
    except (BrokenPipeError, ConnectionResetError):  # far too large: the server does not read it to its end
        assert len(body) > 8 * 2**20
        return
    assert found == status and words in answer["error"], answer
    assert server.post(picture(9))[0] == 200


def test_what_no_text_model_takes(texts):
    _, server = texts
    for body, kind, status, words in (
        (picture(9), "image/png", 415, "This model takes JSON"),
        ({"inputs": {"text": "a", "text_pair": "b"}}, None, 400, "single texts"),
        ({"inputs": "w" * 100_001}, None, 413, "at most 100,000"),
        (b'{"inputs": "\\ud800"}', "application/json", 400, "lone surrogate"),
        ({"inputs": [["a", "b", "c"]]}, None, 400, "An input is"),
        ({"inputs": None}, None, 400, "An input is"),
        ({"inputs": ["w4", " "]}, None, 400, "empty"),
    ):
        found, answer = server.post(body, kind)
        assert found == status and words in answer["error"], answer
    assert server.post({"inputs": "w4"})[0] == 200
    assert server.ask("GET", "/nowhere")[0] == 404 and server.ask("GET", "/predict")[0] == 405


def test_a_page_of_another_name_cannot_reach_it(images):
    _, server = images
    assert server.ask("GET", "/health", headers={"Host": "evil.example"})[0] == 421
    assert server.ask("GET", "/health", headers={"Host": f"localhost:{server.port}"})[0] == 200


def test_limits_of_time_and_of_how_many_at_once(images):
    run, _ = images
    server = Server(
        *("serve", str(run.path), "--port", "0", "--timeout", "15", "--max-pending", "1"), folder=run.path.parent
    )
    try:
        with socket.create_connection((server.host, server.port)) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nx")
            until = time.monotonic() + 15
            while server.post(picture(9))[0] != 503:  # the slow one has the only place
                assert time.monotonic() < until
            answer = b""
            while chunk := slow.recv(4096):
                answer += chunk
            assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive" in answer
        assert server.post(picture(9))[0] == 200
    finally:
        assert server.stop() == 0


def test_a_request_whose_head_never_ends_gives_its_place_back(images):
    run, _ = images
    server = Server("serve", str(run.path), "--port", "0", "--timeout", "1", folder=run.path.parent)
    try:
        asked = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        for before in (b"", asked + b"\r\n"):  # at once, and after an answer
            with socket.create_connection((server.host, server.port), timeout=60) as slow:
                slow.sendall(before)
                if before:
                    assert slow.recv(4096).startswith(b"HTTP/1.1 200")
                slow.sendall(asked)
                heard = b""
                with contextlib.suppress(ConnectionError):  # closed: with nothing said, or with what was sent unread
                    while chunk := slow.recv(4096):
                        heard += chunk
                assert b"200 OK" not in heard or before
        assert server.ask("GET", "/health")[0] == 200
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(images, how):
    run, _ = images
    server = Server("serve", str(run.path), "--port", "0", folder=run.path.parent)
    assert server.post(picture(9))[0] == 200
    assert server.stop(how) == 0
    assert server.said[-1] == "stopped\n" and "Traceback" not in server.log.read_text()


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(images, call):
    _, server = images
    result = call("serve", "nothing-here", "--port", str(server.port))
    assert result.returncode == 2 and "--port" in result.stderr and "nothing-here" not in result.stderr
