"""Masks from SAM, SAM-HQ, SAM 2 and SAM 3: of a whole photo, or at points and in boxes.

transformers' processors for SAM 2 and SAM 3 and its mask-generation pipeline need torchvision.
All that they do around the model is done here instead: resize, normalize, scale coordinates,
resize the masks back, and remove duplicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ureca_lib.devices import chosen_device
from ureca_lib.regions import Region, RegionImage, load_image
from ureca_lib.regions.photo import Photo, photo_name

if TYPE_CHECKING:
    import torch

SAM_MODEL = "facebook/sam-vit-base"
# of the first two the model sees the photo with padding, of the others squeezed to a square; the
# later ones' checkpoints on the hub are those of the video models, of which this is the part that
# works on single images
_PADDED, _SQUARE = ("sam", "sam_hq"), ("sam2", "sam2_video", "sam3_tracker", "sam3_video")
_BATCH_BYTES = 2**29  # of a batch's masks at the photo's size
_MASKS_PER_POINT = 3  # whole, part and subpart
_STABILITY_OFFSET = 1.0  # logits by which the cutoff is moved to see whether a mask is stable

Box = tuple[float, float, float, float]


class _Encoded(NamedTuple):
    """A photo as the model sees it.

    Attributes:
        size: (H, W) of the photo.
        resized: (h, w) of the photo in the model's frame.
        features: arguments of the model's forward that hold the image.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    features: dict[str, Any]


class Sam:
    """A SAM, SAM-HQ, SAM 2 or SAM 3 checkpoint that is ready to segment photos.

    Args:
        model: hub id or local folder of a checkpoint in safetensors.
        device: where it runs; None for CUDA if there is any.

    Raises:
        OSError: no such checkpoint, another kind of model, or no such device.
    """

    def __init__(self, model: str | Path = SAM_MODEL, device: str | torch.device | None = "cpu"):
        # here, because transformers takes seconds to import and superpixels do without it
        import torch
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModelForMaskGeneration
        from transformers.image_processing_base import ImageProcessingMixin

        model = str(model)
        try:
            device = chosen_device(None) if device is None else torch.device(device)
            kind = AutoConfig.from_pretrained(model).model_type
            if kind not in (*_PADDED, *_SQUARE):
                raise ValueError(f"it is a {kind} model, not SAM, SAM-HQ, SAM 2 or SAM 3")
            processor, _ = ImageProcessingMixin.get_image_processor_dict(model)
            network, report = AutoModelForMaskGeneration.from_pretrained(
                model, use_safetensors=True, output_loading_info=True
            )
            if report["missing_keys"]:
                raise ValueError(f"the weights lack {sorted(report['missing_keys'])[0]}")
            self.network = network.to(device).eval()
        except (OSError, ValueError, RuntimeError, AssertionError, SafetensorError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise OSError(f"SAM checkpoint '{model}', device '{device}': {reason}") from error
        self.kind = kind
        self._mean, self._std = (np.array(processor[key]) for key in ("image_mean", "image_std"))

    def generate(
        self,
        pixels: np.ndarray,
        points_per_side: int = 32,
        pred_iou_threshold: float = 0.88,
        stability_threshold: float = 0.95,
        box_iou_threshold: float = 0.7,
    ) -> list[Region]:
        """Segment everything: prompt with a grid of points, keep confident and distinct masks.

        The defaults are those of SAM's authors.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            points_per_side: of the grid.
            pred_iou_threshold: keep masks whose predicted IoU is higher; 0 keeps all.
            stability_threshold: keep masks whose stability against the cutoff is higher; 0 keeps
                all.
            box_iou_threshold: of masks whose boxes overlap more, keep the best.

        Returns:
            Regions, largest first, ids from 1, no two alike; perhaps none.
        """
        import torch

        encoded = self._encode(pixels)
        height, width = encoded.size
        steps = (torch.arange(points_per_side) + 0.5) / points_per_side
        grid = torch.cartesian_prod(steps, steps).flip(1) * torch.tensor([width, height])
        regions: list[Region] = []
        scores: list[float] = []
        for points in grid.split(_points_per_batch(height, width)):
            found, predicted = self._prompted(encoded, points[:, None])
            logits, predicted = found.flatten(0, 1), predicted.flatten()  # (K, M, ...) -> (K * M)
            keep = (logits > 0).flatten(1).any(1)
            if pred_iou_threshold:
                keep &= predicted > pred_iou_threshold
            if stability_threshold:
                inner, outer = (
                    (logits > offset).sum((1, 2))
                    for offset in (_STABILITY_OFFSET, -_STABILITY_OFFSET)
                )
                # 0 / 0 is not a number, and not stable
                keep &= inner / outer > stability_threshold
            regions += [Region.from_mask(0, mask) for mask in (logits[keep] > 0).numpy()]
            scores += predicted[keep].tolist()
        # SAM's boxes reach from the first to the last column and row
        boxes = np.array([region.bbox for region in regions]).reshape(-1, 4)
        kept = [regions[place] for place in suppress_boxes(boxes, scores, box_iou_threshold)]
        distinct = {region.rle["counts"]: region for region in kept}.values()
        largest = sorted(distinct, key=lambda region: -region.area)
        return [Region(number, region.rle) for number, region in enumerate(largest, start=1)]

    def at_points(self, pixels: np.ndarray, points: Sequence[tuple[float, float]]) -> list[Region]:
        """Segment the region at each point: of SAM's three masks the one with the highest score.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            points: (x, y) pixels.

        Returns:
            A region per point, with the point as its id.

        Raises:
            ValueError: SAM sees nothing at a point.
        """
        import torch

        logits, scores = self._prompted(self._encode(pixels), torch.tensor(points)[:, None])
        best = logits[torch.arange(len(points)), scores.argmax(1)]  # (K, M, H, W) -> (K, H, W)
        return _named(best, [f"point {x:g},{y:g}" for x, y in points])

    def in_boxes(self, pixels: np.ndarray, boxes: Sequence[Box]) -> list[Region]:
        """Segment the region in each box.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            boxes: (x, y, width, height) pixels.

        Returns:
            A region per box, with the box as its id.

        Raises:
            ValueError: SAM sees nothing in a box.
        """
        import torch

        corners = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in boxes])
        logits, _ = self._prompted(self._encode(pixels), corners)
        return _named(logits[:, 0], [f"box {x:g},{y:g},{w:g},{h:g}" for x, y, w, h in boxes])

    def _encode(self, pixels: np.ndarray) -> _Encoded:
        """(H, W, 3) uint8 -> the image's features, computed once for all prompts."""
        import torch

        size = pixels.shape[:2]
        frame = self._frame()
        scale = np.divide(frame, size)
        if self.kind in _PADDED:
            scale[:] = scale.min()
        height, width = np.floor(size * scale + 0.5).astype(int).tolist()
        small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        values = torch.zeros(1, 3, *frame)
        normal = (np.asarray(small) / 255 - self._mean) / self._std
        values[0, :, :height, :width] = torch.tensor(normal).permute(2, 0, 1)
        with torch.inference_mode():
            features = self.network.get_image_embeddings(values.to(self.network.device))
        names = ("image_embeddings", "intermediate_embeddings")
        parts = features if self.kind == "sam_hq" else (features,)
        return _Encoded(size, (height, width), dict(zip(names, parts, strict=False)))

    def _frame(self) -> tuple[int, int]:
        """(height, width) of the model's input."""
        side = self.network.config.prompt_encoder_config.image_size
        return (side, side) if isinstance(side, int) else tuple(side)

    def _prompted(
        self, encoded: _Encoded, prompts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks for K points (K, 1, 2), 3 each, or for K boxes (K, 4) of corners, 1 each.

        Returns:
            (K, M, H, W) logits and (K, M) IoU that the model predicts, on the CPU.
        """
        import torch
        from torch.nn.functional import interpolate

        (height, width), size = encoded.resized, encoded.size
        scale = torch.tensor([width / size[1], height / size[0]])
        scaled = (prompts.unflatten(-1, (-1, 2)) * scale).view_as(prompts)
        given = scaled[None].to(self.network.device, self.network.dtype)
        points = prompts.dim() == 3
        name = "input_points" if points else "input_boxes"
        bilinear = {"mode": "bilinear", "align_corners": False}
        with torch.inference_mode():
            output = self.network(**encoded.features, **{name: given}, multimask_output=points)
            logits = output.pred_masks[0].float()
            if self.kind in _PADDED:
                logits = interpolate(logits, self._frame(), **bilinear)[..., :height, :width]
            logits = interpolate(logits, size, **bilinear)
        return logits.cpu(), output.iou_scores[0].float().cpu()


def sam_regions(
    image: Photo,
    model: str | Path | Sam = SAM_MODEL,
    device: str | torch.device | None = "cpu",
    **settings: Any,
) -> RegionImage:
    """Segment a photo with a SAM checkpoint (method "sam").

    Args:
        image: a path, a PIL image, or an array that `load_image` takes.
        model: a loaded `Sam`, or the hub id or local folder of a checkpoint in safetensors.
        device: where it runs; None for CUDA if there is any.
        settings: those of `Sam.generate`, such as `points_per_side=16`.

    Returns:
        The photo with its regions, largest first, ids from 1, no two alike; perhaps none.

    Raises:
        RegionError: the photo cannot be read.
        OSError: the checkpoint or the device is not available.
    """
    pixels = load_image(image)
    sam = model if isinstance(model, Sam) else Sam(model, device)
    height, width = pixels.shape[:2]
    regions = sam.generate(pixels, **settings)
    return RegionImage(regions, width, height, image, file_name=photo_name(image))


def suppress_boxes(boxes: np.ndarray, scores: Sequence[float], max_iou: float) -> list[int]:
    """Greedy non-maximum suppression, as `torchvision.ops.nms` defines it.

    Args:
        boxes: (K, 4), x, y, width and height.
        scores: of each box.
        max_iou: a box is dropped if its IoU with a better one that is kept is above this.

    Returns:
        Places of the boxes kept, best score first, ties in the order given.
    """
    overlap = coco_mask.iou(boxes, boxes, [0] * len(boxes))
    kept: list[int] = []
    for place in np.argsort(-np.asarray(scores, float), kind="stable").tolist():
        # of two boxes without area the IoU is not a number, and both stay
        if not (overlap[place, kept] > max_iou).any():
            kept.append(place)
    return kept


def _points_per_batch(height: int, width: int) -> int:
    """Points per batch whose masks, float32 at the photo's size, are within the budget."""
    return min(64, max(1, _BATCH_BYTES // (4 * _MASKS_PER_POINT * height * width)))


def _named(logits: torch.Tensor, prompts: Sequence[str]) -> list[Region]:
    """A region per prompt, from (K, H, W) logits, with the prompt as its id."""
    masks = (logits > 0).numpy()
    for mask, prompt in zip(masks, prompts, strict=True):
        if not mask.any():
            raise ValueError(f"SAM sees nothing at {prompt}; try another place")
    return [Region.from_mask(prompt, mask) for mask, prompt in zip(masks, prompts, strict=True)]
