"""The web page of `ureca serve` in Chromium: a photo, a click, a box, all regions."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_server import LIMITS, Running

from ureca_lib.captioning import PhotoCaptioner

pytestmark = pytest.mark.browser
PHOTO = Path(__file__).parents[2] / "data_samples" / "photos" / "coffee.png"


@pytest.fixture(scope="module")
def server():
    running = Running(PhotoCaptioner(), LIMITS)
    yield running
    running.stop()


@pytest.mark.parametrize("width", [1300, 420])
def test_a_click_a_box_and_all_regions_of_a_photo(page, server, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(server.url)
    page.get_by_text("Captions by the embedded annotator").wait_for()
    page.set_input_files("#file", str(PHOTO))
    canvas = page.locator("#photo")
    canvas.wait_for()
    page.wait_for_function("document.getElementById('photo').width === 600")
    canvas.click(position={"x": 100, "y": 60})
    page.locator("#captions li").wait_for()
    assert page.locator("#captions li").count() == 1
    assert page.locator("#captions li .note").inner_text().startswith(("unique", "fits"))
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 90)
    page.mouse.up()
    page.locator("#captions li").wait_for()
    page.get_by_role("button", name="Caption all regions").click()
    page.wait_for_function("document.querySelectorAll('#captions li').length > 3")
    page.locator("#captions li").nth(1).click()
    assert "chosen" in page.locator("#captions li").nth(1).get_attribute("class")
    # nothing is wider than the window
    assert page.evaluate("document.documentElement.scrollWidth") <= width
