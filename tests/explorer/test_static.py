"""The figure shows the content of the panel."""

from __future__ import annotations

import io

import numpy as np
import pytest
from annotate.drawn import image_of, rectangle
from explorer.speakers import SIZE, Listener, Speaker, nested_image
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from PIL import Image

from ureca_lib.explorer import RegionExplorer
from ureca_lib.explorer.static import figure_png


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(figure) -> str:
    return "\n".join(text.get_text() for ax in figure.axes for text in ax.texts)


def explorer_of(captioner) -> RegionExplorer:
    image = nested_image()
    return RegionExplorer(image.pixels, image.regions, captioner)


def test_path_caption_score_verdict_and_probabilities_are_written():
    explorer = explorer_of(Listener(sharpness=8.0))
    written = texts(explorer.figure(1))
    for part in (
        "image › tray [5] › box [1]",
        "thing 1",
        "-0.50",
        "✓ Unique",
        "box [2]",
        "thing 2",
    ):
        assert part in written
    assert f"{100 * explorer.judge(1).probability:.0f}%" in written


def test_the_target_and_its_rivals_are_outlined_and_numbered():
    explorer = explorer_of(Speaker({1: "a box", 2: "the box"}))
    figure = explorer.figure(1)
    colors = {to_hex(lines.get_edgecolor()[0]) for lines in figure.axes[0].collections}
    assert {"#ffd700", "#e69f00"} <= colors
    assert [text.get_text() for text in figure.axes[0].texts] == ["1"]
    assert "same" in texts(figure) and "✗ Not unique" in texts(figure)


def test_numbers_of_rivals_on_the_same_place_stand_apart():
    masks = [rectangle(SIZE, 10, 10, 40, 30) for _ in range(3)]
    image = image_of(masks, ["box", "box", "box"])
    made = RegionExplorer(image.pixels, image.regions, Speaker({1: "a", 2: "a", 3: "a"}))
    places = [text.get_position() for text in made.figure(1).axes[0].texts]
    assert len(places) == 2
    assert np.linalg.norm(np.subtract(*places)) > 3


def test_without_a_region_all_are_shown():
    explorer = explorer_of(Speaker())
    figure = explorer.figure()
    assert "5 regions on 4 levels" in texts(figure)
    assert len(figure.axes[0].collections) == 5
    assert explorer.book.captioner.asked == []  # nothing has to be captioned for that


def test_text_that_looks_like_mathematics_or_is_long_can_be_drawn():
    text = "the $x_1$ & <b>sign</b> \\frac{ " + "with very many words " * 12
    figure = explorer_of(Speaker({1: text})).figure(1)
    picture = Image.open(io.BytesIO(figure_png(figure)))
    assert picture.width > picture.height > 50


def test_the_written_lines_stay_on_the_page():
    figure = explorer_of(Speaker({1: "words " * 60, 2: "words " * 60})).figure(1)
    figure.canvas.draw()
    page = figure.bbox
    for text in figure.axes[1].texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1 + 1, text.get_text()
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, text.get_text()
