"""What a person does with the mouse, done in code: look, step, draw, review."""

from __future__ import annotations

import sqlite3

import pytest
from explorer.speakers import SIZE, Listener, Speaker, nested_image

from ureca_lib.annotate.export import export_dataset
from ureca_lib.annotate.reviews import CaptionChangedError
from ureca_lib.annotate.store import Store, StoreError
from ureca_lib.explorer.exploration import Exploration
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import EmptyMaskError, RegionError


@pytest.fixture
def exploration():
    image = nested_image()
    return Exploration(image.pixels, image.regions, Listener())


@pytest.fixture
def review(annotated):
    made = Exploration.from_store(*annotated, reviewer="Ada")
    made.start_review()
    return made


def test_a_click_takes_the_smallest_region_and_outside_of_all_the_image(exploration):
    assert exploration.click(16, 15) == 4
    assert exploration.click(28, 28) == 1
    assert exploration.click(79, 59) is None
    assert exploration.region_id is None


def test_steps_walk_the_tree(exploration):
    exploration.click(16, 15)
    for to, expected in (("up", 3), ("up", 1), ("down", 3), ("next", 3), ("down", 4), ("down", 4)):
        exploration.step(to)
        assert exploration.region_id == expected
    with pytest.raises(ValueError, match="not 'sideways'"):
        exploration.step("sideways")


def test_captions_are_made_at_the_first_use(exploration):
    captioner = exploration.book._captioner
    exploration.click(16, 15)
    assert captioner.asked == []
    assert exploration.captions[4] == "thing 4"
    assert captioner.asked == [[1, 2, 3, 4, 5]]


def test_a_judgement_is_kept(exploration):
    first = exploration.judge(4)
    assert exploration.judge(4) is first
    assert first.probability == max(first.probability, *(r.probability for r in first.rivals))


def test_a_drawn_region_takes_its_place_in_the_tree_and_is_captioned(exploration):
    exploration.click(16, 15)
    region = exploration.draw([(14, 13), (24, 19)])
    assert region.id == "drawn 1" and exploration.region_id == "drawn 1"
    assert exploration.tree.parent("drawn 1") == 3 and exploration.tree.parent(4) == "drawn 1"
    assert exploration.captions["drawn 1"] == "thing drawn 1"
    assert exploration.drawn == [region]
    assert exploration.click(23, 18) == "drawn 1"
    second = exploration.draw([(60, 30), (70, 50), (50, 50)])
    assert second.id == "drawn 2" and second.size == SIZE


def test_only_what_was_drawn_can_be_removed(exploration):
    exploration.draw([(14, 13), (24, 19)])
    exploration.remove()
    assert exploration.drawn == [] and exploration.tree.parent(4) == 3
    assert exploration.region_id is None
    assert exploration.draw([(14, 13), (24, 19)]).id == "drawn 2"  # numbers are not used again
    exploration.remove()
    exploration.go_to(1)
    exploration.remove()
    assert len(exploration.tree) == 5


def test_a_drawn_region_keeps_the_trees_rule():
    image = nested_image()
    tree = build_mask_tree(image.regions, threshold=0.5, parent_rule="first")
    made = Exploration(image.pixels, image.regions, Speaker(), tree)
    made.draw([(14, 13), (24, 19)])
    assert (made.tree.threshold, made.tree.parent_rule) == (0.5, "first")


def test_a_drawing_without_pixels_changes_nothing(exploration):
    exploration.go_to(4)
    with pytest.raises(EmptyMaskError):
        exploration.draw([(5, 5), (5.1, 30)])
    assert exploration.region_id == 4 and exploration.drawn == []


def test_without_a_captioner_nothing_can_be_drawn():
    image = nested_image()
    made = Exploration(image.pixels, image.regions, captions={1: "the left box"})
    assert made.captions == {1: "the left box"}
    with pytest.raises(ValueError, match="no captioner"):
        made.draw([(5, 5), (15, 30)])
    assert made.drawn == []


def test_what_cannot_be_explored_is_refused():
    image = nested_image()
    with pytest.raises(ValueError, match="no regions"):
        Exploration(image.pixels, [], Speaker())
    with pytest.raises(ValueError, match="a captioner, or captions"):
        Exploration(image.pixels, image.regions)
    with pytest.raises(RegionError):
        Exploration(image.pixels[:30], image.regions, Speaker())
    with pytest.raises(ValueError, match="needs a store"):
        Exploration(image.pixels, image.regions, Speaker()).start_review()


def test_a_review_goes_from_wholes_to_parts_and_writes_each_decision(review, annotated):
    order = review.session.queue
    assert order == [region.id for region in review.tree.top_down()]
    assert review.region_id == order[0]
    before = dict(review.captions)
    review.decide("accept")
    assert review.region_id == order[1]
    review.decide("reject", note="unclear")
    review.decide("edit", "the  red box\non the left")
    with sqlite3.connect(annotated[1]) as connection:
        query = "SELECT region, decision, text, previous, reviewer, note FROM reviews ORDER BY id"
        rows = connection.execute(query).fetchall()
    first, second, third = order[:3]
    assert rows == [
        (str(first), "accept", before[first], before[first], "Ada", ""),
        (str(second), "reject", before[second], before[second], "Ada", "unclear"),
        (str(third), "edit", "the red box on the left", before[third], "Ada", ""),
    ]
    assert review.captions[third] == "the red box on the left"


def test_who_comes_back_goes_on_and_who_is_new_begins(review, annotated):
    order = review.session.queue
    review.decide("accept")
    review.decide("accept")
    again = Exploration.from_store(*annotated, reviewer="Ada")
    assert again.start_review().decided == 2 and again.region_id == order[2]
    other = Exploration.from_store(*annotated, reviewer="Bob")
    assert other.start_review().decided == 0 and other.region_id == order[0]


def test_a_caption_that_another_person_edited_waits_for_a_decision_again(review, annotated):
    first = review.session.queue[0]
    review.decide("accept")
    other = Exploration.from_store(*annotated, reviewer="Bob")
    other.start_review()
    other.decide("edit", "something else")
    again = Exploration.from_store(*annotated, reviewer="Ada")
    again.start_review()
    assert again.region_id == first and again.captions[first] == "something else"


def test_a_caption_that_another_person_edited_meanwhile_is_shown_and_not_replaced(
    review, annotated
):
    first = review.session.queue[0]
    other = Exploration.from_store(*annotated, reviewer="Bob")
    other.start_review()
    theirs = other.decide("edit", "what Bob wrote")
    with pytest.raises(CaptionChangedError, match="'what Bob wrote'"):
        review.decide("edit", "what Ada wrote")
    assert review.reviews() == [theirs]
    assert review.region_id == review.session.region_id == first
    assert review.captions[first] == "what Bob wrote"
    review.decide("edit", "what Ada wrote of Bob's")  # she has seen it now
    assert review.reviews()[-1].previous == "what Bob wrote"


def test_walking_without_deciding_writes_nothing(review):
    order = review.session.queue
    review.move_review(1)
    assert review.region_id == order[1]
    review.move_review(-2)
    assert review.region_id == order[-1]
    review.click(16, 15)
    assert review.session.region_id == 4
    review.stop_review()
    assert review.session is None and review.reviews() == []


@pytest.mark.parametrize("text", [None, "", "  ", "same"])
def test_an_edit_without_a_new_text_is_refused_and_nothing_is_written(review, text):
    text = review.captions[review.region_id] if text == "same" else text
    with pytest.raises(ValueError, match=r"caption"):
        review.decide("edit", text)
    assert review.reviews() == [] and review.session.decided == 0


def test_a_decision_needs_a_review_and_a_reviewer_a_name(annotated):
    made = Exploration.from_store(*annotated, reviewer="Ada")
    with pytest.raises(ValueError, match="no review goes on"):
        made.decide("accept")
    with pytest.raises(ValueError, match="reviewer's name"):
        Exploration.from_store(*annotated, reviewer=" ").start_review()


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("no username set")])
def test_an_account_without_a_name_may_look_but_not_review(annotated, monkeypatch, error):
    def nameless():
        raise error

    monkeypatch.setattr("getpass.getuser", nameless)
    made = Exploration.from_store(*annotated)
    assert len(made.captions) == 5 and made.can_review
    with pytest.raises(ValueError, match="reviewer's name"):
        made.start_review()
    assert made.session is None


def test_a_store_that_has_not_captioned_the_image_says_so(annotated, tmp_path):
    path, _ = annotated
    with pytest.raises(StoreError, match="there is no store"):
        Exploration.from_store(path, tmp_path / "none.db")
    Store(tmp_path / "empty.db").close()
    with pytest.raises(StoreError, match=r"boxes\.json is not in this store"):
        Exploration.from_store(path, tmp_path / "empty.db")


def test_an_export_follows_the_review(review, annotated, tmp_path):
    accepted, rejected, edited = review.session.queue[:3]
    review.decide("accept")
    review.decide("reject")
    review.decide("edit", "mine")
    folder = export_dataset(annotated[1], tmp_path / "out", progress=False).folder
    lines = (folder / "train.jsonl").read_text()
    assert '"mine"' in lines and review.captions[accepted] in lines
    assert review.captions[rejected] not in lines and str(edited) in lines
