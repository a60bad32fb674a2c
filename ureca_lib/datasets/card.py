"""The data card: what a data set holds, how it was made and where its limits are, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ureca_lib.annotate.protocol import STAGES
from ureca_lib.annotate.records import STATES
from ureca_lib.datasets.limits import limits_text
from ureca_lib.datasets.made_with import MadeWith
from ureca_lib.datasets.markdown import escaped, percent, table
from ureca_lib.datasets.statistics import AREA_BOUNDS, DatasetStatistics, Group, median
from ureca_lib.datasets.table_one import table_one, table_one_markdown

_FILL_IN = "*to be filled in*"
_STATES = {
    "unique": "told apart from its look-alikes",
    "unresolved": "has a caption, but another region's is too much like it",
    "failed": "no caption, or one that could not be verified",
    "dropped": "rejected by verification, or by a person in review",
    "skipped": "not meant to have one: not below a main object, or too small",
}


@dataclass(frozen=True)
class CardTexts:
    """What a data card cannot be computed from."""

    title: str = field(default="A URECA data set", metadata={"help": "heading of the card"})
    image_license: str | None = field(
        default=None, metadata={"help": "terms of the photos; SA-1B's are its research licence"}
    )
    mask_license: str | None = field(default=None, metadata={"help": "terms of the masks"})
    caption_license: str | None = field(
        default=None,
        metadata={"help": "terms of the captions; an annotator's terms may bind what it wrote"},
    )


def data_card(
    statistics: DatasetStatistics,
    settings: Mapping[str, Any],
    states: Iterable[str],
    texts: CardTexts | None = None,
    mixed: Sequence[MadeWith] = (),
) -> str:
    """The card of a data set.

    Args:
        statistics: of all of it.
        settings: what the pipeline was set to, as the store has it.
        states: of the regions whose captions are in the JSONL and COCO files.
        texts: what the card says besides.
        mixed: where the captions were made with several settings, all of these.
    """
    texts = texts or CardTexts()
    sections = [
        f"# {escaped(texts.title)}\n",
        _overview(statistics, tuple(states)),
        _granularity(statistics),
        _lengths(statistics),
        _uniqueness(statistics),
        _failures(statistics),
        _making(statistics, settings, mixed),
        _comparison(statistics),
        limits_text(statistics, settings),
        _licenses(texts),
    ]
    return "\n".join(sections)


def _overview(statistics: DatasetStatistics, states: tuple[str, ...]) -> str:
    splits = sorted({split for split, _ in statistics.images})
    head = ["split", "images", "failed", "unfinished", "regions", *STATES, "captions in JSONL"]
    rows = []
    for split in splits:
        images, regions = statistics.images, statistics.regions
        finished = images[split, "done"] + images[split, "partial"]
        counts = [regions[split, state] for state in STATES]
        bad = (images[split, "failed"], images[split, "waiting"])
        rows.append([split, finished, *bad, sum(counts), *counts, statistics.rows[split]])
    kept = ", ".join(states)
    meanings = "".join(f"- {state}: {meaning}\n" for state, meaning in _STATES.items())
    return (
        "Captions of regions of photos, each meant to fit its region and no other of the photo, "
        "made by the pipeline of URECA (Unique Region Caption Anything).\n\n"
        f"{table(head, rows, range(1, len(head)))}\n"
        f"States of a region:\n\n{meanings}\n"
        f"The JSONL and COCO files hold the captions of state {kept}; the Parquet files all "
        "regions, with every stage's answer; `left_out.jsonl` names the regions that are not in "
        f"the JSONL files, and why. {statistics.left_out:,} faulty annotations were left out.\n"
    )


def _groups(groups: Iterable[tuple[str, Group]], name: str) -> str:
    head = [name, "regions", "captioned", "unique", "unique of captioned", "words, mean"]
    rows = [_group(label, group) for label, group in groups]
    return table(head, rows, range(1, len(head)))


def _group(label: str, group: Group) -> list[Any]:
    words = f"{group.words / group.captioned:.1f}" if group.captioned else "–"
    counts = (group.regions, group.captioned, group.unique)
    return [label, *counts, percent(group.unique, group.captioned), words]


def _granularity(statistics: DatasetStatistics) -> str:
    depths = [(f"{depth}", group) for depth, group in sorted(statistics.depths.items())]
    depths.append(("all", statistics.total))
    heights = [(f"{height}", group) for height, group in sorted(statistics.heights.items())]
    areas = [(_bin(place), group) for place, group in sorted(statistics.areas.items())]
    return (
        "## Granularity\n\nDepth in the mask tree: 1 lies in no other region.\n\n"
        f"{_groups(depths, 'depth')}\n"
        f"Levels below and with it: 1 has no parts.\n\n{_groups(heights, 'height')}\n"
        f"Share of the photo's area.\n\n{_groups(areas, 'area')}"
    )


def _bin(place: int) -> str:
    bounds = [f"{100 * bound:g}%" for bound in AREA_BOUNDS]
    if place == 0:
        return f"below {bounds[0]}"
    return (
        f"{bounds[place - 1]} to {bounds[place]}" if place < len(bounds) else f"from {bounds[-1]}"
    )


def _lengths(statistics: DatasetStatistics) -> str:
    rows = [_length(stage, statistics.words[stage]) for stage in (*STAGES[:3], "final")]
    head = ["caption", "captions", "shortest", "median", "mean", "longest"]
    return f"## Length\n\nIn words.\n\n{table(head, rows, range(1, len(head)))}"


def _length(name: str, counts: Counter[int]) -> list[Any]:
    total = sum(counts.values())
    if not total:
        return [name, 0, *(4 * ["–"])]
    mean = sum(words * count for words, count in counts.items()) / total
    return [name, total, min(counts), f"{median(counts):g}", f"{mean:.1f}", max(counts)]


def _uniqueness(statistics: DatasetStatistics) -> str:
    total, sets = statistics.total, statistics.look_alike_sets
    sizes = table(["regions of a set", "sets"], sorted(sets.items()), (0, 1)) if sets else ""
    listed = [
        [row.image, str(row.region_id), row.state, row.text, row.reason]
        for row in statistics.not_told_apart
    ]
    names = ""
    if listed:
        head = ["image", "region", "state", "caption", "why"]
        more = " The first of them:" if len(listed) < _missing(statistics) else ""
        names = f"Regions without a unique caption.{more}\n\n{table(head, listed)}"
    return (
        "## Uniqueness\n\n"
        f"{total.unique:,} of {total.captioned:,} captions "
        f"({percent(total.unique, total.captioned)}) are unique: not in doubt after the last "
        "round, and read like no other caption of their photo.\n\n"
        f"{sum(sets.values()):,} sets of look-alikes; in {statistics.look_alike_sets_resolved:,} "
        f"each region has a unique caption.\n\n{sizes}\n{_reviewed(statistics)}{names}"
    )


def _reviewed(statistics: DatasetStatistics) -> str:
    counts = statistics.reviewed
    if not counts:
        return ""
    return (
        f"People reviewed {counts.total():,} captions: {counts['accept']:,} accepted, "
        f"{counts['edit']:,} rewritten, {counts['reject']:,} rejected; the others are as the "
        "pipeline left them.\n\n"
    )


def _missing(statistics: DatasetStatistics) -> int:
    skipped = sum(n for (_, state), n in statistics.regions.items() if state == "skipped")
    return statistics.total.regions - skipped - statistics.total.unique


def _failures(statistics: DatasetStatistics) -> str:
    ranked = sorted(statistics.failures.items(), key=lambda item: (-item[1], item[0]))
    rows = [
        [what, reason, count, statistics.examples[what, reason]]
        for (what, reason), count in ranked[:50]
    ]
    text = table(["what", "why", "how often", "such as"], rows, (2,)) if rows else "None.\n"
    return f"## Failures\n\n{text}"


def _making(
    statistics: DatasetStatistics, settings: Mapping[str, Any], mixed: Sequence[MadeWith]
) -> str:
    rows = []
    for (split, stage, annotator, version), work in sorted(
        statistics.work.items(), key=lambda item: (item[0][0], STAGES.index(item[0][1]), item[0])
    ):
        counts = (work.answers, work.failed, work.prompt_tokens, work.reply_tokens)
        rows.append([split, stage, annotator, version, *counts, f"{work.seconds:,.1f}"])
    head = ["split", "stage", "annotator", "prompt", "answers", "failed"]
    head += ["prompt tokens", "reply tokens", "seconds"]
    set_to = table(["setting", "value"], _flat(settings))
    return (
        "## How it was made\n\nAnnotators and versions of prompts. Tokens are 0 where the "
        f"annotator counts none.\n\n{table(head, rows, range(4, 9))}\n"
        f"{_mixed(mixed)}Settings of the pipeline{', latest run' if mixed else ''}.\n\n{set_to}"
    )


def _mixed(kinds: Sequence[MadeWith]) -> str:
    """Which settings differ, and how many images were captioned with which."""
    if not kinds:
        return ""
    flat = [None if kind.settings is None else dict(_flat(kind.settings)) for kind in kinds]
    known = [settings for settings in flat if settings is not None]
    names = sorted({name for settings in known for name in settings})
    differ = [name for name in names if len({settings.get(name) for settings in known}) > 1]
    rows = []
    for kind, found in zip(kinds, flat, strict=True):
        said = "not known" if found is None else ", ".join(f"{n}: {found.get(n)}" for n in differ)
        rows.append([kind.split, kind.images, said or "no setting that is kept"])
    return (
        "**The captions were not all made with the same settings or prompts.** Where they "
        f"differ:\n\n{table(['split', 'images', 'made with'], rows, (1,))}\n"
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in sorted(settings.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            listed = isinstance(value, (list, tuple))
            yield f"{prefix}{name}", ", ".join(map(str, value)) if listed else str(value)


def _comparison(statistics: DatasetStatistics) -> str:
    return (
        "## Beside other data sets\n\nTable 1 of the paper: S simple, D dense, R region, "
        "M multi-granularity, U unique captions. The last row is counted from this data: S, D "
        "and U from the captions that are short, dense and unique, M from those of regions "
        "inside another one.\n\n"
        f"{table_one_markdown(table_one(statistics))}"
    )


def _licenses(texts: CardTexts) -> str:
    rows = [
        f"- photos: {_license(texts.image_license)}",
        f"- masks: {_license(texts.mask_license)}",
        f"- captions: {_license(texts.caption_license)}",
    ]
    return "## Licences\n\n" + "\n".join(rows) + "\n"


def _license(text: str | None) -> str:
    return _FILL_IN if text is None else escaped(text)
