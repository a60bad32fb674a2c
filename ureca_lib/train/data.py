"""The images of a run: those to learn, and those held out."""

from __future__ import annotations

from collections.abc import Sequence

from ureca_lib.datasets.captioned import CaptionedImage, open_captioned
from ureca_lib.train.settings import SettingsError, TrainSettings


def open_data(
    settings: TrainSettings,
) -> tuple[Sequence[CaptionedImage], Sequence[CaptionedImage]]:
    """Images to learn from, and the images of an evaluation, none of which is among the former.

    The latter are the first of `eval_data`, or where none is named the last of the data; none
    where nothing is evaluated.

    Raises:
        SettingsError: too few images to hold some out, or the same ones in both.
        CaptionedError, FileNotFoundError, PublishedError, RegionError: the data cannot be read.
    """
    options = {"style": settings.style}
    images = open_captioned(settings.data, settings.limit, masks=settings.masks, **options)
    if not settings.eval_every:
        return images, []
    if settings.eval_data is not None:
        held_out = open_captioned(settings.eval_data, **options)[: settings.eval_images]
        shared = set(images.ids) & set(held_out.ids)
        if shared and images.name.partition(":")[0] == held_out.name.partition(":")[0]:
            raise SettingsError(
                f"{len(shared)} images, such as {min(shared)}, are in both data and eval_data"
            )
        return images, held_out
    if len(images) <= settings.eval_images:
        raise SettingsError(
            f"{settings.data} has {len(images)} images, and eval_images would hold "
            f"{settings.eval_images} of them out: name other ones with eval_data"
        )
    return images[: -settings.eval_images], images[-settings.eval_images :]
