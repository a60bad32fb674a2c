"""Regions of a photo found by SAM (Kirillov et al. 2023) through transformers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ureca_lib.devices import chosen_device
from ureca_lib.regions import Region, RegionImage, load_image
from ureca_lib.regions.photo import Photo

if TYPE_CHECKING:
    import torch
    from transformers import Pipeline

SAM_MODEL = "facebook/sam-vit-base"
_MODEL_TYPES = ("sam", "sam_hq")
_BATCH_BYTES = 2**29  # of a batch's masks at the photo's size
_MASKS_PER_POINT = 3  # whole, part and subpart


class SegmentationUnavailable(RuntimeError):  # noqa: N818, as HTTP has it: says what is the case
    """The model that was asked for cannot be had or run on this machine."""


@dataclass(frozen=True)
class SamConfig:
    """What SAM is asked, and which of its masks are kept; defaults are those of its authors."""

    points_per_side: int = field(
        default=32, metadata={"help": "it is asked at so many points by so many, evenly spread"}
    )
    pred_iou_threshold: float = field(
        default=0.88, metadata={"help": "keep masks of which the model predicts a higher IoU"}
    )
    stability_threshold: float = field(
        default=0.95, metadata={"help": "keep masks that change less than this with the cutoff"}
    )
    box_iou_threshold: float = field(
        default=0.7, metadata={"help": "of masks whose boxes have a higher IoU keep the best"}
    )
    points_per_batch: int | None = field(
        default=None, metadata={"help": "most points at a time; None takes what fits into 0.5 GiB"}
    )

    def __post_init__(self) -> None:
        for name in ("points_per_side", "points_per_batch"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            if not whole and not (value is None and name == "points_per_batch"):
                raise ValueError(f"{name} is a whole number from 1, not {value!r}")
        for name in ("pred_iou_threshold", "stability_threshold", "box_iou_threshold"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{name} is a number, not {value!r}")
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is between 0 and 1, not {value!r}")


def sam_regions(
    image: Photo,
    model: str | Path = SAM_MODEL,
    device: str | torch.device | None = "cpu",
    config: SamConfig | None = None,
    **changes: Any,
) -> RegionImage:
    """Find the regions of a photo with SAM (method "sam").

    transformers' mask generation asks at a grid of points and keeps masks that SAM is sure of,
    that are stable, and whose boxes differ. Needs weights, not torchvision.

    Args:
        image: a path, a PIL image, or an array that `load_image` takes.
        model: hub id or local folder of a SAM or SAM-HQ checkpoint in safetensors.
        device: where it runs; None for CUDA where there is one.
        config: settings; None takes the defaults.
        changes: single settings to change, such as `points_per_side=16`.

    Returns:
        The photo with its regions, largest first, ids from 1, no two alike; perhaps none.

    Raises:
        RegionError: the photo cannot be read.
        SegmentationUnavailable: the checkpoint or the device cannot be had.
        ValueError: a setting out of its range.
    """
    config = replace(config or SamConfig(), **changes)
    pixels = load_image(image)
    height, width = pixels.shape[:2]
    points = config.points_per_side**2
    most = config.points_per_batch or _points_per_batch(height, width)
    # transformers 5.6 recognizes the last batch of points only where all are of one size
    batch = next(size for size in range(min(most, points), 0, -1) if points % size == 0)
    found = _load_pipeline(str(model), device)(
        Image.fromarray(pixels),
        points_per_crop=config.points_per_side,
        points_per_batch=batch,
        pred_iou_thresh=config.pred_iou_threshold,
        stability_score_thresh=config.stability_threshold,
        crops_nms_thresh=config.box_iou_threshold,
    )
    regions = _regions(found["masks"])
    if not isinstance(image, (str, Path)):
        return RegionImage(regions, width, height, pixels)
    return RegionImage(regions, width, height, image, file_name=Path(image).name)


def _points_per_batch(height: int, width: int) -> int:
    """As many as keep a batch's masks, float32 at the photo's size, within the budget."""
    return min(64, max(1, _BATCH_BYTES // (4 * _MASKS_PER_POINT * height * width)))


def _regions(rles: list[dict[str, Any]]) -> list[Region]:
    """Regions, largest first, without empty masks and repetitions."""
    kept = [Region(0, rle) for rle in rles if sum(rle["counts"][1::2])]
    kept = list({region.rle["counts"]: region for region in kept}.values())
    kept.sort(key=lambda region: -region.area)
    return [Region(number, region.rle) for number, region in enumerate(kept, start=1)]


def _load_pipeline(model: str, device: str | torch.device | None) -> Pipeline:
    # here, because transformers takes seconds to import and superpixels do without it
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForMaskGeneration, pipeline

    from ureca_lib.segment.sam_processor import MaskProcessor

    try:
        kind = AutoConfig.from_pretrained(model).model_type
        if kind not in _MODEL_TYPES:
            raise SegmentationUnavailable(f"'{model}' is a {kind} model, not SAM or SAM-HQ")
        processor = MaskProcessor.from_pretrained(model)
        network, report = AutoModelForMaskGeneration.from_pretrained(
            model, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, SegmentationUnavailable):
            raise
        place = "in that folder" if Path(model).is_dir() else "as a local folder or on the hub"
        raise SegmentationUnavailable(
            f"no SAM checkpoint '{model}' {place} ({_first_line(error)})"
        ) from error
    if report["missing_keys"]:
        lacking = sorted(report["missing_keys"])[0]
        raise SegmentationUnavailable(f"the weights of '{model}' lack {lacking} and perhaps more")
    try:
        network = network.to(chosen_device(None) if device is None else torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise SegmentationUnavailable(
            f"device '{device}' cannot be used ({_first_line(error)})"
        ) from error
    return pipeline(
        "mask-generation", model=network, image_processor=processor, device=network.device
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
