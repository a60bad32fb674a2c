"""The widget: traits that the browser draws, and what the person does there as messages."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

_FRONT_END = Path(__file__).parent / "front_end"


class ExplorerWidget(anywidget.AnyWidget):
    """Photo, outlines and panel in the browser; it holds no logic.

    Everything heavy (`photo`, `outlines`) is sent once. A step of the person changes `view` only,
    a few hundred bytes. All texts reach the page as text nodes, never as HTML.

    Messages that come back are objects with a `kind`; see `RegionExplorer.handle`.
    """

    _esm = _FRONT_END / "explorer.js"
    _css = _FRONT_END / "explorer.css"

    photo = traitlets.Bytes(help="JPEG").tag(sync=True)
    size = traitlets.List(traitlets.Int(), help="[H, W] of the image in pixels").tag(sync=True)
    outlines = traitlets.List(
        help="SVG path data by region, in the order in which they are drawn: largest first"
    ).tag(sync=True)
    answered = traitlets.Int(help="decisions that were taken or refused").tag(sync=True)
    view = traitlets.Dict(help="what is shown now; see `view_of`").tag(sync=True)
