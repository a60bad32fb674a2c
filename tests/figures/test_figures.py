"""Figures say what the data say: panels, labels, places, files."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from figures.drawn import faults, says, texts_of
from matplotlib import pyplot as plt
from PIL import Image

from ureca_lib.figures import (
    caption_figure,
    containment_figure,
    deepest_point,
    granularity_figure,
    level_figure,
    mask_tree_figure,
    parent_figure,
    save_figure,
    wrapped,
)
from ureca_lib.mask_tree import build_mask_tree, containment_matrix
from ureca_lib.regions import Region, RegionImage, load_sa1b


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def coffee(samples):
    return load_sa1b(samples / "photos" / "coffee.json")


def test_one_panel_per_level_with_the_number_of_its_regions(coffee):
    tree = build_mask_tree(coffee)
    figure = level_figure(coffee, tree)
    depths = [tree.depth(region.id) for region in coffee]
    heads = [text for text in texts_of(figure) if text == "coffee.png" or " · " in text]
    wanted = [f"level {d} · {depths.count(d)} regions" for d in range(1, tree.height() + 1)]
    pictures = [ax for ax in figure.axes if ax.images]
    assert heads == ["coffee.png", *wanted] and len(pictures) == len(heads)


def test_every_caption_is_under_its_region_with_its_number(coffee):
    texts = {region.id: f"caption {region.id}" for region in coffee}
    figure = caption_figure(coffee, texts, ids=[1, 20, 30])
    texts = [text for ax in figure.axes for text in ax.texts]
    written = {text.get_text(): text.get_window_extent() for text in texts}
    pictures = [ax for ax in figure.axes if ax.images]
    for ax, region_id in zip(pictures, (1, 20, 30), strict=True):
        place = ax.get_window_extent()
        for text in (f"region {region_id}", f"caption {region_id}"):
            box = written[text]
            assert place.x0 - 1 <= box.x0 < place.x1 and box.y1 < place.y0
        x, y, columns, rows = coffee[region_id].pixel_box
        left, right = ax.get_xlim()
        bottom, top = ax.get_ylim()
        assert left <= x and x + columns - 1 <= right
        assert top <= y and y + rows - 1 <= bottom
    assert not faults(figure)
    with pytest.raises(ValueError, match="no captions"):
        caption_figure(coffee, {})


def test_other_captions_stand_under_the_first_and_a_row_is_as_high_as_its_longest(coffee):
    texts, long = {1: "one", 20: "two", 30: "three"}, "many words " * 20
    short = caption_figure(coffee, texts, columns=2)
    figure = caption_figure(coffee, texts, columns=2, others={"base": {20: long}})
    assert says(figure, f"one base: – two base: {long} three")
    assert figure.get_figheight() > short.get_figheight() + 0.5


@pytest.mark.parametrize(
    "text", ["x" * 5000, "WM" * 5000, "\ud800 \x00 \u202e $\\frac{", "long " * 9000]
)
def test_hostile_text_is_cut_and_drawn_in_time(coffee, text):
    started = time.process_time()
    figure = caption_figure(coffee, dict.fromkeys([1, 20], text))
    figure.canvas.draw()
    assert time.process_time() - started < 10
    assert not faults(figure) and figure.get_figheight() < 6


def test_what_is_cut_ends_in_an_ellipsis():
    assert wrapped("word " * 100, 20, 2).endswith("…")
    assert wrapped("x" * 5000, 20, 3).count("\n") == 2 and wrapped("x" * 5000, 20, 3).endswith("…")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc on this system")
def test_many_regions_of_a_phone_photo_are_drawn_in_little_memory():
    """12 megapixels and 50 regions, in a process of its own: its peak is that of the drawing."""
    code = """
import re, time, numpy as np
from ureca_lib.figures import caption_figure, draw_regions
from ureca_lib.regions import Region, RegionImage
from matplotlib import pyplot as plt
regions = []
for number in range(50):
    mask = np.zeros((3000, 4000), bool)
    mask[50 * number : 50 * number + 900, 60 * number : 60 * number + 1000] = True
    regions.append(Region.from_mask(number, mask))
image = RegionImage(regions, 4000, 3000, np.full((3000, 4000, 3), 99, np.uint8))
caption_figure(image, {number: "text" for number in range(50)}).canvas.draw()
draw_regions(plt.subplots()[1], image.pixels, regions)
plt.gcf().canvas.draw()
# ru_maxrss would count the process that starts this one, before it is replaced
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
print(peak // 1024, round(time.process_time()))
"""
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    megabytes, seconds = map(int, done.stdout.split())
    assert megabytes < 1000 and seconds < 40  # seconds of processor time, also the imports'


def test_a_large_photo_is_cut_and_reduced_before_it_is_drawn():
    photo = np.zeros((3000, 4000, 3), np.uint8)
    mask = np.zeros((3000, 4000), bool)
    mask[500:2600, 1000:3900] = True
    thin = np.zeros((3000, 4000), bool)
    thin[700, 1200:1500] = True
    regions = RegionImage([Region.from_mask(1, mask), Region.from_mask(2, thin)], 4000, 3000, photo)
    figure = caption_figure(regions, {1: "one", 2: "two"})
    for ax, region in zip([ax for ax in figure.axes if ax.images], regions, strict=True):
        (image,) = ax.images
        assert max(image.get_array().shape) <= 1402
        x, y, columns, rows = region.pixel_box
        (outline,) = ax.collections[0].get_paths()
        (left, top), (right, bottom) = outline.vertices.min(0), outline.vertices.max(0)
        step = 25  # the line runs inside the region: its width and casing, in the photo's pixels
        assert np.allclose([left, right], [x - 0.5, x + columns - 0.5], atol=step)
        assert np.allclose([top, bottom], [y - 0.5, y + rows - 0.5], atol=step)
    level = level_figure(regions, build_mask_tree(regions))
    arrays = [image.get_array().shape for ax in level.axes for image in ax.images]
    assert max(max(shape) for shape in arrays) <= 1402


def test_the_tree_figure_names_every_region(coffee):
    tree = build_mask_tree(coffee)
    labels = " ".join(texts_of(mask_tree_figure(coffee, tree)))
    assert all(f"[{region.id}]" in labels for region in coffee)


def test_the_overview_has_each_number_on_the_photo_and_before_its_caption(coffee, root):
    overview = SimpleNamespace(**runpy.run_path(root / "data_samples" / "overview.py"))
    texts = {region.id: f"caption {region.id}" for region in coffee}
    columns = (
        overview.OverviewColumn("Objects", (1, 20)),
        overview.OverviewColumn("Parts", (3, 33), (100, 50, 300, 200)),
    )
    figure = overview.overview_figure(coffee, texts, columns)
    pictures = [ax for ax in figure.axes if ax.images]
    shown = texts_of(figure)
    assert [t for t in shown if t.startswith("caption")] == [f"caption {i}" for i in (1, 20, 3, 33)]
    on_photos = [{t.get_text(): t for t in ax.texts} for ax in pictures]
    assert [set(texts) for texts in on_photos] == [{"1", "2"}, {"3", "4"}]
    assert [shown.count(str(number)) for number in range(1, 5)] == [2] * 4
    assert pictures[1].get_xlim() == (99.5, 399.5) and pictures[1].get_ylim() == (249.5, 49.5)
    # the number of a small region stands beside it
    x, _, columns_wide, _ = coffee[33].pixel_box
    place = on_photos[1]["4"].get_position()[0]
    assert place < x or place > x + columns_wide


def test_trees_with_different_parents_are_shown_side_by_side(coffee):
    trees = [build_mask_tree(coffee, parent_rule=rule) for rule in ("smallest", "first")]
    names = texts_of(parent_figure(coffee, *trees, 51))
    assert names[1::2] == ["highlight [51]", "highlights [56]", "saucer rim [21]"]


def test_containment_is_drawn_from_the_largest_region_to_the_smallest(coffee):
    matrix = containment_matrix(coffee)
    drawn = containment_figure(coffee, matrix).axes[0].images[0].get_array()
    order = sorted(range(len(coffee)), key=lambda i: -coffee.regions[i].area)
    assert np.allclose(drawn, 100 * matrix[np.ix_(order, order)])


def test_granularity_has_a_point_for_each_region(coffee):
    ax = granularity_figure({"coffee": build_mask_tree(coffee)}).axes[0]
    assert sum(len(line.get_xdata()) for line in ax.lines) == len(coffee)


@pytest.mark.parametrize("mask", [np.ones((5, 9), bool), np.eye(7, dtype=bool)])
def test_the_deepest_point_is_inside(mask):
    assert mask[deepest_point(mask)]


def test_a_ring_is_labeled_on_the_ring():
    rows, columns = np.mgrid[:40, :40]
    ring = np.abs(np.hypot(rows - 20, columns - 20) - 15) < 3
    assert ring[deepest_point(ring)]


def test_text_that_looks_like_mathematics_is_drawn_as_it_is(tmp_path):
    region = Region.from_mask(1, np.ones((20, 20), bool), "a $x^2 thing")
    image = RegionImage([region], 20, 20, np.zeros((20, 20, 3), np.uint8))
    figure = caption_figure(image, {1: "costs $5 or $\\frac{"})
    save_figure(figure, tmp_path / "f.png")
    save_figure(mask_tree_figure(image, build_mask_tree(image)), tmp_path / "g.png")
    assert (tmp_path / "f.pdf").stat().st_size > 1000


def test_png_and_vector_pdf_are_saved_together(tmp_path, coffee):
    path = save_figure(level_figure(coffee, build_mask_tree(coffee)), tmp_path / "a" / "f.png")
    assert Image.open(path).width > 1000
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_wrapping_keeps_the_words():
    text = "the second coin from the left in the second row from the top"
    lines = wrapped(text, 20).split("\n")
    assert max(map(len, lines)) <= 20 and " ".join(lines) == text
