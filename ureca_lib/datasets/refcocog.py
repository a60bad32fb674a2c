"""RefCOCOg: referring expressions for objects of COCO photos, in the layout of the refer API.

It comes from https://github.com/lichengunc/refer (`refcocog.zip`); the photos are COCO's train2014,
`train2014.zip` of https://cocodataset.org. A folder holds:

- `refs(umd).p` (Nagaraja et al. 2016: images are split into train, val, test) or `refs(google).p`
  (Mao et al. 2016: objects are split, into train and val; an image may be in both, and there is
  no test part): pickles of a list of references. `refs(umd).json` with the same list will do too.
- `instances.json`: COCO's images, annotations (polygons or RLE) and categories.
- photos, in it or in `images/`, `train2014/`, `../images/mscoco/images/train2014/`.

A reference is {"ref_id", "ann_id", "image_id", "category_id", "split", "file_name", "sent_ids",
"sentences": [{"sent_id", "sent", "raw", "tokens"}]}; its `file_name` is not that of the photo.
`sent` is read, as the refer API's evaluation does.
RefCOCO and RefCOCO+ have the same layout, but other partitions, which Table 6 does not use.
"""

from __future__ import annotations

import io
import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ureca_lib.datasets.captioned import OpenOptions, opens
from ureca_lib.datasets.jsonl import Whole, first_reason
from ureca_lib.datasets.zero_shot import (
    Entries,
    LazyImage,
    LazyImages,
    LazyRegion,
    RegionSet,
    check_split,
    parse_text,
    photo_finder,
    stream_items,
)
from ureca_lib.regions import AnnotationFormatError, FileMissingError
from ureca_lib.regions.sa1b import get, image_size

Partition = Literal["umd", "google"]
MAX_BYTES = 2**26  # of a pickle; RefCOCOg's 49,822 references take 20 to 45 million
# folders of the photos, seen from the annotations; the refer API's is among them
_PHOTOS = (".", "images", "train2014", "images/train2014", "../images/mscoco/images/train2014")
_PHOTOS += ("../train2014", "../images/train2014", "../photos")
# opcodes of None, bool, int, float, str, list, tuple, dict and the memo; and c, \x93, i, which
# name a class, so that the error can say which
_OPCODES = b"\x80\x95.(N\x88\x89ILJKM\x8aFGSTUVX\x8c\x8d]lae}dsu)t\x85\x86\x87pqr\x94ghjc\x93i"


def _decoded(text: Any) -> Any:
    """Decode a Python 2 string that was not UTF-8 as Latin-1."""
    if isinstance(text, str) and any("\udc80" <= letter <= "\udcff" for letter in text):
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    return text


class Sentence(BaseModel):
    """An expression, in lower case and without punctuation, as the evaluation compares it."""

    model_config = ConfigDict(strict=True)
    sent_id: Whole
    sent: Annotated[str, BeforeValidator(_decoded), Field(pattern=r"\S")]


class Reference(BaseModel):
    """An object and the expressions for it."""

    model_config = ConfigDict(strict=True)
    ref_id: Whole
    ann_id: Whole
    image_id: Whole
    category_id: Whole
    split: str
    sentences: Annotated[list[Sentence], Field(min_length=1)]
    sent_ids: list[Whole] | None = None

    @property
    def texts(self) -> list[str]:
        """The expressions."""
        return [sentence.sent for sentence in self.sentences]


@opens("refcocog")
def _open(text: str, options: OpenOptions) -> LazyImages:
    form = "refcocog:PARTITION:SPLIT:FOLDER"
    (partition, split), regions, folder, photos = parse_text(text, form, options.masks)
    return refcocog_captioned(
        folder, partition, split, photos, options.limit, regions=regions, strict=options.strict
    )


def refcocog_captioned(
    folder: str | Path,
    partition: Partition = "umd",
    split: str = "val",
    images: str | Path | None = None,
    limit: int | None = None,
    regions: RegionSet = "all",
    strict: bool = True,
) -> LazyImages:
    """Read a split of RefCOCOg: for each object its mask and all expressions for it.

    References to the same object (annotation) are one region. In memory are the references of all
    splits while they are read, and the annotations of this one.

    Args:
        folder: of `refs(PARTITION).p` or `.json` and `instances.json`.
        partition: "umd" or "google".
        split: "train", "val", and for "umd" "test"; several as "train+val".
        images: folder of the photos; by default they are looked for in and beside `folder`.
        limit: only the first so many images.
        regions: only images with one region of the split ("single"), or with more ("multi").
        strict: False leaves references with faulty annotations out, and lists them in `left_out`.

    Returns:
        Images named by their ids, regions by those of their annotations, in the order of the
        references.

    Raises:
        ValueError, CaptionedError: no such partition or split, or one without references.
        RegionError: a file that is missing, truncated, or faulty, naming it and the id.
    """
    path = reference_file(folder, partition)
    found, splits = read_references(path), split.split("+")
    counts = Counter(reference.split for reference in found)
    for name in splits:
        check_split(path, name, counts)
    wanted = [reference for reference in found if reference.split in splits]
    instances = Path(folder) / "instances.json"
    find = photo_finder(Path(folder), images, _PHOTOS)
    about = _by_id(instances, "images", {reference.image_id for reference in wanted})
    annotations = _by_id(instances, "annotations", {reference.ann_id for reference in wanted})
    categories = _by_id(instances, "categories", None)
    by_image: dict[int, LazyImage] = {}

    def add(ref: Reference) -> None:
        """Add the region of a reference, or its expressions if the region is there."""
        if ref.image_id not in about:
            raise AnnotationFormatError(f"{instances.name} has no image {ref.image_id}")
        if ref.ann_id not in annotations:
            raise AnnotationFormatError(f"{instances.name} has no annotation {ref.ann_id}")
        annotation, image = annotations[ref.ann_id], about[ref.image_id]
        for key in ("image_id", "category_id"):
            if (stated := get(annotation, key, int)) != getattr(ref, key):
                raise AnnotationFormatError(
                    f"its {key} is {getattr(ref, key)}, but annotation {ref.ann_id} has {stated}: "
                    "the two files do not belong together"
                )
        segmentation = get(annotation, "segmentation", (list, Mapping))
        if ref.image_id not in by_image:
            size, name = image_size(image), get(image, "file_name", str)
            by_image[ref.image_id] = LazyImage(str(ref.image_id), *size, name, find(name))
        lazy = by_image[ref.image_id]
        same = next((one for one in lazy.regions if one.id == ref.ann_id), None)
        if same is not None:
            same.texts += ref.texts
            return
        label = categories.get(ref.category_id, {}).get("name")
        label = None if label is None else str(label)
        region = LazyRegion(ref.ann_id, ref.texts, None, segmentation, label)
        if not strict:  # only building the mask shows whether it is faulty
            region.region(lazy.height, lazy.width)
        lazy.regions.append(region)

    entries = Entries(strict)
    list(entries.built(path, wanted, add, lambda ref: f"of ref_id {ref.ref_id}"))
    opened = f"refcocog:{partition}:{split}", folder, images
    return LazyImages(by_image.values(), entries, instances, opened, regions, limit)


def _by_id(path: Path, key: str, wanted: set[int] | None) -> dict[int, Mapping[str, Any]]:
    """The entries of a list of a COCO file that are wanted; nothing else is in memory."""
    items = (item for item in stream_items(path, f"{key}.item") if isinstance(item, dict))
    return {
        item["id"]: item
        for item in items
        if isinstance(item.get("id"), int) and (wanted is None or item["id"] in wanted)
    }


def reference_file(folder: str | Path, partition: Partition = "umd") -> Path:
    """Find the file of a partition's references in a folder.

    Raises:
        ValueError: no such partition. FileMissingError: no such folder or file.
    """
    if partition not in get_args(Partition):
        raise ValueError(f"partition must be one of umd, google, not {partition!r}")
    if not Path(folder).is_dir():
        raise FileMissingError("there is no such folder", folder)
    names = [f"refs({partition}){suffix}" for suffix in (".p", ".json")]
    found = [Path(folder, name) for name in names if Path(folder, name).is_file()]
    if not found:
        raise FileMissingError(f"there is neither {names[0]} nor {names[1]}", folder)
    return found[0]


def read_references(path: str | Path) -> list[Reference]:
    """Read all references of a file, of every split, in file order.

    Args:
        path: `refs(umd).p`, `refs(google).p`, or a JSON file of the same list.

    Raises:
        FileMissingError, AnnotationFormatError: the file, or a reference with its ref_id or place.
    """
    path = Path(path)
    entries = list(stream_items(path, "item")) if path.suffix == ".json" else read_pickle(path)
    if not isinstance(entries, list) or not entries:
        kind = "nothing" if entries == [] else f"a {type(entries).__name__}"
        raise AnnotationFormatError(f"the file holds {kind}, not a list of references", path)
    found: list[Reference] = []
    seen: set[tuple[str, int]] = set()
    for index, entry in enumerate(entries):
        stated = entry.get("ref_id") if isinstance(entry, Mapping) else None
        # of a list in lists without end no text is made
        label = f"ref_id {stated}" if isinstance(stated, int) else f"reference number {index}"
        try:
            reference = Reference.model_validate(entry)
        except ValidationError as error:
            raise AnnotationFormatError(f"{label}: {first_reason(error)}", path) from None
        sent_ids = [sentence.sent_id for sentence in reference.sentences]
        if reference.sent_ids not in (None, sent_ids):
            raise AnnotationFormatError(f"{label}: 'sent_ids' are not those of 'sentences'", path)
        for key in (("ref_id", reference.ref_id), *(("sent_id", each) for each in sent_ids)):
            if key in seen:
                raise AnnotationFormatError(f"{label}: {key[0]} {key[1]} is there twice", path)
            seen.add(key)
        found.append(reference)
    return found


class _PlainUnpickler(pickle._Unpickler):
    """The standard library's unpickler, for plain data only.

    It is the one in Python: the one in C allocates whatever memo index a file names, gigabytes for
    six bytes, and cannot leave opcodes out.
    """

    dispatch = {code: pickle._Unpickler.dispatch[code] for code in _OPCODES}  # noqa: RUF012

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(
            f"the pickle asks for {f'{module}.{name}'[:80]!r}; only plain data are read (numbers, "
            "texts, lists, tuples, dictionaries), and nothing of it was run"
        )


def read_pickle(path: str | Path, max_bytes: int = MAX_BYTES) -> Any:
    """Read a pickle of plain data, of any protocol; a pickle that would run code is refused.

    Strings of Python 2 that are not UTF-8 have surrogates in the place of their bytes.

    Raises:
        FileMissingError: there is no such file.
        AnnotationFormatError: a file that is too large, damaged, or more than plain data.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > max_bytes:
            raise ValueError(f"it has {size:,} bytes, at most {max_bytes:,} are read")
        file = io.BytesIO(path.read_bytes())  # whose read() allocates no more than there is
        return _PlainUnpickler(file, encoding="utf-8", errors="surrogateescape").load()
    except FileNotFoundError:
        raise FileMissingError("the file does not exist", path) from None
    except Exception as error:  # damaged files raise a dozen kinds
        reason = f"{type(error).__name__}: {error}"
        raise AnnotationFormatError(
            f"the file cannot be read as a pickle of plain data ({reason}): it is damaged, no "
            "pickle, or holds more than plain data",
            path,
        ) from None
