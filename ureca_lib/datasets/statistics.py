"""What a data set holds, counted image by image."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ureca_lib.annotate.look_alikes import groups, normalized
from ureca_lib.annotate.records import Answer, ImageRow
from ureca_lib.annotate.reviews import REASONS
from ureca_lib.datasets.attribute_words import attribute_kinds
from ureca_lib.datasets.records import ImageRecord, RegionRecord

# shares of the image; 0.7% and 70% are the published bounds of main objects
AREA_BOUNDS = (0.001, 0.007, 0.05, 0.2, 0.7)
_LISTED = 50  # regions named one by one
_REASONS = 500  # different reasons kept; more are counted together
_DENSE_KINDS = 2  # "multiple attributes" (Sec. 3, data statistics)


@dataclass
class Group:
    """Regions of one granularity."""

    regions: int = 0
    captioned: int = 0
    unique: int = 0
    words: int = 0


@dataclass
class Work:
    """Answers of one annotator and prompt."""

    answers: int = 0
    failed: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    reply_tokens: int = 0


@dataclass(frozen=True)
class Listed:
    """A region that is named in the data card."""

    image: str
    region_id: int | str
    state: str
    text: str
    reason: str


@dataclass
class DatasetStatistics:
    """Counts of a data set. A caption is unique if its state is, and no other of its image reads
    the same; those of state "unresolved", "dropped" and "failed" are not.

    Args:
        images: by split and status.
        regions: by split and state.
        rows: captions in the JSONL file of each split.
        depths, heights: by level of the tree, from 1.
        areas: by bin of `AREA_BOUNDS`.
        words: for each stage, and "final", how many captions have how many words.
        look_alike_sets: by size: regions linked by looking alike, the sets of each image.
        look_alike_sets_resolved: those all of whose captions are unique.
        work: by split, stage, annotator, prompt version.
        failures: by what failed ("image" or the stage) and why.
        examples: of these, where it happened first.
        not_told_apart: the first regions without a unique caption.
        reviewed: by decision, captions whose last word is a person's.
        short, dense: captioned regions with a short caption, and with several attributes.
        left_out: faulty annotations that were left out.
    """

    images: Counter[tuple[str, str]] = field(default_factory=Counter)
    regions: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    depths: dict[int, Group] = field(default_factory=lambda: defaultdict(Group))
    heights: dict[int, Group] = field(default_factory=lambda: defaultdict(Group))
    areas: dict[int, Group] = field(default_factory=lambda: defaultdict(Group))
    words: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    look_alike_sets: Counter[int] = field(default_factory=Counter)
    look_alike_sets_resolved: int = 0
    work: dict[tuple[str, str, str, str], Work] = field(default_factory=lambda: defaultdict(Work))
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)
    not_told_apart: list[Listed] = field(default_factory=list)
    reviewed: Counter[str] = field(default_factory=Counter)
    short: int = 0
    dense: int = 0
    left_out: int = 0

    @property
    def total(self) -> Group:
        """All regions."""
        groups = self.depths.values()
        fields = ("regions", "captioned", "unique", "words")
        return Group(*(sum(getattr(group, name) for group in groups) for name in fields))

    def add_images(self, rows: Iterable[ImageRow]) -> None:
        """Count images, with the reasons of those that failed."""
        for row in rows:
            self.images[row.split, row.status] += 1
            if row.status == "failed":
                self._failed("image", row.error or "", row.image)

    def add(self, image: ImageRecord, rows: int = 0) -> None:
        """Count a finished image; `rows` of its captions are in the JSONL file."""
        self.rows[image.split] += rows
        self.left_out += image.left_out
        said = Counter(normalized(r.caption.text) for r in image.regions if r.caption.text)
        unique = set()
        for record in image.regions:
            caption = record.caption
            if caption.state == "unique" and said[normalized(caption.text)] == 1:
                unique.add(caption.region_id)
            self._add_region(image, record, caption.region_id in unique)
        self._add_look_alikes(image, unique)

    def _add_region(self, image: ImageRecord, record: RegionRecord, unique: bool) -> None:
        caption = record.caption
        self.regions[image.split, caption.state] += 1
        self.reviewed.update(d for d, reason in REASONS.items() if caption.reason == reason)
        words = len(caption.text.split())
        share = record.region.area / (image.width * image.height)
        place = sum(share >= bound for bound in AREA_BOUNDS)
        for group in (
            self.depths[caption.depth],
            self.heights[caption.height],
            self.areas[place],
        ):
            group.regions += 1
            group.captioned += bool(words)
            group.unique += unique
            group.words += words
        for answer in record.answers:
            self._add_answer(image, record.id, answer)
        if words:
            self.words["final"][words] += 1
            short, long = record.answer("short"), record.answer("long")
            self.short += short is not None and bool(short.text)
            texts = (caption.text, long.text if long else "")
            self.dense += any(len(attribute_kinds(text)) >= _DENSE_KINDS for text in texts)
        if not unique and caption.state != "skipped" and len(self.not_told_apart) < _LISTED:
            same = "" if caption.state != "unique" else "another region's caption reads the same"
            row = (caption.region_id, caption.state, caption.text, caption.reason or same)
            self.not_told_apart.append(Listed(image.key, *row))

    def _add_answer(self, image: ImageRecord, row_id: str, answer: Answer) -> None:
        stage = answer.step.stage
        if answer.status in ("done", "failed"):
            work = self.work[image.split, stage, answer.annotator, answer.prompt_version]
            work.answers += 1
            work.failed += answer.status == "failed"
            work.seconds += answer.seconds
            work.prompt_tokens += answer.prompt_tokens
            work.reply_tokens += answer.reply_tokens
        if answer.status == "failed":
            self._failed(stage, answer.error or "", row_id)
        elif answer.status == "done" and stage != "verify":
            self.words[stage][len(answer.text.split())] += 1

    def _add_look_alikes(self, image: ImageRecord, unique: set[Any]) -> None:
        captions = [record.caption for record in image.regions]
        pairs = [(one.region_id, other) for one in captions for other in one.look_alikes]
        for group in groups(pairs, [caption.region_id for caption in captions]):
            self.look_alike_sets[len(group)] += 1
            self.look_alike_sets_resolved += unique.issuperset(group)

    def _failed(self, what: str, reason: str, example: str) -> None:
        key = (what, reason)
        if key not in self.failures and len(self.failures) >= _REASONS:
            key = (what, "other reasons")
        self.failures[key] += 1
        self.examples.setdefault(key, example)


def count_dataset(images: Iterable[ImageRecord]) -> DatasetStatistics:
    """Statistics of images, such as `read_parquet` gives them; all of them are finished."""
    statistics = DatasetStatistics()
    for image in images:
        failed = any(a.status == "failed" for r in image.regions for a in r.answers)
        statistics.images[image.split, "partial" if failed else "done"] += 1
        statistics.add(image)
    return statistics


def median(counts: Counter[int]) -> float:
    """The median of numbers, given how often each occurs; 0 where there is none."""
    total = sum(counts.values())
    if not total:
        return 0.0
    middle = ((total - 1) // 2, total // 2)
    found, passed = [], 0
    for value in sorted(counts):
        passed += counts[value]
        while len(found) < 2 and middle[len(found)] < passed:
            found.append(value)
    return sum(found) / 2
