"""Review: a person walks through an image's captions and decides about each."""

from __future__ import annotations

import getpass

from ureca_lib.annotate.records import FinalCaption
from ureca_lib.annotate.reviews import CaptionChangedError, Decision, Review
from ureca_lib.annotate.store import Store
from ureca_lib.mask_tree import MaskTree, RegionId


def _account_name() -> str:
    """The name of the account, empty where it has none, as in a container under a bare number."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # until Python 3.13 whatever the look-up raised
        return ""


class ReviewSession:
    """The captions of one image of a store, in the order in which one person reviews them.

    Decisions are in the store as soon as they are made. Who comes back goes on with the first
    caption that waits for a decision of theirs.

    Args:
        store: that has finished the image.
        image: its name in the store.
        tree: of its regions; wholes are reviewed before their parts.
        reviewer: the person's name; None takes that of the account.

    Raises:
        ValueError: the reviewer has no name.
    """

    def __init__(self, store: Store, image: str, tree: MaskTree, reviewer: str | None = None):
        self.store, self.image = store, image
        self.reviewer = (_account_name() if reviewer is None else reviewer).strip()
        if not self.reviewer:
            raise ValueError("a review needs the reviewer's name")
        self._load()
        ordered = (region.id for region in tree.top_down())
        self.queue = [one for one in ordered if one in self.finals and self.finals[one].text]
        self.place = 0
        self.to_first_open()

    def _load(self) -> None:
        self.finals: dict[RegionId, FinalCaption] = {
            caption.region_id: caption for caption in self.store.reviewed_captions(self.image)
        }
        reviews = self.store.reviews(self.image)
        own = [review for review in reviews if review.reviewer == self.reviewer]
        self.decisions: dict[RegionId, Review] = {
            review.region_id: review
            for review in own  # the latest of each region; one of an older text does not count
            if review.region_id in self.finals and review.text == self.finals[review.region_id].text
        }

    @property
    def region_id(self) -> RegionId | None:
        """The region under review, or None where nothing has a caption."""
        return self.queue[self.place] if self.queue else None

    @property
    def decided(self) -> int:
        """How many captions this reviewer has decided about."""
        return sum(one in self.decisions for one in self.queue)

    def go_to(self, region_id: RegionId) -> bool:
        """Make a region the one under review; False where it has no caption to review."""
        if region_id not in self.queue:
            return False
        self.place = self.queue.index(region_id)
        return True

    def step(self, count: int) -> None:
        """Go on, or back for -1, around the end."""
        if self.queue:
            self.place = (self.place + count) % len(self.queue)

    def to_first_open(self) -> None:
        """Go to the next caption that waits for a decision, from here on and around the end."""
        for offset in range(len(self.queue)):
            place = (self.place + offset) % len(self.queue)
            if self.queue[place] not in self.decisions:
                self.place = place
                return

    def decide(self, decision: Decision, text: str | None = None, note: str = "") -> Review:
        """Commit a decision about the region under review, and go on to the next open one.

        Args:
            decision: "accept", "reject" or "edit".
            text: the new caption, for an edit.
            note: why.

        Returns:
            What the store has now.

        Raises:
            ValueError: nothing to review, no such decision, or an edit without or with the same
                text; nothing was written.
            CaptionChangedError: somebody else has changed the caption since this session read it;
                nothing was written, and the session has the new one.
            StoreError: it could not be written.
        """
        region_id = self.region_id
        if region_id is None:
            raise ValueError("no region has a caption to review")
        previous = self.finals[region_id].text
        new = " ".join((text or "").split()) if decision == "edit" else previous
        if decision == "edit" and new == previous:
            raise ValueError("the caption is unchanged: accept it, or change it")
        review = Review(region_id, decision, new, previous, self.reviewer, note=note)
        try:
            saved = self.store.add_review(self.image, review)
        except CaptionChangedError:
            self._load()
            raise
        self._load()
        self.to_first_open()
        return saved
