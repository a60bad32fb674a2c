"""Figures of an evaluation show each score at its place, and rank captions by their scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from figures.drawn import faults, predictions_of, says
from matplotlib import pyplot as plt

from ureca_lib.datasets.captioned import open_captioned
from ureca_lib.evaluate.exact_match import measure_exact
from ureca_lib.evaluate.metrics import score_captions
from ureca_lib.evaluate.scores import Score
from ureca_lib.evaluate.systems import build_system
from ureca_lib.figures.comparison import (
    REFERENCE,
    comparison_figure,
    ranked_regions,
    scores_figure,
    size_scores_figure,
)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def images():
    return open_captioned("scenes:test:2")


@pytest.fixture(scope="module")
def said(images, tmp_path_factory):
    folder, names = tmp_path_factory.mktemp("said"), ("class-name", "oracle")
    return {name: predictions_of(build_system(name), images, folder) for name in names}


@pytest.fixture(scope="module")
def rouge(said):
    rows = said["class-name"]
    references = {row.id: row.references for row in rows}
    return score_captions({row.id: row.caption for row in rows}, references, "rouge_l")["rouge_l"]


def score(value, low=None, high=None, name="meteor", label="METEOR without synonyms"):
    return Score(name, label, value, low, high)


def points(ax):
    """(x, y) of all marks, and (low, high) of all intervals."""
    lines = [line for line in ax.lines if line.get_linestyle() != ":"]
    marks = [line for line in lines if line.get_marker() != "None"]
    bars = [line for line in lines if line.get_marker() == "None" and None not in line.get_xdata()]
    ends = [tuple(map(list, line.get_data())) for line in bars]
    return [np.stack(line.get_data(), 1).tolist() for line in marks], ends


def test_each_score_stands_at_its_value_in_its_systems_line():
    systems = {
        "ours": {"meteor": score(0.5, 0.4, 0.7), "cider": score(2.5, name="cider", label="CIDEr")},
        "theirs": {"meteor": score(0.2), "cider": score(None, name="cider", label="CIDEr")},
    }
    figure = scores_figure(systems, ["cider", "bleu_4", "meteor"], {"meteor": 0.125})
    cider, meteor = figure.axes
    assert points(cider) == ([[[250, 0]]], [])
    marks, ((ends, line),) = points(meteor)
    assert marks == [[[50, 0]], [[20, 1]]] and (ends, line) == ([40, 70], [0, 0])
    (guess,) = [line for line in meteor.lines if line.get_linestyle() == ":"]
    assert guess.get_xdata() == [12.5, 12.5]
    assert meteor.get_ylim()[0] > meteor.get_ylim()[1]  # the first system is on top
    assert says(figure, "ours theirs CIDEr, % ↑ METEOR without synonyms, % ↑")


def test_intervals_are_drawn_where_they_are():
    ax = scores_figure({"a": {"meteor": score(0.5, 0.6, 0.7)}}, ["meteor"]).axes[0]
    assert points(ax)[1][0][0] == [60, 70]


def test_scores_of_many_systems_can_be_read():
    names = [f"score_{number}" for number in range(7)]
    systems = {
        f"a system of a long name {number}": {
            name: score(number / 9, number / 10, number / 8, name, "Recall at 1 among look-alikes")
            for name in names
        }
        for number in range(9)
    }
    figure = scores_figure(systems, names)
    assert not faults(figure)
    assert sum(ax.axison for ax in figure.axes) == 7
    marks = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert len({(line.get_marker(), line.get_color()) for line in marks}) == 9
    filled = [(line.get_color(), line.get_markerfacecolor()) for line in marks]
    assert len(set(filled)) == 9  # not by shapes alone, which are small


def test_lower_is_better_is_marked():
    near = score(0.2, name="collision_near", label="Nearly equal captions")
    figure = scores_figure({"a": {"collision_near": near}}, ["collision_near"])
    assert says(figure, "Nearly equal captions, % ↓")


def test_scores_by_size_are_joined_in_the_order_of_the_sizes():
    sizes = {"below 1%": {"unique": score(0.1, 0.0, 0.2)}, "large": {"unique": score(0.9)}}
    less = {"below 1%": {"unique": score(None)}, "large": {"unique": score(0.4)}}
    figure = size_scores_figure({"ours": sizes, "$theirs$": less}, "unique", "unique, %")
    (ax,) = figure.axes
    first, second = ax.lines
    assert [list(one.get_ydata()) for one in (first, second)] == [[10, 90], [40]]
    (small, large), (other,) = (one.get_xdata() for one in (first, second))
    assert round(small) == 0 and round(large) == round(other) == 1 and large != other
    interval, unknown = ax.collections[0].get_segments()
    assert interval[:, 1].tolist() == [0, 20] and not unknown.size
    assert [label.get_text() for label in ax.get_xticklabels()] == ["< 1", "large"]
    assert says(figure, "$theirs$") and not faults(figure)


def test_an_interval_ends_at_100():
    sizes = {"small": {"unique": score(0.9, 0.8, 1.1)}}
    (ax,) = size_scores_figure({"ours": sizes}, "unique", "unique, %").axes
    (segments,) = ax.collections
    assert segments.get_segments()[0][:, 1].tolist() == [80, 100]


def test_figures_without_a_value_are_refused():
    with pytest.raises(ValueError, match="no system has a value for meteor"):
        scores_figure({"a": {"meteor": score(None)}}, ["meteor"])
    with pytest.raises(ValueError, match="a value for meteor at any size"):
        size_scores_figure({"a": {"small": {}}}, "meteor", "")


@pytest.mark.parametrize("worst", [False, True])
def test_the_best_and_the_worst_are_those_of_the_score(images, said, rouge, worst):
    rows = ranked_regions(images, said, rouge, 4, worst)
    values = rouge.by_id
    by_caption = {}
    for row in said["class-name"]:
        by_caption.setdefault(row.caption, []).append(values[row.id])
    extreme = min if worst else max
    wanted = sorted((extreme(found) for found in by_caption.values()), reverse=not worst)[:4]
    shown = [float(row.note.split(" · ")[0].removeprefix("ROUGE-L ")) for row in rows]
    assert shown == [float(f"{100 * value:.0f}") for value in wanted]
    assert len({row.captions["class-name"] for row in rows}) == 4


def test_a_ranked_region_comes_with_all_that_was_said_of_it(images, said, rouge):
    for row in ranked_regions(images, said, rouge, 3):
        (image,) = [one for one in images if np.array_equal(one.pixels, row.image)]
        reference = image.captions[row.region.id][0]
        assert row.captions == {
            REFERENCE: reference, "class-name": f"the {row.region.name}", "oracle": reference
        }  # fmt: skip
        assert row.fits["oracle"] == (1, True)
    assert not faults(comparison_figure([row], list(row.captions)))


def test_the_seed_decides_between_equals_and_nothing_else(images, said):
    unique = measure_exact(said["oracle"]).overall["unique"]
    oracle = {"oracle": said["oracle"]}
    drawn = [ranked_regions(images, oracle, unique, 3, seed=seed) for seed in (1, 1, 2)]
    ids = [[(row.region.id, row.captions["oracle"]) for row in rows] for rows in drawn]
    assert ids[0] == ids[1] != ids[2]


def test_captions_without_a_score_are_passed_over(images, said, rouge):
    kept = said["class-name"][5]
    nan = [rouge.by_id[one] if one == kept.id else math.nan for one in rouge.ids]
    one = Score("x", "X", 0.5, ids=rouge.ids, captions=np.array(nan))
    (row,) = ranked_regions(images, said, one)
    assert row.region.id == kept.region_id
    empty = Score("x", "X", None, reason="none")
    with pytest.raises(ValueError, match="class-name: no caption has a score of its own"):
        ranked_regions(images, said, empty)
    with pytest.raises(ValueError, match="no system to rank"):
        ranked_regions(images, {}, rouge)
