"""Draw the README's picture: `python data_samples/overview.py` writes `overview.png` here."""

from __future__ import annotations

from pathlib import Path

import matplotlib

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.figures import overview_figure
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import load_sa1b

HERE = Path(__file__).resolve().parent
SHOWN = (2, 11, 12, 5, 6, 35, 32, 37, 33, 81, 83, 89, 88, 102, 103, 106, 107, 61, 62)


def main() -> None:
    """Caption the astronaut's photo and draw some of its regions."""
    matplotlib.use("Agg")
    regions = load_sa1b(HERE / "photos" / "astronaut.json")
    tree = build_mask_tree(regions)
    captions = {row.region_id: row.text for row in AttributeAnnotator().caption(regions, tree)}
    figure = overview_figure(regions, tree, captions, SHOWN)
    figure.savefig(HERE / "overview.png", dpi=130, bbox_inches="tight")


if __name__ == "__main__":
    main()
