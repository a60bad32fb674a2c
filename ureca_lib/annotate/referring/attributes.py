"""Per-region attributes: noun, color, shape, size and position.

They are measured once for all regions of an image. Words are vague, so each has two readings: a
word is *said* of a region if it clearly holds, and *fits* it if it holds in a wider sense. Only a
region that a word does not fit can be ruled out by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ureca_lib.annotate.cuts import Cut
from ureca_lib.annotate.referring.colors import color_bins, region_color, sample_cells
from ureca_lib.annotate.referring.english import is_plural, plural
from ureca_lib.regions import Region, RegionImage
from ureca_lib.regions.rle import run_lengths

# Nouns of regions without a name. They mean all regions, all that are in no other region, and all
# that are in one, named or not: a cat is a region too.
UNNAMED, UNNAMED_MAIN, UNNAMED_PART = "region", "main region", "part"
NOUNS_WITHOUT_NAME = (UNNAMED, UNNAMED_MAIN, UNNAMED_PART)
_NO_NAMES = ("annotation", "instance", "label", "mask", "object", "segment", "thing", "unknown")
_OWN_SHARE = 0.25  # share of a mask, not covered by smaller regions, that can give its color
_LEAST_SAMPLE = 100  # pixels of a sample; with fewer all pixels are taken
_SHAPE_SIDE = 96  # pixels per side at which shapes are measured
_SHAPE_AREA = 25  # below this area (pixels) no shape word is used and every shape word is accepted


class Outline(NamedTuple):
    """Measures of a mask's outline, on which shape words depend."""

    aspect: float  # columns / rows of the box
    fill: float  # share of the box that the mask covers
    ratio: float  # of the long to the short axis of the ellipse with the same moments
    solid: float  # area / area of that ellipse: 1 for an ellipse, 0.95 for a rectangle
    hole: float  # share of the filled mask that is holes


@dataclass(frozen=True)
class RegionAttributes:
    """Measures of one mask.

    Lengths are in pixels, row 0 is the top, and boxes are (x, y, columns, rows).

    Args:
        said: words of each kind, "color" and "shape", that clearly hold, the plainest first.
        fits: words of both kinds that hold in a wider sense.
    """

    area: int
    center: tuple[float, float]
    box: tuple[int, int, int, int]
    said: Mapping[str, tuple[str, ...]]
    fits: frozenset[str]


def measure_masks(image: RegionImage, keys: Mapping[int | str, bytes]) -> list[RegionAttributes]:
    """Measures of every region of an image, in its order.

    The color is that of the region's own pixels, without those that smaller regions cover, if
    they are at least a quarter of it. Regions with the same mask get the same measures.

    Args:
        image: the regions and the photo.
        keys: of the masks, see `mask_keys`.

    Raises:
        FileMissingError: there is no photo.
    """
    bins = color_bins(image.pixels)
    owner = np.zeros(bins.shape, np.int32)
    distinct = {keys[region.id]: region for region in image}
    order = sorted(distinct, key=lambda key: (-distinct[key].area, key))
    samples = {}
    for rank, key in enumerate(order, 1):
        cut = Cut.of(distinct[key])
        owner[cut.box.window][cut.mask] = rank
        sample = sample_cells(bins[cut.box.window], cut.mask, _LEAST_SAMPLE)
        samples[key] = cut.box, sample, cut.center, shape_words(cut.mask)
    found = {}
    for rank, key in enumerate(order, 1):
        box, sample, center, (shapes, shape_fits) = samples[key]
        area, own = distinct[key].area, owner[box.window] == rank
        if np.count_nonzero(own) >= _OWN_SHARE * area:
            sample = sample_cells(bins[box.window], own, _LEAST_SAMPLE)
        colors, color_fits = region_color(sample)
        said = {"color": colors, "shape": shapes}
        found[key] = RegionAttributes(area, center, box, said, color_fits | shape_fits)
    return [found[keys[region.id]] for region in image]


def region_noun(name: str | None, crowd: bool = False) -> str:
    """The noun in a region's name; "" if there is none.

    Names come from annotators, category lists and mask files: of "car, auto, machine" the first
    synonym is taken, and "tree-merged", "dining_table", "pagoda_02" and "bow_(weapon)" are "tree",
    "dining table", "pagoda" and "bow". An article is dropped.

    Args:
        name: as the file has it.
        crowd: the mask is of several things together: "person" is "people".
    """
    noun = re.split(r"[,;]", name or "")[0]
    noun = re.sub(r"_?\(.*?\)|(-(merged|other|stuff))+$|(?<=[^\W\d])[_-]?\d+$", "", noun.strip())
    noun = " ".join(noun.replace("_", " ").split())
    noun = re.sub(r"^(the|an?) (?=\S)", "", noun, flags=re.IGNORECASE)
    if noun.casefold() in (*_NO_NAMES, *NOUNS_WITHOUT_NAME) or not re.search(r"[^\W\d_]", noun):
        return ""
    return plural(noun) if crowd and not is_plural(noun) else noun


def mask_keys(regions: Iterable[Region]) -> dict[int | str, bytes]:
    """Keys by region id: equal if and only if the masks are, however they are encoded."""
    keys = {}
    for region in regions:
        ends = np.cumsum(run_lengths(region.rle["counts"]))
        places, times = np.unique(ends[ends < ends[-1]], return_counts=True)
        keys[region.id] = places[times % 2 == 1].tobytes()  # runs of no length cancel out
    return keys


def shape_words(mask: np.ndarray) -> tuple[tuple[str, ...], frozenset[str]]:
    """Shape words that are said of a (rows, columns) mask, the plainest first, and that fit it."""
    aspect, fill, ratio, solid, hole = measure_outline(mask)
    # word: whether it is said, and whether it fits. Only a round ring is said to be ring-shaped: a
    # table has a hole too where a cup stands on it
    ring = hole >= 0.25 and ratio < 2 and fill / (1 - hole) <= 0.9
    disk = ratio <= 1.15 and solid >= 0.97 and 0.72 <= fill <= 0.84
    words = {
        "ring-shaped": (ring, hole >= 0.08),
        "round": (disk, ratio <= 1.4 and solid >= 0.88 and fill <= 0.93),
        "square": (fill >= 0.97 and 0.9 <= aspect <= 1.1, fill >= 0.84 and 0.7 <= aspect <= 1.4),
        "rectangular": (fill >= 0.97, fill >= 0.84),
        "tall": (aspect <= 0.4, aspect <= 0.67),
        "wide": (aspect >= 2.5, aspect >= 1.5),
        "long": (ratio >= 3.5, ratio >= 2.2),
    }
    if np.count_nonzero(mask) < _SHAPE_AREA:
        return (), frozenset(words)
    said = tuple(word for word, (clearly, _) in words.items() if clearly)
    return said, frozenset(word for word, holds in words.items() if any(holds))


def measure_outline(mask: np.ndarray) -> Outline:
    """Measure a (rows, columns) mask that is cropped to its box, on a sample of its pixels."""
    rows, columns = mask.shape
    aspect, fill = columns / rows, float(mask.mean())
    step = max(1, -(-max(rows, columns) // _SHAPE_SIDE))
    if min(rows, columns) // step < 4:
        step = 1  # a sample would lose what is thin
    small = np.pad(mask[step // 2 :: step, step // 2 :: step], 1)
    inside = np.argwhere(small)  # (N, 2)
    if len(inside) < 3:
        return Outline(aspect, fill, 1.0, 1.0, 0.0)
    # a pixel is a square of side 1, whose own spread is 1/12
    spread = np.cov(inside.T, bias=True) + np.eye(2) / 12  # (2, 2)
    low, high = np.linalg.eigvalsh(spread)
    ellipse = 4 * np.pi * float(np.sqrt(low * high))
    hole = 1 - len(inside) / np.count_nonzero(ndimage.binary_fill_holes(small))
    return Outline(aspect, fill, float(np.sqrt(high / low)), len(inside) / ellipse, hole)
