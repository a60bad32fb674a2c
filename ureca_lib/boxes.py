"""A region given as a box in text: what an MLLM without masks can be told about it."""

from __future__ import annotations

import re

from ureca_lib.conversation import QUESTION
from ureca_lib.regions import Region

BOX_BINS = 128  # of each side of the image; a bin of a 560-pixel canvas is 4.4 pixels wide
BOX_MARKS = ("<box>", "</box>")
NUMBERS = tuple(str(number) for number in range(BOX_BINS))
SCENE_QUESTION = "Describe the image."
_TOLD = re.compile(r" (\d+)".join((BOX_MARKS[0], "", "", "", f" {BOX_MARKS[1]}")))


def box_text(box: tuple[float, float, float, float], size: tuple[int, int]) -> str:
    """A box as words, such as "<box> 12 40 17 55 </box>": left, top, right, bottom.

    Args:
        box: (x, y, w, h) in pixels, w and h the numbers of columns and rows.
        size: (H, W) of the image.

    Returns:
        Each side in `BOX_BINS` parts of the image's width or height: the part that holds the
        first pixel's centre, and the part that holds the last one's.
    """
    x, y, w, h = box
    height, width = size
    ends = ((x, width), (y, height), (x + w - 1, width), (y + h - 1, height))
    parts = [min(BOX_BINS - 1, int((at + 0.5) * BOX_BINS / side)) for at, side in ends]
    return " ".join((BOX_MARKS[0], *map(str, parts), BOX_MARKS[1]))


def told_box(text: str) -> tuple[float, float, float, float] | None:
    """The box that a text tells, in shares of the image: left, top, right, bottom.

    Its ends are those of the parts that `box_text` names, so it is never smaller than the region.

    Returns:
        None where the text tells none.
    """
    told = _TOLD.search(text)
    if told is None:
        return None
    left, top, right, bottom = map(int, told.groups())
    return left / BOX_BINS, top / BOX_BINS, (right + 1) / BOX_BINS, (bottom + 1) / BOX_BINS


def box_question(region: Region, question: str = QUESTION) -> str:
    """A question about a region whose box stands in it, after the image."""
    return f"<image>\n{box_text(region.pixel_box, region.size)}\n{question}"
