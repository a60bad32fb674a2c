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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from ureca_lib.datasets.captioned import CaptionedError, OpenOptions, opens
from ureca_lib.datasets.zero_shot import (
    Faults,
    LazyImage,
    LazyImages,
    LazyRegion,
    RegionSet,
    dataset_name,
    parse_text,
    photo_finder,
    select_images,
    stream_items,
)
from ureca_lib.regions import (
    AnnotationFormatError,
    FileMissingError,
    RegionError,
)
from ureca_lib.regions.rle import MAX_PIXELS
from ureca_lib.regions.sa1b import get, image_size, need_object, optional

Partition = Literal["umd", "google"]
MAX_BYTES = 2**26  # of a pickle; RefCOCOg's 49,822 references take 20 to 45 million
# folders of the photos, seen from the annotations; the refer API's is among them
_PHOTOS = (".", "images", "train2014", "images/train2014", "../images/mscoco/images/train2014")
_PHOTOS += ("../train2014", "../images/train2014", "../photos")
# opcodes of None, bool, int, float, str, list, tuple, dict and the memo; and c, \x93, i, which
# name a class, so that the error can say which
_OPCODES = b"\x80\x95.(N\x88\x89ILJKM\x8aFGSTUVX\x8c\x8d]lae}dsu)t\x85\x86\x87pqr\x94ghjc\x93i"


class Reference(NamedTuple):
    """An object and the expressions for it.

    `sentences` are by `sent_id`, each in lower case and without punctuation, as `sent` has it and
    the refer API's evaluation compares it.
    """

    ref_id: int
    ann_id: int
    image_id: int
    category_id: int
    split: str
    sentences: dict[int, str]


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
    if unknown := [name for name in splits if name not in counts]:
        known = ", ".join(f"{name} ({count:,})" for name, count in counts.items()) or "none"
        raise CaptionedError(f"{path}: there is no split {unknown[0]!r}; there are {known}")
    wanted = [reference for reference in found if reference.split in splits]
    instances = _Instances(Path(folder), images, wanted)
    faults, lazy = Faults(strict), dict[int, LazyImage]()
    for reference in wanted:
        try:
            instances.add(reference, lazy)
        except RegionError as error:
            faults.malformed(error.located(path, f"of ref_id {reference.ref_id}"))
    selected = select_images(lazy.values(), regions, limit)
    if not strict:  # only building the masks shows which are faulty
        for image in selected:
            image.regions = [one for one in image.regions if _is_good(one, image, path, faults)]
    name = dataset_name(f"refcocog:{partition}", split, regions, folder, images)
    return LazyImages(selected, name, instances.path, faults.left_out)


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
    for name in names:
        if Path(folder, name).is_file():
            return Path(folder, name)
    raise FileMissingError(f"there is neither {names[0]} nor {names[1]}", folder)


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
    found, refs, sentences = [], set[int](), set[int]()
    for index, entry in enumerate(entries):
        try:
            reference = _reference(entry)
            _check_new(reference.ref_id, refs, "ref_id")
            for sent_id in reference.sentences:
                _check_new(sent_id, sentences, "sent_id")
        except RegionError as error:
            stated = entry.get("ref_id") if isinstance(entry, Mapping) else None
            label = f"ref_id {stated}" if isinstance(stated, int) else f"reference number {index}"
            raise type(error)(f"{label}: {error.reason}", path) from None
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
            reason = f"the file has {size:,} bytes, at most {max_bytes:,} are read"
            raise AnnotationFormatError(reason, path)
        file = io.BytesIO(path.read_bytes())  # whose read() allocates no more than there is
        return _PlainUnpickler(file, encoding="utf-8", errors="surrogateescape").load()
    except AnnotationFormatError:
        raise
    except FileNotFoundError:
        raise FileMissingError("the file does not exist", path) from None
    except KeyError as error:
        reason = f"the file is damaged, no pickle, or holds more than plain data ({error})"
        raise AnnotationFormatError(reason, path) from None
    except Exception as error:  # damaged files raise a dozen kinds
        reason = f"the file cannot be read as a pickle of plain data ({error or 'it is truncated'})"
        raise AnnotationFormatError(reason, path) from None


def _check_new(value: int, seen: set[int], name: str) -> None:
    if value in seen:
        raise AnnotationFormatError(f"{name} {value} is there twice")
    seen.add(value)


def _reference(entry: Any) -> Reference:
    need_object(entry)
    numbers = [get(entry, key, int) for key in ("ref_id", "ann_id", "image_id", "category_id")]
    listed = get(entry, "sentences", list)
    if not listed:
        raise AnnotationFormatError("'sentences' is empty")
    sentences: dict[int, str] = {}
    for sentence in listed:
        need_object(sentence)
        sent_id, text = get(sentence, "sent_id", int), _decode(get(sentence, "sent", str))
        if not text.strip():
            raise AnnotationFormatError("a sentence is empty")
        if sent_id in sentences:
            raise AnnotationFormatError(f"sent_id {sent_id} is there twice")
        sentences[sent_id] = text
    stated = optional(entry, "sent_ids", list)
    if stated is not None and stated != list(sentences):
        raise AnnotationFormatError("'sent_ids' are not those of 'sentences'")
    return Reference(*numbers, get(entry, "split", str), sentences)


def _decode(text: str) -> str:
    """Decode a Python 2 string that was not UTF-8 as Latin-1."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _is_good(one: LazyRegion, image: LazyImage, path: Path, faults: Faults) -> bool:
    try:
        one.region(image.height, image.width)
        return True
    except RegionError as error:
        faults.malformed(error.located(path))
        return False


class _Instances:
    """The parts of `instances.json` that belong to some references; nothing else is in memory."""

    def __init__(self, folder: Path, images: str | Path | None, wanted: Iterable[Reference]):
        self.path, self._find = folder / "instances.json", photo_finder(folder, images, _PHOTOS)
        image_ids = {reference.image_id for reference in wanted}
        ann_ids = {reference.ann_id for reference in wanted}
        self.images = self._by_id("images", image_ids)
        self.annotations = self._by_id("annotations", ann_ids)
        self.categories = self._by_id("categories", None)

    def _by_id(self, key: str, wanted: set[int] | None) -> dict[int, Mapping[str, Any]]:
        items = (one for one in stream_items(self.path, f"{key}.item") if isinstance(one, dict))
        stated = ((one.get("id"), one) for one in items)
        return {
            number: one
            for number, one in stated
            if isinstance(number, int) and (wanted is None or number in wanted)
        }

    def add(self, ref: Reference, lazy: dict[int, LazyImage]) -> None:
        """Add a reference's region, or its expressions if the region is there, to its image."""
        if ref.image_id not in self.images:
            raise AnnotationFormatError(f"{self.path.name} has no image {ref.image_id}")
        if ref.ann_id not in self.annotations:
            raise AnnotationFormatError(f"{self.path.name} has no annotation {ref.ann_id}")
        annotation = self.annotations[ref.ann_id]
        for key, value in (("image_id", ref.image_id), ("category_id", ref.category_id)):
            if (stated := get(annotation, key, int)) != value:
                raise AnnotationFormatError(
                    f"its {key} is {value}, but annotation {ref.ann_id} has {stated}: "
                    "the two files do not belong together"
                )
        segmentation = get(annotation, "segmentation", (list, Mapping))
        if ref.image_id not in lazy:
            about = self.images[ref.image_id]
            width, height = image_size(about, MAX_PIXELS)
            name = get(about, "file_name", str)
            lazy[ref.image_id] = LazyImage(str(ref.image_id), width, height, name, self._find(name))
        regions = lazy[ref.image_id].regions
        same = next((one for one in regions if one.id == ref.ann_id), None)
        if same is None:
            name = self.categories.get(ref.category_id, {}).get("name")
            texts = [*ref.sentences.values()]
            regions.append(LazyRegion(ref.ann_id, texts, None, segmentation, name and str(name)))
        else:
            same.texts += ref.sentences.values()
