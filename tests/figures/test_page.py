"""Text is measured before it is placed: lines fit, blocks do not touch, pages are high enough."""

from __future__ import annotations

from itertools import pairwise

import pytest
from figures.drawn import LONG
from matplotlib import pyplot as plt
from matplotlib.text import Text

from ureca_lib.figures import legibility
from ureca_lib.figures.page import Box, Page, broken, lines_height, text_width


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("width", [0.6, 1.5, 4.0])
@pytest.mark.parametrize("bold", [False, True])
def test_lines_fit_and_keep_every_word(width, bold):
    lines = broken(LONG, width, 7, bold)
    assert all(text_width(line, 7, bold) <= width for line in lines)
    assert " ".join(lines) == LONG


def test_no_line_could_take_the_next_word():
    lines = broken(LONG, 1.5, 7)
    for line, following in pairwise(lines):
        assert text_width(f"{line} {following.split()[0]}", 7) > 1.5


def test_a_word_that_is_too_long_is_cut_and_nothing_of_it_is_lost():
    lines = broken("a " + "x" * 80, 0.7, 7)
    assert all(text_width(line, 7) <= 0.7 for line in lines)
    assert "".join(lines) == "a" + "x" * 80


@pytest.mark.parametrize("most", [1, 3])
def test_what_is_left_out_is_said(most):
    lines = broken(LONG, 1.2, 7, most=most)
    assert len(lines) == most and lines[-1].endswith("…")
    assert text_width(lines[-1], 7) <= 1.2
    assert broken("short", 1.2, 7, most=most) == ["short"]


@pytest.mark.parametrize("size", [6, 7, 9])
def test_measured_sizes_are_those_that_are_drawn(size):
    page = Page(3)
    box = page.text(0.1, 0.2, "a dog jumps quickly", 2.8, size)
    figure = page.figure()
    figure.set_dpi(400)
    (drawn,) = [text for text in figure.findobj(Text) if text.get_text()]
    extent = drawn.get_window_extent()
    inches = [side / 400 for side in (extent.width, extent.y0, extent.y1)]
    height = figure.get_figheight()
    measured = text_width("a dog jumps quickly", size)
    assert 0.94 * measured <= inches[0] <= measured
    assert box.top - 0.005 <= height - inches[2] and height - inches[1] <= box.bottom + 0.005


@pytest.mark.parametrize("align", ["left", "center", "right"])
def test_blocks_below_each_other_do_not_touch(align):
    page = Page(2)
    top = 0.05
    for _ in range(4):
        top = page.text(0.1, top, LONG, 1.8, 7, align=align).bottom
    found = legibility(page.figure())
    assert not found.cut and not found.overlapping


def test_the_page_is_as_high_as_the_lowest_thing_on_it():
    page = Page(3, margin=0.1)
    page.picture(Box(0, 0.5, 1, 2), lambda ax: None)
    page.text(1.2, 0, "short", 1)
    assert page.figure().get_figheight() == pytest.approx(2.6)


def test_pictures_are_where_they_were_placed():
    page = Page(4, margin=0)
    box = Box(1, 0.5, 2, 1.5)
    page.picture(box, lambda ax: ax.set_label("here"))
    figure = page.figure()
    (ax,) = [ax for ax in figure.axes if ax.get_label() == "here"]
    left, bottom, width, height = ax.get_position().bounds
    assert (left * 4, width * 4) == pytest.approx((1, 2))
    assert (2 * (1 - bottom - height), 2 * height) == pytest.approx((0.5, 1.5))


def test_more_lines_are_higher():
    heights = [lines_height(count, 7) for count in range(1, 5)]
    steps = [b - a for a, b in pairwise(heights)]
    assert min(steps) > 7 / 72 and max(steps) == pytest.approx(min(steps))


def test_dollars_are_no_mathematics():
    page = Page(2)
    page.text(0, 0, "$x^2$ and \\frac{", 1.9)
    figure = page.figure()
    figure.canvas.draw()
    assert [t.get_text() for t in figure.findobj(Text) if t.get_text()] == ["$x^2$ and \\frac{"]
