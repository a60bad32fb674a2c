"""What can be wrong with masks, their files and their photos: one exception type each."""

from __future__ import annotations

from pathlib import Path


class RegionError(ValueError):
    """Base of every error about regions, their annotation file or their image.

    Args:
        reason: what is wrong, in one sentence.
        file: the file it was found in, where there is one.
        region_id: the region it was found in, where there is one.
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
        """The same error, with the file and the region's id filled in where they were unknown."""
        return type(self)(
            self.reason,
            self.file or file,
            self.region_id if self.region_id is not None else region_id,
        )


class FileMissingError(RegionError, FileNotFoundError):
    """A file that was asked for does not exist."""


class AnnotationFormatError(RegionError):
    """An annotation file that is truncated, is not JSON, or is not of the layout it should be."""


class MissingKeyError(RegionError):
    """A key that the layout needs is not there."""


class WrongTypeError(RegionError):
    """A value of another type than the layout has."""


class RLEError(RegionError):
    """A run-length encoding that is malformed or does not fill its size."""


class SizeMismatchError(RegionError):
    """A mask whose size is not the image's, or a photo whose size is not the annotations'."""


class EmptyMaskError(RegionError):
    """A mask without a single pixel."""


class AreaMismatchError(RegionError):
    """A stated area that is not the mask's."""


class DuplicateIdError(RegionError):
    """An id that a region before it in the same image already has."""


class ImageUnreadableError(RegionError):
    """A photo that is truncated, or a file that is not an image."""


class TooLargeError(RegionError):
    """A size whose decoding could exhaust memory; found before anything is decoded."""
