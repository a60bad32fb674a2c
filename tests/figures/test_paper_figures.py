"""The paper's figures say what the data say, and can be read whatever the captions' length."""

from __future__ import annotations

import numpy as np
import pytest
from figures.drawn import LONG, faults, nested_image, says, words_of
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from ureca_lib.figures import (
    ComparedRegion,
    Example,
    ambiguity_figure,
    comparison_figure,
    examples_figure,
    mask_tree_figure,
    save_figure,
    shared_name,
    spread_over_levels,
    teaser_figure,
)
from ureca_lib.figures.style import PALETTE, RIGHT_COLOR, WRONG_COLOR
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import Region, RegionImage

IDS = (1, 2, 11, 21, 111)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def image():
    return nested_image()[0]


@pytest.fixture(scope="module")
def tree():
    return nested_image()[1]


def texts(length):
    said = {"short": "a box", "long": LONG, "one word": "x" * 120}[length]
    return {region_id: f"{said} {region_id}" for region_id in IDS}


def outlines(ax):
    """Colour and box (left, top, right, bottom) of every outline."""
    found = []
    for lines in ax.collections:
        places = np.concatenate([path.vertices for path in lines.get_paths()])
        found.append((to_hex(lines.get_edgecolor()[0]), *places.min(0), *places.max(0)))
    return found


def arrows(figure):
    """Colour and dashes of every arrow, casings left out."""
    texts = [text for ax in figure.axes for text in ax.texts]
    found = [text.arrow_patch for text in texts if getattr(text, "arrow_patch", None)]
    colors = [(to_hex(patch.get_edgecolor()), patch.get_linestyle()) for patch in found]
    return [(color, style) for color, style in colors if color != "#ffffff"]


@pytest.mark.parametrize("length", ["short", "long", "one word"])
def test_a_teaser_says_every_caption_legibly(image, tree, length):
    captions = texts(length)
    figure = teaser_figure(image, tree, captions)
    assert not faults(figure)
    if length != "one word":
        assert all(says(figure, text) for text in captions.values())
    assert words_of(figure)["level"] == len(IDS)


def test_a_teaser_outlines_each_region_in_the_color_of_its_caption(image, tree):
    figure = teaser_figure(image, tree, {1: "a box", 21: "a lid"})
    (photo,) = [ax for ax in figure.axes if ax.collections]
    found = {color: box for color, *box in outlines(photo)}
    for region_id, color in zip((1, 21), PALETTE, strict=False):
        x, y, columns, rows = image[region_id].pixel_box
        assert found[color.lower()] == pytest.approx([x, y, x + columns, y + rows], abs=4)


def test_a_teaser_without_captions_is_the_photo(image, tree):
    (photo,) = [ax for ax in teaser_figure(image, tree, {}).axes if ax.images]
    assert not photo.collections


def test_levels_take_turns(tree):
    chosen = spread_over_levels(tree, IDS, 3)
    assert sorted(tree.depth(one) for one in chosen) == [1, 2, 3]
    assert set(spread_over_levels(tree, IDS, 9)) == set(IDS)
    assert spread_over_levels(tree, [2, 21], 9) == [2, 21]


def test_regions_with_one_middle_are_not_both_chosen():
    masks = np.zeros((2, 60, 60), bool)
    masks[0, 10:50, 10:50] = True
    masks[1, 12:48, 12:48] = True
    regions = [Region.from_mask(number, mask) for number, mask in enumerate(masks)]
    tree = build_mask_tree(RegionImage(regions, 60, 60))
    assert len(spread_over_levels(tree, [0, 1], 5)) == 1


def test_a_mask_tree_shows_every_level_and_names_every_region(image, tree):
    figure = mask_tree_figure(image, tree)
    assert not faults(figure)
    for depth, count in ((1, "2 regions"), (2, "2 regions"), (3, "1 region")):
        assert says(figure, f"level {depth} · {count}")
    assert all(words_of(figure)[f"[{region_id}]"] == 1 for region_id in IDS)
    photos = [ax for ax in figure.axes if ax.images]
    assert [len(ax.collections) for ax in photos] == [5, 2, 2, 1]


def test_a_level_has_one_color_on_the_photos_and_in_the_tree(image, tree):
    figure = mask_tree_figure(image, tree)
    photos = [ax for ax in figure.axes if ax.images]
    on_photos = [{color for color, *_ in outlines(ax)} for ax in photos[1:]]
    (plot,) = [ax for ax in figure.axes if not ax.images]
    dots = {line.get_xdata()[0]: line for line in plot.lines if line.get_marker() == "o"}
    in_tree = [{to_hex(dots[depth].get_color())} for depth in (1, 2, 3)]
    assert on_photos == in_tree


def test_long_names_stay_on_the_page():
    masks = np.zeros((3, 60, 60), bool)
    for number, mask in enumerate(masks):
        mask[number * 5 : 60 - number * 5, number * 5 : 60 - number * 5] = True
    regions = [Region.from_mask(n, mask, "a very long name " * 3) for n, mask in enumerate(masks)]
    image = RegionImage(regions, 60, 60, np.zeros((60, 60, 3), np.uint8))
    assert not faults(mask_tree_figure(image, build_mask_tree(image)))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("length", ["short", "long"])
def test_a_comparison_says_every_caption_of_every_system(image, count, length):
    systems = [f"system {number}" for number in range(count)]
    captions = texts(length)
    rows = [
        ComparedRegion(image.pixels, image[one], dict.fromkeys(systems, captions[one]), note="n")
        for one in (1, 111)
    ]
    figure = comparison_figure(rows, systems, systems[0])
    assert not faults(figure)
    assert words_of(figure)["system"] == count
    if count == 1:
        assert says(figure, " ".join(captions[one] for one in (1, 111)))


def test_a_system_without_a_caption_has_a_dash(image):
    rows = [ComparedRegion(image.pixels, image[1], {"a": "said", "b": ""})]
    found = words_of(comparison_figure(rows, ["a", "b", "c"]))
    assert found["–"] == 2 and found["said"] == 1


@pytest.mark.parametrize(
    ("fits", "told", "color"),
    [
        ((1, True), "fits this region only", RIGHT_COLOR),
        ((3, True), "fits 3 regions", WRONG_COLOR),
        ((1, False), "fits another region", WRONG_COLOR),
        ((0, False), "fits no region", WRONG_COLOR),
        (None, "not scenes' words", None),
    ],
)
def test_marks_say_whether_a_caption_is_unique(image, fits, told, color):
    rows = [ComparedRegion(image.pixels, image[1], {"a": "said"}, {"a": fits})]
    figure = comparison_figure(rows, ["a"])
    assert says(figure, told)
    signs = {RIGHT_COLOR: ["✓"], WRONG_COLOR: ["✗"], None: []}
    assert [sign for sign in "✓✗" if words_of(figure)[sign]] == signs[color]


def test_arrows_lead_to_all_regions_that_a_caption_fits(image):
    figure = ambiguity_figure(image, 1, ("the box", [1, 2]), (LONG, [1]))
    assert not faults(figure)
    found = arrows(figure)
    assert sorted(found, key=str).count((RIGHT_COLOR.lower(), "-")) == 2
    wrong = [style for color, style in found if color == WRONG_COLOR.lower()]
    assert len(wrong) == 1 and wrong[0] != "-"  # told apart without color too
    assert says(figure, "fits 2 regions of the image fits 1 region of the image")
    left, right = [ax for ax in figure.axes if ax.images]
    assert len(left.collections) == 2 and len(right.collections) == 1


def test_too_many_arrows_are_left_out_but_not_the_outlines():
    regions = []
    for number in range(12):
        mask = np.zeros((60, 130), bool)
        mask[20:40, number * 10 : number * 10 + 8] = True
        regions.append(Region.from_mask(number, mask, "bar"))
    image = RegionImage(regions, 130, 60, np.full((60, 130, 3), 90, np.uint8))
    figure = ambiguity_figure(image, 3, ("the bar", range(12)), ("the fourth bar", [3]))
    assert [color for color, _ in arrows(figure)] == [RIGHT_COLOR.lower()] * 2
    assert len(next(ax for ax in figure.axes if ax.images).collections) == 12
    assert says(figure, "fits 12 regions")


def test_the_shared_name_of_the_largest_regions_is_found(image):
    assert shared_name(image) == [1, 2]
    with pytest.raises(ValueError, match="no name"):
        shared_name(RegionImage([image[111]], 160, 120))


@pytest.mark.parametrize("columns", [1, 4, 6])
def test_examples_say_every_caption(image, columns):
    examples = [Example(image.pixels, image[one], f"{LONG} {one}", "a place") for one in IDS]
    figure = examples_figure(examples, columns)
    assert not faults(figure)
    assert says(figure, " ".join(example.caption for example in examples))


def test_what_is_cut_of_a_caption_is_shown_by_an_ellipsis(image):
    figure = examples_figure([Example(image.pixels, image[1], LONG * 5)], 6)
    assert not faults(figure)
    assert sum(word.endswith("…") for word in words_of(figure)) == 1


def test_a_small_region_is_magnified_with_its_surroundings(image):
    shown = [Example(image.pixels, image[one], "text") for one in (21, 1)]
    small, large = [ax for ax in examples_figure(shown).axes if ax.images]
    x, _, columns, _ = image[21].pixel_box
    left, right = small.get_xlim()
    assert left < x and x + columns < right
    assert 3 * columns < right - left < 60 < large.get_xlim()[1] - large.get_xlim()[0]


def test_without_an_example_there_is_no_figure():
    with pytest.raises(ValueError, match="no captions"):
        examples_figure([])


def test_drawn_twice_a_figure_is_the_same_file(image, tree, tmp_path):
    files = []
    for number in range(2):
        figure = teaser_figure(image, tree, texts("long"))
        path = save_figure(figure, tmp_path / f"{number}.png", dpi=100, trim=False)
        files.append((path.read_bytes(), path.with_suffix(".pdf").read_bytes()))
    assert files[0] == files[1]
