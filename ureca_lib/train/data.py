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
        SettingsError: too few images to hold some out, the same ones in both, or nothing that
            `best_metric` could be measured on.
        CaptionedError, FileNotFoundError, PublishedError, RegionError: the data cannot be read.
    """
    options = {"style": settings.style}
    images = open_captioned(settings.data, settings.limit, masks=settings.masks, **options)
    if not settings.eval_every:
        return images, []
    if settings.eval_data is not None:
        # a JSONL's masks lie where the data's do, unless it names others with @
        masks = settings.masks if settings.eval_data.endswith(".jsonl") else None
        held_out = open_captioned(settings.eval_data, masks=masks, **options)
        held_out = held_out[: settings.eval_images]
        if shared := set(images.ids) & set(held_out.ids):
            raise SettingsError(
                f"{len(shared)} images, such as {min(shared)}, are in both data and eval_data"
            )
        return images, _measurable(held_out, settings)
    if len(images) <= settings.eval_images:
        raise SettingsError(
            f"{settings.data} has {len(images)} images, and eval_images would hold "
            f"{settings.eval_images} of them out: name other ones with eval_data"
        )
    last = images[-settings.eval_images :]
    return images[: -settings.eval_images], _measurable(last, settings)


def _measurable(
    held_out: Sequence[CaptionedImage], settings: TrainSettings
) -> Sequence[CaptionedImage]:
    if settings.best_metric == "unique" and held_out[0].scene is None:
        raise SettingsError(
            "best_metric unique is for scenes, and the images held out are none: take loss or "
            "exact_match"
        )
    return held_out
