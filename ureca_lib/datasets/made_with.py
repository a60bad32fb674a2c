"""The settings that the captions of a store were made with: the same for all, or mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ureca_lib.annotate.records import ImageRow
from ureca_lib.annotate.store import Store
from ureca_lib.datasets.records import ExportError


@dataclass(frozen=True)
class MadeWith:
    """Images of a split that were captioned with the same settings; None: not known."""

    split: str
    images: int
    settings: Mapping[str, Any] | None


def read_made_with(
    store: Store, finished: Iterable[ImageRow], mixed: bool
) -> tuple[dict[str, Any], list[MadeWith]]:
    """What the finished images of a store were captioned with.

    A split may have its own annotators and be verified; all else is to be the same everywhere.
    Images of a store from before that was kept count as one kind.

    Args:
        store: of the images.
        finished: its finished images.
        mixed: whether they may differ.

    Returns:
        The settings of all, those of the latest run where they are mixed or not known; and, where
        they are mixed, the kinds that there are.

    Raises:
        ExportError: they differ, and may not.
    """
    counts = Counter((row.split, row.made_with) for row in finished)
    kinds = [
        MadeWith(split, count, None if made_with is None else store.settings(made_with))
        for (split, made_with), count in sorted(counts.items(), key=str)
    ]
    if not _is_mixed(counts):
        known = all(kind.settings is not None for kind in kinds)
        return (_of_all(kinds) if known else store.settings()), []
    if not mixed:
        others = counts.total() - max(counts.values())
        raise ExportError(
            f"{store.path}: {others} of {counts.total()} finished images were captioned with other "
            "settings than the rest; annotate all with the same, or allow it with mixed (--mixed)"
        )
    return store.settings(), kinds


def _is_mixed(kinds: Iterable[tuple[str, str | None]]) -> bool:
    """Whether a split has several digests, or the splits differ in what they share."""
    kinds = list(kinds)
    shared = {made_with and made_with.partition("/")[0] for _, made_with in kinds}
    return len({split for split, _ in kinds}) < len(kinds) or len(shared) > 1


def _of_all(kinds: Iterable[MadeWith]) -> dict[str, Any]:
    """Settings that all share, with the annotators of each split."""
    found: dict[str, Any] = {"annotators": {}, "verify_splits": []}
    for kind in kinds:
        annotators = found["annotators"] | {kind.split: kind.settings["annotators"]}
        verified = sorted({*found["verify_splits"], *kind.settings["verify_splits"]})
        found |= kind.settings | {"annotators": annotators, "verify_splits": verified}
    return found
