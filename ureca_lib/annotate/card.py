"""Statistics of a data set, Table 1 of the paper, and the data card (`data_card.md`) from them.

Limits in the card are the paper's: its Limitation (App. H), dataset curation (App. I), metrics
(App. G) and ethics.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from ureca_lib.annotate.look_alikes import groups, normalized
from ureca_lib.annotate.protocol import STAGES
from ureca_lib.annotate.records import STATES, Answer, FinalCaption, ImageRow
from ureca_lib.annotate.referring.colors import BASIC_COLORS
from ureca_lib.annotate.reviews import REASONS
from ureca_lib.markdown import escaped, percent, table
from ureca_lib.regions import Region

# shares of the image; 0.7% and 70% are the published bounds of main objects
AREA_BOUNDS = (0.001, 0.007, 0.05, 0.2, 0.7)
CAPABILITIES = ("S", "D", "R", "M", "U")  # the columns of Table 1
MOST = 0.5  # share of the captions from which a data set has S or D
UNIQUE_SHARE = 0.95  # from which it has U; the paper gives no number
_LISTED = 50  # regions and failures that the card lists
_REASONS = 500  # different reasons in memory; more are counted together
_DENSE_KINDS = 2  # "multiple attributes" (Sec. 3, data statistics)
_FILL_IN = "*to be filled in*"

_ATTRIBUTES = {
    "color": f"{' '.join(BASIC_COLORS)} gray gold golden silver tan maroon cream turquoise teal "
    "colorful colourful dark light bright pale",
    "size": "large larger largest small smaller smallest big tiny huge tall taller tallest short "
    "shorter shortest long wide wider widest narrow narrower narrowest thin thick",
    "shape": "round rounded circular oval square rectangular triangular curved straight flat "
    "pointed cylindrical spherical slanted arched folded bent curly",
    "texture": "wooden metal metallic plastic glass leather stone brick fabric knitted furry "
    "fluffy smooth rough shiny glossy matte transparent striped spotted checkered plaid patterned "
    "textured plain ribbed worn",
    "position": "left leftmost right rightmost top topmost bottom upper lower middle center centre "
    "front behind beside above below under near between foreground background corner edge",
    "parts": "with has having featuring wearing holding",
}
_KINDS = {kind: frozenset(words.split()) for kind, words in _ATTRIBUTES.items()}

_PAPER = {  # quoted from Table 1, the left half and then the right one
    "RefCOCOg (Yu et al., 2016)": "S R",
    "Visual Genome (Krishna et al., 2016)": "S R",
    "PACO (Ramanathan et al., 2023)": "S R",
    "PartImgNet (He et al., 2022)": "S R",
    "PRIMA (Wahed et al., 2024)": "S D",
    "LLaVA-115K (Liu et al., 2023)": "S D",
    "Arcana (Sun et al., 2024)": "S D R",
    "Osprey (Yuan et al., 2024)": "S D R",
    "I Dream My Painting (Fanelli et al., 2024)": "S D R",
    "GRIT (Wu et al., 2022)": "S D R",
    "LiSA (Lai et al., 2024)": "S D R",
    "USE (Wang et al., 2024b)": "S D M",
    "SegCAP (Zhou et al., 2024)": "S D R M",
    "Grand (Rasheed et al., 2024)": "S D R M",
    "DAM (Lian et al., 2025)": "S D R M",
    "URECA dataset (the paper's)": "S D R M U",
}
_OUR_EXAMPLES = (
    "The prompts follow Tables 7 to 9 of the paper. It does not print the eight in-context "
    "examples of Table 7, nor the prompts for regions under the root, for later rounds with the "
    "look-alikes' captions, and for verification: those examples and prompts are this project's "
    "own.\n\n"
)
_CLOSED = (
    "- **A closed vocabulary.** Captions of the annotator `attributes` are composed by rule from "
    "color, shape, place, size, parts and the masks' names. They say nothing that these do not "
    "hold: no action, material or relation between things. A name is as right as the masks' file."
)


@dataclass(frozen=True)
class CardTexts:
    """Texts of a data card that cannot be computed."""

    title: str = field(default="A URECA data set", metadata={"help": "heading of the card"})
    image_license: str | None = field(
        default=None, metadata={"help": "terms of the photos; SA-1B's are its research license"}
    )
    mask_license: str | None = field(default=None, metadata={"help": "terms of the masks"})
    caption_license: str | None = field(
        default=None,
        metadata={"help": "terms of the captions; an annotator's terms may bind its captions"},
    )


@dataclass(frozen=True)
class RegionRecord:
    """A region, its final caption, and every answer that led to it.

    Args:
        id: unique in the data set.
        region: its mask, box, area and name.
        caption: text, state, place in the tree, look-alikes.
        answers: of all stages, in the order of the stages and rounds.
    """

    id: str
    region: Region
    caption: FinalCaption
    answers: tuple[Answer, ...]

    def answer(self, stage: str) -> Answer | None:
        """Return the latest answer of a stage."""
        return next((a for a in reversed(self.answers) if a.step.stage == stage), None)


@dataclass(frozen=True)
class ImageRecord:
    """A finished image.

    Args:
        key: unique in the data set; the stem of the image's files, with folders only if several
            images have one stem.
        file_name: of the photo, with the key's folders.
        split: split of the image and so of all its regions.
        width, height: in pixels.
        regions: in file order, with and without a caption.
        left_out: number of annotations that were left out as faulty.
    """

    key: str
    file_name: str
    split: str
    width: int
    height: int
    regions: tuple[RegionRecord, ...]
    left_out: int = 0


@dataclass
class Group:
    """Counts of the regions of one granularity; `words` is the total of their captions."""

    regions: int = 0
    captioned: int = 0
    unique: int = 0
    words: int = 0


class Listed(NamedTuple):
    """A region without a unique caption, as the data card lists it."""

    image: str
    region: str
    state: str
    caption: str
    why: str


@dataclass
class DatasetStatistics:
    """Counts of a data set.

    A caption is unique if its state is, and no other of its image reads the same.

    Args:
        images: by split and status.
        regions: by split and state.
        rows: captions in the JSONL file of each split.
        depths, heights: by level of the tree, from 1.
        areas: by bin of `AREA_BOUNDS`.
        words: for each stage, and "final", the number of captions by number of words.
        look_alike_sets: by size: regions of an image that are linked by looking alike.
        look_alike_sets_resolved: sets all of whose captions are unique.
        work: by split, stage, annotator and prompt version: "answers", "failed", "prompt_tokens",
            "reply_tokens", "seconds".
        failures: by what failed ("image" or the stage) and why.
        examples: of these, where it happened first.
        not_unique: the first regions without a unique caption.
        reviewed: by decision, captions that a person decided last.
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
    work: dict[tuple[str, str, str, str], Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)
    not_unique: list[Listed] = field(default_factory=list)
    reviewed: Counter[str] = field(default_factory=Counter)
    short: int = 0
    dense: int = 0
    left_out: int = 0

    @property
    def total(self) -> Group:
        """Counts of all regions."""
        fields = ("regions", "captioned", "unique", "words")
        return Group(*(sum(getattr(g, name) for g in self.depths.values()) for name in fields))

    def add_images(self, rows: Iterable[ImageRow]) -> None:
        """Count images, with the reasons of those that failed."""
        for row in rows:
            self.images[row.split, row.status] += 1
            if row.status == "failed":
                self._add_failure("image", row.error or "", row.image)

    def add(self, image: ImageRecord, rows: int = 0) -> None:
        """Count a finished image; `rows` of its captions are in the JSONL file."""
        self.rows[image.split] += rows
        self.left_out += image.left_out
        captions = [record.caption for record in image.regions]
        texts = Counter(normalized(caption.text) for caption in captions if caption.text)
        unique = {
            caption.region_id
            for caption in captions
            if caption.state == "unique" and texts[normalized(caption.text)] == 1
        }
        for record in image.regions:
            self._add_region(image, record, record.caption.region_id in unique)
        pairs = [(one.region_id, other) for one in captions for other in one.look_alikes]
        for group in groups(pairs, [caption.region_id for caption in captions]):
            self.look_alike_sets[len(group)] += 1
            self.look_alike_sets_resolved += unique.issuperset(group)

    def _add_region(self, image: ImageRecord, record: RegionRecord, unique: bool) -> None:
        caption = record.caption
        self.regions[image.split, caption.state] += 1
        self.reviewed.update(d for d, reason in REASONS.items() if caption.reason == reason)
        words = len(caption.text.split())
        share = record.region.area / (image.width * image.height)
        area = sum(share >= bound for bound in AREA_BOUNDS)
        bins = (self.depths[caption.depth], self.heights[caption.height], self.areas[area])
        for group in bins:
            group.regions += 1
            group.captioned += bool(words)
            group.unique += unique
            group.words += words
        for answer in record.answers:
            self._add_answer(image.split, record.id, answer)
        if words:
            self.words["final"][words] += 1
            short, long = record.answer("short"), record.answer("long")
            self.short += short is not None and bool(short.text)
            forms = (caption.text, long.text if long else "")
            self.dense += any(len(attribute_kinds(text)) >= _DENSE_KINDS for text in forms)
        if not unique and caption.state != "skipped" and len(self.not_unique) < _LISTED:
            same = "" if caption.state != "unique" else "another region's caption reads the same"
            named = (image.key, str(caption.region_id), caption.state, caption.text)
            self.not_unique.append(Listed(*named, caption.reason or same))

    def _add_answer(self, split: str, row_id: str, answer: Answer) -> None:
        stage = answer.step.stage
        if answer.status in ("done", "failed"):
            work = self.work[split, stage, answer.annotator, answer.prompt_version]
            work.update(answers=1, failed=answer.status == "failed", seconds=answer.seconds)
            work.update(prompt_tokens=answer.prompt_tokens, reply_tokens=answer.reply_tokens)
        if answer.status == "failed":
            self._add_failure(stage, answer.error or "", row_id)
        elif answer.status == "done" and stage != "verify":
            self.words[stage][len(answer.text.split())] += 1

    def _add_failure(self, what: str, reason: str, example: str) -> None:
        key = (what, reason)
        if key not in self.failures and len(self.failures) >= _REASONS:
            key = (what, "other reasons")
        self.failures[key] += 1
        self.examples.setdefault(key, example)


def attribute_kinds(caption: str) -> set[str]:
    """Return the kinds of attribute that a caption names, such as color, size or position.

    By a closed list of English words, so that the count is a lower bound.
    """
    words = set(re.findall(r"[a-z]+", caption.casefold()))
    return {kind for kind, known in _KINDS.items() if words & known}


def area_names() -> list[str]:
    """Names of the bins of `AREA_BOUNDS`, the smallest first."""
    texts = [f"{100 * bound:g}%" for bound in AREA_BOUNDS]
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    return [f"below {texts[0]}", *between, f"from {texts[-1]}"]


def table_one(statistics: DatasetStatistics) -> tuple[dict[str, set[str]], dict[str, float]]:
    """Table 1 of the paper with a row for this data set.

    The paper ticks what a data set is made for. Ours, "this data set", is ticked by shares of its
    captioned regions:

    - S, simple captions: at least half have a short caption of stage 2.
    - D, dense captions, "multiple attributes": the final or the long caption of at least half
      names two kinds of attribute or more (`attribute_kinds`).
    - R, region captions: there are captions. Each has its own mask, so the share is 1.
    - M, several granularities: some captioned region lies in another one; the share of those.
    - U, unique captions: at least 95% are unique (`DatasetStatistics`).

    Returns:
        Capabilities by data set, ours last; and our shares by capability, from 0 to 1.
    """
    total = statistics.total
    nested = sum(group.captioned for depth, group in statistics.depths.items() if depth > 1)
    parts = (statistics.short, statistics.dense, total.captioned, nested, total.unique)
    shares = {c: n / max(1, total.captioned) for c, n in zip(CAPABILITIES, parts, strict=True)}
    least = dict(zip(CAPABILITIES, (MOST, MOST, 0.0, 0.0, UNIQUE_SHARE), strict=True))
    ours = {name for name, share in shares.items() if share > 0 and share >= least[name]}
    return {name: set(has.split()) for name, has in _PAPER.items()} | {
        "this data set": ours
    }, shares


def table_one_markdown(statistics: DatasetStatistics) -> str:
    """Format `table_one` as Markdown; our row has its shares."""
    rows, shares = table_one(statistics)
    cells = [
        [name, *("✓" if c in has else "✗" for c in CAPABILITIES)] for name, has in rows.items()
    ]
    ours = cells[-1]
    for place, share in enumerate(shares.values(), 1):
        ours[place] = f"{ours[place]} {percent(share, 1)}"
    return table(["Dataset", *CAPABILITIES], cells)


def data_card(
    statistics: DatasetStatistics,
    settings: Mapping[str, Any],
    states: Iterable[str],
    texts: CardTexts | None = None,
    mixed: Sequence[tuple[str, int, Mapping[str, Any] | None]] = (),
) -> str:
    """Fill the template of the data card.

    Args:
        statistics: of the whole data set.
        settings: of the pipeline, as the store has them.
        states: of the regions whose captions are in the JSONL and COCO files.
        texts: what cannot be computed.
        mixed: if the captions were made with several settings, split, number of images and
            settings of each group; None for unknown settings.
    """
    texts, total = texts or CardTexts(), statistics.total
    sets, annotators = statistics.look_alike_sets, {key[2] for key in statistics.work}
    licenses = ("image_license", "mask_license", "caption_license")
    filled = {name: getattr(texts, name) for name in licenses}
    bins = area_names()
    closed = [_CLOSED] if "attributes" in annotators else []
    sizes = table(["regions of a set", "sets"], sorted(sets.items()), (0, 1)) if sets else ""
    template = resources.files(__package__).joinpath("data_card.md").read_text(encoding="utf-8")
    return template.format(
        title=escaped(texts.title),
        overview=_overview(statistics),
        states=", ".join(states),
        left_out=f"{statistics.left_out:,}",
        depths=_groups("depth", [*sorted(statistics.depths.items()), ("all", total)]),
        heights=_groups("height", sorted(statistics.heights.items())),
        areas=_groups("area", [(bins[n], g) for n, g in sorted(statistics.areas.items())]),
        lengths=_lengths(statistics),
        unique=(
            f"{total.unique:,} of {total.captioned:,} captions "
            f"({percent(total.unique, total.captioned)}) are unique: not in doubt after the last "
            "round, and read like no other caption of their photo."
        ),
        look_alikes=(
            f"{sum(sets.values()):,} sets of look-alikes; in "
            f"{statistics.look_alike_sets_resolved:,} each region has a unique caption.\n\n{sizes}"
        ),
        reviewed=_reviewed(statistics.reviewed),
        not_unique=_not_unique(statistics),
        failures=_failures(statistics),
        work=_work(statistics),
        prompts=_OUR_EXAMPLES if annotators - {"attributes"} else "",
        mixed=_mixed(mixed),
        latest=", latest run" if mixed else "",
        settings=table(["setting", "value"], _flat(settings)),
        table_1=table_one_markdown(statistics),
        limits="".join(f"{line}\n" for line in [*closed, *_verified(statistics)]),
        **{name: _FILL_IN if text is None else escaped(text) for name, text in filled.items()},
    )


def _overview(statistics: DatasetStatistics) -> str:
    head = ["split", "images", "failed", "unfinished", "regions", *STATES, "captions in JSONL"]
    rows = []
    for split in sorted({split for split, _ in statistics.images}):
        images = {status: statistics.images[split, status] for status in ("failed", "waiting")}
        finished = statistics.images[split, "done"] + statistics.images[split, "partial"]
        counts = [statistics.regions[split, state] for state in STATES]
        named = [split, finished, *images.values(), sum(counts)]
        rows.append([*named, *counts, statistics.rows[split]])
    return table(head, rows, range(1, len(head)))


def _groups(name: str, bins: Iterable[tuple[Any, Group]]) -> str:
    head = [name, "regions", "captioned", "unique", "unique of captioned", "words, mean"]
    rows = []
    for label, group in bins:
        words = f"{group.words / group.captioned:.1f}" if group.captioned else "–"
        counts = (group.regions, group.captioned, group.unique)
        rows.append([str(label), *counts, percent(group.unique, group.captioned), words])
    return table(head, rows, range(1, len(head)))


def _lengths(statistics: DatasetStatistics) -> str:
    rows: list[list[Any]] = []
    for stage in (*STAGES[:3], "final"):
        counts = statistics.words[stage]
        if not counts:
            rows.append([stage, 0, *(4 * ["–"])])
            continue
        mean = sum(words * count for words, count in counts.items()) / counts.total()
        middle = f"{median(counts.elements()):g}"
        rows.append([stage, counts.total(), min(counts), middle, f"{mean:.1f}", max(counts)])
    head = ["caption", "captions", "shortest", "median", "mean", "longest"]
    return table(head, rows, range(1, len(head)))


def _reviewed(counts: Counter[str]) -> str:
    if not counts:
        return ""
    return (
        f"People reviewed {counts.total():,} captions: {counts['accept']:,} accepted, "
        f"{counts['edit']:,} rewritten, {counts['reject']:,} rejected; the others are as the "
        "pipeline left them.\n\n"
    )


def _not_unique(statistics: DatasetStatistics) -> str:
    listed, total = statistics.not_unique, statistics.total
    if not listed:
        return ""
    skipped = sum(n for (_, state), n in statistics.regions.items() if state == "skipped")
    more = " The first of them:" if len(listed) < total.regions - skipped - total.unique else ""
    return f"Regions without a unique caption.{more}\n\n{table(Listed._fields, listed)}"


def _failures(statistics: DatasetStatistics) -> str:
    ranked = sorted(statistics.failures.items(), key=lambda item: (-item[1], item[0]))
    rows = [[*key, count, statistics.examples[key]] for key, count in ranked[:_LISTED]]
    return table(["what", "why", "how often", "such as"], rows, (2,)) if rows else "None.\n"


def _work(statistics: DatasetStatistics) -> str:
    rows = []
    for (split, stage, *made), work in statistics.work.items():
        counts = [work[name] for name in ("answers", "failed", "prompt_tokens", "reply_tokens")]
        rows.append([split, stage, *made, *counts, f"{work['seconds']:,.1f}"])
    rows.sort(key=lambda row: (row[0], STAGES.index(row[1]), row))
    head = ["split", "stage", "annotator", "prompt", "answers", "failed", "prompt tokens"]
    return table([*head, "reply tokens", "seconds"], rows, range(4, 9))


def _mixed(kinds: Sequence[tuple[str, int, Mapping[str, Any] | None]]) -> str:
    """Table of the settings that differ, and the number of images captioned with each."""
    if not kinds:
        return ""
    flat = [None if settings is None else dict(_flat(settings)) for _, _, settings in kinds]
    known = [settings for settings in flat if settings is not None]
    names = sorted({name for settings in known for name in settings})
    differ = [name for name in names if len({settings.get(name) for settings in known}) > 1]
    rows = []
    for (split, images, _), found in zip(kinds, flat, strict=True):
        made = "not known" if found is None else ", ".join(f"{n}: {found.get(n)}" for n in differ)
        rows.append([split, images, made or "no setting that is stored"])
    return (
        "**The captions were not all made with the same settings or prompts.** The differences:"
        f"\n\n{table(['split', 'images', 'made with'], rows, (1,))}\n"
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in sorted(settings.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            listed = isinstance(value, (list, tuple))
            yield f"{prefix}{name}", ", ".join(map(str, value)) if listed else str(value)


def _verified(statistics: DatasetStatistics) -> Iterator[str]:
    for split in sorted({split for split, _ in statistics.images}):
        by = {key[2] for key in statistics.work if key[:2] == (split, "verify")}
        names = ", ".join(escaped(name) for name in sorted(by))
        outcome = (
            f"was verified by {names}" if by else "was not verified; its captions are as written"
        )
        yield f"- Split {escaped(split)} {outcome}."
