"""Evaluation while training: captions of held-out regions, and the loss on them.

The measures of `ureca_lib.evaluate.exact_match` on a few images. They choose the best checkpoint
and show that a run learns; reported scores come from `ureca predict` and `ureca evaluate`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from tqdm.auto import tqdm

from ureca_lib.captioner import RegionCaptioner
from ureca_lib.conversation import IGNORED
from ureca_lib.evaluate.exact_match import same_text
from ureca_lib.processor import UrecaProcessor
from ureca_lib.scenes import resolve
from ureca_lib.train.data import RegionCaptionDataset, RegionCollator
from ureca_lib.train.features import FeatureCache
from ureca_lib.train.index import RegionIndex
from ureca_lib.train.settings import TrainSettings
from ureca_lib.train.stages import StageModel

_SUMS = ("loss", "tokens", "exact_match", "regions", "unique", "scene_regions")


class HeldOut:
    """Images that are not trained on, and a model's captions of them.

    Args:
        index: of the images.
        processor: of the model.
        settings: of the run.
        collator: of the run.
        max_tiles: of the grid in training, for the loss; captions use that of inference.
        cache, fingerprint: see `RegionCaptionDataset`.
    """

    def __init__(
        self,
        index: RegionIndex,
        processor: UrecaProcessor,
        settings: TrainSettings,
        collator: RegionCollator,
        max_tiles: int,
        cache: FeatureCache | None = None,
        fingerprint: str = "",
    ):
        self.index, self.settings, self.collator = index, settings, collator
        self.processor = processor.without_masks() if settings.no_mask else processor
        plain = replace(
            settings,
            regions_per_image=settings.eval_regions,
            resize_share=0.0,
            gradient_checkpointing=False,
        )
        self.groups = RegionCaptionDataset(index, processor, plain, max_tiles, cache, fingerprint)

    def evaluate(
        self, model: StageModel, rank: int = 0, processes: int = 1, progress: bool = True
    ) -> torch.Tensor:
        """Sums over the images of this process, to be added up over all processes.

        Args:
            model: left in evaluation mode.
            rank, processes: this process's number, and how many share the images.

        Returns:
            (6,) float64: loss, answer tokens, exact matches, regions, unique captions, regions of
            scenes.
        """
        model.eval()
        captioner = RegionCaptioner(model.base, self.processor)
        sums = torch.zeros(len(_SUMS), dtype=torch.float64)
        mine = range(rank, len(self.index), processes)
        for number in tqdm(mine, desc="evaluating", leave=False, disable=not progress):
            if self.index.counts[number]:
                sums[:2] += self._loss(model, number)
                sums[2:] += self._captions(captioner, number)
        return sums

    @torch.no_grad()
    def _loss(self, model: StageModel, number: int) -> torch.Tensor:
        device = model.base.lm_head.weight.device
        batch = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in self.collator([self.groups.of_image(number)]).items()
        }
        tokens = int((batch["labels"] != IGNORED).sum())
        return torch.tensor([float(model(**batch, tokens=1)), tokens])

    def _captions(self, captioner: RegionCaptioner, number: int) -> torch.Tensor:
        s, scene = self.settings, self.index.scene(number)
        regions = self.index.regions(number)[: s.eval_regions]
        pixels = self.index.pixels(number)
        captions = captioner.caption(pixels, regions, s.question, s.eval_tokens, progress=False)
        references = self.index.row(number)["captions"]
        pairs = zip((caption.text for caption in captions), references, strict=False)
        exact = sum(same_text(text) in map(same_text, texts) for text, texts in pairs)
        unique = 0
        if scene is not None:
            unique = sum(resolve(each.text, scene) == {each.region_id} for each in captions)
        return torch.tensor([exact, len(captions), unique, len(captions) * (scene is not None)])


def measured(sums: torch.Tensor) -> dict[str, float]:
    """`loss`, `exact_match` and, of scenes, `unique`, from the sums of all processes."""
    values = dict(zip(_SUMS, sums.tolist(), strict=True))
    shares = {
        "loss": values["loss"] / max(1, values["tokens"]),
        "exact_match": values["exact_match"] / max(1, values["regions"]),
    }
    if values["scene_regions"]:
        shares["unique"] = values["unique"] / values["scene_regions"]
    return shares | {"regions": values["regions"]}
