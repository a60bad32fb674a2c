"""Which regions are learnt when: every region once an epoch, whatever happens in between."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from tiny_runs import small

from ureca_lib.regions import Region
from ureca_lib.train import data
from ureca_lib.train.data import GroupOrder, resize_together, total_steps

COUNTS = [3, 0, 7, 1, 16]


@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("buffer", [0, 2, 5, 100])
def test_each_epoch_has_every_region_once(monkeypatch, size, buffer):
    monkeypatch.setattr(data, "SHARD", 2)
    order = GroupOrder(COUNTS, size, seed=4, buffer=buffer)
    every = {(image, place) for image, count in enumerate(COUNTS) for place in range(count)}
    assert len(order) == sum(-(-count // size) for count in COUNTS)
    for epoch in range(3):
        places = range(epoch * len(order), (epoch + 1) * len(order))
        groups = [order(place) for place in places]
        seen = Counter((image, region) for image, regions in groups for region in regions)
        assert set(seen) == every and set(seen.values()) == {1}
        assert all(1 <= len(regions) <= size for _, regions in groups)


def test_a_buffer_reads_one_shard_after_the_other():
    order = GroupOrder([2] * 5500, 1, seed=1, buffer=3000)  # shards of 1000 images, the last of 500
    found = [order(place)[0] for place in range(2 * len(order))]
    fillings = [found[at : at + 3000] for at in range(0, len(order), 3000)]
    opened = [{image // data.SHARD for image in filling} for filling in fillings]
    assert all(len(shards) <= 3 for shards in opened)  # 2 groups an image, 2000 or 1000 a shard
    together = dict.fromkeys(shard for shards in opened for shard in sorted(shards))
    assert sorted(together) == list(range(6)) and found[: len(order)] != found[len(order) :]
    assert fillings[0] != sorted(fillings[0]) and opened[0] != {0, 1}


@pytest.mark.parametrize("buffer", [0, 5])
def test_the_order_is_drawn_anew_for_each_epoch_and_seed_and_needs_no_memory(buffer):
    order, again = (GroupOrder(COUNTS, 2, seed=1, buffer=buffer) for _ in range(2))
    first = [order(place) for place in range(2 * len(order))]
    assert [again(place) for place in reversed(range(2 * len(order)))] == first[::-1]
    assert first[: len(order)] != first[len(order) :]
    other = GroupOrder(COUNTS, 2, seed=2, buffer=buffer)
    assert [other(place) for place in range(len(order))] != first[: len(order)]


def test_steps_are_epochs_rounded_up_or_what_is_set(tmp_path):
    settings = small(tmp_path, steps=None, epochs=1.5, batch_size=4)
    assert total_steps(settings, 10) == 4  # 15 groups
    assert total_steps(small(tmp_path, steps=3), 10) == 3


def test_image_and_masks_are_resized_together():
    pixels = np.zeros((40, 60, 3), np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:30, 15:45] = True
    pixels[mask] = 255
    photo, (region,) = resize_together(pixels, [Region.from_mask(7, mask, "box")], (0.5, 1.0))
    assert photo.shape == (20, 60, 3) and region.size == (20, 60)
    assert (region.id, region.name) == (7, "box")
    assert abs(region.area - 0.5 * 600) <= 0.05 * 0.5 * 600
    assert photo[region.mask].mean() > 245 and photo[~region.mask].mean() < 10


def test_where_a_region_would_vanish_nothing_is_resized():
    pixels = np.zeros((40, 60, 3), np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10, 15] = True
    region = Region.from_mask(1, mask)
    photo, (kept,) = resize_together(pixels, [region], (0.1, 0.1))
    assert photo is pixels and kept is region
