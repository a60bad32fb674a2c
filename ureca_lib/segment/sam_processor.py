"""SAM's image processor with its last step, non-maximum suppression, done without torchvision.

Of all that transformers' mask generation does, that step alone calls torchvision (`batched_nms`).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import SamImageProcessorPil


def suppress_boxes(boxes: torch.Tensor, scores: torch.Tensor, max_iou: float) -> torch.Tensor:
    """Greedy non-maximum suppression, as `torchvision.ops.nms` defines it.

    Args:
        boxes: (K, 4), corners x, y, x, y.
        scores: (K,).
        max_iou: a box is dropped where its IoU with a kept one of a higher score is above this.

    Returns:
        (kept,) int64 indices, best score first, ties in the order given.
    """
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


class MaskProcessor(SamImageProcessorPil):
    """`SamImageProcessorPil` for transformers' mask-generation pipeline, without torchvision."""

    def post_process_for_mask_generation(
        self,
        all_masks: list[dict[str, Any]],
        all_scores: torch.Tensor,
        all_boxes: torch.Tensor,
        crops_nms_thresh: float,
    ) -> tuple[list[dict[str, Any]], torch.Tensor, list[dict[str, Any]], torch.Tensor]:
        """Keep the best of masks with nearly the same box.

        Args:
            all_masks: K uncompressed RLEs.
            all_scores: (K,) IoU that the model predicts.
            all_boxes: (K, 4) corners in pixels.
            crops_nms_thresh: the largest IoU of two boxes.

        Returns:
            Masks, scores, RLEs and boxes of those kept. The masks are RLEs, too: decoded, those
            of a large photo would fill the memory.
        """
        keep = suppress_boxes(all_boxes, all_scores, crops_nms_thresh)
        masks = [all_masks[index] for index in keep.tolist()]
        return masks, all_scores[keep], masks, all_boxes[keep]
