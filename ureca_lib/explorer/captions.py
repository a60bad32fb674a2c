"""What is known of each region's caption: text, score, what it is mistaken for, and by whom."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ureca_lib.annotate.look_alikes import (
    ColorTextureFeatures,
    LookAlikeSettings,
    RegionFeatures,
    find_look_alikes,
    normalized,
    word_overlaps,
)
from ureca_lib.explorer.captioners import Captioner
from ureca_lib.mask_tree import MaskTree, RegionId
from ureca_lib.regions import Region, RegionImage

NEARLY_THE_SAME = 0.8  # share of words and pairs of words
_NOTABLE = 0.02  # probability from which on a region that does not look alike is named


@dataclass(frozen=True)
class Entry:
    """A region's caption.

    Args:
        text: the caption, which may be empty.
        score: mean log-probability of its tokens, where a model wrote it.
        unique: what its writer says of it, where that is known.
        state: what became of it in the store or in review.
    """

    text: str
    score: float | None = None
    unique: bool | None = None
    state: str = ""


@dataclass(frozen=True)
class Rival:
    """Another region that a caption may be mistaken for.

    Args:
        region_id: its id.
        alike: whether it looks like the target.
        probability: of the listener's choosing it, where there is a listener.
        clash: "same" or "nearly the same" where its own caption is.
    """

    region_id: RegionId
    alike: bool
    probability: float | None = None
    clash: str = ""


@dataclass(frozen=True)
class Judgement:
    """How a region's caption does among the others.

    Args:
        probability: with which the listener picks the region itself; None without a listener.
        rivals: those with the same caption, then those with the look and whom the listener may
            pick; the most likely first, without a listener the most similar.
        same: how many other regions have the same caption, whether or not they are among the rivals
            that are named.
    """

    probability: float | None
    rivals: tuple[Rival, ...]
    same: int = 0

    @property
    def unique(self) -> bool:
        """Whether the caption picks out its region.

        No other region has the same one; and a listener picks its own region before all others
        or, without a listener, no look-alike's caption is nearly the same.
        """
        if self.probability is None:
            return not any(rival.clash for rival in self.rivals)
        return all(
            rival.clash != "same" and (rival.probability or 0.0) < self.probability
            for rival in self.rivals
        )


class CaptionBook:
    """Captions of one image's regions, made when they are first asked for and then kept.

    Several threads may use one.

    Args:
        pixels: (H, W, 3) uint8.
        captioner: who captions; None where `entries` holds all there will be.
        entries: captions that are known.
        features: that others are found by; None compares colour and texture.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        captioner: Captioner | None,
        entries: Mapping[RegionId, Entry] | None = None,
        features: RegionFeatures | None = None,
    ):
        self._pixels, self._captioner = pixels, captioner
        self._entries = dict(entries or {})
        self._alike: dict[RegionId, list[RegionId]] = {}
        self._features = features or ColorTextureFeatures()
        self._listened: dict[tuple[str, tuple[RegionId, ...]], np.ndarray] = {}
        # the captioner is asked by one thread at a time, which may take long; what is known can
        # be read and changed meanwhile
        self._asking, self._lock = threading.RLock(), threading.Lock()

    @property
    def has_listener(self) -> bool:
        """Whether the captioner can tell how likely a caption is for each region."""
        return hasattr(self._captioner, "score")

    @property
    def can_caption(self) -> bool:
        """Whether there is someone to ask for captions."""
        return self._captioner is not None

    def set_look_alikes(self, look_alikes: Mapping[RegionId, Sequence[RegionId]]) -> None:
        """For each region those it resembles, as somebody has found them before."""
        with self._lock:
            self._alike = {region_id: list(ids) for region_id, ids in look_alikes.items()}

    def known(self, region_id: RegionId) -> Entry | None:
        """A caption if there is one already."""
        return self._entries.get(region_id)

    def put(self, region_id: RegionId, entry: Entry) -> None:
        """Set a caption, as a person does who edits it."""
        with self._lock:
            self._entries[region_id] = entry

    def forget(self, region_id: RegionId) -> None:
        """Drop what is known of a region that is no longer there."""
        with self._lock:
            self._entries.pop(region_id, None)
            self._alike.pop(region_id, None)
            for others in self._alike.values():
                others[:] = [other for other in others if other != region_id]

    def fill(self, tree: MaskTree) -> None:
        """Caption all regions that have no caption yet, together."""
        with self._asking:
            missing = [region for region in tree.regions if region.id not in self._entries]
            if not missing or self._captioner is None:
                return
            together = getattr(self._captioner, "captions_together", False)
            asked = tree.regions if together else missing
            captions = self._quiet(self._captioner.caption, asked)
            wanted = {region.id for region in missing}
            for region, caption in zip(asked, captions, strict=True):
                if region.id in wanted:
                    score = getattr(caption, "score", None)
                    unique = getattr(caption, "unique", None)
                    with self._lock:  # what a person wrote meanwhile stays
                        self._entries.setdefault(region.id, Entry(caption.text, score, unique))

    def judge(self, region_id: RegionId, tree: MaskTree, most: int = 6) -> Judgement:
        """How well a region's caption picks it out.

        Args:
            region_id: that has a caption.
            tree: of all regions.
            most: rivals that are named.
        """
        with self._asking:
            text = self._entries[region_id].text
            alike = self.look_alikes(tree).get(region_id, [])
            ids = [region.id for region in tree.regions]
            clashes = self._clashes(region_id, ids, alike)
            ranked = list(dict.fromkeys([*clashes, *alike]))
            own = None
            chances: dict[RegionId, float] = {}
            if self.has_listener and text:
                chances = dict(zip(ids, self.listen(text, tree.regions).tolist(), strict=True))
                own = chances[region_id]
                others = {one for one in ids if chances[one] >= min(own, _NOTABLE)}
                ranked = sorted({*ranked, *others} - {region_id}, key=lambda one: -chances[one])
            # the same caption is what a reader has to know first
            ranked.sort(key=lambda one: clashes.get(one) != "same")
            found = [
                Rival(one, one in alike, chances.get(one), clashes.get(one, ""))
                for one in ranked[:most]
            ]
            return Judgement(own, tuple(found), list(clashes.values()).count("same"))

    def listen(self, text: str, regions: Sequence[Region]) -> np.ndarray:
        """(R,) probability of each region's being meant by a caption, if one of them is.

        A listener who holds all regions for equally likely beforehand: the softmax over the
        regions of the model's log-likelihood of the caption.

        Raises:
            AttributeError: the captioner cannot score.
        """
        key = (text, tuple(region.id for region in regions))
        with self._asking:
            if key not in self._listened:
                scores = self._quiet(self._captioner.score, regions, [text])  # (R, 1)
                values = np.asarray(scores, np.float64)[:, 0]
                weights = np.exp(values - values.max())
                self._listened[key] = weights / weights.sum()
            return self._listened[key]

    def look_alikes(self, tree: MaskTree) -> dict[RegionId, list[RegionId]]:
        """For each region those it resembles, the most similar first."""
        with self._asking:
            if any(region.id not in self._alike for region in tree.regions):
                height, width = self._pixels.shape[:2]
                image = RegionImage(tree.regions, width, height, self._pixels)
                vectors = self._features(image, [region.id for region in tree.regions])
                settings = LookAlikeSettings()
                found = find_look_alikes(vectors, tree, settings, self._features.threshold)
                with self._lock:
                    fresh = found.keys() - self._alike.keys()
                    for region_id, others in self._alike.items():
                        others.extend(one for one in fresh if region_id in found[one])
                    self._alike = found | self._alike
            return self._alike

    def _clashes(
        self, region_id: RegionId, ids: Sequence[RegionId], alike: Sequence[RegionId]
    ) -> dict[RegionId, str]:
        text = normalized(self._entries[region_id].text)
        found = {}
        for other in ids:
            entry = self._entries.get(other)
            if other == region_id or entry is None or not (text and entry.text):
                continue
            theirs = normalized(entry.text)
            if theirs == text:
                found[other] = "same"
            elif other in alike and word_overlaps([text, theirs])[0, 1] >= NEARLY_THE_SAME:
                found[other] = "nearly the same"
        return found

    def _quiet(self, call: Any, *arguments: Any) -> Any:
        """A captioner's method called with the photo, and without a bar where it draws one."""
        if "progress" in inspect.signature(call).parameters:
            return call(self._pixels, *arguments, progress=False)
        return call(self._pixels, *arguments)
