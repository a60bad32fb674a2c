"""Evaluation while training: captions of held-out regions, and the loss on them.

The measures of `ureca_lib.evaluate.exact_match` on a few images. They choose the best checkpoint
and show that a run learns; reported scores come from `ureca predict` and `ureca evaluate`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from accelerate.utils import send_to_device
from tqdm.auto import tqdm

from ureca_lib.captioner import RegionCaptioner
from ureca_lib.conversation import IGNORED
from ureca_lib.evaluate.exact_match import same_text
from ureca_lib.scenes import resolve
from ureca_lib.train.data import RegionCaptionDataset, RegionCollator
from ureca_lib.train.index import RegionIndex
from ureca_lib.train.stages import StageModel


@torch.no_grad()
def evaluate(
    model: StageModel,
    index: RegionIndex,
    trained: RegionCaptionDataset,
    collator: RegionCollator,
    progress: bool = True,
) -> dict[str, float]:
    """Caption held-out images, and measure the captions and the loss.

    Args:
        model: left in evaluation mode.
        index: of the images.
        trained: the groups of the run, for its processor and settings. The loss is on tiles
            as in training, captions on those of inference.
        collator: of the run.
        progress: show a bar.

    Returns:
        `loss` per answer token, `exact_match`, number of `regions`, and of scenes `unique`.
    """
    s, processor = trained.settings, trained.processor
    plain = replace(
        s, regions_per_image=s.eval_regions, resize_share=0.0, gradient_checkpointing=False
    )
    groups = RegionCaptionDataset(index, processor, plain)
    model.eval()
    captioner = RegionCaptioner(model.base, processor.without_masks() if s.no_mask else processor)
    sums: Counter[str] = Counter()
    numbers = np.flatnonzero(index.counts).tolist()
    for number in tqdm(numbers, desc="evaluating", leave=False, disable=not progress):
        batch = send_to_device(
            collator([groups.of_image(number)]), model.base.lm_head.weight.device
        )
        sums["tokens"] += int((batch["labels"] != IGNORED).sum())
        sums["loss"] += float(model(**batch, tokens=1))
        regions, pixels = index.regions(number)[: s.eval_regions], index.pixels(number)
        captions = captioner.caption(pixels, regions, s.question, s.eval_tokens, progress=False)
        sums["regions"] += len(captions)
        for caption, texts in zip(captions, index.row(number)["captions"], strict=False):
            sums["exact_match"] += same_text(caption.text) in map(same_text, texts)
        if scene := index.scene(number):
            sums["unique"] += sum(resolve(c.text, scene) == {c.region_id} for c in captions)
    shares = {name: sums[name] / max(1, sums["regions"]) for name in ("exact_match", "unique")}
    if not index.row(0)["scene"]:
        del shares["unique"]
    loss = sums["loss"] / max(1, sums["tokens"])
    return {"loss": loss, **shares, "regions": float(sums["regions"])}
