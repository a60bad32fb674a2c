"""What figure tests share: text of a figure, and small images with regions and captions."""

from __future__ import annotations

from collections import Counter

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from ureca_lib.mask_tree import MaskTree, build_mask_tree
from ureca_lib.regions import Region, RegionImage


def words_of(figure: Figure) -> Counter[str]:
    """Every word that stands on a figure, and how often: lines are broken anywhere."""
    return Counter(word for text in figure.findobj(Text) for word in text.get_text().split())


def says(figure: Figure, text: str) -> bool:
    """Whether all words of a text stand on a figure."""
    found = words_of(figure)
    return all(found[word] >= count for word, count in Counter(text.split()).items())


def nested_image(width: int = 160, height: int = 120) -> tuple[RegionImage, MaskTree]:
    """Two boxes side by side (1, 2), each with a part (11, 21), and one part of a part (111)."""
    boxes = {
        1: (5, 10, 70, 95),
        11: (12, 20, 50, 60),
        111: (20, 30, 18, 22),
        2: (85, 10, 70, 95),
        21: (95, 30, 12, 12),
    }
    names = {1: "box", 2: "box", 11: "lid", 21: "lid", 111: "knob"}
    regions = []
    for region_id, (x, y, columns, rows) in boxes.items():
        mask = np.zeros((height, width), bool)
        mask[y : y + rows, x : x + columns] = True
        regions.append(Region.from_mask(region_id, mask, names[region_id]))
    pixels = np.random.default_rng(0).integers(60, 200, (height, width, 3), np.uint8)
    image = RegionImage(regions, width, height, pixels)
    return image, build_mask_tree(image)


LONG = (
    "The tall box on the left of the picture, which is brown and has a large lid with a round knob "
    "in its middle, costs $5 and stands beside another one that is nearly as tall."
)
