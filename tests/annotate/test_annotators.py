"""The embedded annotator: captions that are unique, true, and English."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from annotate.drawn import BLUE, GREY, RED, ellipse, image_of, images, matching, rectangle
from hypothesis import given, settings

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.referring.predicates import ImageAttributes
from ureca_lib.mask_tree import MaskTree, build_mask_tree
from ureca_lib.regions import FileMissingError, Region, RegionImage, load_sa1b

PHOTOS = Path(__file__).resolve().parents[2] / "data_samples" / "photos"
SIZE = (120, 160)


def texts(image: RegionImage) -> dict:
    captions = AttributeAnnotator().caption(image)
    assert [caption.region_id for caption in captions] == [region.id for region in image]
    return {caption.region_id: caption.text for caption in captions}


def same_masks(image: RegionImage, region_id) -> set:
    mask = image[region_id].mask
    return {r.id for r in image if r.id != region_id and (r.mask == mask).all()}


@settings(max_examples=100, deadline=None)
@given(images())
def test_captions_are_unique_exactly_where_masks_differ(image):
    tree = build_mask_tree(image.regions)
    scene = ImageAttributes(image, tree)
    captions = AttributeAnnotator().caption(image, tree)
    for caption in captions:
        twins = same_masks(image, caption.region_id)
        assert set(caption.same_as) == twins
        nothing_known = len(image) == 1 and not image.regions[0].name
        assert caption.unique == (not twins and not nothing_known)
        assert caption.confused_with == ()
        # the attributes, read by themselves, give the region and what has its mask
        found = set(matching(scene, caption.attributes))
        assert caption.region_id in found
        assert found <= {caption.region_id} | twins
    for one in captions:
        for other in captions:
            if one.text == other.text and one is not other:
                assert other.region_id in one.same_as


@settings(max_examples=60, deadline=None)
@given(images())
def test_captions_are_short_words_without_digits(image):
    for text in texts(image).values():
        assert text.startswith(("the ", "an unnamed "))
        assert len(text.split()) < 25
        assert not any(character.isdigit() for character in text)
        assert not text.endswith(".") and "  " not in text


@settings(max_examples=60, deadline=None)
@given(images())
def test_the_order_of_the_regions_does_not_matter(image):
    tree = build_mask_tree(image.regions)
    parents = {region.id: tree.parent(region.id) for region in image}
    expected = AttributeAnnotator().caption(image, tree)
    shuffled = random.Random(0).sample(image.regions, len(image))
    other = RegionImage(shuffled, image.width, image.height, image.pixels)
    found = AttributeAnnotator().caption(other, MaskTree(shuffled, parents))
    assert {c.region_id: c.text for c in found} == {c.region_id: c.text for c in expected}


def test_a_part_as_large_as_its_whole_with_the_mask_of_that_ones_whole():
    # the first and the third are equal, and the second, of the same area, lies between them
    first, between = rectangle(SIZE, 11, 10, 20), rectangle(SIZE, 10, 10, 20)
    image = image_of([first, between, first])
    captions = AttributeAnnotator().caption(image, build_mask_tree(image.regions))
    assert [caption.unique for caption in captions] == [False, True, False]


def test_only_what_rules_something_out_is_said():
    masks = [rectangle(SIZE, 10, 10, 40), rectangle(SIZE, 90, 10, 40), rectangle(SIZE, 20, 20, 8)]
    image = image_of(masks, ["house", "car", "door"], [RED, BLUE, GREY])
    assert texts(image) == {1: "the house", 2: "the car", 3: "the door"}
    image = image_of(masks, ["house", "house", "door"], [RED, BLUE, GREY])
    assert texts(image) == {1: "the red house", 2: "the blue house", 3: "the door"}
    image = image_of(masks, ["house", "house", "door"], [RED, RED, GREY])
    assert texts(image) == {1: "the left house", 2: "the right house", 3: "the door"}


def test_a_part_is_named_by_its_whole_and_that_by_its_own_description():
    masks = [rectangle(SIZE, 10, 10, 40), rectangle(SIZE, 90, 10, 40)]
    masks += [rectangle(SIZE, 20, 20, 20), rectangle(SIZE, 100, 20, 20)]
    masks += [rectangle(SIZE, 25, 25, 6), rectangle(SIZE, 105, 25, 6)]
    names = ["face", "face", "eye", "eye", "pupil", "pupil"]
    assert texts(image_of(masks, names)) == {
        **{1: "the left face", 2: "the right face"},
        **{3: "the eye of the left face", 4: "the eye of the right face"},
        **{5: "the pupil of the left face", 6: "the pupil of the right face"},
    }


def test_a_group_is_not_the_whole_of_its_members():
    left, right = rectangle(SIZE, 30, 30, 10), rectangle(SIZE, 60, 30, 10)
    far = rectangle(SIZE, 130, 30, 10)
    image = image_of([left | right, left, right, far], ["eyes", "eye", "eye", "eye"])
    found = texts(image)
    assert found[1] == "the eyes"
    assert found[2] == "the leftmost eye" and found[4] == "the rightmost eye"
    assert not any("of the eyes" in text for text in found.values())


@pytest.mark.parametrize("count", [2, 3, 5, 9])
@pytest.mark.parametrize("vertical", [False, True])
def test_ordinals_count_along_the_axis_that_separates(count, vertical):
    order = random.Random(count).sample(range(count), count)
    masks = []
    for place in order:
        x, y = 5 + 11 * place, 20 + place % 2
        masks.append(rectangle(SIZE, y, x, 6) if vertical else rectangle(SIZE, x, y, 6))
    found = texts(image_of(masks, ["peg"] * count))
    ends = ("top", "bottom") if vertical else ("left", "right")
    words = ["first", "second", "third", "fourth", "fifth"]
    for index, place in enumerate(order):
        from_end = min(place, count - 1 - place)
        end = ends[0] if place == from_end else ends[1]
        if count == 2:
            short = {"left": "left", "right": "right", "top": "upper", "bottom": "lower"}[end]
            expected = f"the {short} peg"
        elif from_end == 0:
            most = {"left": "leftmost", "right": "rightmost", "top": "top", "bottom": "bottom"}
            expected = f"the {most[end]} peg"
        elif count == 3:
            expected = "the middle peg"
        else:
            expected = f"the {words[from_end]} peg from the {end}"
            if place == count - 1 - place:
                expected = f"the {words[from_end]} peg from the {ends[0]}"
        assert found[index + 1] == expected


def test_a_grid_is_said_in_rows():
    masks = [rectangle(SIZE, 8 + 24 * c, 8 + 28 * r, 10) for r in range(4) for c in range(6)]
    found = list(texts(image_of(masks, ["coin"] * 24)).values())
    assert len(set(found)) == 24
    assert found[0] == "the leftmost coin in the top row"
    assert found[8] == "the third coin from the left in the second row from the top"
    assert found[23] == "the rightmost coin in the bottom row"


def test_sizes_are_compared_where_they_are_clear():
    masks = [ellipse(SIZE, 40, 60, 30, 30), ellipse(SIZE, 44, 60, 9, 9)]
    found = texts(image_of(masks, ["disc", "disc"]))
    assert found == {1: "the larger disc", 2: "the smaller disc"}


def test_identical_masks_are_reported_as_not_separable():
    mask, other = rectangle(SIZE, 10, 10, 30), rectangle(SIZE, 80, 60, 30)
    first, second, third = AttributeAnnotator().caption(image_of([mask, mask, other]))
    assert (first.unique, first.same_as, first.confused_with) == (False, (2,), ())
    assert (second.unique, second.same_as) == (False, (1,))
    assert first.text == second.text
    assert third.unique and third.same_as == ()


def test_masks_that_nothing_derivable_separates_are_confused_and_still_not_called_the_same():
    # the same box, centre, area, colour and outline: a pattern and its mirror image
    pattern = np.zeros((12, 12), bool)
    pattern[0, :] = pattern[-1, :] = pattern[:, 0] = pattern[:, -1] = True
    pattern[5:7, 5:7] = True
    one, other = pattern.copy(), pattern.copy()
    one[2, 3] = one[9, 8] = True
    other[2, 8] = other[9, 3] = True
    masks = [np.zeros(SIZE, bool), np.zeros(SIZE, bool)]
    masks[0][20:32, 20:32], masks[1][20:32, 20:32] = one, other
    first, second = AttributeAnnotator().caption(image_of(masks, ["sign", "sign"]))
    assert not first.unique and not second.unique
    assert first.same_as == second.same_as == ()
    assert first.confused_with == (second.region_id,)
    assert second.confused_with == (first.region_id,)
    assert first.text == second.text  # no word would be true of one of them only


def test_a_name_that_sounds_like_a_caption_does_not_make_two_alike():
    masks = [rectangle(SIZE, x, 40, 12) for x in (10, 60, 110)]
    image = image_of(masks, ["eye", "eye", "left eye"])
    assert len(set(texts(image).values())) == 3


def test_one_region_alone_a_pixel_and_the_whole_image():
    assert texts(image_of([rectangle(SIZE, 5, 5, 20)], ["cup"])) == {1: "the cup"}
    everything, pixel = np.ones(SIZE, bool), rectangle(SIZE, 80, 60, 1)
    captions = AttributeAnnotator().caption(image_of([everything, pixel]))
    assert [caption.text for caption in captions] == ["the grey main region", "the grey part"]
    assert all(caption.unique for caption in captions)
    several = [rectangle(SIZE, 30 * i + 2, 50, 1) for i in range(5)]
    assert len(set(texts(image_of(several)).values())) == 5


def test_a_region_of_which_nothing_is_known_says_so_and_is_not_called_unique():
    image = image_of([rectangle(SIZE, 5, 5, 20)], colors=[RED])
    (caption,) = AttributeAnnotator().caption(image)
    assert (caption.text, caption.unique) == ("the red region", False)  # nothing to compare
    mixed = np.zeros((*SIZE, 3), np.uint8)  # no color is said of a region of many
    mixed[..., 0], mixed[..., 2] = np.indices(SIZE) % 2 * 255
    (caption,) = AttributeAnnotator().caption(RegionImage(image.regions, *SIZE[::-1], mixed))
    assert caption.text == "the region at the top left" and not caption.unique
    whole = [Region.from_mask(1, np.ones(SIZE, bool))]
    (caption,) = AttributeAnnotator().caption(RegionImage(whole, *SIZE[::-1], mixed))
    assert caption.text == "an unnamed region" and not caption.unique


def test_no_regions_have_no_captions():
    assert AttributeAnnotator().caption(RegionImage([], 10, 10)) == []


def test_a_grey_photo_gives_no_hue():
    image = load_sa1b(PHOTOS / "coins.json")
    grey = RegionImage(image.regions, image.width, image.height, image.pixels[..., 0])
    hues = {"red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "beige"}
    assert not any(hues & set(text.split()) for text in texts(grey).values())
    masks = [rectangle(SIZE, 10, 10, 30), rectangle(SIZE, 80, 10, 30)]
    levels = image_of(masks, ["box", "box"], [(10, 10, 10), (250, 250, 250)])
    assert texts(levels) == {1: "the black box", 2: "the white box"}


def test_a_missing_photo_is_an_error():
    image = image_of([rectangle(SIZE, 10, 10, 30), rectangle(SIZE, 80, 10, 30)], ["box", "box"])
    with pytest.raises(FileMissingError):
        AttributeAnnotator().caption(RegionImage(image.regions, image.width, image.height))


def test_many_unnamed_regions_all_get_their_own_caption():
    rng = np.random.default_rng(0)
    corners = np.unique(rng.integers(0, 390, (170, 2)), axis=0)[:150]
    masks = [rectangle((400, 400), x, y, 9) for x, y in corners]
    captions = AttributeAnnotator().caption(image_of(masks))
    assert all(caption.unique for caption in captions)
    assert len({caption.text for caption in captions}) == 150
    assert max(len(caption.text.split()) for caption in captions) < 25


def test_deep_nesting_stays_short():
    masks = [rectangle((200, 200), i, i, 200 - 2 * i) for i in range(90)]
    captions = AttributeAnnotator().caption(image_of(masks))
    assert all(caption.unique for caption in captions)
    assert len({caption.text for caption in captions}) == 90
    assert max(len(caption.text.split()) for caption in captions) < 25


def test_a_tree_of_another_image_is_an_error():
    image = image_of([rectangle(SIZE, 10, 10, 30), rectangle(SIZE, 80, 10, 30)])
    with pytest.raises(ValueError, match="not of the same regions"):
        AttributeAnnotator().caption(image, build_mask_tree(image.regions[:1]))


@pytest.mark.parametrize("path", sorted(PHOTOS.glob("*.json")), ids=lambda path: path.stem)
def test_every_region_of_the_samples_has_its_own_caption(path):
    image = load_sa1b(path)
    captions = AttributeAnnotator().caption(image)
    assert len({caption.text for caption in captions}) == len(image)
    for caption in captions:
        assert caption.unique, caption
        assert len(caption.text.split()) < 25
        assert not any(character.isdigit() for character in caption.text)
        assert image[caption.region_id].name in caption.text


def test_captions_of_the_samples_read_as_a_person_would_say_them():
    def named(stem: str, name: str) -> list[str]:
        image = load_sa1b(PHOTOS / f"{stem}.json")
        found = texts(image)
        return sorted(found[region.id] for region in image if region.name == name)

    assert named("chelsea", "eye") == ["the left eye", "the right eye"]
    assert named("chelsea", "pupil") == ["the pupil of the left eye", "the pupil of the right eye"]
    assert named("coffee", "handle") == ["the handle of the coffee cup", "the handle of the spoon"]
    assert "the third coin from the left in the top row" in named("coins", "coin")
    assert named("rocket", "stage") == ["the lower stage", "the upper stage"]
    assert named("astronaut", "booster") == ["the left booster", "the right booster"]
