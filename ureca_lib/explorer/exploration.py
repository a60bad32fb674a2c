"""`Exploration`: where a person is among an image's regions, and what they do there."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Self

from ureca_lib.annotate.look_alikes import RegionFeatures
from ureca_lib.annotate.records import FinalCaption
from ureca_lib.annotate.replay import AnnotatedImage
from ureca_lib.annotate.reviews import CaptionChangedError, Decision, Review
from ureca_lib.annotate.store import Store, StoreError
from ureca_lib.explorer.captioners import Captioner
from ureca_lib.explorer.captions import CaptionBook, Entry, Judgement
from ureca_lib.explorer.cursor import TreeCursor
from ureca_lib.explorer.geometry import LabelMap, drawn_region
from ureca_lib.explorer.review import ReviewSession
from ureca_lib.mask_tree import MaskTree, RegionId, build_mask_tree, by_area
from ureca_lib.regions import Region, load_image
from ureca_lib.regions.photo import Photo

DRAWN = "drawn "  # how the ids of regions begin that were drawn by hand


class Exploration:
    """An image to explore: regions, captions, a place in the tree, a review. It draws nothing.

    Captions are made at the first use, for all regions together; those of a store are read.

    Args:
        image: a path, a PIL image or an array; see `ureca_lib.regions.load_image`.
        regions: of the image, at least one.
        captioner: has `caption(image, regions)`; with `score` too it is also the listener that
            captions are tried on. None where `captions` has them all.
        tree: of the regions; None builds the default one.
        captions: that are known, by region id.
        features: that look-alikes are found by; None compares colour and texture.

    Raises:
        ValueError: no regions, or neither a captioner nor captions.
        RegionError: an unreadable image, or masks of another size.
    """

    def __init__(
        self,
        image: Photo,
        regions: Sequence[Region],
        captioner: Captioner | None = None,
        tree: MaskTree | None = None,
        captions: Mapping[RegionId, str] | None = None,
        features: RegionFeatures | None = None,
    ):
        regions = list(regions)
        if not regions:
            raise ValueError("there are no regions to explore")
        if captioner is None and not captions:
            raise ValueError("give a captioner, or captions")
        self.pixels = load_image(image, expected=regions[0].size)
        entries = {region_id: Entry(text) for region_id, text in (captions or {}).items()}
        self.book = CaptionBook(self.pixels, captioner, entries, features=features)
        self.session: ReviewSession | None = None
        self._review_of: tuple[Store, str, str | None] | None = None
        self._lock = threading.RLock()
        self._judged: dict[RegionId, Judgement] = {}
        self._drawn: set[RegionId] = set()
        self._next_drawn = 1
        self._set_tree(build_mask_tree(regions) if tree is None else tree)

    @classmethod
    def from_store(
        cls,
        json_path: str | Path,
        store: str | Path | Store,
        captioner: Captioner | None = None,
        reviewer: str | None = None,
    ) -> Self:
        """An image as the annotation pipeline left it, ready for review.

        Args:
            json_path: the image's annotation file, with the photo beside it.
            store: that has finished the image, or its path.
            captioner: for regions drawn by hand, and as the listener.
            reviewer: whose decisions a review will record; None takes the name of the account.

        Raises:
            StoreError: there is no store, or it has not finished this image.
        """
        opened = store if isinstance(store, Store) else Store(store, create=False)
        done = AnnotatedImage(json_path, opened)
        if not done.finals:
            raise StoreError(f"{opened.path}: {done.name} has no captions")
        found = cls(done.image.pixels, done.image.regions, captioner, done.tree, done.captions)
        alike = {region_id: final.look_alikes for region_id, final in done.finals.items()}
        found.book.set_look_alikes(alike)
        found._review_of = (opened, done.name, reviewer)
        found._read_store(opened.reviewed_captions(done.name))
        return found

    def _read_store(self, finals: Iterable[FinalCaption]) -> None:
        with self._lock:
            for final in finals:
                state = final.reason or final.state
                entry = Entry(final.text, None, final.state == "unique", state)
                self.book.put(final.region_id, entry)
            self._judged.clear()

    def _set_tree(self, tree: MaskTree) -> None:
        with self._lock:
            self.tree = tree
            self.order = [tree.regions[index].id for index in by_area(tree.regions)]
            self._labels = LabelMap(tree.regions)
            self.cursor = TreeCursor(tree)
            self._judged.clear()

    def changed(self) -> None:
        """Called after each change of what is looked at, for those who show it."""

    @property
    def can_review(self) -> bool:
        """Whether there is a store to write decisions to."""
        return self._review_of is not None

    @property
    def region_id(self) -> RegionId | None:
        """The region that is looked at; None is the whole image."""
        return self.cursor.region_id

    @property
    def captions(self) -> dict[RegionId, str]:
        """Every region's caption; asks the captioner for those that are missing."""
        self.book.fill(self.tree)
        known = ((region.id, self.book.known(region.id)) for region in self.tree.regions)
        return {region_id: entry.text for region_id, entry in known if entry}

    @property
    def drawn(self) -> list[Region]:
        """The regions that were drawn by hand."""
        return [one for one in self.tree.regions if one.id in self._drawn]

    def click(self, x: float, y: float) -> RegionId | None:
        """Look at the smallest region at (x, y) in pixels of the image; returns its id."""
        self.go_to(self._labels.at(x, y))
        return self.region_id

    def go_to(self, region_id: RegionId | None) -> None:
        """Look at a region, or with None at the whole image.

        Raises:
            KeyError: there is no such region.
        """
        self.cursor.move_to(region_id)
        if self.session is not None and region_id is not None:
            self.session.go_to(region_id)
        self.changed()

    def step(self, to: str) -> None:
        """Look at the "up" (parent), "down" (child), "next" or "previous" (sibling) region."""
        steps = {
            "up": self.cursor.up,
            "down": self.cursor.down,
            "next": lambda: self.cursor.aside(1),
            "previous": lambda: self.cursor.aside(-1),
        }
        if to not in steps:
            raise ValueError(f"a step is {', '.join(steps)}, not {to!r}")
        steps[to]()
        self.go_to(self.region_id)

    def draw(self, points: Sequence[Sequence[float]]) -> Region:
        """Add a region of one's own, look at it and caption it.

        Args:
            points: (x, y) in pixels of the image: two corners of a box, or a polygon.

        Raises:
            RegionError: points that make no region of the image.
            ValueError: there is no captioner to ask.
        """
        if not self.book.can_caption:
            raise ValueError("there is no captioner for regions of your own")
        used = {region.id for region in self.tree.regions}
        # a number is not used again: something may still be under way for what had it
        number = next(n for n in count(self._next_drawn) if f"{DRAWN}{n}" not in used)
        region = drawn_region(f"{DRAWN}{number}", points, self.tree.regions[0].size)
        self._next_drawn = number + 1
        self._drawn.add(region.id)
        self._rebuild([*self.tree.regions, region])
        self.go_to(region.id)
        return region

    def remove(self) -> None:
        """Take away the region that is looked at, if it was drawn by hand."""
        region_id = self.region_id
        if region_id in self._drawn:
            self._drawn.remove(region_id)
            self.book.forget(region_id)
            self._rebuild([one for one in self.tree.regions if one.id != region_id])
            self.changed()

    def _rebuild(self, regions: list[Region]) -> None:
        self._set_tree(build_mask_tree(regions, self.tree.threshold, self.tree.parent_rule))

    def judge(self, region_id: RegionId) -> Judgement:
        """How well a region's caption picks it out among all of them.

        Raises:
            KeyError: there is no such region, or it has no caption.
        """
        tree = self.tree
        self.book.fill(tree)
        found, entry = self.judged(region_id), self.book.known(region_id)
        if found is None:
            found = self.book.judge(region_id, tree)
            with self._lock:  # not if the caption, or a region, has changed meanwhile
                if tree is self.tree and entry is self.book.known(region_id):
                    self._judged[region_id] = found
        return found

    def judged(self, region_id: RegionId | None) -> Judgement | None:
        """What `judge` has found out already."""
        return self._judged.get(region_id)

    def is_drawn(self, region_id: RegionId | None) -> bool:
        """Whether a region was drawn by hand."""
        return region_id in self._drawn

    def start_review(self) -> ReviewSession:
        """Begin, or go on, to review the captions of the store.

        Raises:
            ValueError: the explorer was not made from a store, or the reviewer has no name.
        """
        if self._review_of is None:
            raise ValueError("review needs a store: RegionExplorer.from_store(json_path, store)")
        store, name, reviewer = self._review_of
        self.session = ReviewSession(store, name, self.tree, reviewer)
        self._read_store(self.session.finals.values())
        self.go_to(self.session.region_id)
        return self.session

    def reviews(self) -> list[Review]:
        """Every decision that the store has about this image, of all reviewers."""
        if self._review_of is None:
            return []
        store, name, _ = self._review_of
        return store.reviews(name)

    def stop_review(self) -> None:
        """Back to looking around."""
        self.session = None
        self.changed()

    def decide(self, decision: Decision, text: str | None = None, note: str = "") -> Review:
        """Accept, reject or edit the caption under review; it is in the store at once.

        Raises:
            ValueError: no review goes on, or it is no decision.
            CaptionChangedError: somebody else has changed the caption; the new one is shown.
            StoreError: it was not written.
        """
        if self.session is None:
            raise ValueError("no review goes on: start_review() begins one")
        try:
            saved = self.session.decide(decision, text, note)
        except CaptionChangedError:
            self._read_store(self.session.finals.values())
            self.changed()
            raise
        self._read_store(self.session.finals.values())
        self.go_to(self.session.region_id)
        return saved

    def move_review(self, count: int) -> None:
        """Go on to the next caption under review, or back for -1, without a decision."""
        if self.session is not None:
            self.session.step(count)
            self.go_to(self.session.region_id)
