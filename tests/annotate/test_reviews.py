"""People's decisions about captions: all are kept, the latest counts, and exports follow them."""

from __future__ import annotations

import pytest

from ureca_lib.annotate.records import FinalCaption, ImageRow
from ureca_lib.annotate.reviews import CaptionChangedError, Review, reviewed
from ureca_lib.annotate.store import Store

CAPTION = FinalCaption(7, "an eye", "unresolved", "reads like 8", "unique", 2, 3, 2, 1, (8,))


def review(decision: str, text: str, previous: str | None = None, **changes) -> Review:
    values = {"region_id": 7, "reviewer": "Ada", "time": 1.5} | changes
    return Review(decision=decision, text=text, previous=previous or text, **values)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s.db") as opened:
        opened.register([("a", "train"), ("b", "train")])
        row = ImageRow("a", "train", "done", None, None, None, 4, 3, (), None)
        opened.finish(row, [], [CAPTION, FinalCaption("7", "another", "unique")])
        yield opened


def test_an_acceptance_makes_a_caption_unique_and_a_rejection_drops_it():
    accepted = reviewed(CAPTION, [review("accept", "an eye")])
    rejected = reviewed(CAPTION, [review("reject", "an eye")])
    assert (accepted.text, accepted.state) == ("an eye", "unique")
    assert (rejected.text, rejected.state) == ("an eye", "dropped")
    assert accepted.reason != rejected.reason
    # what the caption is of does not change
    assert (accepted.parent, accepted.depth, accepted.look_alikes) == (3, 2, (8,))


def test_an_edit_replaces_the_text_which_is_then_of_no_stage():
    edited = reviewed(CAPTION, [review("edit", "the left eye", "an eye")])
    assert (edited.text, edited.state, edited.stage) == ("the left eye", "unique", None)


def test_the_latest_decision_counts():
    history = [review("edit", "the left eye", "an eye"), review("reject", "the left eye")]
    assert reviewed(CAPTION, history).state == "dropped"
    assert reviewed(CAPTION, [*history, review("accept", "the left eye")]).state == "unique"


def test_a_decision_about_another_text_or_region_does_not_count():
    assert reviewed(CAPTION, [review("reject", "an older caption")]) == CAPTION
    assert reviewed(CAPTION, [review("reject", "an eye", region_id="7")]) == CAPTION


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decision": "like"}, "not 'like'"),
        ({"reviewer": " "}, "reviewer's name"),
        ({"decision": "edit", "text": " "}, "region 7: to edit, give a caption"),
        ({"text": "changed"}, "only an edit changes"),
    ],
)
def test_what_is_no_review_is_refused(changes, message):
    values = {"region_id": 7, "decision": "accept", "text": "x", "previous": "x", "reviewer": "A"}
    with pytest.raises(ValueError, match=message):
        Review(**(values | changes))


def test_every_review_is_kept_in_order_with_name_time_and_previous_text(store):
    first = review("edit", "the “left” eye", "an eye", note="there are two")
    second = review("accept", "another", region_id="7", reviewer="Bob")
    for one in (first, second):
        store.add_review("a", one)
    assert store.reviews("a") == [first, second]
    assert store.reviews("b") == []
    assert store.captions("a")[0] == CAPTION  # what the pipeline wrote stays


def test_the_store_sets_the_time_where_there_is_none(store):
    saved = store.add_review("a", review("accept", "an eye", time=0.0))
    assert saved.time > 1.7e9
    assert store.reviews("a") == [saved]


@pytest.mark.parametrize(("image", "region"), [("z", 7), ("a", 8), ("b", 7)])
def test_a_review_of_what_the_store_has_not_captioned_is_refused(store, image, region):
    with pytest.raises(KeyError, match=r"s\.db"):
        store.add_review(image, review("accept", "an eye", region_id=region))


@pytest.mark.parametrize("decision", ["accept", "reject", "edit"])
def test_a_review_of_a_caption_that_was_changed_meanwhile_is_refused(store, decision):
    first = store.add_review("a", review("edit", "the left eye", "an eye"))
    text = "the right eye" if decision == "edit" else "an eye"
    with pytest.raises(CaptionChangedError, match=r"region 7 .*now 'the left eye'"):
        store.add_review("a", review(decision, text, "an eye", reviewer="Bob"))
    assert store.reviews("a") == [first]


def test_reviews_outlive_another_run_of_the_pipeline(store):
    store.add_review("a", review("edit", "the left eye", "an eye"))
    row = store.image("a")
    store.finish(row, [], [FinalCaption(7, "a green eye", "unique", None, "long")])
    (caption,) = store.captions("a")
    assert reviewed(caption, store.reviews("a")).text == "the left eye"
    assert [one.text for one in store.reviewed_captions("a")] == ["the left eye"]
