"""The committed photographs and their hand-drawn masks."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ureca_lib.mask_tree import build_mask_tree, containment_matrix
from ureca_lib.regions import load_sa1b

PHOTOS = Path(__file__).resolve().parents[1] / "data_samples" / "photos"
NAMES = sorted(path.stem for path in PHOTOS.glob("*.json"))


@pytest.fixture(params=NAMES)
def sample(request):
    return load_sa1b(PHOTOS / f"{request.param}.json")


def test_there_are_enough_photos():
    assert len(NAMES) >= 4


def test_each_photo_has_many_named_regions_on_several_levels(sample):
    assert sample.pixels.shape == (sample.height, sample.width, 3)
    assert len(sample) >= 12
    assert all(region.name and not region.name[0].isupper() for region in sample)
    assert build_mask_tree(sample).height() >= 3


def test_each_photo_has_look_alikes(sample):
    counts = Counter(region.name for region in sample)
    assert sum(count > 1 for count in counts.values()) >= 3


def test_no_two_masks_are_the_same(sample):
    assert len({region.rle["counts"] for region in sample}) == len(sample)


def test_parts_lie_in_their_wholes(sample):
    tree, matrix = build_mask_tree(sample), containment_matrix(sample)
    place = {region.id: index for index, region in enumerate(sample)}
    shares = [
        matrix[place[region.id], place[tree.parent(region.id)]]
        for region in sample
        if tree.parent(region.id) is not None
    ]
    assert np.min(shares) > 0.95


def test_the_masks_are_what_the_drawings_give(samples):
    check = subprocess.run(
        [sys.executable, str(samples / "draw.py"), "--check"], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_photo_says_where_it_is_from(samples):
    readme = (samples / "README.md").read_text()
    for name in NAMES:
        assert f"`photos/{load_sa1b(PHOTOS / f'{name}.json').file_name}`" in readme
