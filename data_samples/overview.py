"""Draw the README's picture: `python data_samples/overview.py` writes `overview.jpg` here."""

from __future__ import annotations

from pathlib import Path

import matplotlib

import ureca_lib
from ureca_lib.figures import OverviewColumn, overview_figure

HERE = Path(__file__).resolve().parent
COLUMNS = (
    OverviewColumn("Objects", (1, 100, 60, 80, 72)),
    OverviewColumn("Parts", (102, 103, 26, 27, 32)),
    OverviewColumn("Parts of parts", (5, 6, 37, 36), (60, 55, 375, 375)),
)


def main() -> None:
    """Caption the astronaut's photo and draw some of its regions."""
    matplotlib.use("Agg")
    captions = ureca_lib.caption(HERE / "photos" / "astronaut.png")
    texts = {row.region_id: row.text for row in captions}
    figure = overview_figure(captions.regions, texts, COLUMNS)
    # a photo in PNG is four times as large
    figure.savefig(HERE / "overview.jpg", dpi=260, pil_kwargs={"quality": 90, "subsampling": 0})


if __name__ == "__main__":
    main()
