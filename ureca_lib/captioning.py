"""Caption a photo with a URECA checkpoint, with an annotator, or without any model.

    import ureca_lib

    print(ureca_lib.caption("photo.jpg"))                   # the embedded annotator
    print(ureca_lib.caption("photo.jpg", model="tiny", points=[(200, 200)]))

`ureca caption` is the same as a command. `PhotoCaptioner` loads its model once for many photos.
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
from ureca_lib.course import course_folder
from ureca_lib.devices import chosen_device
from ureca_lib.markdown import printable
from ureca_lib.mask_tree import RegionId, build_mask_tree
from ureca_lib.regions import MaskedPhoto, Region, RegionImage, load_regions
from ureca_lib.regions.photo import Photo
from ureca_lib.regions.sa1b import annotation_from
from ureca_lib.regions.sources import find_masked
from ureca_lib.segment import (
    Sam,
    check_prompts,
    regions_at,
    regions_in,
    sam_regions,
    superpixel_regions,
)
from ureca_lib.segment.sam import Box
from ureca_lib.tool_files import Captioned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ureca_lib.captioner import RegionCaptioner

TINY = "tiny"
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
        instead_of: the model's own caption, which another region has; see `ureca_lib.together`.
        cost: what this cost in log-likelihood.
    """

    number: int
    region: Region
    text: str
    unique: bool | None = None
    confused_with: tuple[RegionId, ...] = ()
    look_alikes: tuple[RegionId, ...] = ()
    score: float | None = None
    instead_of: str | None = None
    cost: float = 0.0

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
        from_file: whether the masks are those of a file; else the rows hold them.
        left_out: reasons why regions have no caption.
    """

    regions: RegionImage
    items: tuple[CaptionRow, ...]
    image: str
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
        """A line per caption: its number, the text, and in brackets what is to be known of it."""
        numbers = {row.region_id: str(row.number) for row in self.items}
        for row in self.items:
            others = [numbers.get(i, f"region {i}") for i in row.confused_with]
            note = f"also fits {', '.join(others)}" if others else "not unique"
            known = f"  [{note}]" if others or row.unique is False else ""
            known += f"  [instead of: {printable(row.instead_of)}]" if row.instead_of else ""
            yield f"{row.number:>3}  {printable(row.text)}{known}"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the published JSONL layout, with additional fields."""
        for row, plain in zip(self.items, caption_rows(self.image, self.items), strict=True):
            annotation = annotation_from(row.region)
            plain["bbox"] = annotation["bbox"]
            extra = {
                "segmentation": None if self.from_file else annotation["segmentation"],
                "confused_with": list(row.confused_with) or None,
                "look_alikes": list(row.look_alikes) or None,
                "score": None if row.score is None else round(row.score, 4),
                "instead_of": row.instead_of,
                "cost": round(row.cost, 4) if row.instead_of else None,
            }
            yield plain | {name: value for name, value in extra.items() if value is not None}

    def captioned(self) -> Captioned:
        """The captions for `ureca_lib.tool_files`."""
        texts = {row.region_id: row.text for row in self.items}
        unique = {row.region_id: row.unique for row in self.items}
        return Captioned(self.regions, texts, unique, self.image)

    def figure(self, most: int = 24) -> Figure:
        """Draw the largest regions with their captions, numbered as in the list.

        Args:
            most: regions that are drawn.
        """
        from ureca_lib.figures import caption_figure

        texts = {row.region_id: f"{row.number}. {printable(row.text)}" for row in self.items}
        for row in filter(lambda row: row.instead_of, self.items):
            texts[row.region_id] += f"\ninstead of: {printable(row.instead_of)}"
        largest = sorted(self.items, key=lambda row: -row.region.area)[:most]
        shown = [row.region_id for row in sorted(largest, key=lambda row: row.number)]
        return caption_figure(self.regions, texts, ids=shown)


_Rows = tuple[list[CaptionRow], list[str]]  # captions, and why regions have none


class PhotoCaptioner:
    """Captions photos with one model, which is loaded once.

    Args:
        model: a URECA checkpoint ("tiny" comes with the package), or the annotator's model; None
            without an annotator takes the embedded one, which needs no model.
        annotator: "openai", "transformers" or "attributes": the paper's four stages.
        base_url: address of an OpenAI-compatible server.
        api_key_env: environment variable that holds the server's key.
        sam: SAM checkpoint that segments photos without masks, and answers points and boxes.
        device: where models run; None for CUDA if there is any.
        check: look for look-alikes, and test whether each caption fits its region only. A URECA
            model judges its own captions.
        progress: show a bar for each photo's regions.
        photos: number of photos whose features a URECA model keeps for the next call.
        together: whether regions that a URECA model gives the same caption choose again; ours, not
            the paper's. All regions of the photo are captioned for it. None: where all are asked
            for, that is without points and boxes.

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
        photos: int = 0,
        together: bool | None = None,
    ):
        self.check, self.progress, self.note, self._photos = check, progress, "", photos
        self.together = together
        if annotator is None and (base_url or api_key_env):
            raise ValueError("--base-url and --api-key-env go with --annotator openai")
        if together and (annotator or model is None):
            raise ValueError("--together goes with a URECA checkpoint (--model)")
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
            self._write = self._by_stages
        elif model is not None:
            self._network = self._load(model, place)
            self.made_by = f"URECA {model} on {place}"
            self._write = self._by_model
        else:
            self.made_by = "the embedded annotator (no model) on cpu"
            self._write = self._by_attributes

    def _load(self, model: str | Path, device: str) -> RegionCaptioner:
        from ureca_lib.captioner import RegionCaptioner  # transformers takes seconds to import

        if str(model) == TINY:
            self.note, model = TINY_NOTE, course_folder() / "data_samples" / "tiny_ureca"
        return RegionCaptioner.from_pretrained(model, device, self._photos)

    def caption(
        self,
        photo: Photo,
        masks: str | Path | MaskedPhoto | RegionImage | None = None,
        points: Sequence[tuple[float, float]] = (),
        boxes: Sequence[Box] = (),
        strict: bool = True,
        name: str | None = None,
        use_boxes: bool = False,
    ) -> PhotoCaptions:
        """Caption the regions of a photo, or those at points and in boxes.

        Args:
            photo: a path, a PIL image, or an array.
            masks: any file that `load_regions` reads, or its regions; None takes those beside the
                photo (see `ureca_lib.regions.sources`), else segments it.
            points: (x, y) pixels. With SAM, the region that it sees there; else the smallest
                region that holds the point.
            boxes: (x, y, width, height) pixels. With SAM, the region that it sees there; else the
                one that fits the box best.
            strict: stop at a faulty mask; False leaves it out.
            name: of the photo in the rows; None takes its file name.
            use_boxes: read a box of the masks' file as a region where it has no mask.

        Raises:
            RegionError: the photo or the masks cannot be read.
            ValueError: a point or a box outside the photo, SAM sees nothing there, or the annotator
                made no caption; the message has the reason.
        """
        if masks is None and isinstance(photo, str | Path):
            masks = next(iter(find_masked(photo).images), None)
        if isinstance(masks, MaskedPhoto):
            masks = masks.load(strict, use_boxes)
        if isinstance(masks, RegionImage):
            regions = masks
        elif masks is not None:
            regions = load_regions(masks, photo, strict, use_boxes)
        elif points or boxes:  # SAM is asked for these alone
            regions = superpixel_regions(photo, levels=FEW_PIECES)
        else:
            regions = self.segment(photo)
        regions, chosen = self._chosen(regions, points, boxes)
        rows, left_out = self._write(regions, chosen)
        by_id = {row.region_id: row for row in rows}
        rows = [by_id[region.id] for region in chosen if region.id in by_id]
        if len(regions) < 2:  # nothing was compared, so nothing is known
            rows = [replace(row, unique=None) for row in rows]
        elif self.check:
            rows = _with_look_alikes(rows, regions)
        rows = [replace(row, number=number) for number, row in enumerate(rows, start=1)]
        left_out += [f"left out: {item}" for item in regions.left_out]
        name = name or regions.file_name or "photo"
        from_file = masks is not None and (self._sam is None or not (points or boxes))
        return PhotoCaptions(regions, tuple(rows), name, from_file, tuple(left_out))

    def segment(self, photo: Photo) -> RegionImage:
        """Find the regions of a photo: SAM's, or superpixels."""
        if self._sam is not None:
            return sam_regions(photo, self._sam)
        return superpixel_regions(photo, levels=FEW_PIECES)

    def _chosen(
        self, regions: RegionImage, points: Sequence[tuple[float, float]], boxes: Sequence[Box]
    ) -> tuple[RegionImage, list[Region]]:
        """All regions of a photo, with those added by SAM, and the regions to caption."""
        if not (points or boxes):
            return regions, regions.regions
        check_prompts(regions.width, regions.height, points, boxes)
        if self._sam is None:
            chosen = [*regions_at(regions, points), *regions_in(regions, boxes)]
        else:
            chosen = self._sam.at_points(regions.pixels, points) if points else []
            chosen += self._sam.in_boxes(regions.pixels, boxes) if boxes else []
            regions = _joined(regions, chosen)
        return regions, list({region.id: region for region in chosen}.values())

    def _by_attributes(self, regions: RegionImage, chosen: list[Region]) -> _Rows:
        rows = []
        for row in AttributeAnnotator().caption(regions, build_mask_tree(regions)):
            others = row.same_as + row.confused_with
            rows.append(CaptionRow(0, regions[row.region_id], row.text, row.unique, others))
        return rows, []

    def _by_model(self, regions: RegionImage, chosen: list[Region]) -> _Rows:
        pixels, progress = regions.pixels, self.progress
        together = self.together
        if together is None:
            together = len(chosen) == len(regions)
        asked = regions.regions if together else chosen
        captions = self._network.caption(pixels, asked, progress=progress, together=together)
        found = {caption.region_id: caption for caption in captions}
        rows = []
        for region in chosen:
            own = found[region.id]
            about = {"score": own.score, "instead_of": own.instead_of, "cost": own.cost}
            rows.append(CaptionRow(0, region, own.text, **about))
        if self.check and len(regions) > 1:
            texts = [row.text for row in rows]
            scores = self._network.score(pixels, regions.regions, texts, progress=progress)
            for place, column in enumerate(scores.T.tolist()):  # (R, C) -> (C, R)
                by_id = {region.id: score for region, score in zip(regions, column, strict=True)}
                own = by_id.pop(chosen[place].id)
                best = sorted(by_id, key=by_id.__getitem__, reverse=True)
                # regions for which the model finds the caption at least as likely
                confused = tuple(i for i in best if by_id[i] >= own)
                rows[place] = replace(rows[place], unique=not confused, confused_with=confused)
        return rows, []

    def _by_stages(self, regions: RegionImage, chosen: list[Region]) -> _Rows:
        from ureca_lib.annotate.run import annotate_images
        from ureca_lib.annotate.store import Store

        name = regions.file_name or "photo"
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite") as store:
            named = _copied(regions, regions.regions, name)
            summary = annotate_images(named, store, self._annotator, progress=False)
            captions = store.captions(name)
        reasons = [summary.stopped] if summary.stopped else [why for _, why in summary.failures]
        if not captions:
            raise ValueError(f"{name}: no captions: {'; '.join(reasons) or 'none was made'}")
        rows, silent = [], []
        for final in captions:
            region, alike = regions[final.region_id], final.look_alikes if self.check else ()
            if final.text:
                unique = final.state == "unique"
                rows.append(CaptionRow(0, region, final.text, unique, look_alikes=alike))
            else:
                silent.append(f"region {final.region_id}: {final.reason}")
        return rows, silent


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
    """Caption the regions of a photo.

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


def _joined(regions: RegionImage, prompted: Sequence[Region]) -> RegionImage:
    """All regions; SAM's regions replace any that are the same."""
    from pycocotools import mask as coco_mask

    others = list(regions)
    if others:
        rles = [[region.rle for region in part] for part in (others, prompted)]
        iou = np.asarray(coco_mask.iou(*rles, [0] * len(prompted)))
        others = [r for r, row in zip(others, iou, strict=True) if row.max() < _SAME]
    distinct = {region.id: region for region in [*others, *prompted]}
    return _copied(regions, list(distinct.values()), regions.file_name)


def _copied(image: RegionImage, regions: list[Region], file_name: str | None) -> RegionImage:
    """The same photo with other regions and another file name."""
    photo = image.photo if image.photo is not None else image.pixels
    size = (image.width, image.height)
    return RegionImage(regions, *size, photo, image.image_id, file_name, image.path, image.left_out)


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
