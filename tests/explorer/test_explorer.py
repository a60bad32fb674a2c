"""The explorer by methods and by messages of the page; texts are never HTML."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
from annotate.drawn import image_of, rectangle
from explorer.speakers import SIZE, Listener, Said, Speaker, nested_image

from ureca_lib.explorer import RegionExplorer
from ureca_lib.explorer import explorer as explorer_module
from ureca_lib.explorer.explorer import STILL
from ureca_lib.explorer.state import Entry
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import EmptyMaskError, RegionError

FRONT_END = Path(explorer_module.__file__).parent / "front_end"
NASTY = '<img src=x onerror="alert(1)"> $x_1$ & "quoted"'


def explorer_of(captioner=None, **options) -> RegionExplorer:
    image = nested_image()
    return RegionExplorer(image.pixels, image.regions, captioner or Listener(), **options)


def while_it_listens() -> tuple[RegionExplorer, threading.Event]:
    """An explorer whose listener is busy with a click until the event is set."""
    free, begun = threading.Event(), threading.Event()

    class Pondering(Listener):
        def score(self, image, regions, captions, progress=True):
            begun.set()
            assert free.wait(20)
            return super().score(image, regions, captions, progress)

    explorer = explorer_of(Pondering())
    assert explorer.widget.view["title"] == "image"
    explorer.handle({"kind": "click", "x": 28, "y": 28})
    assert begun.wait(20)
    return explorer, free


@pytest.fixture
def review(annotated):
    """A review of captions in a store, in progress."""
    made = RegionExplorer.from_store(*annotated, reviewer="Ada")
    assert made.widget.view["title"] == "image"
    view_after(made, kind="review", on=True)
    yield made
    made.close()


@pytest.fixture
def explorer():
    made = explorer_of()
    yield made
    made.close()


def view_after(explorer, **message):
    explorer.handle(message)
    explorer.wait(30)
    return explorer.widget.view


def test_a_click_takes_the_smallest_region_and_outside_of_all_the_image(explorer):
    assert explorer.click(16, 15) == 4
    assert explorer.click(28, 28) == 1
    assert explorer.click(79, 59) is None
    assert explorer.region_id is None


def test_steps_walk_the_tree(explorer):
    explorer.click(16, 15)
    for to, expected in (("up", 3), ("up", 1), ("down", 3), ("next", 3), ("down", 4), ("down", 4)):
        explorer.step(to)
        assert explorer.region_id == expected
    with pytest.raises(ValueError, match="not 'sideways'"):
        explorer.step("sideways")


def test_captions_are_made_at_the_first_use(explorer):
    captioner = explorer.book.captioner
    explorer.click(16, 15)
    assert captioner.asked == []
    assert explorer.captions[4] == "thing 4"
    assert captioner.asked == [[1, 2, 3, 4, 5]]


def test_a_judgement_is_kept(explorer):
    first = explorer.judge(4)
    assert explorer.judge(4) is first
    assert first.probability == max(first.probability, *(r.probability for r in first.rivals))


def test_a_drawn_region_takes_its_place_in_the_tree_and_is_captioned(explorer):
    explorer.click(16, 15)
    region = explorer.draw([(14, 13), (24, 19)])
    assert region.id == "drawn 1" and explorer.region_id == "drawn 1"
    assert explorer.tree.parent("drawn 1") == 3 and explorer.tree.parent(4) == "drawn 1"
    assert explorer.captions["drawn 1"] == "thing drawn 1"
    assert explorer.drawn == [region]
    assert explorer.click(23, 18) == "drawn 1"
    second = explorer.draw([(60, 30), (70, 50), (50, 50)])
    assert second.id == "drawn 2" and second.size == SIZE


def test_only_what_was_drawn_can_be_removed(explorer):
    explorer.draw([(14, 13), (24, 19)])
    explorer.remove()
    assert explorer.drawn == [] and explorer.tree.parent(4) == 3
    assert explorer.region_id is None
    assert explorer.draw([(14, 13), (24, 19)]).id == "drawn 2"  # numbers are not used again
    explorer.remove()
    explorer.go_to(1)
    explorer.remove()
    assert len(explorer.tree) == 5


def test_a_drawn_region_keeps_the_trees_rule():
    image = nested_image()
    tree = build_mask_tree(image.regions, threshold=0.5, parent_rule="first")
    made = RegionExplorer(image.pixels, image.regions, Speaker(), tree)
    made.draw([(14, 13), (24, 19)])
    assert (made.tree.threshold, made.tree.parent_rule) == (0.5, "first")


def test_a_drawing_without_pixels_changes_nothing(explorer):
    explorer.go_to(4)
    with pytest.raises(EmptyMaskError):
        explorer.draw([(5, 5), (5.1, 30)])
    assert explorer.region_id == 4 and explorer.drawn == []


def test_without_a_captioner_nothing_can_be_drawn():
    image = nested_image()
    made = RegionExplorer(image.pixels, image.regions, captions={1: "the left box"})
    assert made.captions == {1: "the left box"}
    with pytest.raises(ValueError, match="no captioner"):
        made.draw([(5, 5), (15, 30)])
    assert made.drawn == []


def test_what_cannot_be_explored_is_refused():
    image = nested_image()
    with pytest.raises(ValueError, match="no regions"):
        RegionExplorer(image.pixels, [], Speaker())
    with pytest.raises(ValueError, match="a captioner, or captions"):
        RegionExplorer(image.pixels, image.regions)
    with pytest.raises(RegionError):
        RegionExplorer(image.pixels[:30], image.regions, Speaker())
    with pytest.raises(ValueError, match="needs a store"):
        RegionExplorer(image.pixels, image.regions, Speaker()).start_review()


def test_the_first_view_is_the_image(explorer):
    view = explorer.widget.view
    assert view["selected"] is None and view["title"] == "image"
    assert view["facts"] == "5 regions on 4 levels"
    assert [crumb["label"] for crumb in view["crumbs"]] == ["image"]
    assert explorer.widget.size == list(SIZE) and len(explorer.widget.outlines) == 5
    assert bytes(explorer.widget.photo)[:2] == b"\xff\xd8"


def test_a_click_shows_caption_score_path_and_rivals(explorer):
    assert explorer.widget.view["caption"] is None
    view = view_after(explorer, kind="click", x=28, y=28)
    assert explorer.region_id == 1
    assert view["caption"] == "thing 1" and view["score"] == "-0.50"
    assert [crumb["label"] for crumb in view["crumbs"]] == ["image", "tray [5]", "box [1]"]
    assert view["verdict"]["kind"] == "good" and view["own"] > view["rivals"][0]["probability"]
    assert {"box [2]"} <= {rival["label"] for rival in view["rivals"]}
    assert view["busy"] is False and view["note"] == ""


@pytest.mark.parametrize(
    ("count", "said"), [(2, "another region has"), (3, "2 other regions have"), (10, "9 other")]
)
def test_all_regions_of_the_same_caption_are_counted(count, said):
    masks = [rectangle(SIZE, 4 + 7 * place, 10, 5, 20) for place in range(count)]
    image = image_of(masks, ["box"] * count)
    texts = {region.id: "a red box" for region in image.regions}
    explorer = RegionExplorer(image.pixels, image.regions, captions=texts)
    assert explorer.widget.view["title"] == "image"
    view = view_after(explorer, kind="click", x=6, y=15)
    assert said in view["verdict"]["text"]
    assert len(view["rivals"]) == min(count - 1, 6)
    explorer.close()


def test_outlines_come_largest_first_and_are_what_places_mean(explorer):
    view = view_after(explorer, kind="click", x=16, y=15)
    assert explorer.order == [5, 1, 2, 3, 4]
    assert view["selected"] == 4
    assert view_after(explorer, kind="go", place=0)["title"] == "tray [5]"
    assert view_after(explorer, kind="go", place=None)["title"] == "image"


def test_keys_step_and_a_drawing_changes_the_outlines(explorer):
    view_after(explorer, kind="click", x=16, y=15)
    assert view_after(explorer, kind="step", to="up")["title"] == "lid [3]"
    view = view_after(explorer, kind="draw", points=[[14, 13], [24, 19]])
    assert view["drawn"] and view["title"] == "[drawn 1]" and len(explorer.widget.outlines) == 6
    assert view["caption"] == "thing drawn 1"
    assert view_after(explorer, kind="remove")["selected"] is None
    assert len(explorer.widget.outlines) == 5


def test_captioning_waits_for_nobody_and_nobody_for_it():
    free = threading.Event()

    class Slow(Speaker):
        def caption(self, image, regions, *, progress=True):
            assert free.wait(20)
            return super().caption(image, regions, progress=progress)

    explorer = explorer_of(Slow())
    assert explorer.widget.view["title"] == "image"
    explorer.handle({"kind": "click", "x": 28, "y": 28})
    view = explorer.widget.view
    assert view["title"] == "box [1]" and view["caption"] is None and view["busy"]
    free.set()
    explorer.wait(20)
    assert explorer.widget.view["caption"] == "thing 1" and not explorer.widget.view["busy"]
    assert threading.current_thread().name not in explorer.book.captioner.threads
    explorer.close()


def test_the_panel_can_be_used_while_the_listener_thinks():
    explorer, free = while_it_listens()
    explorer.handle({"kind": "step", "to": "up"})
    assert explorer.widget.view["title"] == "tray [5]"
    explorer.book.put(1, Entry("edited while somebody listened"))
    free.set()
    explorer.wait(20)
    assert 1 not in explorer.book.judgements  # that was about the caption before
    assert explorer.widget.view["title"] == "tray [5]" and explorer.widget.view["own"] is not None
    explorer.close()


def test_a_click_that_was_overtaken_is_not_listened_to():
    listener = Listener()
    explorer = explorer_of(listener)
    explorer.book.fill(explorer.tree)
    assert explorer.widget.view["title"] == "image"
    gate = threading.Event()
    explorer._pool.submit(gate.wait, 20)
    for x, y in ((28, 28), (16, 15), (60, 20)):
        explorer.handle({"kind": "click", "x": x, "y": y})
    gate.set()
    explorer.wait(20)
    assert listener.scored == [["thing 2"]]
    assert explorer.widget.view["title"] == "box [2]" and not explorer.widget.view["busy"]
    explorer.close()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"kind": "draw", "points": [[5, 5], [5.1, 30]]}, "no pixels"),
        ({"kind": "review", "on": True}, "needs a store"),
        ({"kind": "step", "to": "nowhere"}, "not 'nowhere'"),
        ({"kind": "go", "place": 99}, "out of range"),
        ({"kind": "dance"}, "dance"),
        ({"kind": "decide", "decision": "accept"}, "no review is in progress"),
        ({}, "kind"),
        ({"kind": "click", "x": None, "y": 2}, "NoneType"),
    ],
)
def test_what_goes_wrong_is_said_and_the_interface_lives_on(explorer, message, said):
    assert explorer.widget.view["error"] is False
    explorer.handle(message)
    assert explorer.widget.view["error"] and said in explorer.widget.view["note"]
    assert view_after(explorer, kind="click", x=28, y=28)["caption"] == "thing 1"


def test_an_error_stays_until_something_works_whatever_ends_in_the_background():
    explorer, free = while_it_listens()
    explorer.handle({"kind": "draw", "points": [[1, 1], [1, 1]]})
    note = explorer.widget.view["note"]
    assert explorer.widget.view["error"] and "no pixels" in note
    free.set()
    explorer.wait(20)
    view = explorer.widget.view
    assert view["own"] is not None and (view["note"], view["error"]) == (note, True)
    # to remove what was not drawn does nothing, but it works
    view = view_after(explorer, kind="remove")
    assert (view["title"], view["note"], view["error"]) == ("box [1]", "", False)
    explorer.close()


def test_a_captioner_that_fails_is_quoted_and_asked_again():
    class Moody(Speaker):
        def caption(self, image, regions, *, progress=True):
            self.asked.append(len(regions))
            if len(self.asked) == 1:
                raise MemoryError("no room for 5 regions")
            return [Said(region.id, "fine") for region in regions]

    explorer = explorer_of(Moody())
    assert explorer.widget.view["error"] is False
    view = view_after(explorer, kind="click", x=28, y=28)
    assert view["error"] and view["note"] == "MemoryError: no room for 5 regions"
    assert view_after(explorer, kind="click", x=28, y=28)["caption"] == "fine"
    explorer.close()


def press(view, decision, **values) -> dict:
    """The message of a button that is pressed while the page shows a view."""
    seen = {"place": view["selected"], "caption": view["caption"]}
    return {"kind": "decide", "decision": decision, **seen, **values}


@pytest.mark.parametrize("decision", ["accept", "reject", "edit"])
def test_a_double_click_decides_about_the_caption_that_was_seen_and_no_other(review, decision):
    first, second = review.session.queue[:2]
    message = press(review.widget.view, decision, text="the grey tray")
    review.handle(message)
    assert review.widget.view["error"] is False and review.region_id == second
    review.handle(message)
    assert review.widget.view["error"] and "another caption" in review.widget.view["note"]
    assert [(one.region_id, one.decision) for one in review.reviews()] == [(first, decision)]
    assert review.region_id == second and review.widget.answered == 2
    review.handle(press(review.widget.view, decision, text="seen now"))
    assert review.reviews()[-1].region_id == second


def test_a_decision_about_a_caption_that_has_changed_since_it_was_shown_is_refused(review):
    view = review.widget.view
    review.decide("edit", "the grey tray")
    review.move_review(-1)
    review.handle(press(view, "reject"))
    assert review.widget.view["error"] and len(review.reviews()) == 1


def test_what_another_person_wrote_meanwhile_is_shown_and_said(review, tmp_path):
    view = review.widget.view
    other = RegionExplorer.from_store(tmp_path / "boxes.json", tmp_path / "s.db", reviewer="Bob")
    other.start_review()
    other.decide("edit", "what Bob wrote")
    review.handle(press(view, "edit", text="what Ada wrote"))
    review.wait(30)
    now = review.widget.view
    assert (now["selected"], now["caption"]) == (view["selected"], "what Bob wrote")
    assert now["error"] and "changed meanwhile" in now["note"]
    assert [one.reviewer for one in review.reviews()] == ["Bob"]


def test_texts_are_never_html():
    source = (FRONT_END / "explorer.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", source)
    explorer = explorer_of(Speaker({1: NASTY}))
    assert explorer.widget.view["title"] == "image"
    assert view_after(explorer, kind="click", x=28, y=28)["caption"] == NASTY
    explorer.close()


def test_without_a_front_end_a_picture_is_shown_and_no_widget_is_made():
    explorer = explorer_of(Speaker({1: NASTY}))
    explorer.go_to(1)
    data, metadata = explorer._repr_mimebundle_()
    assert set(data) == {"text/plain", "image/png"} and metadata == {}
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == f"RegionExplorer of 5 regions. {STILL}"
    assert explorer._widget is None


def test_with_a_front_end_the_widget_is_shown_and_a_picture_for_exports(monkeypatch):
    monkeypatch.setattr(explorer_module, "has_front_end", lambda: True)
    explorer = explorer_of()
    data, _ = explorer._repr_mimebundle_()
    model = data["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert model == explorer.widget.model_id
    assert data["image/png"].startswith(b"\x89PNG")
    explorer.close()


class Shell:
    kernel = object()

    def __init__(self, metadata):
        self.metadata = metadata

    def get_parent(self):
        return {"metadata": self.metadata}


@pytest.mark.parametrize(("metadata", "live"), [({"cellId": "a"}, True), ({}, False)])
def test_a_front_end_is_known_by_the_cell_it_names(monkeypatch, metadata, live):
    assert explorer_module.has_front_end() is False  # outside a kernel
    monkeypatch.setattr(explorer_module, "get_ipython", lambda: Shell(metadata))
    assert explorer_module.has_front_end() is live


def test_in_colab_the_widget_is_shown_and_colabs_support_for_widgets_is_enabled(monkeypatch):
    enabled = []
    output = types.SimpleNamespace(
        enable_custom_widget_manager=lambda: enabled.append(True),
        _widgets=types.SimpleNamespace(_installed_url="https://example.org"),
    )
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    monkeypatch.setattr(explorer_module, "get_ipython", lambda: Shell({}))
    explorer = explorer_of()
    data, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and enabled == [True]
    explorer.close()


# ru_maxrss would count the process that starts this one, before it is replaced
PHONE_PHOTO = """
import re
import numpy as np
from ureca_lib.explorer import RegionExplorer, load_captioner
from ureca_lib.regions import Region

height, width = 3000, 4000
rng = np.random.default_rng(0)
pixels = np.kron(rng.integers(0, 256, (300, 400, 3), np.uint8), np.ones((10, 10, 1), np.uint8))
ragged = np.kron(rng.random((750, 1000)) > 0.3, np.ones((4, 4), bool))
rows, columns = np.ogrid[:height, :width]
regions = []
for number, radius in enumerate(np.geomspace(1500, 20, 12)):
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    disc = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
    regions.append(Region.from_mask(number, disc & ragged if number % 4 == 0 else disc))
explorer = RegionExplorer(pixels, regions, load_captioner("attributes"))
assert len(explorer.widget.photo) < 2_000_000
explorer.go_to(0)
explorer.wait()
assert explorer.widget.view["verdict"]["kind"], explorer.widget.view
explorer._repr_mimebundle_()
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc on this system")
def test_a_phone_photo_takes_less_than_a_gigabyte():
    command = [sys.executable, "-c", PHONE_PHOTO]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 700  # MB; a model comes on top
