"""Color names that a person would use for the pixels of a region.

Chromatic names come from a survey: each color takes the name that most of its nearest neighbors
in CIELAB have among the colors that 222,500 sessions named (Munroe, xkcd color survey, 2010, as
matplotlib carries it), reduced to the basic English color terms (Berlin and Kay 1969) and beige.
Black, grey and white are decided by lightness and chroma, so that a photo in grey gets no hue.

Colors are vague, so there are two readings: a name is *said* of a region if most of it clearly has
it, and *fits* it in a wider sense if part of it has it, or if it is close to the border between
two names. A region can only be ruled out by a name that does not fit it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from matplotlib.colors import XKCD_COLORS, to_rgb
from scipy.spatial import cKDTree
from skimage.color import rgb2lab

BASIC_COLORS = (
    *("black", "white", "grey", "red", "orange", "yellow", "green", "blue"),
    *("purple", "pink", "brown", "beige"),
)
TONES = ("", "dark ", "light ")
# last words of survey names: the basic terms, and kinds of them
_SURVEY_WORDS = {name: name for name in BASIC_COLORS[3:]} | {
    **dict.fromkeys(("tan", "sand"), "beige"),
    **dict.fromkeys(("olive", "lime"), "green"),
    **dict.fromkeys(("navy", "azure", "cyan"), "blue"),
    **dict.fromkeys(("violet", "lavender", "lilac", "plum"), "purple"),
    **dict.fromkeys(("maroon", "crimson", "scarlet"), "red"),
    **dict.fromkeys(("magenta", "rose", "salmon"), "pink"),
    **dict.fromkeys(("chocolate", "umber"), "brown"),
    **dict.fromkeys(("gold", "mustard"), "yellow"),
}
_PALE = ("white", "light grey")  # white things in the shade are light grey, but not called so
_NEIGHBORS = 7  # survey colors that vote
_DARK = {"grey": 40, "red": 33, "orange": 50, "yellow": 65, "green": 38, "blue": 33}
_DARK |= {"purple": 28, "pink": 52, "brown": 28}  # below this CIELAB lightness
_LIGHT = {"grey": 68, "red": 62, "orange": 80, "yellow": 94, "green": 74, "blue": 66}
_LIGHT |= {"purple": 62, "pink": 82, "brown": 54}  # above this CIELAB lightness

SAID_SHARE = 0.6  # of the pixels that have a name for it to be said
FITS_SHARE = 0.2  # of the pixels that have a name for it not to be ruled out
_BORDER = 9.0  # CIELAB units around a region's color that may be read as another name
_PAIR_SHARE, _PAIR_TOTAL, _PAIR_CONTRAST = 0.25, 0.85, 35.0


@dataclass(frozen=True)
class RegionColor:
    """The color names of a region: those said of it, plainest first, and those that fit it."""

    said: tuple[str, ...] = ()
    fits: frozenset[str] = frozenset()


def color_name(rgb: tuple[int, int, int]) -> str:
    """The plain name of one sRGB color, each channel 0 to 255."""
    lab = rgb2lab(np.asarray(rgb, float).reshape(1, 1, 3) / 255).reshape(1, 3)
    return BASIC_COLORS[int(_name_lab(lab)[0]) // len(TONES)]


def color_bins(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 sRGB -> (H, W) uint16, the cell of a 32 x 32 x 32 grid each pixel is in."""
    cells = (pixels >> 3).astype(np.uint16)
    return (cells[..., 0] << 10) | (cells[..., 1] << 5) | cells[..., 2]


def region_color(bins: np.ndarray) -> RegionColor:
    """Color names of a region.

    Args:
        bins: (N,) cells, as `color_bins` gives them, of its pixels or of a sample of them.

    Returns:
        Its names, such as "brown" and "dark brown", or "black and white" for two that contrast.
    """
    lab, names = _grid()
    if not bins.size:
        return RegionColor()
    used, counts = np.unique(bins, return_counts=True)
    weights, lab, names = counts / bins.size, lab[used], names[used]
    tones = np.bincount(names, weights, len(BASIC_COLORS) * len(TONES))
    tones = tones.reshape(len(BASIC_COLORS), len(TONES))
    shares = tones.sum(1)
    first, second = np.argsort(-shares, kind="stable")[:2]
    mean = _mean_lab(lab, weights, names, first)
    fits = _fitting(shares, tones, mean)
    said: list[str] = []
    if shares[first] >= SAID_SHARE:
        name, tone = BASIC_COLORS[first], int(tones[first].argmax())
        if name != "grey" or not fits & set(_PALE):
            said.append(name)
        if tone and tones[first, tone] >= SAID_SHARE:
            said.append(TONES[tone] + name)
    if shares[second] >= _PAIR_SHARE and shares[first] + shares[second] >= _PAIR_TOTAL:
        contrast = np.linalg.norm(mean - _mean_lab(lab, weights, names, second))
        if contrast >= _PAIR_CONTRAST:
            said.append(_pair(first, second))
    return RegionColor(tuple(said), fits | set(said))


def _fitting(shares: np.ndarray, tones: np.ndarray, mean: np.ndarray) -> frozenset[str]:
    steps = _BORDER * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])  # (7, 3)
    found = {_label(index) for index in np.unique(_name_lab(mean + steps))}
    found |= {_label(index) for index in np.flatnonzero(tones.ravel() >= FITS_SHARE)}
    found |= {BASIC_COLORS[index] for index in np.flatnonzero(shares >= FITS_SHARE)}
    found |= {name.split()[-1] for name in found}  # what is dark brown is brown
    if found & set(_PALE):
        found |= set(_PALE)
    large = np.flatnonzero(shares >= FITS_SHARE)
    return frozenset(found | {_pair(one, other) for one, other in combinations(large, 2)})


def _label(index: int) -> str:
    return TONES[index % len(TONES)] + BASIC_COLORS[index // len(TONES)]


def _pair(one: int, other: int) -> str:
    low, high = sorted((int(one), int(other)))
    return f"{BASIC_COLORS[low]} and {BASIC_COLORS[high]}"


def _mean_lab(lab: np.ndarray, weights: np.ndarray, names: np.ndarray, basic: int) -> np.ndarray:
    chosen = names // len(TONES) == basic
    return np.average(lab[chosen], axis=0, weights=weights[chosen])


@cache
def _grid() -> tuple[np.ndarray, np.ndarray]:
    """CIELAB (32 ** 3, 3) and name index (32 ** 3,) of each cell's color."""
    cells = np.stack(np.unravel_index(np.arange(32**3), (32, 32, 32)), axis=-1)
    # the cells' middles, stretched so that the first is black and the last white
    lab = rgb2lab(cells[None] / 31)[0]  # (32 ** 3, 3)
    return lab, _name_lab(lab)


@cache
def _survey() -> tuple[cKDTree, np.ndarray]:
    words = [(key.split(":")[1].replace("/", " ").split()[-1], key) for key in XKCD_COLORS]
    named = [(_SURVEY_WORDS[word], key) for word, key in words if word in _SURVEY_WORDS]
    rgb = np.array([to_rgb(key) for _, key in named])
    names = np.array([BASIC_COLORS.index(name) for name, _ in named])
    return cKDTree(rgb2lab(rgb[None])[0]), names


def _name_lab(lab: np.ndarray) -> np.ndarray:
    """(N, 3) CIELAB -> (N,) index of basic name and tone: basic * len(TONES) + tone."""
    tree, survey = _survey()
    distances, nearest = tree.query(lab, k=_NEIGHBORS)
    votes = np.zeros((len(lab), len(BASIC_COLORS)))
    for rank in range(_NEIGHBORS):
        np.add.at(
            votes, (np.arange(len(lab)), survey[nearest[:, rank]]), 1 / (distances[:, rank] + 3)
        )
    basic = votes.argmax(1)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    neutral = chroma < np.where(lightness > 82, 16, 10)
    basic[neutral] = BASIC_COLORS.index("grey")
    basic[neutral & (lightness > 84)] = BASIC_COLORS.index("white")
    dark = (neutral & (lightness < 22)) | (lightness < 5) | ((lightness < 16) & (chroma < 14))
    basic[dark] = BASIC_COLORS.index("black")
    floor = np.array([_DARK.get(name, -np.inf) for name in BASIC_COLORS])[basic]
    ceiling = np.array([_LIGHT.get(name, np.inf) for name in BASIC_COLORS])[basic]
    tone = np.where(lightness < floor, 1, np.where(lightness > ceiling, 2, 0))
    return basic * len(TONES) + tone
