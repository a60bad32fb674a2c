"""The explorer's view as a figure: for papermill, exported pages and papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from IPython.core.pylabtools import print_figure
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from ureca_lib.explorer.geometry import outline_rings
from ureca_lib.figures.outlines import draw_outline, draw_photo
from ureca_lib.figures.style import (
    FAINT,
    INK,
    PAGE_WIDTH,
    PALETTE,
    TARGET_COLOR,
    fitted,
    sheet,
    text_height,
    write,
)
from ureca_lib.regions import Region

_PANEL, _GAP = 3.15, 0.15  # inches of width
_RIVAL = PALETTE[4]  # as in explorer.css
_VERDICTS = {"good": ("✓ ", PALETTE[2]), "bad": ("✗ ", PALETTE[1]), "": ("", INK)}
_FAINT = {"color": FAINT, "size": 6.5}


def explorer_figure(
    pixels: np.ndarray, regions: Sequence[Region], view: Mapping[str, Any], note: str = ""
) -> Figure:
    """Draw the photo with a region and its rivals, and beside it the content of the panel.

    Args:
        pixels: (H, W, 3) uint8.
        regions: of the image, in the order to which the view's places refer.
        view: the panel's content, as the browser gets it; see `RegionExplorer`.
        note: last line of the panel.
    """
    height, width = pixels.shape[:2]
    lines = [*_panel_lines(view), (note, _FAINT)]
    # bold letters are about a tenth wider
    blocks = [(fitted(text, 0.9 * _PANEL, style["size"]), style) for text, style in lines if text]
    taken = sum(text_height(block, style["size"]) + 0.04 for block, style in blocks)
    wide = PAGE_WIDTH - _PANEL - _GAP
    tall = max(wide * height / width, taken + 0.1)
    figure, ((photo, panel),) = sheet([wide, _PANEL], [tall], _GAP)
    photo.set_anchor("N")
    draw_photo(photo, pixels)
    for region in regions:
        draw_outline(photo, region, "white", 0.5, alpha=0.75)
    for number, rival in enumerate(view["rivals"], 1):
        draw_outline(photo, regions[rival["place"]], _RIVAL, 1.2)
        # numbers stand apart also where outlines are the same
        ring = max(outline_rings(regions[rival["place"]]), key=len)
        place = ring[len(ring) * number // (len(view["rivals"]) + 1)]
        circle = {"boxstyle": "circle,pad=0.15", "fc": _RIVAL, "ec": "black", "lw": 0.5}
        style = {"fontsize": 6, "ha": "center", "va": "center", "clip_on": True}
        photo.text(*place, str(number), bbox=circle, **style)
    if view["selected"] is not None:
        draw_outline(photo, regions[view["selected"]], TARGET_COLOR, 2.0)
    down = 0.1
    for block, style in blocks:
        down = write(panel, block, down=down, **style) + 0.04
    return figure


def _panel_lines(view: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Texts of the panel and their styles."""
    lines = [(" › ".join(crumb["label"] for crumb in view["crumbs"]), _FAINT)]
    if view["selected"] is None:
        return [*lines, (view["facts"], _FAINT)]
    lines.append((view["caption"] or "(no caption)", {"weight": "bold", "size": 8.5}))
    if view["score"] is not None:
        lines.append((f"mean log-probability {view['score']}", _FAINT))
    mark, color = _VERDICTS[view["verdict"]["kind"]]
    lines.append((mark + view["verdict"]["text"], {"color": color, "size": 7}))
    if view["own"] is not None:
        lines.append((f"this region: {view['own']:.0%}", {"size": 7}))
    for number, rival in enumerate(view["rivals"], 1):
        clash = f" ({rival['clash']})" if rival["clash"] else ""
        chance = "" if rival["probability"] is None else f": {rival['probability']:.0%}"
        lines.append((f"{number}  {rival['label']}{clash}{chance}", {"size": 7}))
        lines.append((rival["caption"], _FAINT))
    return lines


def figure_png(figure: Figure, dpi: int = 110) -> bytes:
    """Encode a figure as PNG, and close it."""
    plt.close(figure)
    return print_figure(figure, "png", None, dpi=dpi)
