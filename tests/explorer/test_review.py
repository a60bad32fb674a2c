"""A review walks through the captions of a store, and records each decision at once."""

from __future__ import annotations

import sqlite3

import pytest

from ureca_lib.annotate.export import export_dataset
from ureca_lib.annotate.reviews import CaptionChangedError
from ureca_lib.annotate.store import Store, StoreError
from ureca_lib.explorer import RegionExplorer


@pytest.fixture
def review(annotated):
    made = RegionExplorer.from_store(*annotated, reviewer="Ada")
    made.start_review()
    return made


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
    again = RegionExplorer.from_store(*annotated, reviewer="Ada")
    assert again.start_review().decided == 2 and again.region_id == order[2]
    other = RegionExplorer.from_store(*annotated, reviewer="Bob")
    assert other.start_review().decided == 0 and other.region_id == order[0]


def test_a_caption_that_another_person_edited_waits_for_a_decision_again(review, annotated):
    first = review.session.queue[0]
    review.decide("accept")
    other = RegionExplorer.from_store(*annotated, reviewer="Bob")
    other.start_review()
    other.decide("edit", "something else")
    again = RegionExplorer.from_store(*annotated, reviewer="Ada")
    again.start_review()
    assert again.region_id == first and again.captions[first] == "something else"


def test_a_caption_that_another_person_edited_meanwhile_is_shown_and_not_replaced(
    review, annotated
):
    first = review.session.queue[0]
    other = RegionExplorer.from_store(*annotated, reviewer="Bob")
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
    made = RegionExplorer.from_store(*annotated, reviewer="Ada")
    with pytest.raises(ValueError, match="no review is in progress"):
        made.decide("accept")
    with pytest.raises(ValueError, match="reviewer's name"):
        RegionExplorer.from_store(*annotated, reviewer=" ").start_review()


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("no username set")])
def test_an_account_without_a_name_may_look_but_not_review(annotated, monkeypatch, error):
    def nameless():
        raise error

    monkeypatch.setattr("getpass.getuser", nameless)
    made = RegionExplorer.from_store(*annotated)
    assert len(made.captions) == 5
    with pytest.raises(ValueError, match="reviewer's name"):
        made.start_review()
    assert made.session is None


def test_a_store_that_has_not_captioned_the_image_says_so(annotated, tmp_path):
    path, _ = annotated
    with pytest.raises(StoreError, match="there is no store"):
        RegionExplorer.from_store(path, tmp_path / "none.db")
    Store(tmp_path / "empty.db").close()
    with pytest.raises(StoreError, match=r"boxes\.json is not in this store"):
        RegionExplorer.from_store(path, tmp_path / "empty.db")


def test_an_export_follows_the_review(review, annotated, tmp_path):
    accepted, rejected, edited = review.session.queue[:3]
    review.decide("accept")
    review.decide("reject")
    review.decide("edit", "mine")
    folder = export_dataset(annotated[1], tmp_path / "out", progress=False).folder
    lines = (folder / "train.jsonl").read_text()
    assert '"mine"' in lines and review.captions[accepted] in lines
    assert review.captions[rejected] not in lines and str(edited) in lines
