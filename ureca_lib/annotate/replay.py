"""A finished image of a store: the questions of each step, their pictures and their answers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from ureca_lib.annotate.pipeline import ImageCaptions
from ureca_lib.annotate.prompts import Prompt, fill_prompt
from ureca_lib.annotate.protocol import Context, Stage
from ureca_lib.annotate.records import Answer, FinalCaption, Step
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.annotate.sources import name_of
from ureca_lib.annotate.store import Store, StoreError
from ureca_lib.annotate.views import ImageViews, stage_views
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import RegionImage
from ureca_lib.regions.sources import masked_photo


class AnnotatedImage:
    """One image with its captions and all questions and answers.

    Args:
        path: the photo, or its file of masks.
        store: that holds its answers.
        settings: of the run.

    Raises:
        StoreError: the store has no finished captions of this image, with the reason: the image
            is not in the store, failed, is being annotated, or the run was stopped.
    """

    def __init__(self, path: str | Path, store: Store, settings: PipelineSettings | None = None):
        settings = (settings or PipelineSettings()).for_store(store.recipe)
        masks = masked_photo(path)
        self.name = finished_name(masks.place, store)
        self.image: RegionImage = masks.load(settings.strict, settings.boxes)
        self.tree = settings.tree.build(self.image.regions)
        self.answers: dict[Step, Answer] = store.answers(self.name)
        self.finals: dict[RegionId, FinalCaption] = {
            caption.region_id: caption for caption in store.captions(self.name)
        }
        alike = {region_id: final.look_alikes for region_id, final in self.finals.items()}
        self._captions = ImageCaptions(self.tree, settings.tree.chosen(self.tree), alike)
        self._captions.answers = self.answers
        self._captions.captions = {i: final.text for i, final in self.finals.items() if final.text}
        self._views = cache(lambda: ImageViews(self.image, settings.views))

    @property
    def captions(self) -> dict[RegionId, str]:
        """The final captions by region id."""
        return {region_id: final.text for region_id, final in self.finals.items()}

    def text(self, stage: Stage, region_id: RegionId) -> str:
        """A region's caption after a stage; for "unique", its final caption."""
        if stage == "unique":
            return self.finals[region_id].text
        answer = self.answers.get(Step(stage, 0, region_id))
        return answer.text if answer else ""

    def context(self, stage: Stage, region_id: RegionId) -> Context:
        """The captions that a stage's question about a region showed (stage 4: first round).

        Raises:
            StoreError: the stage did not ask about it, with the reason: an answer before failed.
            KeyError: no such region.
        """
        step = Step(stage, int(stage == "unique"), region_id)
        final, answer = self.finals[region_id], self.answers.get(step)
        if answer is None or answer.status == "blocked":
            why = (answer.error if answer else final.reason) or "it was not wanted"
            raise StoreError(
                f"{self.name}: region {region_id} was not asked in stage {stage}: {why}"
            )
        return self._captions.context(step)

    def prompt(self, stage: Stage, region_id: RegionId) -> Prompt:
        """The filled prompt; raises as `context` does."""
        return fill_prompt(stage, self.tree, region_id, self.context(stage, region_id))

    def views(self, stage: Stage, region_id: RegionId) -> list[np.ndarray]:
        """The pictures of the question; raises as `context` does."""
        context = self.context(stage, region_id)
        return stage_views(stage, self._views(), self.tree, region_id, context)


def finished_name(json_path: str | Path, store: Store) -> str:
    """The name of a finished image in a store.

    Raises:
        StoreError: it has none, with the reason.
    """
    wanted = Path(json_path).resolve()
    name = name_of(wanted, store.path)
    # one that was never finished has no path yet, and a store may have been moved
    rows = {row.image: row for row in store.images()}
    moved = (row for row in rows.values() if row.path and Path(row.path).resolve() == wanted)
    row = rows.get(name) or next(moved, None)
    if row is not None and row.status in ("done", "partial"):
        return row.image
    if row is None:
        why = "is not in this store"
    elif store.is_held(row.image):
        why = "is not finished: another process is working on it"
    elif row.status == "failed":
        why = f"failed: {row.error}"
    else:
        runs = store.rows("SELECT stopped FROM runs ORDER BY id DESC LIMIT 1")
        stopped = "".join(f": the latest run stopped: {reason}" for (reason,) in runs if reason)
        why = f"is not finished{stopped}"
    raise StoreError(f"{store.path}: {wanted} {why}")
