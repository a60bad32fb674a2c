"""Table 1 of the paper, what data sets offer, with a row of our own that is computed."""

from __future__ import annotations

from dataclasses import dataclass

from ureca_lib.datasets.markdown import percent, table
from ureca_lib.datasets.statistics import DatasetStatistics

CAPABILITIES = ("S", "D", "R", "M", "U")
MOST = 0.5  # of the captions, for a capability that a data set either aims at or does not
UNIQUE_SHARE = 0.95  # of the captions, to call a data set unique; the paper gives no number

# quoted from Table 1, the left half and then the right one
_PAPER = (
    ("RefCOCOg (Yu et al., 2016)", "S R"),
    ("Visual Genome (Krishna et al., 2016)", "S R"),
    ("PACO (Ramanathan et al., 2023)", "S R"),
    ("PartImgNet (He et al., 2022)", "S R"),
    ("PRIMA (Wahed et al., 2024)", "S D"),
    ("LLaVA-115K (Liu et al., 2023)", "S D"),
    ("Arcana (Sun et al., 2024)", "S D R"),
    ("Osprey (Yuan et al., 2024)", "S D R"),
    ("I Dream My Painting (Fanelli et al., 2024)", "S D R"),
    ("GRIT (Wu et al., 2022)", "S D R"),
    ("LiSA (Lai et al., 2024)", "S D R"),
    ("USE (Wang et al., 2024b)", "S D M"),
    ("SegCAP (Zhou et al., 2024)", "S D R M"),
    ("Grand (Rasheed et al., 2024)", "S D R M"),
    ("DAM (Lian et al., 2025)", "S D R M"),
    ("URECA dataset (the paper's)", "S D R M U"),
)


@dataclass(frozen=True)
class TableOneRow:
    """A data set and which of `CAPABILITIES` it has.

    `shares` are the measured numbers behind them, from 0 to 1, for a row that was computed.
    """

    dataset: str
    has: frozenset[str]
    shares: dict[str, float] | None = None


def table_one(statistics: DatasetStatistics, name: str = "this data set") -> list[TableOneRow]:
    """The rows of Table 1 as the paper has them, and ours from what was counted.

    The paper ticks by what a data set is made for. Ours is ticked by shares of its captioned
    regions:

    - S, simple captions: at least half have a short caption of stage 2.
    - D, dense captions, "multiple attributes": the final or the long caption of at least half
      names two kinds of attribute or more (`attribute_kinds`).
    - R, region captions: there are captions. Each has its own mask, so the share is 1.
    - M, several granularities: some captioned region lies in another one; the share of those.
    - U, unique captions: at least 95% are told apart (`DatasetStatistics`).

    Args:
        statistics: of the data set, from `export_dataset` or `count_dataset`.
        name: of our row, which is the last one.
    """
    rows = [TableOneRow(dataset, frozenset(has.split())) for dataset, has in _PAPER]
    return [*rows, _ours(statistics, name)]


def _ours(statistics: DatasetStatistics, name: str) -> TableOneRow:
    total = statistics.total
    nested = sum(group.captioned for depth, group in statistics.depths.items() if depth > 1)
    parts = (statistics.short, statistics.dense, total.captioned, nested, total.unique)
    least = (MOST, MOST, 0.0, 0.0, UNIQUE_SHARE)
    shares = {
        capability: part / total.captioned if total.captioned else 0.0
        for capability, part in zip(CAPABILITIES, parts, strict=True)
    }
    has = (
        capability
        for capability, bound in zip(CAPABILITIES, least, strict=True)
        if shares[capability] > 0 and shares[capability] >= bound
    )
    return TableOneRow(name, frozenset(has), shares)


def table_one_markdown(rows: list[TableOneRow]) -> str:
    """The rows as a Markdown table; a computed row says its shares."""
    cells = []
    for row in rows:
        marks = []
        for capability in CAPABILITIES:
            mark = "✓" if capability in row.has else "✗"
            share = "" if row.shares is None else f" {percent(row.shares[capability], 1)}"
            marks.append(mark + share)
        cells.append([row.dataset, *marks])
    return table(["Dataset", *CAPABILITIES], cells)
