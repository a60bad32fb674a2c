"""Attributes as predicates, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from annotate.drawn import BLUE, RED, ellipse, image_of, images, matching, rectangle
from hypothesis import given, settings

from ureca_lib.annotate.referring.predicates import DIRECTIONS, PLACES, Attribute, ImageAttributes
from ureca_lib.mask_tree import build_mask_tree

SIZE = (90, 90)


def scene_of(image) -> ImageAttributes:
    return ImageAttributes(image, build_mask_tree(image.regions))


def places_of(scene: ImageAttributes, index: int, among=()) -> set[str]:
    return {place.value for place in scene.place(index, among)}


def type_of(noun: str) -> tuple[Attribute, ...]:
    return (Attribute("type", noun),)


def test_a_type_is_the_same_noun_and_not_its_plural():
    masks = [rectangle(SIZE, 10 * i, 10) for i in range(4)]
    scene = scene_of(image_of(masks, ["eye", "Eye", "eyes", None]))
    assert matching(scene, type_of("eye")) == (1, 2)
    assert matching(scene, type_of("eyes")) == (3,)
    assert matching(scene, type_of("region")) == (1, 2, 3, 4)  # an eye is a region too
    assert matching(scene, ()) == (1, 2, 3, 4)


def test_color_and_shape_fit_in_their_wider_sense():
    masks = [ellipse(SIZE, 20, 20, 10, 10), rectangle(SIZE, 40, 10, 20), rectangle(SIZE, 5, 60, 60)]
    scene = scene_of(image_of(masks, ["a"] * 3, [RED, RED, BLUE]))
    assert matching(scene, (*type_of("a"), Attribute("color", "red"))) == (1, 2)
    assert matching(scene, (*type_of("a"), Attribute("shape", "round"))) == (1,)


def test_a_whole_is_any_region_above_that_its_description_fits():
    masks = [rectangle(SIZE, 0, 0, 40), rectangle(SIZE, 45, 45, 40)]
    masks += [rectangle(SIZE, 5, 5, 20), rectangle(SIZE, 50, 50, 20)]
    masks += [rectangle(SIZE, 8, 8, 8), rectangle(SIZE, 55, 55, 8)]
    names = ["house", "car", "door", "door", "knob", "knob"]
    scene = scene_of(image_of(masks, names))
    of_house = Attribute("whole", "house", among=type_of("house"))
    assert matching(scene, (*type_of("door"), of_house)) == (3,)
    assert matching(scene, (*type_of("knob"), of_house)) == (5,)
    door = (*type_of("door"), of_house)
    assert matching(scene, (*type_of("knob"), Attribute("whole", "door", among=door))) == (5,)
    assert matching(scene, (Attribute("with", "knob"),)) == (1, 2, 3, 4)


@settings(max_examples=50, deadline=None)
@given(images())
def test_a_rank_counts_the_masks_that_come_before(image):
    scene = scene_of(image)
    for noun in set(scene.kinds):
        among = type_of(noun)
        members = [image[i] for i in matching(scene, among)]
        total = len({member.mask.tobytes() for member in members})
        for direction in DIRECTIONS:
            for number in (1, 2, 3):
                rank = Attribute("rank", direction, number, total, among)
                expected = [r.id for r in members if earlier(r, members, direction) == number - 1]
                assert list(matching(scene, (*among, rank))) == expected


def earlier(region, members, direction: str) -> int:
    """How many different masks come before the region's, by their decoded pixels."""

    def key(other):
        ys, xs = np.nonzero(other.mask)
        values = {"left": xs.sum() / len(xs), "top": ys.sum() / len(ys), "smallest": len(xs)}
        opposite = {"right": "left", "bottom": "top", "largest": "smallest"}
        name = opposite.get(direction, direction)
        return -values[name] if direction in opposite else values[name]

    before = {other.mask.tobytes() for other in members if key(other) < key(region)}
    return len(before)


@pytest.mark.parametrize(
    ("x", "y", "places"),
    [
        (3, 3, {"left", "top", "top left"}),
        (80, 80, {"right", "bottom", "bottom right"}),
        (42, 42, {"middle"}),
        (42, 3, {"top", "top middle"}),
        (80, 42, {"right", "middle right"}),
    ],
)
def test_places_in_the_image(x, y, places):
    scene = scene_of(image_of([rectangle(SIZE, x, y), rectangle(SIZE, 0, 0, 90)], ["dot", "all"]))
    assert places_of(scene, 0) == places and places_of(scene, 1) == set()
    for value in places:
        assert 1 in matching(scene, (Attribute("place", value),))


def test_a_place_in_a_whole_is_relative_to_its_box():
    masks = [rectangle(SIZE, 50, 50, 40), rectangle(SIZE, 51, 51, 4), rectangle(SIZE, 84, 84, 4)]
    scene = scene_of(image_of(masks, ["plate", "spot", "spot"]))
    plate = type_of("plate")
    assert places_of(scene, 1, plate) == {"left", "top", "top left"}
    place = Attribute("place", "top left", among=plate)
    assert matching(scene, (*type_of("spot"), place)) == (2,)


def test_what_is_said_of_a_place_fits_it_in_the_wider_sense():
    masks = [rectangle(SIZE, x, y, 4) for x in range(0, 86, 9) for y in range(0, 86, 9)]
    scene = scene_of(image_of(masks))
    for value in PLACES:
        said = {scene.ids[i] for i in range(len(scene)) if value in places_of(scene, i)}
        fits = set(matching(scene, (Attribute("place", value),)))
        assert said < fits


def test_rows_count_from_the_end_they_name():
    masks = [
        rectangle(SIZE, 5 + 20 * column, 5 + 25 * row) for row in range(3) for column in range(4)
    ]
    scene = scene_of(image_of(masks))
    region = type_of("region")
    second = (*region, Attribute("row", "bottom", 3, 3, region))
    assert matching(scene, second) == (1, 2, 3, 4)
    assert matching(scene, (*region, Attribute("row", "bottom", 3, 4, region))) == ()


def test_nouns_without_a_name_mean_named_regions_too():
    masks = [rectangle(SIZE, 0, 0, 40), rectangle(SIZE, 45, 45, 40)]
    masks += [rectangle(SIZE, 5, 5, 20), rectangle(SIZE, 8, 8, 8)]
    scene = scene_of(image_of(masks, ["house", None, "door", None]))
    assert matching(scene, type_of("main region")) == (1, 2)
    assert matching(scene, type_of("part")) == (3, 4)
    assert scene.part_counts("part").tolist() == [1, 0, 1, 0]  # directly in it
    assert scene.part_counts("door").tolist() == [1, 0, 0, 0]


def test_a_number_of_parts_is_exact_from_two_on():
    masks = [rectangle(SIZE, 0, 0, 40), rectangle(SIZE, 45, 45, 40)]
    masks += [rectangle(SIZE, 5, 5, 5), rectangle(SIZE, 15, 5, 5), rectangle(SIZE, 50, 50, 5)]
    scene = scene_of(image_of(masks, ["house", "house", *["door"] * 3]))
    assert matching(scene, (Attribute("with", "door"),)) == (1, 2)
    assert matching(scene, (Attribute("with", "door", 2),)) == (1,)
    assert matching(scene, (Attribute("with", "door", 3),)) == ()


def test_a_count_is_over_the_regions_that_the_words_before_it_leave():
    scene = scene_of(image_of([rectangle(SIZE, 5 + 20 * i, 5) for i in range(3)], ["box"] * 3))
    of_boxes = Attribute("rank", "left", 1, 3, type_of("box"))
    assert matching(scene, (*type_of("box"), of_boxes)) == (1,)
    assert matching(scene, (*type_of("box"), Attribute("rank", "left", 1, 2, type_of("box")))) == ()
    with pytest.raises(ValueError, match="other regions than the words before it"):
        scene.fits((*type_of("box"), Attribute("color", "grey"), of_boxes))


def test_only_clear_words_can_be_counted_over():
    masks = [
        rectangle(SIZE, 5, 5, 20),
        rectangle(SIZE, 40, 5, 20, 17),
        rectangle(SIZE, 5, 60, 60, 9),
    ]
    scene = scene_of(image_of(masks, ["box"] * 3))
    assert scene.is_crisp(type_of("box"))
    square = (*type_of("box"), Attribute("shape", "square"))
    assert matching(scene, square) == (1, 2)  # the second one nearly is
    assert not scene.is_crisp(square)
