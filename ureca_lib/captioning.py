"""Caption a photo with what is at hand: a URECA checkpoint, an annotator, or no model at all.

    import ureca_lib

    print(ureca_lib.caption("photo.jpg"))                   # the embedded annotator
    print(ureca_lib.caption("photo.jpg", model="tiny", points=[(200, 200)]))

`ureca caption` is the same as a command. `PhotoCaptioner` keeps its model for many photos.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from ureca_lib.annotate.annotators import AttributeAnnotator, make_annotator
from ureca_lib.annotate.export import caption_rows
from ureca_lib.annotate.look_alikes import ColorTextureFeatures, LookAlikeSettings, find_look_alikes
from ureca_lib.devices import chosen_device
from ureca_lib.mask_tree import RegionId, build_mask_tree
from ureca_lib.regions import Region, RegionImage, load_regions
from ureca_lib.regions.photo import Photo
from ureca_lib.regions.sa1b import annotation_from
from ureca_lib.segment import (
    Sam,
    check_prompts,
    regions_at,
    regions_in,
    sam_regions,
    superpixel_regions,
)
from ureca_lib.segment.sam import Box

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ureca_lib.captioner import RegionCaptioner

TINY = "tiny"
TINY_FOLDER = Path(__file__).resolve().parents[1] / "data_samples" / "tiny_ureca"
TINY_NOTE = "the tiny model was trained on drawings alone: its captions of photos mean little"
FEW_PIECES = (4, 8, 16)  # superpixels by level for a photo without masks: few enough to read
_SAME = 0.9  # IoU from which a region found earlier is the one that SAM was prompted for


@dataclass(frozen=True)
class CaptionRow:
    """A region's caption.

    Attributes:
        number: place in the list, from 1; the figure has the same numbers.
        region: id, mask and name.
        text: the caption.
        unique: whether it fits no other of the regions that were compared; None if unknown.
        confused_with: regions that the caption fits, too.
        look_alikes: regions that look like this one.
        score: mean log-probability of the caption's tokens, if a model wrote it.
    """

    number: int
    region: Region
    text: str
    unique: bool | None = None
    confused_with: tuple[RegionId, ...] = ()
    look_alikes: tuple[RegionId, ...] = ()
    score: float | None = None

    @property
    def region_id(self) -> RegionId:
        """The region's id."""
        return self.region.id


@dataclass(frozen=True)
class PhotoCaptions(Sequence[CaptionRow]):
    """The captions of a photo, in the order of its regions. Prints as a numbered list.

    Attributes:
        regions: the photo and all its regions, captioned or not.
        items: the captions.
        image: the photo's file name.
        made_by: model or annotator, and where it ran.
        from_file: whether the masks are those of a file; else the rows hold them.
        left_out: reasons why regions have no caption.
    """

    regions: RegionImage
    items: tuple[CaptionRow, ...]
    image: str
    made_by: str
    from_file: bool
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> CaptionRow:
        return self.items[index]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    __repr__ = __str__

    def lines(self) -> Iterator[str]:
        """A line per caption: its number, the text, and the regions that it also fits."""
        numbers = {row.region_id: str(row.number) for row in self.items}
        for row in self.items:
            others = [numbers.get(i, f"region {i}") for i in row.confused_with]
            note = f"  [also fits {', '.join(others)}]" if others else ""
            if row.unique is False and not others:
                note = "  [not unique]"
            yield f"{row.number:>3}  {_printable(row.text)}{note}"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the published JSONL layout, with what is known besides."""
        for row, plain in zip(self.items, caption_rows(self.image, self.items), strict=True):
            annotation = annotation_from(row.region)
            plain["bbox"] = annotation["bbox"]
            if not self.from_file:
                plain["segmentation"] = annotation["segmentation"]
            if row.confused_with:
                plain["confused_with"] = list(row.confused_with)
            if row.look_alikes:
                plain["look_alikes"] = list(row.look_alikes)
            yield plain if row.score is None else plain | {"score": round(row.score, 4)}

    def figure(self, most: int = 24) -> Figure:
        """Draw the largest regions with their captions, numbered as in the list.

        Args:
            most: regions that are drawn.
        """
        from ureca_lib.figures import caption_figure

        texts = {row.region_id: f"{row.number}. {_printable(row.text)}" for row in self.items}
        largest = sorted(self.items, key=lambda row: -row.region.area)[:most]
        shown = [row.region_id for row in sorted(largest, key=lambda row: row.number)]
        return caption_figure(self.regions, texts, ids=shown)


class PhotoCaptioner:
    """Captions photos with one model, which is loaded once.

    Args:
        model: a URECA checkpoint ("tiny" is the one in the repository), or the annotator's model;
            None without an annotator takes the embedded one, which needs no model.
        annotator: "openai", "transformers" or "attributes": the paper's four stages.
        base_url: address of an OpenAI-compatible server.
        api_key_env: environment variable that holds the server's key.
        sam: SAM checkpoint that segments photos without masks, and answers points and boxes.
        device: where models run; None for CUDA if there is any.
        check: look for look-alikes, and test whether each caption fits its region only. A URECA
            model judges its own captions.
        progress: show a bar for each photo's regions.

    Raises:
        ValueError: options that do not go together, or a checkpoint that cannot be loaded
            (`CheckpointError`).
        ImportError: "openai" without the extra of that name.
        OSError: no such SAM checkpoint.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        annotator: str | None = None,
        base_url: str | None = None,
        api_key_env: str | None = None,
        sam: str | Path | None = None,
        device: str | None = None,
        check: bool = False,
        progress: bool = False,
    ):
        self.check, self.progress, self.note = check, progress, ""
        if annotator is None and (base_url or api_key_env):
            raise ValueError("--base-url and --api-key-env go with --annotator openai")
        self._annotator = self._network = None
        runs_here = sam is not None or (model is not None and annotator != "openai")
        place = chosen_device(device) if runs_here else "cpu"  # imports torch, which takes seconds
        self._sam = None if sam is None else Sam(sam, place)
        if annotator is not None:
            named = None if model is None else str(model)
            self._annotator = make_annotator(annotator, named, base_url, place, api_key_env)
            # the host alone: an address may hold a password
            host = urlsplit(base_url or "").netloc.rpartition("@")[2] or "OpenAI"
            where = f"at {host}" if annotator == "openai" else f"on {place}"
            self.made_by = f"the four stages with {named or annotator} {where}"
        elif model is not None:
            self._network = self._load(model, place)
            self.made_by = f"URECA {model} on {place}"
        else:
            self.made_by = "the embedded annotator (no model) on cpu"

    def _load(self, model: str | Path, device: str) -> RegionCaptioner:
        from ureca_lib.captioner import RegionCaptioner  # transformers takes seconds to import

        if str(model) != TINY:
            return RegionCaptioner.from_pretrained(model, device)
        if not TINY_FOLDER.is_dir():
            raise ValueError(
                f"{TINY_FOLDER}: the tiny model is not there. It comes with a clone of the "
                "repository, not with the package alone; name a checkpoint's folder instead"
            )
        self.note = TINY_NOTE
        return RegionCaptioner.from_pretrained(TINY_FOLDER, device)

    def caption(
        self,
        photo: Photo,
        masks: str | Path | None = None,
        points: Sequence[tuple[float, float]] = (),
        boxes: Sequence[Box] = (),
        strict: bool = True,
        name: str | None = None,
    ) -> PhotoCaptions:
        """Caption the regions of a photo, or those at points and in boxes.

        Args:
            photo: a path, a PIL image, or an array.
            masks: any file that `load_regions` reads; None takes the JSON beside the photo, else
                segments it.
            points: (x, y) pixels. With SAM, the region that it sees there; else the smallest
                region that holds the point.
            boxes: (x, y, width, height) pixels. With SAM, the region that it sees there; else the
                one that fits the box best.
            strict: stop at a faulty mask; False leaves it out.
            name: of the photo in the rows; None takes its file name.

        Raises:
            RegionError: the photo or the masks cannot be read.
            ValueError: a point or a box outside the photo, SAM sees nothing there, or the annotator
                made no caption; the message has the reason.
        """
        regions, chosen, from_file = self._regions(photo, masks, points, boxes, strict)
        if self._network is not None:
            rows, left_out = self._by_model(regions, chosen), []
        elif self._annotator is not None:
            rows, left_out = self._by_stages(regions)
        else:
            rows, left_out = self._by_attributes(regions), []
        by_id = {row.region_id: row for row in rows}
        rows = [by_id[region_id] for region_id in dict.fromkeys(chosen) if region_id in by_id]
        if len(regions) < 2:  # nothing was compared, so nothing is known
            rows = [replace(row, unique=None) for row in rows]
        elif self.check:
            rows = _with_look_alikes(rows, regions)
        rows = [replace(row, number=number) for number, row in enumerate(rows, start=1)]
        left_out += [f"left out: {item}" for item in regions.left_out]
        name = name or regions.file_name or "photo"
        return PhotoCaptions(regions, tuple(rows), name, self.made_by, from_file, tuple(left_out))

    def _regions(
        self,
        photo: Photo,
        masks: str | Path | None,
        points: Sequence[tuple[float, float]],
        boxes: Sequence[Box],
        strict: bool,
    ) -> tuple[RegionImage, list[RegionId], bool]:
        """A photo's regions, the ids of those to caption, and whether their masks have a file."""
        beside = Path(photo).with_suffix(".json") if isinstance(photo, (str, Path)) else None
        if masks is None and beside is not None and beside.is_file():
            masks = beside
        asked = bool(points or boxes)
        if masks is not None:
            regions = load_regions(masks, photo, strict)
        elif self._sam is not None and not asked:
            regions = sam_regions(photo, self._sam)
        else:
            regions = superpixel_regions(photo, levels=FEW_PIECES)
        if not asked:
            return regions, [region.id for region in regions], masks is not None
        check_prompts(regions.width, regions.height, points, boxes)
        if self._sam is None:
            chosen = [*regions_at(regions, points), *regions_in(regions, boxes)]
            return regions, [region.id for region in chosen], masks is not None
        pixels = regions.pixels
        prompted = self._sam.at_points(pixels, points) if points else []
        prompted += self._sam.in_boxes(pixels, boxes) if boxes else []
        return _joined(regions, prompted), [region.id for region in prompted], False

    def _by_attributes(self, regions: RegionImage) -> list[CaptionRow]:
        captions = AttributeAnnotator().caption(regions, build_mask_tree(regions))
        return [
            CaptionRow(
                0, regions[row.region_id], row.text, row.unique, row.same_as + row.confused_with
            )
            for row in captions
        ]

    def _by_model(self, regions: RegionImage, chosen: list[RegionId]) -> list[CaptionRow]:
        listed = [regions[region_id] for region_id in dict.fromkeys(chosen)]
        captions = self._network.caption(regions.pixels, listed, progress=self.progress)
        rows = [
            CaptionRow(0, region, caption.text, score=caption.score)
            for region, caption in zip(listed, captions, strict=True)
        ]
        if not self.check or len(regions) < 2:
            return rows
        texts = [row.text for row in rows]
        scores = self._network.score(regions.pixels, regions.regions, texts, progress=self.progress)
        place = {region.id: index for index, region in enumerate(regions)}
        return [
            _heard(row, column, place[row.region_id], regions)
            for row, column in zip(rows, scores.T.numpy(), strict=True)  # (R, C) -> R per caption
        ]

    def _by_stages(self, regions: RegionImage) -> tuple[list[CaptionRow], list[str]]:
        from ureca_lib.annotate.run import annotate_images
        from ureca_lib.annotate.store import Store

        photo = regions.photo if regions.photo is not None else regions.pixels
        name = regions.file_name or "photo"
        named = RegionImage(regions.regions, regions.width, regions.height, photo, file_name=name)
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite") as store:
            summary = annotate_images(named, store, self._annotator, progress=False)
            captions = store.captions(name)
        reasons = [summary.stopped] if summary.stopped else [why for _, why in summary.failures]
        if not captions:
            raise ValueError(f"{name}: no captions: {'; '.join(reasons) or 'none was made'}")
        rows = [
            CaptionRow(
                0,
                regions[final.region_id],
                final.text,
                final.state == "unique",
                look_alikes=final.look_alikes if self.check else (),
            )
            for final in captions
            if final.text
        ]
        silent = [final for final in captions if not final.text]
        return rows, [f"region {final.region_id}: {final.reason}" for final in silent]


def caption(
    photo: Photo,
    model: str | Path | None = None,
    *,
    masks: str | Path | None = None,
    points: Sequence[tuple[float, float]] = (),
    boxes: Sequence[Box] = (),
    strict: bool = True,
    **options: Any,
) -> PhotoCaptions:
    """Caption the regions of a photo with what is at hand.

    Args:
        photo: a path, a PIL image, or an array.
        model, options: see `PhotoCaptioner`.
        masks, points, boxes, strict: see `PhotoCaptioner.caption`.

    Returns:
        The captions, which print as a numbered list; `.figure()` draws them.

    Raises:
        As `PhotoCaptioner` and its `caption` do.
    """
    captioner = PhotoCaptioner(model, **options)
    return captioner.caption(photo, masks, points, boxes, strict)


def coco_document(photos: Sequence[PhotoCaptions]) -> dict[str, Any]:
    """A COCO instances document whose annotations have a `caption`, as JSON can hold it."""
    images, annotations = [], []
    for number, photo in enumerate(photos, start=1):
        size = {"width": photo.regions.width, "height": photo.regions.height}
        images.append({"id": number, "file_name": photo.image} | size)
        for row in photo:
            extra = {} if row.unique is None else {"unique": row.unique}
            annotations.append(
                annotation_from(row.region)
                | {"id": len(annotations) + 1, "region_id": row.region_id, "image_id": number}
                | {"category_id": 1, "iscrowd": 0, "caption": row.text}
                | extra
            )
    categories = [{"id": 1, "name": "region", "supercategory": "region"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def _joined(regions: RegionImage, prompted: Sequence[Region]) -> RegionImage:
    """The regions with those that SAM was prompted for, in place of any that are the same."""
    from pycocotools import mask as coco_mask

    others = list(regions)
    rles = [[region.rle for region in part] for part in (others, prompted)]
    iou = coco_mask.iou(*rles, [0] * len(prompted)) if others else np.zeros((0, len(prompted)))
    different = [r for r, row in zip(others, np.asarray(iou), strict=True) if row.max() < _SAME]
    distinct = {region.id: region for region in [*different, *prompted]}
    photo = regions.photo if regions.photo is not None else regions.pixels
    size = (regions.width, regions.height)
    fields = (photo, regions.image_id, regions.file_name, regions.path, regions.left_out)
    return RegionImage(list(distinct.values()), *size, *fields)


def _with_look_alikes(rows: list[CaptionRow], regions: RegionImage) -> list[CaptionRow]:
    """Rows with their look-alikes by color and texture, where the annotator found none."""
    features = ColorTextureFeatures()
    vectors = features(regions, [region.id for region in regions])
    tree = build_mask_tree(regions)
    found = find_look_alikes(vectors, tree, LookAlikeSettings(), features.threshold)
    return [
        row if row.look_alikes else replace(row, look_alikes=tuple(found[row.region_id]))
        for row in rows
    ]


def _heard(row: CaptionRow, scores: np.ndarray, own: int, regions: RegionImage) -> CaptionRow:
    """A row with the regions for which the model finds its caption at least as likely.

    Args:
        row: of the region.
        scores: (R,) log-likelihood of its caption for each region.
        own: the region's place among them.
        regions: all regions.
    """
    others = [i for i in np.argsort(-scores) if i != own and scores[i] >= scores[own]]
    confused = tuple(regions.regions[i].id for i in others)
    return replace(row, unique=not confused, confused_with=confused)


def _printable(text: str) -> str:
    """Text for a terminal or a figure: a model's control characters could change what is shown."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
