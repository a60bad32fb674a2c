"""State of the explorer: captions, and the regions that each may be mistaken for.

Nothing here draws or writes to a store.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy.special import softmax

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.look_alikes import (
    ColorTextureFeatures,
    LookAlikeSettings,
    find_look_alikes,
    normalized,
    word_overlaps,
)
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import Region, RegionImage
from ureca_lib.regions.photo import Photo

ATTRIBUTES = "attributes"
NEARLY_THE_SAME = 0.8  # share of words and word pairs from which two captions are confusable
_NOTABLE = 0.02  # listener probability from which a region that looks different is listed


@runtime_checkable
class Captioner(Protocol):
    """Anything that captions regions, such as `RegionCaptioner`.

    A captioner with `score(image, regions, captions, progress=False) -> (R, C)` log-likelihoods
    is also the listener. A captioner whose `captions_together` is true distinguishes each region
    from the others in the call, so it always gets all regions of the image.
    """

    def caption(self, image: Photo, regions: Sequence[Region], *, progress: bool = False) -> list:
        """Caption each region, in order.

        Returns:
            Objects with the attribute `text`, and `score` and `unique` if they are known.
        """
        ...


class AttributeCaptioner:
    """`AttributeAnnotator` as a captioner: it needs no model."""

    captions_together = True

    def caption(self, image: Photo, regions: Sequence[Region], *, progress: bool = False) -> list:
        """Caption by color, shape and place; `.unique` is whether a caption fits one region only.

        Args:
            image: the photo.
            regions: all regions of the image.
            progress: ignored, this takes a moment.
        """
        if not regions:
            return []
        height, width = regions[0].size
        return AttributeAnnotator().caption(RegionImage(regions, width, height, image))


def load_captioner(model: str | Path, device: str = "cpu") -> Captioner:
    """Load a captioner by name.

    Args:
        model: "attributes" (needs no model), or the folder of a checkpoint.
        device: of the model.

    Raises:
        CheckpointError: the folder does not exist or is not a checkpoint.
    """
    if str(model) == ATTRIBUTES:
        return AttributeCaptioner()
    from ureca_lib.captioner import RegionCaptioner  # transformers takes seconds to import

    return RegionCaptioner.from_pretrained(model, device)


@dataclass(frozen=True)
class Entry:
    """The caption of a region.

    Args:
        text: the caption, which may be empty.
        score: mean log-probability of its tokens, if a model wrote it.
        unique: the captioner's own judgement, if it has any.
        state: of the caption in the store or in review.
    """

    text: str
    score: float | None = None
    unique: bool | None = None
    state: str = ""


@dataclass(frozen=True)
class Confusion:
    """Another region that a caption may be mistaken for.

    Args:
        region_id: of the other region.
        alike: whether it looks like the target.
        probability: that the listener picks it; None without a listener.
        clash: "same" or "nearly the same" if its own caption is.
    """

    region_id: RegionId
    alike: bool
    probability: float | None = None
    clash: str = ""


@dataclass(frozen=True)
class Judgement:
    """How well a caption distinguishes its region.

    Args:
        probability: that the listener picks the region itself; None without a listener.
        rivals: regions with the same caption, then look-alikes and regions that the listener may
            pick; the most likely first, without a listener the most similar.
        same: number of other regions with the same caption, including those not in `rivals`.
    """

    probability: float | None
    rivals: tuple[Confusion, ...]
    same: int = 0

    @property
    def unique(self) -> bool:
        """Whether the caption picks out its region.

        No other region may have the same caption. With a listener, the region must be the most
        probable; without, no look-alike may have nearly the same caption.
        """
        if self.same or any(rival.clash == "same" for rival in self.rivals):
            return False
        if self.probability is None:
            return not any(rival.clash for rival in self.rivals)
        return all(rival.probability < self.probability for rival in self.rivals)


def verdict(entry: Entry | None, judgement: Judgement | None) -> dict[str, str]:
    """Whether a caption is unique, as a kind ("good", "bad" or "" if unknown) and a sentence."""
    if entry is None or judgement is None or not entry.text:
        return {"kind": "", "text": ""}
    unique, chance = judgement.unique, judgement.probability
    if judgement.same:
        others = "another region has"
        others = others if judgement.same == 1 else f"{judgement.same} other regions have"
        reason = f"{others} the same caption"
    elif chance is not None:
        picked = f"the listener picks this region with {chance:.0%}"
        reason = picked if unique else "the listener prefers another region"
    elif entry.unique is False:
        unique, reason = False, entry.state or "the captioner found nothing that fits it alone"
    elif unique:
        reason = "fits no other region" if entry.unique else "no other caption reads the same"
    else:
        reason = "a look-alike's caption is nearly the same"
    kind, word = ("good", "Unique") if unique else ("bad", "Not unique")
    return {"kind": kind, "text": f"{word}: {reason}"}


class CaptionCache:
    """Captions of one image's regions, made at the first use, and their judgements.

    Several threads may use one cache.

    Args:
        pixels: (H, W, 3) uint8.
        captioner: writes missing captions; None if `entries` has all of them.
        entries: known captions.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        captioner: Captioner | None,
        entries: Mapping[RegionId, Entry] | None = None,
    ):
        self.pixels, self.captioner = pixels, captioner
        # replaced, never cleared, when a caption or the tree changes: a judgement that was under
        # way meanwhile ends up in the old dictionary
        self.judgements: dict[RegionId, Judgement] = {}
        self._entries = dict(entries or {})
        self._alike: dict[RegionId, list[RegionId]] = {}
        self._features = ColorTextureFeatures()
        # one thread at a time may ask the captioner, which can take long; known captions can be
        # read and changed meanwhile
        self._asking, self._lock = threading.RLock(), threading.Lock()

    def known(self, region_id: RegionId | None) -> Entry | None:
        """The caption of a region, if there is one already."""
        return self._entries.get(region_id)

    def put(self, region_id: RegionId, entry: Entry) -> None:
        """Set a caption, for example after an edit."""
        with self._lock:
            self._entries[region_id] = entry
            self.judgements = {}

    def set_look_alikes(self, look_alikes: Mapping[RegionId, Sequence[RegionId]]) -> None:
        """Set the look-alikes of each region, as a store has them."""
        self._alike = {region_id: list(ids) for region_id, ids in look_alikes.items()}

    def fill(self, tree: MaskTree) -> None:
        """Caption all regions without a caption in one call."""
        with self._asking:
            missing = [region for region in tree.regions if region.id not in self._entries]
            if not missing or self.captioner is None:
                return
            together = getattr(self.captioner, "captions_together", False)
            asked = tree.regions if together else missing
            # a progress bar has no place in the interface
            captions = self.captioner.caption(self.pixels, asked, progress=False)
            made = {
                region.id: Entry(
                    caption.text, getattr(caption, "score", None), getattr(caption, "unique", None)
                )
                for region, caption in zip(asked, captions, strict=True)
            }
            with self._lock:  # known captions, and edits made meanwhile, stay
                self._entries = made | self._entries

    def judge(self, region_id: RegionId, tree: MaskTree, most: int = 6) -> Judgement:
        """Judge how well a caption distinguishes its region.

        Args:
            region_id: of a region with a caption.
            tree: of all regions.
            most: number of rivals to list.

        Raises:
            KeyError: the region has no caption.
        """
        with self._asking:
            text = self._entries[region_id].text
            alike = self.look_alikes(tree)[region_id]
            clashes, chances = self._clashes(region_id, tree, alike), dict[RegionId, float]()
            if text and hasattr(self.captioner, "score"):
                ids = [region.id for region in tree.regions]
                chances = dict(zip(ids, self.listen(text, tree.regions).tolist(), strict=True))
            own = chances.get(region_id)
            likely = [one for one in chances if chances[one] >= min(own, _NOTABLE)]
            ranked = dict.fromkeys([*clashes, *alike, *likely])
            ranked.pop(region_id, None)
            # a reader must see equal captions first, then what the listener may pick
            ranked = sorted(
                ranked, key=lambda one: (clashes.get(one) != "same", -chances.get(one, 0.0))
            )
            rivals = tuple(
                Confusion(other, other in alike, chances.get(other), clashes.get(other, ""))
                for other in ranked[:most]
            )
            return Judgement(own, rivals, list(clashes.values()).count("same"))

    def listen(self, text: str, regions: Sequence[Region]) -> np.ndarray:
        """Probability of each region being the one that a caption means.

        The listener has a uniform prior over the regions: the softmax over regions of the model's
        log-likelihood of the caption.

        Returns:
            (R,) float64.

        Raises:
            AttributeError: the captioner cannot score.
        """
        with self._asking:
            scores: Any = self.captioner.score(self.pixels, regions, [text], progress=False)
        return softmax(np.asarray(scores, np.float64)[:, 0])  # (R, 1) -> (R,)

    def look_alikes(self, tree: MaskTree) -> dict[RegionId, list[RegionId]]:
        """Look-alikes of each region, the most similar first."""
        with self._asking:
            if any(region.id not in self._alike for region in tree.regions):
                height, width = self.pixels.shape[:2]
                image = RegionImage(tree.regions, width, height, self.pixels)
                vectors = self._features(image, [region.id for region in tree.regions])
                settings = LookAlikeSettings()
                found = find_look_alikes(vectors, tree, settings, self._features.threshold)
                # those of a store stay; new regions are added to them
                fresh = found.keys() - self._alike.keys()
                for region_id, others in self._alike.items():
                    others.extend(other for other in fresh if region_id in found[other])
                self._alike = found | self._alike
            ids = [region.id for region in tree.regions]  # without regions that were removed
            return {one: [other for other in self._alike[one] if other in tree] for one in ids}

    def _clashes(
        self, region_id: RegionId, tree: MaskTree, alike: Sequence[RegionId]
    ) -> dict[RegionId, str]:
        """Regions with the same caption, and look-alikes with nearly the same."""
        text, found = normalized(self._entries[region_id].text), {}
        for region in tree.regions:
            other = self._entries.get(region.id)
            if region.id == region_id or other is None or not (text and other.text):
                continue
            theirs = normalized(other.text)
            if theirs == text:
                found[region.id] = "same"
            elif region.id in alike and word_overlaps([text, theirs])[0, 1] >= NEARLY_THE_SAME:
                found[region.id] = "nearly the same"
        return found
