"""`ImageViews`: the pictures of one image that the annotator is shown."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np

from ureca_lib.annotate.views.drawing import blur, draw_contour, show_sharp
from ureca_lib.annotate.views.frames import Cut, Frame, frame_of
from ureca_lib.annotate.views.numbers import (
    draw_number,
    number_color,
    number_patch,
    number_pixels,
    place_numbers,
)
from ureca_lib.annotate.views.settings import ViewSettings
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import RegionError, RegionImage

_KEPT = 64  # masks of an image that stay decoded, each cut to its box: every stage asks for them


class ImageViews:
    """Views of the regions of one image. May be used from several threads at once.

    The photo is blurred once, here. Every view is a new array.

    Args:
        image: with its photo.
        settings: how the views are made.

    Raises:
        FileMissingError, ImageUnreadableError, SizeMismatchError: the photo cannot be read.
    """

    def __init__(self, image: RegionImage, settings: ViewSettings | None = None):
        self.image, self.settings = image, settings or ViewSettings()
        self._photo = np.ascontiguousarray(image.pixels)
        self._blurred = blur(self._photo, self.settings.blur_sigma)
        whole = (0, 0, image.width, image.height)
        self._whole = frame_of([whole], image.height, image.width, self.settings)
        self._shown = self._whole.resized(self._photo)
        self._shown_blurred = self._whole.resized(self._blurred)
        # of the image, not of self: a cycle would keep the pictures until the collector comes
        self._cut = lru_cache(maxsize=_KEPT)(partial(_decode, image))

    def target_crop(self, region_id: RegionId) -> np.ndarray:
        """The target cropped, with all else blurred (Table 7, Image-2): (h, w, 3) uint8.

        Raises:
            RegionError: no region has this id; so for all the views.
        """
        cut = self._cut(region_id)
        frame = self._frame([cut])
        return frame.resized(self._blurred_around(frame, cut))

    def contoured_parent(
        self,
        region_id: RegionId,
        parent_id: RegionId | None,
        main_object_id: RegionId | None = None,
    ) -> np.ndarray:
        """The parent cropped, with the target contoured (Table 7, Image-1): (h, w, 3) uint8.

        With `context_blur="parent"` only the target is sharp (Sec. 3). With "main_object" the crop
        holds the main object, all of which is sharp (published code).

        Args:
            region_id: the target.
            parent_id: its parent; None where that is the image.
            main_object_id: the ancestor under the root; None where that is the target itself.
        """
        target = self._cut(region_id)
        as_published = self.settings.context_blur == "main_object"
        around = main_object_id if as_published else parent_id
        if around is None:
            frame = self._whole
            canvas = (self._shown if as_published else self._shown_blurred).copy()
            if not as_published:
                show_sharp(canvas, self._shown, frame.mapped(target))
        else:
            context = self._cut(around)
            frame = self._frame([context, target])  # a part may reach out of its parent
            sharp = context if as_published else target
            canvas = frame.resized(self._blurred_around(frame, sharp))
        self._draw_contour(canvas, frame.mapped(target))
        return canvas

    def contoured_image(self, region_id: RegionId) -> np.ndarray:
        """The full image with the target contoured (Table 8): (H, W, 3) uint8."""
        canvas = self._shown.copy()
        self._draw_contour(canvas, self._whole.mapped(self._cut(region_id)))
        return canvas

    def numbered(self, region_id: RegionId, look_alike_ids: Sequence[RegionId]) -> np.ndarray:
        """The target and its look-alikes contoured and numbered (Table 9): (h, w, 3) uint8.

        Args:
            region_id: the target, 0, in blue.
            look_alike_ids: numbered from 1, each in a colour of its own.

        Raises:
            ValueError: a look-alike is named twice, or is the target.
        """
        ids = [region_id, *look_alike_ids]
        if len(set(ids)) < len(ids):
            raise ValueError(f"region {region_id}: look-alikes are named twice: {ids[1:]}")
        cuts = [self._cut(one) for one in ids]
        cropped = self.settings.look_alike_frame == "crop"
        frame = self._frame(cuts) if cropped else self._whole
        canvas = frame.resized(self._photo[frame.window]).copy() if cropped else self._shown.copy()
        mapped = [frame.mapped(cut) for cut in cuts]
        for index in reversed(range(len(ids))):  # the target's contour is drawn over the others
            self._draw_contour(canvas, mapped[index], index)
        pixels = number_pixels(self.settings.number_height, *canvas.shape[:2])
        sizes = [number_patch(index, pixels)[0].shape[1::-1] for index in range(len(ids))]
        gap = self.settings.contour_width + 2
        places = place_numbers(mapped, sizes, *canvas.shape[:2], gap)
        for index in reversed(range(len(ids))):
            draw_number(canvas, index, pixels, places[index])
        return canvas

    def _frame(self, cuts: Sequence[Cut]) -> Frame:
        boxes = [cut.box for cut in cuts]
        return frame_of(boxes, self.image.height, self.image.width, self.settings)

    def _blurred_around(self, frame: Frame, cut: Cut) -> np.ndarray:
        """(rows, columns, 3) of the frame in photo pixels: sharp in the mask, blurred elsewhere."""
        canvas = self._blurred[frame.window].copy()
        show_sharp(canvas, self._photo[frame.window], frame.shifted(cut))
        return canvas

    def _draw_contour(self, canvas: np.ndarray, cut: Cut, index: int | None = None) -> None:
        color = self.settings.contour_color if index is None else number_color(index)
        draw_contour(canvas, cut, self.settings.contour_width, color)


def _decode(image: RegionImage, region_id: RegionId) -> Cut:
    try:
        region = image[region_id]
    except KeyError:
        raise RegionError("the image has no region of this id", image.path, region_id) from None
    return Cut.of(region)
