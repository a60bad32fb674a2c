"""The front end in Chromium, on the real Python side: clicks, keys, drawing, review, escaping."""

from __future__ import annotations

import pytest
from browser.page import FrontEnd
from explorer.speakers import Listener, Speaker, nested_image
from PIL import Image

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.run import annotate_images
from ureca_lib.annotate.store import Store
from ureca_lib.explorer import RegionExplorer
from ureca_lib.regions import save_sa1b

pytestmark = pytest.mark.browser
NASTY = '<img src=x onerror="window.hacked = true"> <b>bold</b> & $x_1$'


@pytest.fixture
def mount(page):
    made = []

    def build(captioner=None, explorer=None) -> FrontEnd:
        image = nested_image()
        captioner = captioner or Listener()
        explorer = explorer or RegionExplorer(image.pixels, image.regions, captioner)
        made.append(explorer)
        return FrontEnd(page, explorer)

    yield build
    for explorer in made:
        explorer.close()


@pytest.fixture
def stored(tmp_path):
    image = nested_image()
    Image.fromarray(image.pixels).save(tmp_path / "boxes.png")
    save_sa1b(image, tmp_path / "boxes.json")
    paths = tmp_path / "boxes.json", tmp_path / "s.db"
    annotate_images([paths[0]], paths[1], AttributeAnnotator(), progress=False)
    return paths


@pytest.fixture
def review(mount, stored):
    front = mount(explorer=RegionExplorer.from_store(*stored, reviewer="Ada"))
    front.page.get_by_role("button", name="Review").click()
    front.sync()
    return front


def test_a_click_shows_the_smallest_regions_caption(mount):
    front = mount()
    front.click_image(16.5, 15.5)
    assert front.explorer.region_id == 4
    assert front.text(".ue-title") == "knob [4]"
    assert front.text(".ue-caption").startswith("thing 4")
    assert front.text(".ue-crumbs").split("›")[-1].strip() == "knob [4]"
    assert front.page.locator(".ue-line.ue-target").count() == 1


def test_the_outline_is_where_the_mask_is(mount):
    front = mount()
    front.click_image(60, 20)
    left, top = front.on_page(50, 10)
    right, bottom = front.on_page(70, 30)
    box = front.page.locator(".ue-line.ue-target").bounding_box()
    slack = 0.6 * (right - left) / 20 + 3  # half a pixel of the image, and the line
    assert box["x"] == pytest.approx(left, abs=slack)
    assert box["y"] == pytest.approx(top, abs=slack)
    assert box["x"] + box["width"] == pytest.approx(right, abs=slack)
    assert box["y"] + box["height"] == pytest.approx(bottom, abs=slack)


def test_keys_walk_the_tree_and_zoom(mount):
    front = mount()
    front.click_image(16.5, 15.5)
    for key, expected in (("ArrowUp", 3), ("ArrowUp", 1), ("ArrowDown", 3)):
        front.press(key)
        assert front.explorer.region_id == expected
    wide = front.on_page(20, 20)[0] - front.on_page(10, 20)[0]
    front.press("z")
    assert front.on_page(20, 20)[0] - front.on_page(10, 20)[0] > 1.5 * wide
    front.page.mouse.click(*front.on_page(16.5, 15.5))
    front.sync()
    assert front.explorer.region_id == 4  # clicks are right in the zoomed picture too


def test_crumbs_and_rivals_are_links(mount):
    front = mount()
    front.click_image(28.5, 28.5)
    front.page.locator(".ue-crumbs button", has_text="tray").click()
    front.sync()
    assert front.explorer.region_id == 5
    front.click_image(28.5, 28.5)
    front.page.locator(".ue-row", has_text="box [2]").click()
    front.sync()
    assert front.explorer.region_id == 2


@pytest.mark.parametrize(
    ("link", "key", "expected"),
    [
        (".ue-crumbs button:has-text('tray')", "ArrowDown", 1),
        (".ue-crumbs button:has-text('image')", "ArrowDown", 5),
        (".ue-row:has-text('box [2]')", "ArrowRight", 5),
    ],
)
def test_keys_are_heard_after_a_link_was_followed(mount, link, key, expected):
    front = mount()
    front.click_image(28.5, 28.5)
    front.page.locator(link).focus()
    front.press("Enter")
    assert front.explorer.region_id != 1
    front.press(key)
    assert front.explorer.region_id == expected


def test_the_focus_stays_on_the_link_that_was_followed(mount):
    front = mount()
    front.click_image(28.5, 28.5)
    front.page.locator(".ue-crumbs button", has_text="tray").focus()
    front.press("Enter")
    assert front.page.evaluate("document.activeElement.textContent") == "tray [5]"


def test_keys_are_heard_after_what_had_the_focus_is_gone(mount):
    front = mount()
    front.page.locator(".ue-picture").focus()
    front.explorer.draw([(14, 13), (24, 19)])
    front.sync()
    front.page.get_by_role("button", name="remove").focus()
    front.press("Enter")
    assert front.explorer.drawn == []
    front.press("ArrowDown")
    assert front.explorer.region_id is not None


def test_look_alikes_are_numbered_with_the_listeners_probabilities(mount):
    front = mount(Listener(sharpness=3.0))
    front.click_image(28.5, 28.5)
    judgement = front.explorer.judge(1)
    own = front.text(".ue-row.ue-own .ue-percent")
    assert own == f"{100 * judgement.probability:.0f}%"
    assert front.page.locator(".ue-badge").count() == len(judgement.rivals)
    assert "Unique" in front.text(".ue-verdict")


def test_a_box_is_drawn_by_dragging(mount):
    front = mount()
    front.page.locator(".ue-picture").focus()
    front.press("b")
    front.page.mouse.move(*front.on_page(40, 40))
    front.page.mouse.down()
    front.page.mouse.move(*front.on_page(60, 55), steps=5)
    assert front.page.locator(".ue-drawing polygon").count() == 2
    front.page.mouse.up()
    front.sync()
    (region,) = front.explorer.drawn
    assert region.pixel_box == pytest.approx((40, 40, 20, 15), abs=1)
    assert front.text(".ue-caption").startswith("thing drawn 1")
    front.page.get_by_role("button", name="remove").click()
    front.sync()
    assert front.explorer.drawn == []


def test_a_polygon_is_drawn_by_clicks_and_closed_with_enter(mount):
    front = mount()
    front.page.get_by_role("button", name="Polygon").click()
    for place in ((40, 40), (60, 40), (60, 55)):
        front.page.mouse.click(*front.on_page(*place))
    assert front.explorer.drawn == []
    front.press("Enter")
    (region,) = front.explorer.drawn
    assert region.mask[42, 57] and not region.mask[52, 43]


def test_escape_leaves_a_drawing(mount):
    front = mount()
    front.page.locator(".ue-picture").focus()
    front.press("p")
    front.page.mouse.click(*front.on_page(40, 40))
    front.press("Escape")
    assert front.page.locator(".ue-drawing polygon").count() == 0
    front.click_image(16.5, 15.5)
    assert front.explorer.region_id == 4 and front.explorer.drawn == []


def test_captions_are_text_whatever_they_hold(mount):
    front = mount(Speaker({1: NASTY, 2: NASTY}))
    front.click_image(28.5, 28.5)
    assert front.text(".ue-caption").startswith(NASTY)
    assert front.text(".ue-said") == NASTY
    assert front.page.locator(".ureca-explorer img, .ureca-explorer b").count() == 0
    assert front.page.evaluate("window.hacked") is None


def test_a_review_by_keys_is_in_the_store(review, stored):
    first, second, third = review.explorer.session.queue[:3]
    review.page.locator(".ue-picture").focus()
    review.press("a")
    review.page.locator(".ue-reason").select_option("unclear")
    review.page.locator(".ue-picture").focus()
    review.press("r")
    before = review.explorer.captions[third]
    review.press("e")
    review.page.keyboard.type(f" {NASTY}")
    review.press("Control+Enter")
    with Store(stored[1]) as store:
        found = store.reviews(store.images()[0].image)
    assert [(one.region_id, one.decision, one.note) for one in found] == [
        (first, "accept", ""),
        (second, "reject", "unclear"),
        (third, "edit", ""),
    ]
    assert found[2].text == f"{before} {NASTY}" and found[2].reviewer == "Ada"  # not erased
    assert "3 decided" in review.text(".ue-progress")
    assert review.page.evaluate("window.hacked") is None


def test_one_press_decides_about_one_caption(review):
    first, second, third = review.explorer.session.queue[:3]
    accept = review.page.get_by_role("button", name="Accept")
    accept.click()
    assert accept.get_attribute("aria-disabled") == "true"  # until Python has answered
    review.page.keyboard.press("r")
    assert [message["decision"] for message in review.sync()] == ["accept"]
    assert accept.get_attribute("aria-disabled") == "false"
    accept.dispatch_event("click", {"detail": 2})  # of a double click, on the next caption
    assert review.sync() == []
    for focused, key in ((".ue-picture", "a"), (".ue-reject", "Enter")):
        review.page.locator(focused).focus()
        for _ in range(3):  # the second and third are of a key that is held down
            review.page.keyboard.down(key)
            review.sync()
        review.page.keyboard.up(key)
    found = [(one.region_id, one.decision) for one in review.explorer.reviews()]
    assert found == [(first, "accept"), (second, "accept"), (third, "reject")]


def test_what_is_being_typed_survives_news_from_python(review):
    box = review.page.locator(".ue-text")
    box.fill("half a capt")
    review.explorer.go_to(review.explorer.region_id)
    review.sync()
    assert box.input_value() == "half a capt"
    assert review.page.locator(".ue-accept").is_disabled()
    review.page.get_by_role("button", name="Next").click()
    review.sync()
    assert box.input_value() == review.explorer.captions[review.explorer.region_id]


def test_keys_that_are_typed_are_no_commands(review):
    review.page.locator(".ue-text").fill("")
    review.page.locator(".ue-text").focus()
    review.page.keyboard.type("a rare zebra")
    assert review.sync() == []
    assert review.explorer.reviews() == []


def test_an_error_is_shown(review):
    view = review.explorer.widget.view
    seen = {"place": view["selected"], "caption": view["caption"]}
    review.explorer.handle({"kind": "decide", "decision": "edit", "text": "", **seen})
    review.sync()
    assert "caption" in review.text(".ue-note.ue-error")


def test_buttons_that_can_do_nothing_cannot_be_pressed(mount, stored):
    front = mount(explorer=RegionExplorer.from_store(*stored, reviewer="Ada"))
    assert front.page.get_by_role("button", name="Box").is_disabled()  # there is no captioner
    assert front.page.get_by_role("button", name="Review").is_visible()


def test_without_a_store_there_is_no_review(mount):
    assert mount().page.get_by_role("button", name="Review").count() == 0
