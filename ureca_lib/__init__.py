"""URECA: unique region captions. The names that a user meets first, loaded when they are used.

    import ureca_lib

    print(ureca_lib.caption("photo.jpg"))

Importing this package imports nothing heavy: torch and transformers take seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"  # the one place: the packaging reads it from here

_HOMES = {
    "RegionCaptioner": "ureca_lib.captioner",
    "RegionExplorer": "ureca_lib.explorer",
    "annotate_images": "ureca_lib.annotate.run",
    "build_mask_tree": "ureca_lib.mask_tree",
    "caption": "ureca_lib.captioning",
    "load_regions": "ureca_lib.regions",
    "open_captioned": "ureca_lib.datasets.captioned",
    "score_captions": "ureca_lib.evaluate.metrics",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
