"""The views: stored references, brute-force definitions, and what must hold for any region.

`python tests/annotate/test_views.py` draws the references anew; look at them before committing.
"""

from __future__ import annotations

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage.color import deltaE_ciede2000, rgb2hsv, rgb2lab

from ureca_lib.annotate import views as views_module
from ureca_lib.annotate.cuts import Cut
from ureca_lib.annotate.protocol import Context
from ureca_lib.annotate.views import (
    BLUE,
    COVERED,
    LOOK_ALIKE_COLORS,
    MIN_MARGIN,
    YELLOW,
    ImageViews,
    ViewSettings,
    blur,
    draw_contour,
    frame_of,
    grow,
    middle,
    number_color,
    number_patch,
    place_numbers,
    stage_views,
)
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import FileMissingError, Region, RegionImage, load_sa1b

HEIGHT, WIDTH = 120, 160
EXACT = ViewSettings(min_side=0, max_side=0, numbers="digits")  # photo pixels as they are
WHOLE = dataclasses.replace(EXACT, look_alike_frame="image")
BOXES = dataclasses.replace(WHOLE, numbers="boxes")
SMALL = ViewSettings(min_side=0, max_side=128, numbers="digits")
REFERENCES = Path(__file__).parent / "references"
PHOTOS = Path(__file__).resolve().parents[2] / "data_samples" / "photos"
# name: photo, changed settings, what is drawn
DRAWN = {
    "crop_hole": ("coffee", {}, lambda views: views.target_crop(20)),
    "parent": ("astronaut", {}, lambda views: views.contoured_parent(4, 2, 1)),
    "main_object": (
        "astronaut",
        {"context_blur": "main_object"},
        lambda views: views.contoured_parent(4, 2, 1),
    ),
    "parent_is_image": ("chelsea", {}, lambda views: views.contoured_parent(45, None)),
    "image_edge": ("rocket", {}, lambda views: views.contoured_image(21)),
    "parts": ("coins", {}, lambda views: views.contoured_image(5)),
    "numbered": ("astronaut", {}, lambda views: views.numbered(86, [84, 83, 82, 85])),
    "numbered_image": (
        "rocket",
        {"look_alike_frame": "image", "max_side": 192},
        lambda views: views.numbered(21, [22, 24, 23]),
    ),
    "boxes": (
        "astronaut",
        {"numbers": "boxes", "max_side": 256},
        lambda views: views.numbered(86, [84, 83, 82, 85]),
    ),
}


def drawn(name: str) -> np.ndarray:
    """A view of a sample photo, small."""
    photo, changes, draw = DRAWN[name]
    kept = dataclasses.replace(SMALL, **changes)
    return draw(ImageViews(load_sa1b(PHOTOS / f"{photo}.json"), kept))


def masks() -> dict[str, np.ndarray]:
    """Regions of every awkward kind."""
    found = {
        name: np.zeros((HEIGHT, WIDTH), bool)
        for name in ("block", "hole", "parts", "edge", "pixel", "corner", "frame", "outside")
    }
    found["block"][30:90, 40:120] = True
    found["hole"][40:70, 50:90] = True
    found["hole"][50:60, 60:80] = False
    found["parts"][75:80, 50:55] = found["parts"][80:88, 100:115] = True
    found["edge"][:30, 90:] = True
    found["pixel"][60, 100] = True
    found["corner"][HEIGHT - 1, 0] = True
    found["frame"][:] = True
    found["frame"][2:-2, 2:-2] = False
    found["outside"][80:100, 110:125] = True
    found["whole"] = np.ones((HEIGHT, WIDTH), bool)
    return found


MASKS = masks()
INNER = ("block", "hole", "parts", "pixel", "outside")  # nowhere near the image's edge


@pytest.fixture(scope="module")
def image() -> RegionImage:
    """A photo of noise, so that any pixel that is changed or blurred shows."""
    photo = np.random.default_rng(0).integers(1, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return RegionImage(
        [Region.from_mask(*pair) for pair in MASKS.items()], WIDTH, HEIGHT, photo, path="some.json"
    )


@pytest.fixture(scope="module")
def exact(image) -> ImageViews:
    """Views with photo pixels as they are."""
    return ImageViews(image, EXACT)


def window_of(*names: str, margin: float = EXACT.margin) -> tuple[slice, slice]:
    """Rows and columns of a crop, by the definition in the settings."""
    rows, columns = np.nonzero(np.any([MASKS[name] for name in names], axis=0))
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    space = max(int(np.ceil(margin * max(bottom - top, right - left))), MIN_MARGIN)
    return (
        slice(max(0, top - space), min(HEIGHT, bottom + space)),
        slice(max(0, left - space), min(WIDTH, right + space)),
    )


def ring_of(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels outside a mask that are within `width` of it, by distance."""
    return ~mask & (ndimage.distance_transform_edt(~mask) <= width + 0.5)


def is_color(view: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """(h, w) bool: where a picture has a colour."""
    return (view == color).all(-1)


@pytest.mark.parametrize("name", DRAWN)
def test_view_is_as_stored(name):
    # resampling and fonts may differ by a little between versions of Pillow; a moved number or
    # contour changes hundreds of pixels by more than 60 levels
    view, stored = drawn(name), np.asarray(Image.open(REFERENCES / f"{name}.png").convert("RGB"))
    assert view.shape == stored.shape
    change = np.abs(view.astype(int) - stored).max(-1)
    assert change.mean() < 1.5 and (change > 60).mean() < 0.004


@pytest.mark.parametrize("name", MASKS)
def test_target_crop_is_sharp_inside_and_blurred_outside(name, image, exact):
    window, mask = window_of(name), MASKS[name]
    expected = np.where(mask[..., None], image.pixels, blur(image.pixels, 100.0))
    np.testing.assert_array_equal(exact.target_crop(name), expected[window])


@pytest.mark.parametrize("name", INNER)
def test_contour_is_all_within_three_pixels_and_nothing_else_changes(name, image, exact):
    view, ring = exact.contoured_image(name), ring_of(MASKS[name], 3)
    np.testing.assert_array_equal(is_color(view, YELLOW), ring)
    np.testing.assert_array_equal(view[~ring], image.pixels[~ring])


def test_contour_of_a_region_at_the_edge_closes_inside(exact):
    yellow = is_color(exact.contoured_image("edge"), YELLOW)
    inside = yellow & MASKS["edge"]
    assert inside[:3, 90:].all() and inside[:30, -3:].all()
    assert not inside[3:, :-3].any()
    np.testing.assert_array_equal(yellow & ~MASKS["edge"], ring_of(MASKS["edge"], 3))


def test_contour_of_the_whole_image_is_a_frame(exact):
    yellow = is_color(exact.contoured_image("whole"), YELLOW)
    assert not yellow[3:-3, 3:-3].any()
    yellow[3:-3, 3:-3] = True
    assert yellow.all()


@pytest.mark.parametrize("name", ["corner", "frame"])
def test_thin_region_at_the_edge_is_not_hidden(name, exact):
    yellow = is_color(exact.contoured_image(name), YELLOW)
    assert yellow.any() and not (yellow & MASKS[name]).any()


@pytest.mark.parametrize("width", [1, 2, 5])
def test_contour_width_is_a_setting(width, image):
    views = ImageViews(image, dataclasses.replace(EXACT, contour_width=width))
    yellow = is_color(views.contoured_image("hole"), YELLOW)
    np.testing.assert_array_equal(yellow, ring_of(MASKS["hole"], width))


@pytest.mark.parametrize("scale", ["enlarged", "reduced"])
def test_contour_has_its_width_at_the_size_shown(scale, image):
    side = 480 if scale == "enlarged" else 80
    views = ImageViews(image, ViewSettings(min_side=side, max_side=side, context_blur="parent"))
    view = views.contoured_image("block")
    assert view.shape == (side * HEIGHT // WIDTH, side, 3)
    row = is_color(view, YELLOW)[view.shape[0] // 2]
    runs = np.flatnonzero(np.diff(np.pad(row, 1).astype(int))).reshape(-1, 2)
    assert [end - start for start, end in runs] == [3, 3]
    # the inner ends of the two strokes are the region's sides, 40 and 120 of 160 pixels
    assert abs(runs[0][1] - side / 4) <= 1 and abs(runs[1][0] - side * 3 / 4) <= 1


def test_single_pixel_survives_reducing():
    mask = np.zeros((1500, 1000), bool)
    mask[777, 333] = True
    photo = np.full((1500, 1000, 3), 90, np.uint8)
    views = ImageViews(
        RegionImage([Region.from_mask(1, mask)], 1000, 1500, photo),
        ViewSettings(min_side=0, max_side=75),
    )
    view = views.contoured_image(1)
    assert view.shape == (75, 50, 3)
    rows, columns = np.nonzero(is_color(view, YELLOW))
    assert abs(rows.mean() - 777 / 20) < 1.5 and abs(columns.mean() - 333 / 20) < 1.5
    assert (view == 90).all(-1)[38, 16]  # and it is not painted over


def test_contoured_parent_as_in_section_3(image, exact):
    window, ring = window_of("block", "hole"), ring_of(MASKS["hole"], 3)
    expected = np.where(MASKS["hole"][..., None], image.pixels, blur(image.pixels, 100.0))
    expected[ring] = YELLOW
    view = exact.contoured_parent("hole", "block", "whole")
    np.testing.assert_array_equal(view, expected[window])


def test_part_that_reaches_out_of_its_parent_is_shown_whole(exact):
    view = exact.contoured_parent("outside", "block")
    rows, columns = window_of("block", "outside")
    assert view.shape[:2] == (rows.stop - rows.start, columns.stop - columns.start)
    assert is_color(view, YELLOW).sum() == ring_of(MASKS["outside"], 3).sum()


def test_contoured_parent_that_is_the_image(image, exact):
    ring = ring_of(MASKS["block"], 3)
    expected = np.where(MASKS["block"][..., None], image.pixels, blur(image.pixels, 100.0))
    expected[ring] = YELLOW
    np.testing.assert_array_equal(exact.contoured_parent("block", None), expected)


def test_main_object_sharp_as_published(image):
    views = ImageViews(image, dataclasses.replace(EXACT, context_blur="main_object"))
    ring = ring_of(MASKS["pixel"], 3)
    expected = np.where(MASKS["block"][..., None], image.pixels, blur(image.pixels, 100.0))
    expected[ring] = YELLOW
    view = views.contoured_parent("pixel", "hole", "block")
    np.testing.assert_array_equal(view, expected[window_of("block", "pixel")])
    whole = views.contoured_parent("block", None, None)
    np.testing.assert_array_equal(whole, views.contoured_image("block"))


@pytest.mark.parametrize("sigma", [2, 15, 30, 100])
@pytest.mark.parametrize("name", ["astronaut", "edges"])
def test_blur_is_within_three_levels_of_the_exact_gaussian(name, sigma):
    photo = np.zeros((233, 317, 3), np.uint8)
    photo[60:, 100:] = 255  # the hardest edge there is
    if name == "astronaut":
        photo = load_sa1b(PHOTOS / "astronaut.json").pixels
    wanted = ndimage.gaussian_filter(photo.astype(float), (sigma, sigma, 0), mode="reflect")
    error = np.abs(blur(photo, sigma) - wanted)
    assert error.max() <= 3 and error.mean() <= 0.5


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 5))
def test_grow_is_all_within_a_distance(data, radius):
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    cells = data.draw(st.lists(st.booleans(), min_size=shape[0] * shape[1], max_size=144))
    mask = np.array(cells[: shape[0] * shape[1]]).reshape(shape)
    padded = np.pad(mask, radius)
    near = ndimage.distance_transform_edt(~padded) <= radius + 0.5
    np.testing.assert_array_equal(grow(mask, radius), near if mask.any() else padded)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_box_is_shown_whole_at_any_size(data):
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    columns, rows = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    side = data.draw(st.integers(1, 200))
    cut = Cut(x, y, np.ones((rows, columns), bool))
    kept = ViewSettings(min_side=side, max_side=side)
    frame = frame_of([cut.box], height, width, kept)
    assert max(frame.width, frame.height) == side
    shown = frame.mapped(cut)
    assert shown.mask.any() and min(shown.x, shown.y) >= 0
    rows_shown, columns_shown = shown.box.window
    assert rows_shown.stop <= frame.height and columns_shown.stop <= frame.width
    area = rows * columns * frame.width * frame.height / (frame.box.rows * frame.box.columns)
    # a pixel of rounding along the border, and corners rounded within a photo's pixel
    border = 2 * (shown.mask.shape[0] + shown.mask.shape[1]) + 4
    assert abs(shown.mask.sum() - area) <= border + 0.4 * (frame.width / frame.box.columns) ** 2
    canvas = np.zeros((frame.height, frame.width, 3), np.uint8)
    draw_contour(canvas, shown, 3, YELLOW)
    whole = np.zeros((frame.height, frame.width), bool)
    whole[shown.box.window] = shown.mask
    yellow = is_color(canvas, YELLOW)
    np.testing.assert_array_equal(yellow & ~whole, ring_of(whole, 3) if not whole.all() else 0)


def test_numbers_in_the_middle_of_large_regions(image):
    views = ImageViews(image, WHOLE)
    view = views.numbered("block", ["edge"])
    pixels = 14  # the least that can be read
    for index, name in enumerate(("block", "edge")):
        rows, columns = np.nonzero(MASKS[name])
        patch, opacity = number_patch(index, pixels)
        top = round(rows.mean().astype(int) - patch.shape[0] / 2)
        left = round(columns.mean().astype(int) - patch.shape[1] / 2)
        shown = view[top : top + patch.shape[0], left : left + patch.shape[1]]
        solid = opacity[..., 0] == 1
        np.testing.assert_array_equal(shown[solid], patch[solid])
        assert is_color(patch, number_color(index)).sum() > 10


def test_target_is_blue_and_others_are_in_their_colors(image):
    views = ImageViews(image, WHOLE)
    names = ["outside", "hole", "edge", "pixel"]
    view = views.numbered(names[0], names[1:])
    for index, name in enumerate(names):
        ring = ring_of(MASKS[name], 3)
        mine = is_color(view, number_color(index))
        # numbers may stand on a part of the contour
        assert (mine & ring).sum() > 0.6 * ring.sum()
        assert is_color(view, BLUE).sum() < 2 * ring_of(MASKS[names[0]], 3).sum()


def test_numbers_leave_small_regions_free(image):
    views = ImageViews(image, WHOLE)
    view = views.numbered("pixel", ["parts"])
    for name in ("pixel", "parts"):
        np.testing.assert_array_equal(view[MASKS[name]], image.pixels[MASKS[name]])


def squares(places: list[tuple[int, int, int]]) -> list[Cut]:
    """(x, y, side) each."""
    return [Cut(x, y, np.ones((side, side), bool)) for x, y, side in places]


def center(box) -> tuple[int, int]:
    return box.x + box.columns // 2, box.y + box.rows // 2


def test_small_region_gets_its_number_beside():
    cuts = squares([(100, 80, 6), (20, 20, 60)])
    small, large = place_numbers(cuts, [(12, 16), (12, 16)], 200, 300, gap=5)
    assert center(large) == middle(cuts[1])
    assert small.x == 100 + 6 + 5 and abs(center(small)[1] - 83) <= 1


@pytest.mark.parametrize("x, y", [(294, 80), (294, 0), (0, 194), (294, 194)])
def test_number_beside_stays_in_the_picture(x, y):
    (spot,) = place_numbers(squares([(x, y, 6)]), [(12, 16)], 200, 300, gap=5)
    assert spot.x >= 0 and spot.y >= 0
    assert spot.x + spot.columns <= 300 and spot.y + spot.rows <= 200
    assert not (x - 12 < spot.x < x + 6 and y - 16 < spot.y < y + 6)  # off the region


def test_region_around_another_gets_its_number_where_the_other_is_not():
    cuts = squares([(20, 20, 160), (80, 80, 40)])
    large, small = place_numbers(cuts, [(12, 16), (12, 16)], 200, 200, gap=5)
    assert center(small) == middle(cuts[1])
    assert 20 <= center(large)[0] < 180 and 20 <= center(large)[1] < 180
    assert not (80 <= center(large)[0] < 120 and 80 <= center(large)[1] < 120)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 63), min_size=1, max_size=12, unique=True), st.integers(3, 22))
def test_numbers_of_separate_regions_never_collide(cells, side):
    cuts = squares([(40 + 50 * (c % 8), 40 + 50 * (c // 8), side) for c in cells])
    sizes = [(12, 16)] * len(cuts)
    spots = place_numbers(cuts, sizes, 480, 480, gap=5)
    assert all(one.overlap(other) == 0 for one, other in itertools.combinations(spots, 2))
    for spot, cut in itertools.product(spots, cuts):
        canvas = np.zeros((480, 480), bool)
        canvas[cut.box.window] = cut.mask
        assert canvas[spot.window].sum() <= COVERED * cut.mask.sum()
    for spot, cut in zip(spots, cuts, strict=True):  # and each is next to its own region
        near = [np.hypot(*np.subtract(center(spot), middle(one))) for one in cuts]
        assert near[cuts.index(cut)] == min(near)


def test_colors_are_far_apart_and_none_is_blue():
    colors = np.array([BLUE, *LOOK_ALIKE_COLORS])
    lab = rgb2lab(colors[None] / 255)[0]
    for one, other in itertools.combinations(lab, 2):
        assert deltaE_ciede2000(one, other) > 20  # 2 is just visible
    assert min(deltaE_ciede2000(lab[0], other) for other in lab[1:]) > 30
    hue, saturation, value = rgb2hsv(colors[None] / 255)[0].T * [[360], [1], [1]]
    bluish = (hue > 165) & (hue < 285) & (saturation > 0.15) & (value > 0.1)
    assert bluish.tolist() == [True] + [False] * len(LOOK_ALIKE_COLORS)
    assert number_color(0) == BLUE
    assert BLUE not in {number_color(index) for index in range(1, 60)}


def test_numbered_crop_holds_all_of_them(exact):
    view = exact.numbered("hole", ["outside", "pixel"])
    rows, columns = window_of("hole", "outside", "pixel")
    assert view.shape[:2] == (rows.stop - rows.start, columns.stop - columns.start)


def test_number_is_legible_on_any_ground():
    for index in range(13):
        patch, opacity = number_patch(index, 20)
        fill = is_color(patch, number_color(index)) & (opacity[..., 0] == 1)
        outline = is_color(patch, (0, 0, 0)) | is_color(patch, (255, 255, 255))
        assert fill.sum() > 25 and (outline & (opacity[..., 0] > 0.9) & ~fill).sum() > 25
        luminance = np.dot(number_color(index), (0.299, 0.587, 0.114))
        around = patch[outline & ~fill].mean()
        assert abs(around - luminance) > 100


def test_boxes_are_around_the_contours_in_their_colors(image):
    view = ImageViews(image, BOXES).numbered("block", ["outside", "pixel"])
    for index, name in enumerate(("block", "outside", "pixel")):
        rows, columns = np.nonzero(MASKS[name])
        top, left = rows.min() - 6, columns.min() - 6  # 3 of contour, 1 between, 2 of line
        bottom, right = rows.max() + 7, columns.max() + 7
        lines = np.zeros((HEIGHT, WIDTH), bool)
        lines[top:bottom, left:right] = True
        lines[top + 2 : bottom - 2, left + 2 : right - 2] = False
        mine = is_color(view, number_color(index))
        # labels, and boxes of numbers before it, may be on a part of the line
        assert (mine & lines).sum() > 0.6 * lines.sum()
        assert (mine & ring_of(MASKS[name], 3)).any()


def test_a_box_at_the_edge_of_the_picture_is_drawn_inside(image):
    view = ImageViews(image, BOXES).numbered("whole", [])
    frame = np.ones((HEIGHT, WIDTH), bool)
    frame[2:-2, 2:-2] = False
    assert is_color(view, BLUE)[frame].all()


def test_labels_are_filled_and_their_numbers_legible():
    for index in range(13):
        patch, opacity = number_patch(index, 20, True)
        assert (opacity == 1).all()
        color, fill = is_color(patch, number_color(index)), patch[2, 2]
        assert set(fill.tolist()) in ({0}, {255})
        assert color[0].all() and color[-1].all() and color[:, 0].all() and color[:, -1].all()
        luminance = np.dot(number_color(index), (0.299, 0.587, 0.114))
        assert abs(float(fill[0]) - luminance) > 100
        assert color[1:-1, 1:-1].sum() > 25  # the digits


def test_digits_and_boxes_differ_in_stage_4_alone(image, exact):
    boxes = ImageViews(image, dataclasses.replace(EXACT, numbers="boxes"))
    assert ViewSettings().numbers == "boxes"
    for view in ("target_crop", "contoured_image"):
        np.testing.assert_array_equal(getattr(boxes, view)("hole"), getattr(exact, view)("hole"))
    assert not np.array_equal(boxes.numbered("hole", ["edge"]), exact.numbered("hole", ["edge"]))


def test_stage_views_are_in_the_order_of_the_prompts(image, exact):
    tree = build_mask_tree(image.regions)
    assert tree.ancestors("hole") == ["block", "whole"]
    context = Context(current="x", look_alikes=["edge", "outside"])
    shown = {
        stage: stage_views(stage, exact, tree, "hole", context)
        for stage in ("short", "long", "unique", "verify")
    }
    crop, contoured = exact.target_crop("hole"), exact.contoured_image("hole")
    wanted = {
        "short": [exact.contoured_parent("hole", "block", "whole"), crop],
        "long": [contoured],
        "unique": [exact.numbered("hole", ["edge", "outside"])],
        "verify": [contoured, crop],
    }
    for stage, views in wanted.items():
        for one, other in zip(shown[stage], views, strict=True):
            np.testing.assert_array_equal(one, other)


def test_views_are_new_arrays(image):
    views = ImageViews(image, EXACT)
    before = image.pixels.copy()
    calls = (
        lambda: views.target_crop("hole"),
        lambda: views.contoured_image("hole"),
        lambda: views.contoured_parent("block", None),
        lambda: views.numbered("hole", ["edge"]),
    )
    for call in calls:
        first = call()
        kept = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(call(), kept)
    np.testing.assert_array_equal(image.pixels, before)


def test_photo_is_blurred_once_and_threads_agree(image, monkeypatch):
    calls = []
    monkeypatch.setattr(views_module, "blur", lambda *args: calls.append(1) or blur(*args))
    views = ImageViews(image)
    work = [(name, kind) for name in MASKS for kind in range(3)] * 2

    def view(job: tuple[str, int]) -> np.ndarray:
        name, kind = job
        if kind == 0:
            return views.target_crop(name)
        return views.contoured_image(name) if kind == 1 else views.contoured_parent(name, "block")

    alone = [view(job) for job in work]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(view, work))
    assert len(calls) == 1
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_errors_name_what_is_wrong(exact, image):
    with pytest.raises(KeyError, match="no region 'nothing'"):
        exact.target_crop("nothing")
    with pytest.raises(FileMissingError, match="the photo"):
        ImageViews(RegionImage(image.regions, WIDTH, HEIGHT))


@pytest.mark.parametrize(
    "changes",
    [
        {"blur_sigma": 0},
        {"blur_sigma": float("nan")},
        {"contour_width": 0},
        {"margin": -0.1},
        {"min_side": 900, "max_side": 800},
        {"context_blur": "none"},
        {"look_alike_frame": "none"},
        {"numbers": "none"},
    ],
)
def test_bad_settings_are_named(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        ViewSettings(**changes)


def test_settings_explain_themselves():
    assert all(entry.metadata["help"] for entry in dataclasses.fields(ViewSettings))
    assert ViewSettings().blur_sigma == 100 and ViewSettings().contour_width == 3


if __name__ == "__main__":
    REFERENCES.mkdir(exist_ok=True)
    for each in DRAWN:
        Image.fromarray(drawn(each)).save(REFERENCES / f"{each}.png", optimize=True)
