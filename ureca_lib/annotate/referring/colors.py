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

from functools import cache
from itertools import combinations

import numpy as np
from matplotlib.colors import XKCD_COLORS, to_rgb
from scipy.spatial import cKDTree
from skimage.color import rgb2lab

# name: the CIELAB lightness below which it is dark, and above which it is light, and the last
# words of survey names that are kinds of it; none for the first three, which are no hues
_NAMES: dict[str, tuple[float, float, tuple[str, ...]]] = {
    "black": (-np.inf, np.inf, ()),
    "white": (-np.inf, np.inf, ()),
    "grey": (40, 68, ()),
    "red": (33, 62, ("red", "maroon", "crimson", "scarlet")),
    "orange": (50, 80, ("orange",)),
    "yellow": (65, 94, ("yellow", "gold", "mustard")),
    "green": (38, 74, ("green", "olive", "lime")),
    "blue": (33, 66, ("blue", "navy", "azure", "cyan")),
    "purple": (28, 62, ("purple", "violet", "lavender", "lilac", "plum")),
    "pink": (52, 82, ("pink", "magenta", "rose", "salmon")),
    "brown": (28, 54, ("brown", "chocolate", "umber")),
    "beige": (-np.inf, np.inf, ("beige", "tan", "sand")),
}
BASIC_COLORS = tuple(_NAMES)
_BLACK, _WHITE, _GREY = range(3)
# every name in each tone: 3 * place of the name + place of the tone
_LABELS = [tone + name for name in BASIC_COLORS for tone in ("", "dark ", "light ")]
_PALE = {"white", "light grey"}  # white things in the shade are light grey, but not called so
_NEIGHBORS = 7  # survey colors that vote
_SAMPLED = 20_000  # pixels of a region above which its color is taken from a sample

SAID_SHARE = 0.6  # of the pixels that have a name for it to be said
FITS_SHARE = 0.2  # of the pixels that have a name for it not to be ruled out
_BORDER = 9.0  # CIELAB units around a region's color that may be read as another name
_PAIR_SHARE, _PAIR_TOTAL, _PAIR_CONTRAST = 0.25, 0.85, 35.0


def color_bins(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 sRGB -> (H, W) uint16, the cell of a 32 x 32 x 32 grid each pixel is in."""
    cells = (pixels >> 3).astype(np.uint16)
    return (cells[..., 0] << 10) | (cells[..., 1] << 5) | cells[..., 2]


def region_color(bins: np.ndarray) -> tuple[tuple[str, ...], frozenset[str]]:
    """Color names of a region.

    Args:
        bins: (N,) cells, as `color_bins` gives them, of its pixels or of a sample of them.

    Returns:
        Names that are said of it, the plainest first, such as "brown" and "dark brown", or "black
        and white" for two that contrast; and all names that fit it.
    """
    if not bins.size:
        return (), frozenset()
    used, counts = np.unique(bins, return_counts=True)
    weights, lab, labels = counts / bins.size, cell_colors()[used], _cell_labels()[used]
    tones = np.bincount(labels, weights, len(_LABELS)).reshape(-1, 3)
    shares = tones.sum(1)
    # mean colors of the two names that most pixels have
    first, second = (int(name) for name in np.argsort(-shares, kind="stable")[:2])
    means = [
        np.average(lab[labels // 3 == name], axis=0, weights=weights[labels // 3 == name])
        for name in (first, second)
        if shares[name]
    ]
    fits = _fitting(shares, tones, means[0])
    said: list[str] = []
    if shares[first] >= SAID_SHARE:
        tone = int(tones[first].argmax())
        if first != _GREY or not fits & _PALE:
            said.append(BASIC_COLORS[first])
        if tone and tones[first, tone] >= SAID_SHARE:
            said.append(_LABELS[3 * first + tone])
    large = shares[second] >= _PAIR_SHARE and shares[first] + shares[second] >= _PAIR_TOTAL
    if large and np.linalg.norm(means[0] - means[1]) >= _PAIR_CONTRAST:
        said.append(_pair(first, second))
    return tuple(said), fits | set(said)


def _fitting(shares: np.ndarray, tones: np.ndarray, mean: np.ndarray) -> frozenset[str]:
    steps = _BORDER * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])  # (7, 3)
    found = {_LABELS[label] for label in _label(mean + steps)}
    found |= {_LABELS[label] for label in np.flatnonzero(tones >= FITS_SHARE)}
    large = np.flatnonzero(shares >= FITS_SHARE)
    found |= {BASIC_COLORS[name] for name in large}
    found |= {name.split()[-1] for name in found}  # what is dark brown is brown
    if found & _PALE:
        found |= _PALE
    return frozenset(found | {_pair(*two) for two in combinations(large, 2)})


def _pair(one: int, other: int) -> str:
    return " and ".join(BASIC_COLORS[name] for name in sorted((one, other)))


@cache
def cell_colors() -> np.ndarray:
    """(32 ** 3, 3) CIELAB of the cells of `color_bins`."""
    cells = np.stack(np.unravel_index(np.arange(32**3), (32, 32, 32)), axis=-1)
    # the cells' middles, stretched so that the first is black and the last white
    return rgb2lab(cells[None] / 31)[0]


@cache
def _cell_labels() -> np.ndarray:
    """(32 ** 3,) place in `_LABELS` of each cell's color."""
    return _label(cell_colors())


def sample_cells(bins: np.ndarray, mask: np.ndarray, least: int = 1) -> np.ndarray:
    """(N,) color cells of pixels inside a mask, on a grid if there are very many.

    Args:
        bins, mask: (h, w) cells and bool.
        least: cells on the grid; with fewer all pixels of the mask are taken.
    """
    step = max(1, int(np.sqrt(mask.size / _SAMPLED)))
    chosen = bins[::step, ::step][mask[::step, ::step]]
    return chosen if chosen.size >= least else bins[mask]


@cache
def _survey() -> tuple[cKDTree, np.ndarray]:
    """The colors of the survey in CIELAB, and the place of the name of each."""
    places = {word: place for place, row in enumerate(_NAMES.values()) for word in row[2]}
    words = {key: key.split(":")[1].replace("/", " ").split()[-1] for key in XKCD_COLORS}
    named = {key: places[word] for key, word in words.items() if word in places}
    rgb = np.array([to_rgb(key) for key in named])
    return cKDTree(rgb2lab(rgb[None])[0]), np.array(list(named.values()))


def _label(lab: np.ndarray) -> np.ndarray:
    """(N, 3) CIELAB -> (N,) place in `_LABELS`."""
    tree, names = _survey()
    distances, nearest = tree.query(lab, k=_NEIGHBORS)  # (N, 7)
    votes = np.eye(len(BASIC_COLORS))[names[nearest]] / (distances[..., None] + 3)
    name = votes.sum(1).argmax(1)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    neutral = chroma < np.where(lightness > 82, 16, 10)
    name[neutral] = _GREY
    name[neutral & (lightness > 84)] = _WHITE
    dark = (neutral & (lightness < 22)) | (lightness < 5) | ((lightness < 16) & (chroma < 14))
    name[dark] = _BLACK
    floor, ceiling = np.array([row[:2] for row in _NAMES.values()])[name].T
    return 3 * name + np.where(lightness < floor, 1, np.where(lightness > ceiling, 2, 0))
