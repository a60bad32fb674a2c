"""The explorer: click regions, read their captions, draw regions and review captions."""

from ureca_lib.explorer.explorer import RegionExplorer
from ureca_lib.explorer.state import AttributeCaptioner, Captioner, load_captioner

__all__ = ["AttributeCaptioner", "Captioner", "RegionExplorer", "load_captioner"]
