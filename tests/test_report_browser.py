"""The page in a real browser: it draws, sorts and switches, asks for nothing and complains of nothing."""

import pytest
from report_samples import run_of

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("run"), "vit", "kind").path / "report.html"


@pytest.fixture
def page(browser, path, request):
    width, scheme = getattr(request, "param", (1280, "light"))
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    page.close()


@pytest.mark.parametrize("page", [(1280, "light"), (390, "dark")], indirect=True)
def test_it_draws_without_a_complaint_or_a_request(page, path):
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == [path.as_uri()]
    assert page.evaluate("window.evil") is None
    pictures = page.locator(".picture img:not(.heat)")
    assert pictures.count() > 0
    assert all(picture.evaluate("one => one.complete && one.naturalWidth > 0") for picture in pictures.all())
    assert all(picture.bounding_box()["width"] > 40 for picture in pictures.all())
    for chart in page.locator("svg.chart").all():
        box = chart.bounding_box()
        assert box["width"] > 100 and box["height"] > 60
    # Nothing sticks out: a phone never scrolls sideways.
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def test_the_table_sorts_both_ways_by_number_and_by_name(page):
    head = page.locator("table.sortable thead button")
    f1 = head.all_inner_texts().index("F1")

    def column(place):
        rows = page.locator("table.sortable").first.locator("tbody tr").all()
        return [row.locator("th,td").nth(place).get_attribute("data-value") for row in rows]

    head.nth(f1).click()
    down = [float(value) for value in column(f1) if value]
    assert down == sorted(down, reverse=True)
    head.nth(f1).click()
    up = [float(value) for value in column(f1) if value]
    assert up == sorted(up)
    head.nth(0).click()
    names = page.locator("table.sortable tbody th").all_inner_texts()
    assert names == sorted(names, key=str.lower)
    assert page.locator("th[aria-sort]").count() == 1


def test_the_switch_goes_from_light_to_dark_and_back(page):
    def ground():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = ground()
    page.locator("#theme").click()
    dark = ground()
    page.locator("#theme").click()
    assert dark != light and ground() == light


def test_the_overlay_can_be_taken_away(page):
    heat = page.locator(".picture .heat").first
    assert float(heat.evaluate("one => getComputedStyle(one).opacity")) > 0.3
    page.locator("input.heats").first.uncheck()
    page.wait_for_timeout(400)  # it fades
    assert float(heat.evaluate("one => getComputedStyle(one).opacity")) == 0


def test_it_prints(page):
    assert len(page.pdf()) > 10_000
