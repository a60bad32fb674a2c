"""RefCOCO, RefCOCO+, RefCOCOg: expressions for objects of COCO photos, in the refer API's layout.

They come from https://github.com/lichengunc/refer (`refcoco.zip`, `refcoco+.zip`, `refcocog.zip`);
the photos are COCO's train2014, `train2014.zip` of https://cocodataset.org. They are opened as
`refcocog:PARTITION:SPLIT:FOLDER`, and so on; several splits as `train+val`. A folder holds:

- pickles of a list of references, or the same list in `refs(PARTITION).json`:
  RefCOCOg has `refs(umd).p` (Nagaraja et al. 2016: images are split into train, val, test) and
  `refs(google).p` (Mao et al. 2016: objects are split, into train and val; an image may be in
  both); RefCOCO and RefCOCO+ have `refs(unc).p` (Yu et al. 2016: train, val, testA of people,
  testB of other objects), and RefCOCO `refs(google).p`.
- `instances.json`: COCO's images, annotations (polygons or RLE) and categories.
- photos, in it or in `images/`, `train2014/`, `../images/mscoco/images/train2014/`.

A reference is {"ref_id", "ann_id", "image_id", "category_id", "split", "file_name", "sent_ids",
"sentences": [{"sent_id", "sent", "raw", "tokens"}]}; its `file_name` is not that of the photo.
`sent` is read, as the refer API's evaluation does. References to the same object (annotation) are
one region, named by the annotation's id. Table 6 uses RefCOCOg alone.
"""

from __future__ import annotations

import io
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ureca_lib.datasets.rows import Whole, first_reason, stream_items
from ureca_lib.datasets.zero_shot import ListedImage, ListedRegion, Listing, check_split, reads
from ureca_lib.regions import AnnotationFormatError, FileMissingError
from ureca_lib.regions.sa1b import get, image_size

# and their splits
PARTITIONS = {
    "umd": ("train", "val", "test"),
    "google": ("train", "val"),
    "unc": ("train", "val", "testA", "testB"),
}
MAX_BYTES = 2**26  # of a pickle; RefCOCOg's 49,822 references take 20 to 45 million
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


def _find(folder: Path) -> Iterator[str]:
    there = [partition for partition in PARTITIONS if _file(folder, partition).is_file()]
    if not there and (folder / "instances.json").is_file():
        there = ["umd"]  # whose error says which file is missing
    name = folder.name if folder.name in ("refcoco", "refcoco+") else "refcocog"
    for partition in there:
        yield from (f"{name}:{partition}:{split}:{folder}" for split in PARTITIONS[partition])


@reads(
    "refcocog:PARTITION:SPLIT:FOLDER",
    "refcoco:PARTITION:SPLIT:FOLDER",
    "refcoco+:PARTITION:SPLIT:FOLDER",
    find=_find,
)
def read(listing: Listing) -> Iterable[ListedImage]:
    """Read a split: for each object its mask and all expressions for it; see the module.

    In memory are the references of all splits while they are read, and the annotations of this one.

    Raises:
        CaptionedError: no such split, or one without references.
        RegionError: a file that is missing, truncated, or faulty, naming it and the id.
    """
    partition, split = listing.parts
    path = _file(listing.folder, partition)
    found, splits = read_references(path), split.split("+")
    counts = Counter(reference.split for reference in found)
    for name in splits:
        check_split(path, name, counts)
    wanted = [reference for reference in found if reference.split in splits]
    instances = listing.folder / "instances.json"
    about = _by_id(instances, "images", {ref.image_id for ref in wanted})
    annotations = _by_id(instances, "annotations", {ref.ann_id for ref in wanted})
    categories = _by_id(instances, "categories", {ref.category_id for ref in wanted})
    images: dict[int, ListedImage] = {}
    for ref in wanted:
        with listing.entry(path, f"of ref_id {ref.ref_id}"):
            if ref.image_id not in about:
                raise AnnotationFormatError(f"{instances.name} has no image {ref.image_id}")
            if ref.ann_id not in annotations:
                raise AnnotationFormatError(f"{instances.name} has no annotation {ref.ann_id}")
            annotation, entry = annotations[ref.ann_id], about[ref.image_id]
            for key in ("image_id", "category_id"):
                if get(annotation, key, int) != getattr(ref, key):
                    raise AnnotationFormatError(
                        f"annotation {ref.ann_id} has another {key}: the two files do not belong "
                        "together"
                    )
            segmentation = get(annotation, "segmentation", (list, Mapping))
            if ref.image_id not in images:
                size, name = image_size(entry), get(entry, "file_name", str)
                images[ref.image_id] = listing.image(ref.image_id, size, name, instances)
            image, texts = images[ref.image_id], [sentence.sent for sentence in ref.sentences]
            if same := image.find(ref.ann_id):
                same.texts += texts
                continue
            name = categories.get(ref.category_id, {}).get("name")
            name = None if name is None else str(name)
            listing.add(image, ListedRegion(ref.ann_id, texts, None, segmentation, name))
    return images.values()


def _by_id(path: Path, key: str, wanted: set[int]) -> dict[int, Mapping[str, Any]]:
    """The entries of a list of a COCO file that are wanted; nothing else is in memory."""
    items = (item for item in stream_items(path, f"{key}.item") if isinstance(item, dict))
    return {
        item["id"]: item
        for item in items
        if isinstance(item.get("id"), int) and item["id"] in wanted
    }


def _file(folder: Path, partition: str) -> Path:
    """The references of a partition: the pickle, or the JSON if there is that alone."""
    files = [folder / f"refs({partition}){suffix}" for suffix in (".p", ".json")]
    return next(filter(Path.is_file, files), files[0])


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
    found: dict[int, Reference] = {}
    for index, entry in enumerate(entries):
        stated = entry.get("ref_id") if isinstance(entry, Mapping) else None
        # of a list in lists without end no text is made
        label = f"ref_id {stated}" if isinstance(stated, int) else f"reference number {index}"
        try:
            reference = Reference.model_validate(entry)
        except ValidationError as error:
            raise AnnotationFormatError(f"{label}: {first_reason(error)}", path) from None
        if reference.ref_id in found:
            raise AnnotationFormatError(f"{label} is there twice", path)
        found[reference.ref_id] = reference
    return list(found.values())


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
