"""A store of the pipeline, read as a data set: captions, answers and masks, image by image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from ureca_lib.annotate.protocol import STAGES
from ureca_lib.annotate.records import Answer, ImageRow, masks_digest
from ureca_lib.annotate.store import Store
from ureca_lib.datasets.records import ExportError, ImageRecord, RegionRecord, region_row_id
from ureca_lib.mask_tree import RegionId
from ureca_lib.regions import RegionError, RegionImage, load_sa1b

FINISHED = ("done", "partial")


def read_store(
    store: Store, keys: Mapping[str, str], images: Mapping[str, RegionImage] | None = None
) -> Iterator[ImageRecord]:
    """The finished images of a store, by name; one is in memory at a time.

    Captions are as people's reviews left them.

    Args:
        store: where the pipeline kept its captions.
        keys: for each image's name its key in the data set (`image_keys`).
        images: those that were annotated in memory, by their names in the store.

    Raises:
        ExportError: naming the image whose masks are gone, or are not those that were captioned.
    """
    for row in sorted(store.images(), key=lambda row: row.image):
        if row.status in FINISHED:
            yield _record(store, row, keys[row.image], (images or {}).get(row.image))


def _record(store: Store, row: ImageRow, key: str, image: RegionImage | None) -> ImageRecord:
    image = _masks(store, row) if image is None else image
    captions = store.reviewed_captions(row.image)
    _check_same(row, image, [caption.region_id for caption in captions])
    answers: dict[RegionId, list[Answer]] = defaultdict(list)
    for answer in store.answers(row.image).values():
        answers[answer.step.region_id].append(answer)
    regions = []
    for caption in captions:
        ordered = sorted(answers[caption.region_id], key=_order)
        name = region_row_id(key, caption.region_id)
        regions.append(RegionRecord(name, image[caption.region_id], caption, tuple(ordered)))
    photo = Path(row.photo or row.image).name
    file_name = (PurePosixPath(key).parent / photo).as_posix()
    size = (image.width, image.height)
    return ImageRecord(key, file_name, row.split, *size, tuple(regions), len(row.left_out))


def _order(answer: Answer) -> tuple[int, int]:
    return STAGES.index(answer.step.stage), answer.step.round


def _masks(store: Store, row: ImageRow) -> RegionImage:
    """The masks from the image's file: where it lies from the store, else where it was read."""
    if row.path is None:
        raise ExportError(
            f"{store.path}: {row.image} was annotated in memory; give its masks as images"
        )
    beside = store.path.parent / row.image
    try:
        # which masks are needed is checked against the captions, so others may be faulty
        return load_sa1b(beside if beside.is_file() else row.path, strict=False)
    except RegionError as error:
        raise ExportError(f"{store.path}: the masks of {row.image}: {error}") from error


def _check_same(row: ImageRow, image: RegionImage, captioned: list[RegionId]) -> None:
    place = image.path or row.image
    if (image.width, image.height) != (row.width, row.height):
        raise ExportError(
            f"{place}: {image.width} x {image.height} pixels, but {row.width} x {row.height} "
            "when it was captioned; annotate it again"
        )
    known = {region.id for region in image}
    for region_id in captioned:
        if region_id not in known:
            raise ExportError(f"{place}: region {region_id!r} has a caption but no mask")
    if len(known) > len(captioned):
        fresh = next(region.id for region in image if region.id not in set(captioned))
        raise ExportError(f"{place}: region {fresh!r} came after the captions; annotate it again")
    if row.masks not in (None, masks_digest(image)):  # None: of a store from before they were kept
        raise ExportError(
            f"{place}: its masks have changed since they were captioned, under the same ids; "
            "annotate it again"
        )
