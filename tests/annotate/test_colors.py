"""Colour names on known swatches, grey photos and mixtures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ureca_lib.annotate.referring.colors import color_bins, region_color

SWATCHES = {
    "black": [(0, 0, 0), (20, 20, 25), (35, 30, 30)],
    "white": [(255, 255, 255), (245, 245, 240), (230, 230, 230)],
    "grey": [(128, 128, 128), (90, 90, 92), (170, 168, 165), (200, 200, 205)],
    "red": [(255, 0, 0), (200, 20, 30), (139, 0, 0), (160, 45, 20)],
    "orange": [(255, 140, 0), (255, 165, 0), (240, 110, 30)],
    "yellow": [(255, 255, 0), (255, 215, 0), (250, 230, 60)],
    "green": [(0, 128, 0), (0, 255, 0), (34, 139, 34), (107, 142, 35)],
    "blue": [(0, 0, 255), (30, 60, 160), (135, 206, 235), (0, 0, 128), (20, 20, 60)],
    "purple": [(128, 0, 128), (148, 0, 211), (120, 70, 170)],
    "pink": [(255, 192, 203), (255, 105, 180), (250, 150, 180)],
    "brown": [(139, 69, 19), (101, 67, 33), (160, 100, 50), (90, 60, 40)],
}


def flat(*rgb: tuple[int, int, int], side: int = 20) -> np.ndarray:
    """An image of equal stripes of these colours."""
    return np.concatenate([np.full((side, side, 3), one, np.uint8) for one in rgb], axis=1)


def colors_of(pixels: np.ndarray):
    said, fits = region_color(color_bins(pixels).ravel())
    return SimpleNamespace(said=said, fits=fits)


@pytest.mark.parametrize(("name", "rgb"), [(n, c) for n, many in SWATCHES.items() for c in many])
def test_known_swatches_have_the_name_a_person_gives_them(name, rgb):
    found = colors_of(flat(rgb))
    assert name in found.fits
    # white things in the shade are grey, but only the tone is said
    assert name in found.said or (name == "grey" and "light grey" in found.said)


@pytest.mark.parametrize(("name", "many"), SWATCHES.items())
def test_a_typical_swatch_is_said_and_its_opposites_do_not_fit(name, many):
    found = colors_of(flat(many[0]))
    assert found.said[0] == name
    opposites = {"black": "white", "white": "black", "red": "green", "green": "red"}
    opposites |= {"blue": "orange", "orange": "blue", "yellow": "purple", "purple": "yellow"}
    opposites |= {"grey": "red", "pink": "green", "brown": "blue"}
    assert opposites[name] not in found.fits


def test_the_grey_ramp_has_no_hue_and_gets_lighter():
    ladder = ["black", "dark grey", "grey", "light grey", "white"]
    reached = 0
    for level in range(256):
        found = colors_of(flat((level, level, level)))
        assert found.fits <= set(ladder) | {"grey"}, level
        for name in found.said:
            assert ladder.index(name) >= reached or name == "grey", level
        best = found.said[-1] if found.said else ladder[reached]
        reached = max(reached, ladder.index(best))
    assert reached == len(ladder) - 1


def test_dark_and_light_are_said_only_where_they_hold():
    assert colors_of(flat((0, 0, 110))).said == ("blue", "dark blue")
    assert colors_of(flat((150, 200, 245))).said == ("blue", "light blue")
    assert colors_of(flat((40, 90, 190))).said == ("blue",)


def test_two_colors_that_contrast_are_said_together():
    found = colors_of(flat((0, 0, 0), (255, 255, 255)))
    assert found.said == ("black and white",)
    assert {"black", "white"} <= found.fits
    assert colors_of(flat((255, 255, 255), (0, 0, 0))) == found


def test_a_fifth_of_the_pixels_keeps_a_name_from_being_ruled_out():
    red, blue = (255, 0, 0), (0, 0, 255)
    assert "blue" in colors_of(flat(red, red, red, blue)).fits
    assert "blue" not in colors_of(flat(*[red] * 9, blue)).fits
    assert colors_of(flat(*[red] * 9, blue)).said == ("red",)


def test_a_color_on_the_border_is_not_ruled_out_by_its_neighbor():
    # halfway between red and orange neither name may tell two regions apart
    assert {"red", "orange"} <= colors_of(flat((235, 80, 20))).fits


def test_no_pixels_have_no_color():
    assert region_color(np.zeros(0, np.uint16)) == ((), frozenset())


@pytest.mark.parametrize("rgb", [(255, 0, 0), (90, 60, 40), (128, 128, 128), (0, 0, 0)])
def test_what_is_said_fits(rgb):
    noise = np.random.default_rng(0).integers(-25, 26, (40, 40, 3))
    found = colors_of(np.clip(np.array(rgb) + noise, 0, 255).astype(np.uint8))
    assert set(found.said) <= found.fits
