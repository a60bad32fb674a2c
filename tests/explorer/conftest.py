"""A captioned image on disk, for tests that look at its store or review it."""

from __future__ import annotations

from pathlib import Path

import pytest
from explorer.speakers import nested_image
from PIL import Image

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.run import annotate_images
from ureca_lib.regions import save_sa1b


@pytest.fixture
def annotated(tmp_path) -> tuple[Path, Path]:
    """An image that the pipeline has captioned: its JSON file and the store."""
    image = nested_image()
    Image.fromarray(image.pixels).save(tmp_path / "boxes.png")
    path = tmp_path / "boxes.json"
    save_sa1b(image, path)
    annotate_images([path], tmp_path / "s.db", AttributeAnnotator(), progress=False)
    return path, tmp_path / "s.db"
