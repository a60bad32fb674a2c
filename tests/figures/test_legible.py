"""Figures that cannot be read are found out, and those that can are not."""

from __future__ import annotations

import pytest
from matplotlib import pyplot as plt

from ureca_lib.figures import legibility


@pytest.fixture
def blank():
    figure = plt.figure(figsize=(3, 2))
    yield figure
    plt.close(figure)


def test_a_plain_figure_is_good(blank):
    blank.text(0.1, 0.8, "one", fontsize=8)
    blank.text(0.1, 0.3, "two", fontsize=7)
    found = legibility(blank)
    assert found.good and found.smallest == 7


def test_small_letters_are_not(blank):
    blank.text(0.1, 0.5, "tiny", fontsize=5)
    assert not legibility(blank).good


@pytest.mark.parametrize("place", [(0.9, 0.5), (0.1, 0.97), (-0.05, 0.5)])
def test_text_over_the_edge_is_named(blank, place):
    blank.text(*place, "over the edge", fontsize=8)
    found = legibility(blank)
    assert found.cut == ("over the edge",) and not found.good


def test_texts_on_each_other_are_named(blank):
    blank.text(0.1, 0.5, "below", fontsize=9)
    blank.text(0.12, 0.52, "above", fontsize=9)
    found = legibility(blank)
    assert found.overlapping == (("below", "above"),) and not found.good


def test_what_is_not_drawn_does_not_count(blank):
    ax = blank.add_axes((0.2, 0.2, 0.7, 0.7))
    ax.set_yticks([0, 1, 5], ["0", "1", "far above, and so not drawn"])
    ax.set_ylim(0, 1)
    ax.text(0.5, 0.5, "hidden", visible=False)
    hidden = blank.add_axes((0, 0, 0.1, 0.1))
    hidden.set_xlabel("of axes that are off")
    hidden.axis("off")
    ax.tick_params(labelsize=7)
    found = legibility(blank)
    assert found.good, found


def test_a_figure_wider_than_a_page_is_not_good():
    figure = plt.figure(figsize=(8, 2))
    assert not legibility(figure).good
    plt.close(figure)
