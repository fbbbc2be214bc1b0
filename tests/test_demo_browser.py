"""The demo and the Space in a real browser: an image goes in, the run's own label and what mattered come out."""

import sys

import numpy as np
import PIL.Image
import pytest
from report_samples import EVIL, run_of
from serving_samples import Server, encoded

pytest.importorskip("gradio", reason='needs the extra: pip install "hf_finetune[demo]"')
pytestmark = [pytest.mark.browser, pytest.mark.slow]
WAIT = 120_000  # milliseconds; nothing waits that long unless it fails
# A Space has no hf_finetune.
ALONE = """
import runpy, sys
sys.modules["hf_finetune"] = None
sys.path.insert(0, sys.argv[1])
runpy.run_path(sys.argv[1] + "/app.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("images"), "vit", save_data=True)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("texts"), "bert", save_data=True)


def opened(browser, server):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(WAIT)
    page.faults, page.asked = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(server.url)
    page.wait_for_selector("#predict")
    return page


def picture(level: int) -> bytes:
    noise = np.random.default_rng(level).integers(0, 20, (48, 64, 3))
    return encoded(PIL.Image.fromarray((np.full((48, 64, 3), level) + noise).astype(np.uint8)))


def upload(page, content, name="a.png"):
    page.locator("input[type=file]").first.set_input_files([{"name": name, "mimeType": "image/png", "buffer": content}])


def check_image(page, server, run):
    """An upload is answered as the run answers, with a picture of what mattered, and nobody else is asked."""
    content = picture(230)
    wanted = run.predict(content, top=3)
    upload(page, content)
    page.wait_for_function(
        "label => document.querySelector('.answer')?.innerText.includes(label)", arg=wanted[0]["label"]
    )
    shown = page.locator(".answer").first.inner_text()
    for one in wanted:
        assert one["label"] in shown and f"{one['score']:.0%}" in shown
    page.wait_for_selector("#mattered img")
    page.wait_for_function("document.querySelector('#mattered img').naturalWidth > 100")
    assert EVIL in shown and page.evaluate("window.evil") is None
    assert page.faults == []
    assert [url for url in page.asked if not url.startswith((server.url, "data:", "blob:"))] == []


def test_an_uploaded_image_gets_the_runs_label(browser, images, tmp_path):
    server = Server("demo", str(images.path), "--port", "0", folder=tmp_path)
    try:
        page = opened(browser, server)
        check_image(page, server, images)
        assert page.locator(".gallery button, .gallery-item").count() >= 3  # examples of the test split

        page.locator("button[aria-label='Clear'], button[aria-label='Remove Image']").first.click()
        upload(page, picture(10)[:-900])  # a torn one is said in words, and the page goes on
        page.wait_for_selector("text=cannot be")
        page.close()
        page = opened(browser, server)
        check_image(page, server, images)
        page.close()
        assert server.ask("POST", "/gradio_api/queue/join", b"x" * (12 * 2**20))[0] == 413
        assert server.ask("GET", "/config", headers={"Host": "evil.example"})[0] == 421
    finally:
        assert server.stop() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_a_text_gets_the_runs_label_and_its_words_weights(browser, texts, tmp_path):
    server = Server("demo", str(texts.path), "--port", "0", folder=tmp_path)
    try:
        page = opened(browser, server)
        text = f"w40 w41 w42 {EVIL}"
        page.locator("#text textarea").fill(text)
        page.locator("#predict").click()
        wanted = texts.predict(text)
        page.wait_for_function(
            "label => document.querySelector('.answer')?.innerText.includes(label)", arg=wanted["label"]
        )
        page.wait_for_function("document.querySelector('.mattered')?.innerText.includes('w41')")
        assert page.evaluate("window.evil") is None and page.faults == []
        page.close()
    finally:
        assert server.stop() == 0, server.log.read_text()


def test_the_space_runs_as_it_stands(browser, images, tmp_path, call):
    space = tmp_path / "space"
    result = call("demo", str(images.path), "--space", str(space), "--examples", "3")
    assert result.returncode == 0, result.stderr
    server = Server(str(space), folder=tmp_path, command=("-c", ALONE))
    try:
        page = opened(browser, server)
        check_image(page, server, images)
        page.close()
    finally:
        server.stop()
    assert sys.modules.get("hf_finetune") is not None  # of this process, not of the Space's
