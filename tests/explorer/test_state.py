"""Captions are made once, together; a listener is a softmax over regions; steps walk the tree."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from explorer.speakers import Listener, Speaker, nested_image
from tiny_models import tiny_model, tiny_tokenizer

from ureca_lib.captioner import RegionCaptioner
from ureca_lib.explorer import RegionExplorer
from ureca_lib.explorer.state import (
    AttributeCaptioner,
    CaptionCache,
    Captioner,
    Confusion,
    Entry,
    Judgement,
    load_captioner,
    verdict,
)
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.processor import UrecaProcessor

IMAGE = nested_image()
TREE = build_mask_tree(IMAGE.regions)


def cache_of(captioner, entries=None) -> CaptionCache:
    return CaptionCache(IMAGE.pixels, captioner, entries)


def test_all_are_asked_for_together_and_only_once():
    speaker = Speaker()
    cache = cache_of(speaker)
    assert cache.known(1) is None
    cache.fill(TREE)
    cache.fill(TREE)
    assert speaker.asked == [[region.id for region in IMAGE]]
    assert cache.known(1) == Entry("thing 1", -0.5)


def test_only_what_is_missing_is_asked_for():
    speaker = Speaker()
    cache = cache_of(speaker, {1: Entry("known"), 2: Entry("")})
    cache.fill(TREE)
    assert speaker.asked == [[3, 4, 5]]
    assert cache.known(1).text == "known" and cache.known(2).text == ""


def test_one_who_tells_regions_apart_sees_them_all_but_changes_no_known_caption():
    speaker = Speaker()
    speaker.captions_together = True
    cache = cache_of(speaker, {1: Entry("known")})
    cache.fill(TREE)
    assert speaker.asked == [[1, 2, 3, 4, 5]]
    assert cache.known(1).text == "known" and cache.known(3).text == "thing 3"


def test_the_listener_is_the_softmax_over_regions():
    listener = Listener(sharpness=2.0)
    cache = cache_of(listener)
    chances = cache.listen("both 1 and 2", TREE.regions)
    expected = np.exp([2, 2, 0, 0, 0]) / np.exp([2, 2, 0, 0, 0]).sum()
    np.testing.assert_allclose(chances, expected, rtol=1e-6)
    assert listener.scored == [["both 1 and 2"]]


def test_the_listener_is_that_of_a_model():
    model = tiny_model()
    captioner = RegionCaptioner(model, UrecaProcessor.from_config(model.config, tiny_tokenizer()))
    scores = captioner.score(IMAGE.pixels, TREE.regions, ["a box"], progress=False)
    found = cache_of(captioner).listen("a box", TREE.regions)
    np.testing.assert_allclose(found, torch.softmax(scores[:, 0].double(), 0), rtol=1e-5)


def test_a_unique_caption_is_picked_and_names_the_look_alike():
    cache = cache_of(Listener({1: "the left 1", 2: "the right 2"}, sharpness=8.0))
    cache.fill(TREE)
    judgement = cache.judge(1, TREE)
    assert judgement.probability > 0.99
    (rival,) = [rival for rival in judgement.rivals if rival.alike]
    assert rival.region_id == 2 and rival.probability < 0.01 and rival.clash == ""


def test_the_rival_that_the_listener_prefers_comes_first_though_it_looks_different():
    cache = cache_of(Listener({1: "the thing in 3"}, sharpness=8.0))
    cache.fill(TREE)
    judgement = cache.judge(1, TREE)
    assert judgement.rivals[0].region_id == 3 and not judgement.rivals[0].alike
    assert judgement.probability < judgement.rivals[0].probability


def test_equal_and_nearly_equal_captions_are_flagged_without_a_listener():
    long = "a red box that stands on the left side of the grey tray near the window"
    texts = {1: long, 2: f"{long} pane", 3: "Knob!", 4: "the knob", 5: "a tray"}
    cache = cache_of(Speaker(texts))
    cache.fill(TREE)
    assert cache.judge(1, TREE).probability is None
    assert [(r.region_id, r.clash) for r in cache.judge(1, TREE).rivals] == [(2, "nearly the same")]
    # equal captions clash whatever the regions look like
    assert ("same", 3) in [(r.clash, r.region_id) for r in cache.judge(4, TREE).rivals]


def test_the_same_caption_is_named_before_those_that_are_nearly_the_same():
    long = "a red box that stands on the left side of the grey tray near the window"
    cache = cache_of(Speaker({1: f"{long} pane", 2: long, 5: long}))
    cache.set_look_alikes({region.id: [1] if region.id == 2 else [] for region in IMAGE.regions})
    cache.fill(TREE)
    judgement = cache.judge(2, TREE, most=1)
    assert [(one.region_id, one.clash) for one in judgement.rivals] == [(5, "same")]
    assert judgement.same == 1


def confusion(probability=None, clash="") -> Confusion:
    return Confusion(2, True, probability, clash)


@pytest.mark.parametrize(
    ("own", "rivals", "unique"),
    [
        (0.6, [confusion(0.4)], True),
        (0.4, [confusion(0.5), confusion(0.1)], False),
        (0.5, [confusion(0.5)], False),  # nobody could choose
        (0.6, [confusion(0.1, "same")], False),
        (0.6, [confusion(0.1, "nearly the same")], True),  # the listener can tell them apart
        (None, [confusion(), confusion()], True),
        (None, [confusion(), confusion(clash="nearly the same")], False),
        (None, [], True),
    ],
)
def test_a_caption_is_unique_if_it_picks_out_its_region(own, rivals, unique):
    assert Judgement(own, tuple(rivals)).unique is unique


@pytest.mark.parametrize(
    ("entry", "judgement", "expected"),
    [
        (None, None, ""),
        (Entry(""), Judgement(None, ()), ""),
        (Entry("a"), Judgement(None, (), same=1), "Not unique: another region has"),
        (Entry("a"), Judgement(0.9, (), same=3), "Not unique: 3 other regions have"),
        (Entry("a"), Judgement(0.4, (confusion(0.5),)), "Not unique: the listener prefers"),
        (Entry("a", unique=False), Judgement(0.9, ()), "Unique: the listener picks .* 90%"),
        (Entry("a", unique=False), Judgement(None, ()), "Not unique: the captioner"),
        (Entry("a", None, False, "rejected"), Judgement(None, ()), "Not unique: rejected"),
        (Entry("a"), Judgement(None, (confusion(clash="nearly the same"),)), "Not unique: a look"),
        (Entry("a"), Judgement(None, ()), "Unique: no other caption"),
        (Entry("a", unique=True), Judgement(None, ()), "Unique: fits no other region"),
    ],
)
def test_the_verdict_gives_the_reason(entry, judgement, expected):
    found = verdict(entry, judgement)
    assert re.match(expected, found["text"]) and bool(found["text"]) is bool(expected)
    assert found["kind"] == {"": "", "N": "bad", "U": "good"}[expected[:1]]


def test_an_empty_caption_is_not_listened_to():
    listener = Listener({1: ""})
    cache = cache_of(listener)
    cache.fill(TREE)
    assert cache.judge(1, TREE).probability is None
    assert listener.scored == []


def test_look_alikes_that_are_given_are_taken_and_new_regions_are_added_to_them():
    cache = cache_of(Speaker())
    cache.set_look_alikes({region.id: [] for region in IMAGE.regions if region.id != 2})
    found = cache.look_alikes(TREE)
    assert 1 in found[2] and 2 in found[1]
    assert 2 not in cache.look_alikes(build_mask_tree(IMAGE.regions[:1] + IMAGE.regions[2:]))[1]


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


@pytest.fixture
def explorer():
    return RegionExplorer(IMAGE.pixels, IMAGE.regions, Speaker())


def test_a_region_is_named_with_its_id(explorer):
    assert explorer.label(4) == "knob [4]"
    assert explorer.label(None) == "image"


def test_up_ends_at_the_image_and_down_comes_back(explorer):
    explorer.go_to(3)
    seen = []
    for _ in range(4):
        explorer.step("up")
        seen.append(explorer.region_id)
    assert seen == [1, 5, None, None]
    for _ in range(3):
        explorer.step("down")
    assert explorer.region_id == 3


def test_down_from_new_ground_takes_the_largest_child_and_stops_at_a_leaf(explorer):
    explorer.step("down")
    assert explorer.region_id == 5
    explorer.go_to(4)
    explorer.step("down")
    assert explorer.region_id == 4


def test_siblings_go_round_from_large_to_small(explorer):
    explorer.go_to(5)
    explorer.step("next")
    assert explorer.region_id == 2
    explorer.step("next")
    assert explorer.region_id == 5
    explorer.step("previous")
    assert explorer.region_id == 2


def test_from_the_image_there_is_no_next_sibling(explorer):
    explorer.step("next")
    assert explorer.region_id is None


def test_an_unknown_region_is_refused_and_one_stays(explorer):
    explorer.go_to(2)
    with pytest.raises(KeyError, match="no region 99"):
        explorer.go_to(99)
    assert explorer.region_id == 2
