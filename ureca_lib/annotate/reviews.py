"""Reviews: people accept, reject or rewrite captions.

The paper names the missing human check of its captions as a limitation (App. H). A store holds
each decision; none is ever overwritten, so several people may review one image, and the pipeline's
own caption stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ureca_lib.annotate.records import FinalCaption
from ureca_lib.mask_tree import RegionId

Decision = Literal["accept", "reject", "edit"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
# the reason of a reviewed caption; reviewers' names are never exported
REASONS: dict[Decision, str] = {
    "accept": "accepted in review",
    "reject": "rejected in review",
    "edit": "edited in review",
}


class CaptionChangedError(ValueError):
    """A decision about a caption that was changed meanwhile."""


@dataclass(frozen=True)
class Review:
    """One decision of one person about one region's caption.

    Args:
        region_id: of the caption.
        decision: "accept": it fits this region and no other of the image; "reject": it does not;
            "edit": it did not, `text` does.
        text: the caption after the decision; for "accept" and "reject" the one that was judged.
        previous: the caption that the reviewer saw.
        reviewer: the reviewer's name.
        time: seconds since 1970; the store sets it if it is 0.
        note: the reason, in the reviewer's words.

    Raises:
        ValueError: no such decision, no reviewer, or an edit without a text.
    """

    region_id: RegionId
    decision: Decision
    text: str
    previous: str
    reviewer: str
    time: float = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        if self.decision not in DECISIONS:
            raise ValueError(f"a decision is {', '.join(DECISIONS)}, not {self.decision!r}")
        if not self.reviewer.strip():
            raise ValueError("a review needs the reviewer's name")
        if not self.text.strip() and self.decision != "reject":
            raise ValueError(f"region {self.region_id!r}: to {self.decision}, give a caption")
        if self.decision != "edit" and self.text != self.previous:
            raise ValueError(f"region {self.region_id!r}: only an edit changes the caption")


def reviewed(caption: FinalCaption, reviews: Iterable[Review]) -> FinalCaption:
    """A region's caption after its reviews.

    The latest decision counts. An acceptance or a rejection applies to the text that was judged:
    if the pipeline has written another text since, the decision is ignored.

    Args:
        caption: as the pipeline wrote it.
        reviews: of any regions, the oldest first; those of other regions are ignored.
    """
    for review in reviews:
        if review.region_id != caption.region_id:
            continue
        reason = REASONS[review.decision]
        if review.decision == "edit":
            caption = replace(
                caption, text=review.text, state="unique", reason=reason, stage=None, round=0
            )
        elif review.previous == caption.text:
            state = "unique" if review.decision == "accept" else "dropped"
            caption = replace(caption, state=state, reason=reason)
    return caption
