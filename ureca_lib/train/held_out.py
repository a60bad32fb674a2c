"""Evaluation while training: captions are generated for held-out regions, and looked at.

The measures of `ureca_lib.evaluate.exact` on a few images, and the loss on the same regions. It
chooses the best checkpoint and shows that a run learns; what is reported comes from
`ureca predict` and `ureca evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm

from ureca_lib.captioner import RegionCaptioner
from ureca_lib.conversation import IGNORED
from ureca_lib.datasets.captioned import CaptionedImage
from ureca_lib.processor import UrecaProcessor
from ureca_lib.regions import Region
from ureca_lib.scenes import resolve
from ureca_lib.train.collator import RegionCollator
from ureca_lib.train.features import FeatureCache
from ureca_lib.train.images import TrainingImages
from ureca_lib.train.samples import GroupDataset
from ureca_lib.train.settings import TrainSettings, changed
from ureca_lib.train.stages import StageModel

_COUNTED = ("loss", "tokens", "exact_match", "regions", "unique", "scene_regions")


class HeldOut:
    """Images that are not learnt, and what a model says about them.

    Args:
        images: held in memory.
        processor: of the model.
        settings: of the run.
        collator: of the run.
        max_tiles: of the grid in training, for the loss; captions take as many as at inference.
        cache, fingerprint: as `TrainingImages` has them.
    """

    def __init__(
        self,
        images: Sequence[CaptionedImage],
        processor: UrecaProcessor,
        settings: TrainSettings,
        collator: RegionCollator,
        max_tiles: int,
        cache: FeatureCache | None = None,
        fingerprint: str = "",
    ):
        self.images, self.settings, self.collator = list(images), settings, collator
        self.processor = processor.without_masks() if settings.blind else processor
        self.known = TrainingImages(self.images, processor, max_tiles, cache, fingerprint)
        for record, _ in self.known.read(progress=False):
            del record.regions[settings.eval_regions :]
        plain = changed(
            settings,
            regions_per_image=settings.eval_regions,
            resize_share=0.0,
            gradient_checkpointing=False,
        )
        self.groups = GroupDataset(self.known, plain, len(self.images))

    def __len__(self) -> int:
        return len(self.images)

    def evaluate(
        self, model: StageModel, rank: int = 0, processes: int = 1, progress: bool = True
    ) -> torch.Tensor:
        """Sums over the images of this process, to be added up over all.

        Args:
            model: left in evaluation mode.
            rank, processes: this process's number, and how many share the images.

        Returns:
            (6,) float64: loss, answer tokens, exact matches, regions, unique ones, regions of
            scenes.
        """
        model.eval()
        device = model.base.lm_head.weight.device
        captioner = RegionCaptioner(model.base, self.processor)
        sums = torch.zeros(len(_COUNTED), dtype=torch.float64)
        mine = range(rank, len(self.images), processes)
        for number in tqdm(mine, desc="evaluating", leave=False, disable=not progress):
            record = self.known.records[number]
            if record.regions:
                sums[:2] += self._loss(model, number, device)
                sums[2:] += self._said(captioner, self.images[number], record.regions)
        return sums

    @torch.no_grad()
    def _loss(self, model: StageModel, number: int, device: torch.device) -> torch.Tensor:
        group = self.groups.of_image(number)
        batch = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in self.collator([group]).items()
        }
        tokens = int((batch["labels"] != IGNORED).sum())
        return torch.tensor([float(model(**batch, tokens=1)), tokens])

    def _said(
        self, captioner: RegionCaptioner, image: CaptionedImage, regions: list[Region]
    ) -> torch.Tensor:
        limit = self.settings.eval_tokens
        question = self.settings.question
        said = captioner.caption(image.pixels, regions, question, limit, progress=False)
        exact = sum(is_exact(each.text, image.captions[each.region_id]) for each in said)
        unique = 0
        if image.scene is not None:
            unique = sum(resolve(each.text, image.scene) == {each.region_id} for each in said)
        return torch.tensor([exact, len(said), unique, len(said) * (image.scene is not None)])


def measured(sums: torch.Tensor) -> dict[str, float]:
    """What the sums of all processes say: `loss`, `exact_match` and, on scenes, `unique`."""
    told = dict(zip(_COUNTED, sums.tolist(), strict=True))
    shares = {
        "loss": told["loss"] / max(1, told["tokens"]),
        "exact_match": told["exact_match"] / max(1, told["regions"]),
    }
    if told["scene_regions"]:
        shares["unique"] = told["unique"] / told["scene_regions"]
    return shares | {"regions": told["regions"]}


def is_exact(caption: str, references: Sequence[str]) -> bool:
    """Whether a caption is one of the references, but for case, spaces and marks at its end."""
    return same_text(caption) in {same_text(text) for text in references}


def same_text(text: str) -> str:
    """What two captions must share to be the same; as `ureca_lib.evaluate.exact` has it."""
    return " ".join(text.casefold().split()).rstrip(" .!,;:")
