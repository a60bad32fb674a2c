"""Errors about masks, their files and their photos: file missing, annotation or image at fault."""

from __future__ import annotations

from pathlib import Path


class RegionError(ValueError):
    """Base of every error about regions, their annotation file or their image.

    Args:
        reason: the fault, in one sentence.
        file: the file at fault, if any.
        region_id: the region at fault, if any.
    """

    def __init__(
        self, reason: str, file: str | Path | None = None, region_id: int | str | None = None
    ):
        self.reason = reason
        self.file = None if file is None else str(file)
        self.region_id = region_id
        place = [] if file is None else [str(file)]
        if region_id is not None:
            place.append(f"region {region_id}")
        super().__init__(": ".join([*place, reason]))

    def located(self, file: str | Path | None, region_id: int | str | None = None) -> RegionError:
        """Return the same error with the file and the region's id filled in if unknown."""
        return type(self)(
            self.reason,
            self.file or file,
            self.region_id if self.region_id is not None else region_id,
        )


class FileMissingError(RegionError, FileNotFoundError):
    """A requested file that does not exist."""


class AnnotationFormatError(RegionError):
    """An annotation at fault: truncated, of another layout, malformed, or with an id used twice."""


class EmptyMaskError(AnnotationFormatError):
    """A mask without pixels."""


class SizeMismatchError(AnnotationFormatError):
    """A mask, or annotations, made for an image of another size."""


class ImageUnreadableError(RegionError):
    """An image at fault: truncated, too large to decode, or not an image."""
