"""DINOv2 features of region crops (Sec. 3, stage 4; App. F), through transformers."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BitImageProcessorPil, Dinov2Model

from ureca_lib.annotate.attributes import cropped_mask
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import RegionImage

DINO_MODEL = "facebook/dinov2-base"


class Dinov2Features:
    """The class token of DINOv2 for each region's crop.

    A crop is the region's box with a margin; the processor's mean colour takes the place of what is
    not the region, so that it tells the model nothing.

    Args:
        model: hub id or local folder of a Dinov2 checkpoint in safetensors, with its processor.
        device: where the model runs.
        batch_size: crops at a time.
        margin: around the box, as a share of its longer side.

    Raises:
        OSError: the checkpoint is not there; transformers says what is missing.
    """

    threshold = 0.8  # the published pipeline's

    def __init__(
        self,
        model: str | Path = DINO_MODEL,
        device: str | torch.device = "cpu",
        batch_size: int = 16,
        margin: float = 0.1,
    ):
        self.name = f"dinov2:{Path(model).name}:margin={margin:g}"
        self._device, self._batch, self._margin = torch.device(device), batch_size, margin
        self._model = Dinov2Model.from_pretrained(model, use_safetensors=True)
        self._model.to(self._device).eval()
        self._processor = BitImageProcessorPil.from_pretrained(model)
        mean = np.asarray(self._processor.image_mean) * 255
        self._mean = np.rint(mean).astype(np.uint8)
        self._one_at_a_time = threading.Lock()  # images are opened in several threads

    @torch.inference_mode()
    def __call__(
        self, image: RegionImage, region_ids: Sequence[RegionId]
    ) -> dict[RegionId, np.ndarray]:
        """For each region its vector, (D,) float32.

        Raises:
            FileMissingError: there is no photo.
        """
        found: dict[RegionId, np.ndarray] = {}
        for start in range(0, len(region_ids), self._batch):
            ids = region_ids[start : start + self._batch]
            crops = [self._crop(image, region_id) for region_id in ids]
            pixels = self._processor(crops, return_tensors="pt")["pixel_values"]  # (B, 3, S, S)
            with self._one_at_a_time:
                output = self._model(pixels.to(self._device))
            vectors = output.pooler_output.float().cpu().numpy()  # (B, D)
            found.update(zip(ids, vectors, strict=True))
        return found

    def _crop(self, image: RegionImage, region_id: RegionId) -> np.ndarray:
        (x, y, columns, rows), mask = cropped_mask(image[region_id])
        margin = math.ceil(self._margin * max(columns, rows))
        # square: the processor's centre crop takes 6% off each side, which lies in the margin
        side = max(columns, rows) + 2 * margin
        crop = np.broadcast_to(self._mean, (side, side, 3)).copy()
        top, left = (side - rows) // 2, (side - columns) // 2
        inside = crop[top : top + rows, left : left + columns]
        inside[mask] = image.pixels[y : y + rows, x : x + columns][mask]
        return crop
