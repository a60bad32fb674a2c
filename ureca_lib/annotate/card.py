"""Statistics of a data set, Table 1 of the paper, and the data card from them.

Everything is counted from the rows of the data set's own Parquet files; see `export` for their
columns. Limits in the card are the paper's: its Limitation (App. H), dataset curation (App. I),
metrics (App. G) and ethics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from itertools import pairwise
from string import Formatter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from ureca_lib.annotate.look_alikes import groups, normalized
from ureca_lib.annotate.protocol import STAGES
from ureca_lib.annotate.records import STATES, ImageRow, State, region_of
from ureca_lib.annotate.reviews import REASONS
from ureca_lib.markdown import escaped, percent, table

# shares of the image; 0.7% and 70% are the published bounds of main objects
AREA_BOUNDS = (0.001, 0.007, 0.05, 0.2, 0.7)
CAPABILITIES = ("S", "D", "R", "M", "U")  # the columns of Table 1
# share of the captions from which a data set has each; the paper gives no number for U
_LEAST = {"S": 0.5, "D": 0.5, "R": 0.0, "M": 0.0, "U": 0.95}
_LISTED = 50  # regions and failures that the card lists
_DENSE_KINDS = 2  # "multiple attributes" (Sec. 3, data statistics)
FINISHED = ("done", "partial")  # status of the images that are exported


@dataclass(frozen=True)
class CardTexts:
    """Texts of a data card that cannot be computed.

    Args:
        title: heading of the card.
        image_license: terms of the photos; SA-1B's are its research license.
        mask_license: terms of the masks.
        caption_license: terms of the captions; an annotator's terms may bind its captions.
    """

    title: str = "A URECA data set"
    image_license: str | None = None
    mask_license: str | None = None
    caption_license: str | None = None


class DatasetStatistics:
    """Tables that the numbers of the card are counted from.

    Args:
        rows: regions of finished images, in the columns of `export.SCHEMA`.
        images: all images of the store.
        states: of the regions whose captions are in the JSONL files.

    Attributes:
        images: one row per image: image, split, status, error.
        regions: one row per region, with its `words`, its bin of `area`, and whether it is
            `captioned`, `exported` to the JSONL, `unique` (its state is, and no other caption of
            its image reads the same), has a `short` caption, and has a `dense` one: the final or
            the long caption names several kinds of attribute.
        answers: one row per answer of an annotator, with the `id` and the `split` of its region.
        look_alike_sets: for each set of regions of an image that are linked by looking alike, its
            size, and whether all of its captions are unique.
        left_out: number of faulty annotations that were left out.
    """

    def __init__(
        self,
        rows: pa.Table,
        images: Iterable[ImageRow] = (),
        states: Sequence[State] = ("unique",),
    ):
        images = list(images)
        self.left_out = sum(len(image.left_out) for image in images if image.status in FINISHED)
        self.images = pd.DataFrame(images, columns=[known.name for known in fields(ImageRow)])
        rows = rows.combine_chunks()
        regions = rows.drop(["answers", "segmentation", "bbox"]).flatten().to_pandas()
        self.regions = regions
        answers = pa.Table.from_struct_array(pc.list_flatten(rows["answers"])).to_pandas()
        holders = pc.list_parent_indices(rows["answers"]).to_numpy()
        answers[["id", "split"]] = regions[["id", "split"]].to_numpy()[holders]
        answers["words"] = _words(answers.text)
        answers["stage"] = pd.Categorical(answers.stage, STAGES)
        self.answers = answers[answers.status.isin(["done", "failed"])]
        regions["words"] = _words(regions.caption)
        regions["captioned"] = regions.words > 0
        regions["exported"] = regions.captioned & regions.state.isin(states)
        shares = regions.area / (regions.width * regions.height)
        bins = [-np.inf, *AREA_BOUNDS, np.inf]
        regions["area"] = pd.cut(shares, bins, right=False, labels=area_names())
        alike = regions.assign(text=regions.caption.map(normalized))
        alike = alike.duplicated(["image_key", "text"], keep=False)
        regions["unique"] = (regions.state == "unique") & ~alike
        latest = answers.drop_duplicates(["id", "stage"], keep="last")
        texts = {stage: latest[latest.stage == stage].set_index("id").text for stage in STAGES}
        regions["short"] = regions.captioned & regions.id.map(texts["short"]).fillna("").ne("")
        long = regions.id.map(texts["long"]).fillna("")
        regions["dense"] = regions.captioned & (_is_dense(regions.caption) | _is_dense(long))
        self.look_alike_sets = _look_alike_sets(regions)


def _words(texts: pd.Series) -> pd.Series:
    return texts.map(lambda text: len(text.split())).astype(int)


def _is_dense(texts: pd.Series) -> pd.Series:
    return texts.map(lambda text: len(attribute_kinds(text)) >= _DENSE_KINDS).astype(bool)


def _look_alike_sets(regions: pd.DataFrame) -> pd.DataFrame:
    """Size of each set of look-alikes, and whether all of its captions are unique."""
    named = list(zip(regions.image_key, regions.mask_id, strict=True))
    pairs = [
        ((key, mask_id), (key, other))
        for (key, mask_id), others in zip(named, regions.look_alikes, strict=True)
        for other in others
    ]
    unique = dict(zip(named, regions.unique, strict=True))
    sets = [(len(found), all(unique[one] for one in found)) for found in groups(pairs, named)]
    return pd.DataFrame(sets, columns=["regions", "resolved"])


def attribute_kinds(caption: str) -> set[str]:
    """Return the kinds of attribute that a caption names, such as color, size or position.

    By a closed list of English words, so that the count is a lower bound.
    """
    words = set(re.findall(r"[a-z]+", caption.casefold()))
    return {kind for kind, known in _kinds().items() if words & known}


@cache
def _kinds() -> dict[str, set[str]]:
    texts = yaml.safe_load(_resource("attribute_words.yaml"))
    return {kind: set(words.split()) for kind, words in texts.items()}


def area_names() -> list[str]:
    """Names of the bins of `AREA_BOUNDS`, the smallest first."""
    texts = [f"{100 * bound:g}%" for bound in AREA_BOUNDS]
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    return [f"below {texts[0]}", *between, f"from {texts[-1]}"]


def capability_shares(statistics: DatasetStatistics) -> dict[str, float]:
    """Shares of the captioned regions, 0 to 1, by which a data set has a capability of Table 1.

    The paper ticks what a data set is made for. Ours is ticked by shares:

    - S, simple captions: at least half have a short caption of stage 2.
    - D, dense captions, "multiple attributes": the final or the long caption of at least half
      names two kinds of attribute or more (`attribute_kinds`).
    - R, region captions: there are captions. Each has its own mask, so the share is 1.
    - M, several granularities: some captioned region lies in another one; the share of those.
    - U, unique captions: at least 95% are unique (`DatasetStatistics`).
    """
    captioned = statistics.regions[statistics.regions.captioned]
    columns = captioned.assign(nested=captioned["tree.depth"] > 1)
    shares = columns[["short", "dense", "captioned", "nested", "unique"]].astype(float).mean()
    return dict(zip(CAPABILITIES, shares.fillna(0.0).tolist(), strict=True))


def table_one(statistics: DatasetStatistics) -> str:
    """Table 1 of the paper as Markdown, and our row with `capability_shares`."""
    shares = capability_shares(statistics)
    ticks = {name: share > 0 and share >= _LEAST[name] for name, share in shares.items()}
    cells = [f"{'✓' if ticks[name] else '✗'} {percent(shares[name], 1)}" for name in CAPABILITIES]
    return f"{_resource('table_1.md')}| this data set | {' | '.join(cells)} |\n"


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def data_card(
    statistics: DatasetStatistics,
    settings: Mapping[str, str],
    states: Iterable[str],
    texts: CardTexts | None = None,
    mixed: Sequence[tuple[str, int, str]] = (),
) -> str:
    """Fill the template of the data card.

    Args:
        statistics: of the whole data set.
        settings: of the pipeline, by name.
        states: of the regions whose captions are in the JSONL and COCO files.
        texts: what cannot be computed.
        mixed: if the captions were made with several settings, split, number of images and
            differing settings of each group.
    """
    texts, regions = texts or CardTexts(), statistics.regions
    sets, annotators = statistics.look_alike_sets, set(statistics.answers.annotator)
    captioned, unique = int(regions.captioned.sum()), int(regions.unique.sum())
    sizes = sets.regions.value_counts().sort_index()
    doubtful = regions[~regions.unique & (regions.state != "skipped")]
    reviews = {name: int((regions.reason == reason).sum()) for name, reason in REASONS.items()}
    values: dict[str, str | None] = {
        **{name: _escaped_or_open(text) for name, text in vars(texts).items()},
        **{name: f"{count:,}" for name, count in reviews.items()},
        "reviewed": f"{sum(reviews.values()):,}" if any(reviews.values()) else None,
        "overview": _overview(statistics),
        "states": ", ".join(states),
        "left_out": f"{statistics.left_out:,}",
        "depths": _granularity("depth", regions["tree.depth"], regions, total=True),
        "heights": _granularity("height", regions["tree.height"], regions),
        "areas": _granularity("area", regions.area, regions),
        "lengths": _lengths(statistics),
        "unique": f"{unique:,} of {captioned:,} captions ({percent(unique, captioned)})",
        "look_alikes": f"{len(sets):,} sets of look-alikes; in {int(sets.resolved.sum()):,}",
        "sizes": table(["regions of a set", "sets"], sizes.items(), (0, 1)) if len(sets) else None,
        "not_unique": _not_unique(doubtful) if len(doubtful) else None,
        "failures": _failures(statistics),
        "work": _work(statistics.answers),
        "models": ", ".join(map(escaped, sorted(annotators - {"attributes"}))) or None,
        "rules": "attributes" if "attributes" in annotators else None,
        "groups": f"{len(mixed)}" if mixed else None,
        "mixed": table(["split", "images", "made with"], mixed, (1,)) if mixed else None,
        "settings": table(["setting", "value"], sorted(settings.items())),
        "table_1": table_one(statistics),
    }
    if len(doubtful):
        values["more"] = " The first of them:" if len(doubtful) > _LISTED else ""
    # a paragraph that needs a value that does not apply is left out
    paragraphs = []
    for paragraph in _resource("data_card.md").rstrip().split("\n\n"):
        names = [name for _, name, *_ in Formatter().parse(paragraph) if name]
        if all(values.get(name) is not None for name in names):
            paragraphs.append(paragraph.format_map(values).rstrip())
    head = yaml.safe_dump(hub_head(regions), sort_keys=False)
    return f"---\n{head}---\n\n" + "\n\n".join(paragraphs) + "\n"


def hub_head(regions: pd.DataFrame) -> dict[str, Any]:
    """Head of the card: the JSONL file of each split, for `datasets.load_dataset` and the hub.

    Args:
        regions: of `DatasetStatistics`; a split without captions is no split to the library.
    """
    exported = regions[regions.exported]
    files = [{"split": split, "path": f"{split}.jsonl"} for split in sorted(set(exported.split))]
    config = {"config_name": "default", "data_files": files}
    # declared, since some columns are in some rows or splits only
    names = ("id", "image", "masks", "state")
    columns: list[dict[str, Any]] = [{"name": name, "dtype": "string"} for name in names]
    turn = [{"name": name, "dtype": "string"} for name in ("from", "value")]
    columns.append({"name": "conversations", "list": turn})
    kinds = {"string" if key.startswith('"') else "int64" for key in exported.mask_id}
    columns.append({"name": "mask_id", "dtype": kinds.pop() if len(kinds) == 1 else "json"})
    return {"configs": [config], "dataset_info": {"features": columns}}


def _escaped_or_open(text: str | None) -> str:
    return "*to be filled in*" if text is None else escaped(text)


def _overview(statistics: DatasetStatistics) -> str:
    images = pd.crosstab(statistics.images.split, statistics.images.status)
    images = images.reindex(columns=[*FINISHED, "failed", "waiting"], fill_value=0)
    regions, answers = statistics.regions, statistics.answers
    states = pd.crosstab(regions.split, regions.state)
    states = states.reindex(images.index, columns=STATES, fill_value=0)
    exported = regions.groupby("split").exported.sum().reindex(images.index, fill_value=0)
    verified = answers[answers.stage == "verify"].groupby("split").annotator.unique()
    verified = verified.map(", ".join).reindex(images.index, fill_value="–")
    finished, known = images[list(FINISHED)].sum(axis=1), states.sum(axis=1)
    counts = [finished, images.failed, images.waiting, known, states, exported, verified]
    head = ["split", "images", "failed", "unfinished", "regions", *STATES, "captions in JSONL"]
    rows = pd.concat(counts, axis=1).itertuples(name=None)
    return table([*head, "verified by"], rows, range(1, len(head)))


def _granularity(name: str, levels: pd.Series, regions: pd.DataFrame, total: bool = False) -> str:
    """Table of the regions by level of the tree or bin of area, `total`: with a last row of all."""
    columns = ["regions", "captioned", "unique", "words"]
    bins = regions.assign(regions=1).groupby(levels, observed=True)[columns].sum()
    if total:
        bins.loc["all"] = bins.sum()
    rows = [
        [str(level), count, captioned, unique, percent(unique, captioned), _mean(words, captioned)]
        for level, count, captioned, unique, words in bins.itertuples(name=None)
    ]
    head = [name, "regions", "captioned", "unique", "unique of captioned", "words, mean"]
    return table(head, rows, range(1, len(head)))


def _mean(total: int, count: int) -> str:
    return f"{total / count:.1f}" if count else "–"


def _lengths(statistics: DatasetStatistics) -> str:
    done = statistics.answers[statistics.answers.status == "done"]
    lengths = {stage: done.words[done.stage == stage] for stage in STAGES[:3]}
    lengths["final"] = statistics.regions.words[statistics.regions.captioned]
    rows = []
    for stage, words in lengths.items():
        middle = (words.min(), f"{words.median():g}", _mean(words.sum(), len(words)), words.max())
        shown = (int(value) if isinstance(value, np.integer) else value for value in middle)
        rows.append([stage, len(words), *(shown if len(words) else 4 * "–")])
    head = ["caption", "captions", "shortest", "median", "mean", "longest"]
    return table(head, rows, range(1, len(head)))


def _not_unique(regions: pd.DataFrame) -> str:
    same = {"unique": "another region's caption reads the same"}
    rows = [
        [row.image_key, str(region_of(row.mask_id)), row.state, row.caption, why]
        for row in regions.fillna({"reason": ""}).head(_LISTED).itertuples()
        for why in [row.reason or same.get(row.state, "")]
    ]
    return table(["image", "region", "state", "caption", "why"], rows)


def _failures(statistics: DatasetStatistics) -> str:
    images = statistics.images.rename(columns={"image": "example"}).assign(what="image")
    answers = statistics.answers.rename(columns={"id": "example", "stage": "what"})
    both = pd.concat([images, answers])
    failed = both[both.status == "failed"].fillna({"error": ""}).groupby(["what", "error"])
    if not len(failed):
        return "None.\n"
    counts = failed.example.agg(["size", "first"]).reset_index()
    rows = counts.sort_values("size", ascending=False, kind="stable").head(_LISTED)
    return table(["what", "why", "how often", "such as"], rows.itertuples(index=False), (2,))


def _work(answers: pd.DataFrame) -> str:
    names = ["split", "stage", "annotator", "prompt_version"]
    sums = answers.assign(answers=1, failed=answers.status == "failed")
    counts = ["answers", "failed", "prompt_tokens", "reply_tokens", "seconds"]
    sums = sums.groupby(names, observed=True, as_index=False)[counts].sum()
    sums["seconds"] = sums.seconds.map("{:,.1f}".format)
    head = ["split", "stage", "annotator", "prompt", "answers", "failed", "prompt tokens"]
    rows = sums.itertuples(index=False)
    return table([*head, "reply tokens", "seconds"], rows, range(4, 9))
