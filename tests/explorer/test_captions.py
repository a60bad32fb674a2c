"""Captions are asked for once, together; a listener's probabilities are a softmax over regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from explorer.speakers import Listener, Speaker, nested_image
from tiny_models import tiny_model, tiny_tokenizer

from ureca_lib.captioner import RegionCaptioner
from ureca_lib.explorer.captioners import AttributeCaptioner, Captioner, load_captioner
from ureca_lib.explorer.captions import CaptionBook, Entry, Judgement, Rival
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.processor import UrecaProcessor

IMAGE = nested_image()
TREE = build_mask_tree(IMAGE.regions)


def book_of(captioner, entries=None) -> CaptionBook:
    return CaptionBook(IMAGE.pixels, captioner, entries)


def test_all_are_asked_for_together_and_only_once():
    speaker = Speaker()
    book = book_of(speaker)
    assert book.known(1) is None
    book.fill(TREE)
    book.fill(TREE)
    assert speaker.asked == [[region.id for region in IMAGE]]
    assert book.known(1) == Entry("thing 1", -0.5)


def test_only_what_is_missing_is_asked_for():
    speaker = Speaker()
    book = book_of(speaker, {1: Entry("known"), 2: Entry("")})
    book.fill(TREE)
    assert speaker.asked == [[3, 4, 5]]
    assert book.known(1).text == "known" and book.known(2).text == ""


def test_one_who_tells_regions_apart_sees_them_all_but_changes_no_known_caption():
    speaker = Speaker()
    speaker.captions_together = True
    book = book_of(speaker, {1: Entry("known")})
    book.fill(TREE)
    assert speaker.asked == [[1, 2, 3, 4, 5]]
    assert book.known(1).text == "known" and book.known(3).text == "thing 3"


def test_the_listener_is_the_softmax_over_regions():
    listener = Listener(sharpness=2.0)
    book = book_of(listener)
    chances = book.listen("both 1 and 2", TREE.regions)
    expected = np.exp([2, 2, 0, 0, 0]) / np.exp([2, 2, 0, 0, 0]).sum()
    np.testing.assert_allclose(chances, expected, rtol=1e-6)
    book.listen("both 1 and 2", TREE.regions)
    assert listener.scored == [["both 1 and 2"]]  # the second time it is known


def test_the_listener_is_that_of_a_model():
    model = tiny_model()
    captioner = RegionCaptioner(model, UrecaProcessor.from_config(model.config, tiny_tokenizer()))
    scores = captioner.score(IMAGE.pixels, TREE.regions, ["a box"], progress=False)
    found = book_of(captioner).listen("a box", TREE.regions)
    np.testing.assert_allclose(found, torch.softmax(scores[:, 0].double(), 0), rtol=1e-5)


def test_a_unique_caption_is_picked_and_names_the_look_alike():
    book = book_of(Listener({1: "the left 1", 2: "the right 2"}, sharpness=8.0))
    book.fill(TREE)
    judgement = book.judge(1, TREE)
    assert judgement.probability > 0.99
    (rival,) = [rival for rival in judgement.rivals if rival.alike]
    assert rival.region_id == 2 and rival.probability < 0.01 and rival.clash == ""


def test_the_rival_that_the_listener_prefers_comes_first_though_it_looks_different():
    book = book_of(Listener({1: "the thing in 3"}, sharpness=8.0))
    book.fill(TREE)
    judgement = book.judge(1, TREE)
    assert judgement.rivals[0].region_id == 3 and not judgement.rivals[0].alike
    assert judgement.probability < judgement.rivals[0].probability


def test_equal_and_nearly_equal_captions_are_flagged_without_a_listener():
    long = "a red box that stands on the left side of the grey tray near the window"
    texts = {1: long, 2: f"{long} pane", 3: "Knob!", 4: "the knob", 5: "a tray"}
    book = book_of(Speaker(texts))
    book.fill(TREE)
    assert book.judge(1, TREE).probability is None
    assert [(r.region_id, r.clash) for r in book.judge(1, TREE).rivals] == [(2, "nearly the same")]
    # equal captions clash whatever the regions look like
    assert ("same", 3) in [(r.clash, r.region_id) for r in book.judge(4, TREE).rivals]


def test_the_same_caption_is_named_before_those_that_are_nearly_the_same():
    long = "a red box that stands on the left side of the grey tray near the window"
    book = book_of(Speaker({1: f"{long} pane", 2: long, 5: long}))
    book.set_look_alikes({region.id: [1] if region.id == 2 else [] for region in IMAGE.regions})
    book.fill(TREE)
    judgement = book.judge(2, TREE, most=1)
    assert [(one.region_id, one.clash) for one in judgement.rivals] == [(5, "same")]
    assert judgement.same == 1


def rival(probability=None, clash="") -> Rival:
    return Rival(2, True, probability, clash)


@pytest.mark.parametrize(
    ("own", "rivals", "unique"),
    [
        (0.6, [rival(0.4)], True),
        (0.4, [rival(0.5), rival(0.1)], False),
        (0.5, [rival(0.5)], False),  # nobody could choose
        (0.6, [rival(0.1, "same")], False),
        (0.6, [rival(0.1, "nearly the same")], True),  # the listener can tell them apart
        (None, [rival(), rival()], True),
        (None, [rival(), rival(clash="nearly the same")], False),
        (None, [], True),
    ],
)
def test_a_caption_is_unique_if_it_picks_out_its_region(own, rivals, unique):
    assert Judgement(own, tuple(rivals)).unique is unique


def test_an_empty_caption_is_not_listened_to():
    listener = Listener({1: ""})
    book = book_of(listener)
    book.fill(TREE)
    assert book.judge(1, TREE).probability is None
    assert listener.scored == []


def test_look_alikes_that_are_given_are_taken_and_new_regions_are_added_to_them():
    book = book_of(Speaker())
    book.set_look_alikes({region.id: [] for region in IMAGE.regions if region.id != 2})
    found = book.look_alikes(TREE)
    assert 1 in found[2] and 2 in found[1]
    book.forget(2)
    assert 2 not in book.look_alikes(build_mask_tree(IMAGE.regions[:1] + IMAGE.regions[2:]))[1]


def test_attribute_captions_say_whether_they_are_unique():
    captioner = load_captioner("attributes")
    assert isinstance(captioner, AttributeCaptioner) and isinstance(captioner, Captioner)
    found = captioner.caption(IMAGE.pixels, IMAGE.regions)
    assert [one.region_id for one in found] == [1, 2, 3, 4, 5]
    assert len({one.text for one in found}) == 5 and all(one.unique for one in found)
    assert captioner.caption(IMAGE.pixels, []) == []


def test_a_folder_that_is_no_checkpoint_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match="nothing_here"):
        load_captioner(tmp_path / "nothing_here")
