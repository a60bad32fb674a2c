"""Masks from SAM, SAM-HQ, SAM 2 and SAM 3: of a whole photo, or at points and in boxes.

transformers' processors for SAM 2 and SAM 3 and its mask-generation pipeline need torchvision.
All that they do around the model is done here instead: resize, normalize, scale coordinates,
resize the masks back, and remove duplicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ureca_lib.devices import chosen_device
from ureca_lib.regions import Region, RegionImage, load_image
from ureca_lib.regions.photo import Photo

if TYPE_CHECKING:
    import torch

SAM_MODEL = "facebook/sam-vit-base"
# the later ones' checkpoints on the hub are those of the video models, of which this is the part
# that works on single images
_PADDED, _SQUARE = ("sam", "sam_hq"), ("sam2", "sam2_video", "sam3_tracker", "sam3_video")
_BATCH_BYTES = 2**29  # of a batch's masks at the photo's size
_MASKS_PER_POINT = 3  # whole, part and subpart
_STABILITY_OFFSET = 1.0  # logits by which the cutoff is moved to see whether a mask is stable

Box = tuple[float, float, float, float]


class SegmentationUnavailable(RuntimeError):  # noqa: N818, named as the status of HTTP
    """The checkpoint or the device is not available on this machine."""


@dataclass(frozen=True)
class SamConfig:
    """Settings of automatic mask generation; the defaults are those of SAM's authors."""

    points_per_side: int = field(
        default=32, metadata={"help": "points per side of the grid that SAM is prompted with"}
    )
    pred_iou_threshold: float = field(
        default=0.88, metadata={"help": "keep masks whose predicted IoU is higher"}
    )
    stability_threshold: float = field(
        default=0.95, metadata={"help": "keep masks whose stability against the cutoff is higher"}
    )
    box_iou_threshold: float = field(
        default=0.7, metadata={"help": "of masks whose boxes overlap more, keep the best"}
    )
    points_per_batch: int | None = field(
        default=None,
        metadata={"help": "most points per batch; None for the number within 0.5 GiB"},
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


@dataclass(frozen=True)
class _Encoded:
    """A photo as the model sees it.

    Attributes:
        size: (H, W) of the photo.
        scale: (x, y) model pixels per photo pixel.
        features: arguments of the model's forward that hold the image.
        resize: (K, M, h, w) logits of the model -> (K, M, H, W).
    """

    size: tuple[int, int]
    scale: tuple[float, float]
    features: dict[str, Any]
    resize: Callable[[torch.Tensor], torch.Tensor]


class Sam:
    """A SAM, SAM-HQ, SAM 2 or SAM 3 checkpoint that is ready to segment photos.

    Args:
        model: hub id or local folder of a checkpoint in safetensors.
        device: where it runs; None for CUDA if there is any.

    Raises:
        SegmentationUnavailable: no such checkpoint, another kind of model, or no such device.
    """

    def __init__(self, model: str | Path = SAM_MODEL, device: str | torch.device | None = "cpu"):
        # here, because transformers takes seconds to import and superpixels do without it
        import torch
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModelForMaskGeneration, SamImageProcessorPil
        from transformers.image_processing_base import ImageProcessingMixin

        model = str(model)
        try:
            self.kind = AutoConfig.from_pretrained(model).model_type
            if self.kind not in (*_PADDED, *_SQUARE):
                raise SegmentationUnavailable(
                    f"'{model}' is a {self.kind} model, not SAM, SAM-HQ, SAM 2 or SAM 3"
                )
            if self.kind in _PADDED:
                self._processor = SamImageProcessorPil.from_pretrained(model)
            else:
                self._statistics, _ = ImageProcessingMixin.get_image_processor_dict(model)
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
            raise SegmentationUnavailable(
                f"the weights of '{model}' lack {lacking} and perhaps more"
            )
        try:
            device = chosen_device(None) if device is None else torch.device(device)
            self.network = network.to(device).eval()
        except (RuntimeError, AssertionError) as error:
            raise SegmentationUnavailable(
                f"device '{device}' cannot be used ({_first_line(error)})"
            ) from error

    def generate(self, pixels: np.ndarray, config: SamConfig) -> list[Region]:
        """Segment everything: prompt with a grid of points, keep confident and distinct masks.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            config: settings.

        Returns:
            Regions, largest first, ids from 1, no two alike; perhaps none.
        """
        import torch

        encoded = self._encode(pixels)
        height, width = encoded.size
        steps = (torch.arange(config.points_per_side) + 0.5) / config.points_per_side
        grid = torch.cartesian_prod(steps, steps).flip(1) * torch.tensor([width, height])
        size = config.points_per_batch or _points_per_batch(height, width)
        regions: list[Region] = []
        scores: list[float] = []
        for points in grid.split(size):
            logits, predicted = self._prompted(encoded, points=points)
            for mask, score in _good(logits.flatten(0, 1), predicted.flatten(), config):
                regions.append(Region.from_mask(0, mask))
                scores.append(score)
        boxes = torch.tensor([_corners(region) for region in regions]).reshape(-1, 4)
        kept = suppress_boxes(boxes, torch.tensor(scores), config.box_iou_threshold)
        return _numbered(regions[index] for index in kept.tolist())

    def at_points(self, pixels: np.ndarray, points: Sequence[tuple[float, float]]) -> list[Region]:
        """Segment the region at each point: of SAM's three masks the one with the highest score.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            points: (x, y) pixels.

        Returns:
            A region per point, with the point as its id.

        Raises:
            SegmentationUnavailable: SAM sees nothing at a point.
        """
        import torch

        logits, scores = self._prompted(self._encode(pixels), points=torch.tensor(points))
        masks = logits[torch.arange(len(points)), scores.argmax(1)] > 0  # (K, M, H, W) -> (K, H, W)
        return [
            _region(mask, "point {:g},{:g}".format(*point))
            for mask, point in zip(masks, points, strict=True)
        ]

    def in_boxes(self, pixels: np.ndarray, boxes: Sequence[Box]) -> list[Region]:
        """Segment the region in each box.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            boxes: (x, y, width, height) pixels.

        Returns:
            A region per box, with the box as its id.

        Raises:
            SegmentationUnavailable: SAM sees nothing in a box.
        """
        import torch

        corners = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in boxes])
        logits, _ = self._prompted(self._encode(pixels), boxes=corners)
        return [
            _region(mask, "box {:g},{:g},{:g},{:g}".format(*box))
            for mask, box in zip(logits[:, 0] > 0, boxes, strict=True)
        ]

    def _encode(self, pixels: np.ndarray) -> _Encoded:
        """(H, W, 3) uint8 -> the image's features, computed once for all prompts."""
        import torch
        from torch.nn.functional import interpolate

        size = pixels.shape[:2]
        if self.kind in _PADDED:
            # the longer side is resized to the model's, the rest is padding
            inputs = self._processor(Image.fromarray(pixels), return_tensors="pt")
            values, resized = inputs["pixel_values"], inputs["reshaped_input_sizes"]

            def resize(logits: torch.Tensor) -> torch.Tensor:
                return self._processor.post_process_masks(
                    logits[None], [size], resized, binarize=False
                )[0]

            target = resized[0].tolist()
        else:
            # the photo is squeezed to the model's square, whatever its shape
            side = self.network.config.prompt_encoder_config.image_size
            target = [side, side] if isinstance(side, int) else list(side)
            small = Image.fromarray(pixels).resize(target[::-1], Image.Resampling.BILINEAR)
            values = (
                torch.tensor(np.asarray(small)).permute(2, 0, 1) / 255
            )  # (S, S, 3) -> (3, S, S)
            mean, std = (
                torch.tensor(self._statistics[name])[:, None, None]
                for name in ("image_mean", "image_std")
            )
            values = ((values - mean) / std)[None]

            def resize(logits: torch.Tensor) -> torch.Tensor:
                return interpolate(logits, size, mode="bilinear", align_corners=False)

        with torch.inference_mode():
            features = self.network.get_image_embeddings(values.to(self.network.device))
        names = ("image_embeddings", "intermediate_embeddings")
        parts = features if self.kind == "sam_hq" else (features,)
        scale = (target[1] / size[1], target[0] / size[0])
        return _Encoded(size, scale, dict(zip(names, parts, strict=False)), resize)

    def _prompted(
        self,
        encoded: _Encoded,
        points: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks for K points (K, 2), 3 each, or for K boxes (K, 4) of corners, 1 each.

        Returns:
            (K, M, H, W) logits and (K, M) IoU that the model predicts, on the CPU.
        """
        import torch

        prompts = points if boxes is None else boxes
        scale = torch.tensor(encoded.scale).repeat(prompts.shape[1] // 2)
        prompts = (prompts * scale).to(self.network.device, self.network.dtype)
        given = {"input_boxes": prompts[None]}  # (K, 4) -> (1, K, 4)
        if boxes is None:
            given = {"input_points": prompts[None, :, None]}  # (K, 2) -> (1, K, 1, 2)
        with torch.inference_mode():
            output = self.network(**encoded.features, **given, multimask_output=boxes is None)
            logits = encoded.resize(output.pred_masks[0].float())
        return logits.cpu(), output.iou_scores[0].float().cpu()


def sam_regions(
    image: Photo,
    model: str | Path | Sam = SAM_MODEL,
    device: str | torch.device | None = "cpu",
    config: SamConfig | None = None,
    **changes: Any,
) -> RegionImage:
    """Segment a photo with a SAM checkpoint (method "sam").

    Args:
        image: a path, a PIL image, or an array that `load_image` takes.
        model: a loaded `Sam`, or the hub id or local folder of a checkpoint in safetensors.
        device: where it runs; None for CUDA if there is any.
        config: settings; None takes the defaults.
        changes: single settings to change, such as `points_per_side=16`.

    Returns:
        The photo with its regions, largest first, ids from 1, no two alike; perhaps none.

    Raises:
        RegionError: the photo cannot be read.
        SegmentationUnavailable: the checkpoint or the device is not available.
        ValueError: a setting out of its range.
    """
    config = replace(config or SamConfig(), **changes)
    pixels = load_image(image)
    sam = model if isinstance(model, Sam) else Sam(model, device)
    regions = sam.generate(pixels, config)
    height, width = pixels.shape[:2]
    if not isinstance(image, (str, Path)):
        return RegionImage(regions, width, height, pixels)
    return RegionImage(regions, width, height, image, file_name=Path(image).name)


def suppress_boxes(boxes: torch.Tensor, scores: torch.Tensor, max_iou: float) -> torch.Tensor:
    """Greedy non-maximum suppression, as `torchvision.ops.nms` defines it.

    Args:
        boxes: (K, 4), corners x, y, x, y.
        scores: (K,).
        max_iou: a box is dropped if its IoU with a better one that is kept is above this.

    Returns:
        (kept,) int64 indices, best score first, ties in the order given.
    """
    import torch

    order = torch.argsort(scores, descending=True, stable=True)
    boxes = boxes.float()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[order, :2])
        high = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        # of two boxes without area this is not a number, and both stay
        iou = shared / (areas[best] + areas[order] - shared)
        order = order[~(iou > max_iou)]
    return torch.stack(kept) if kept else order


def _good(
    logits: torch.Tensor, scores: torch.Tensor, config: SamConfig
) -> Iterator[tuple[np.ndarray, float]]:
    """Confident and stable masks (H, W) of (K, H, W) logits, with scores."""
    for values, score in zip(logits, scores.tolist(), strict=True):
        if config.pred_iou_threshold and not score > config.pred_iou_threshold:
            continue
        inner, outer = (values > _STABILITY_OFFSET).sum(), (values > -_STABILITY_OFFSET).sum()
        # 0 / 0 is not a number, and not stable
        if config.stability_threshold and not inner / outer > config.stability_threshold:
            continue
        if (values > 0).any():
            yield (values > 0).numpy(), score


def _corners(region: Region) -> tuple[int, int, int, int]:
    """The first and the last column and row of a region: x, y, x, y."""
    x, y, columns, rows = region.pixel_box
    return x, y, x + columns - 1, y + rows - 1


def _points_per_batch(height: int, width: int) -> int:
    """Points per batch whose masks, float32 at the photo's size, are within the budget."""
    return min(64, max(1, _BATCH_BYTES // (4 * _MASKS_PER_POINT * height * width)))


def _numbered(regions: Iterator[Region]) -> list[Region]:
    """Sort regions, largest first, without duplicates, and number them from 1."""
    distinct = list({region.rle["counts"]: region for region in regions}.values())
    distinct.sort(key=lambda region: -region.area)
    return [Region(number, region.rle) for number, region in enumerate(distinct, start=1)]


def _region(mask: torch.Tensor, prompt: str) -> Region:
    if not mask.any():
        raise SegmentationUnavailable(f"SAM sees nothing at {prompt}; try another place")
    return Region.from_mask(prompt, mask.numpy())


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
