"""What can caption regions for the explorer: a model, or the annotator that needs none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import Region, RegionImage, load_image
from ureca_lib.regions.photo import Photo

ATTRIBUTES = "attributes"


class RegionText(Protocol):
    """A caption: at least these, and where it is known `score` or `unique`."""

    region_id: RegionId
    text: str


@runtime_checkable
class Captioner(Protocol):
    """Anything that captions regions, such as `RegionCaptioner`.

    One that also has `score(image, regions, captions) -> (R, C)` log-likelihoods can be a
    listener. One whose `captions_together` is true describes each region by what tells it from
    the others it is given, so it is always given all regions of the image.
    """

    def caption(self, image: Photo, regions: Sequence[Region]) -> Sequence[RegionText]:
        """A caption for each region, in order."""
        ...


class AttributeCaptioner:
    """`AttributeAnnotator` with the face of a captioner.

    Args:
        annotator: with other settings than its defaults.
    """

    captions_together = True

    def __init__(self, annotator: AttributeAnnotator | None = None):
        self.annotator = annotator or AttributeAnnotator()

    def caption(self, image: Photo, regions: Sequence[Region]) -> list[Any]:
        """Captions by colour, shape and place; `.unique` says whether one fits only its region."""
        if not regions:
            return []
        height, width = regions[0].size
        pixels = load_image(image, expected=(height, width))
        return self.annotator.caption(RegionImage(regions, width, height, pixels))


def load_captioner(model: str | Path, device: str = "cpu") -> Captioner:
    """A captioner by name, for notebooks.

    Args:
        model: "attributes", which needs no model, or the folder of a checkpoint.
        device: where a model runs.

    Raises:
        CheckpointError: no such folder, or not a checkpoint.
    """
    if str(model) == ATTRIBUTES:
        return AttributeCaptioner()
    from ureca_lib.captioner import RegionCaptioner  # transformers takes seconds to import

    return RegionCaptioner.from_pretrained(model, device)
