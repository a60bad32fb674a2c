"""Review: a person decides about an image's captions in turn; a store records each decision."""

from __future__ import annotations

import getpass

from ureca_lib.annotate.records import FinalCaption
from ureca_lib.annotate.reviews import Decision, Review
from ureca_lib.annotate.store import Store
from ureca_lib.mask_tree import MaskTree, RegionId


class ReviewSession:
    """The captions of one image of a store, in one person's order of review.

    Decisions are appended to the store at once. A person who returns continues with the first
    caption without a decision of theirs.

    Args:
        store: that has finished the image.
        image: its name in the store.
        tree: of its regions; wholes are reviewed before their parts.
        reviewer: the person's name; None takes the name of the account.

    Raises:
        ValueError: the reviewer has no name.
    """

    def __init__(self, store: Store, image: str, tree: MaskTree, reviewer: str | None = None):
        self.store, self.image = store, image
        try:
            self.reviewer = (getpass.getuser() if reviewer is None else reviewer).strip()
        except (ImportError, KeyError, OSError):  # a bare user number, as in a container
            self.reviewer = ""
        if not self.reviewer:
            raise ValueError("a review needs the reviewer's name")
        self._load()
        ordered = (region.id for region in tree.top_down())
        self.queue = [one for one in ordered if one in self.finals and self.finals[one].text]
        self.place = 0
        self._to_first_open()

    def _load(self) -> None:
        """Read the captions as they are now, and this reviewer's latest decision about each."""
        captions = self.store.reviewed_captions(self.image)
        self.finals: dict[RegionId, FinalCaption] = {final.region_id: final for final in captions}
        self.decisions: dict[RegionId, Review] = {
            review.region_id: review
            for review in self.store.reviews(self.image)
            # a decision about an earlier text does not count
            if review.reviewer == self.reviewer
            and review.region_id in self.finals
            and review.text == self.finals[review.region_id].text
        }

    @property
    def region_id(self) -> RegionId | None:
        """The region under review, or None if no region has a caption."""
        return self.queue[self.place] if self.queue else None

    @property
    def decided(self) -> int:
        """Number of captions that this reviewer has decided about."""
        return sum(region_id in self.decisions for region_id in self.queue)

    def go_to(self, region_id: RegionId | None) -> None:
        """Review a region next, if it has a caption."""
        if region_id in self.queue:
            self.place = self.queue.index(region_id)

    def step(self, count: int) -> None:
        """Go forward, or back for -1; the ends of the queue are joined."""
        if self.queue:
            self.place = (self.place + count) % len(self.queue)

    def _to_first_open(self) -> None:
        """Go forward to the next caption without a decision; stay if there is none."""
        after = [*self.queue[self.place :], *self.queue[: self.place]]
        self.go_to(next((one for one in after if one not in self.decisions), None))

    def decide(self, decision: Decision, text: str | None = None, note: str = "") -> Review:
        """Record a decision about the region under review, and go to the next open caption.

        Args:
            decision: "accept", "reject" or "edit".
            text: the new caption, for an edit.
            note: the reason.

        Returns:
            The review as it is stored.

        Raises:
            ValueError: there is nothing to review, the decision does not exist, or the edit has no
                text or the same text; nothing was written.
            CaptionChangedError: another person has changed the caption since this session read
                it; nothing was written, and the session has the new caption.
            StoreError: the store cannot be written.
        """
        if self.region_id is None:
            raise ValueError("no region has a caption to review")
        previous = self.finals[self.region_id].text
        new = " ".join((text or "").split()) if decision == "edit" else previous
        if decision == "edit" and new == previous:
            raise ValueError("the caption is unchanged: accept it, or change it")
        review = Review(self.region_id, decision, new, previous, self.reviewer, note=note)
        try:
            saved = self.store.add_review(self.image, review)
        finally:  # also where another person has changed the caption
            self._load()
        self._to_first_open()
        return saved
