"""The explorer: people click regions, read their captions, draw their own, and review them."""

from ureca_lib.explorer.captioners import AttributeCaptioner, Captioner, load_captioner
from ureca_lib.explorer.explorer import RegionExplorer

__all__ = ["AttributeCaptioner", "Captioner", "RegionExplorer", "load_captioner"]
