"""Figures of sweeps show each mean at its place, with its spread."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PathCollection

from ureca_lib.figures.ablations import size_effect_figure, sweep_figure
from ureca_lib.runs.summary import SettingSummary, SweepSummary, measure


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def summary(settings, report=("exact",)):
    return SweepSummary(
        "trial", "A trial", "lesson.ipynb", [0, 1], {}, list(report), settings, [], [], [], 1
    )


def setting(label, parameters, **values):
    measures = {name: measure(dict(enumerate(found))) for name, found in values.items()}
    return SettingSummary(label, parameters, 2, measures)


def bars(ax):
    """Means and spreads as they are drawn: x, y, half the length of the bar."""
    (line,) = ax.lines
    (segments,) = [one for one in ax.collections if isinstance(one, LineCollection)]
    half = [(end[1] - begin[1]) / 2 for begin, end in segments.get_segments()]
    return list(line.get_xdata()), list(line.get_ydata()), half


def seeds(ax):
    """(x, y) of each seed."""
    found = [one.get_offsets() for one in ax.collections if isinstance(one, PathCollection)]
    return sorted(map(tuple, np.concatenate(found)))


def test_one_numeric_parameter_is_the_axis():
    settings = [
        setting("4", {"num_mask_tokens": 4}, exact=[0.1, 0.3]),
        setting("32", {"num_mask_tokens": 32}, exact=[0.5, 0.5]),
        setting("8", {"num_mask_tokens": 8}),
    ]
    (ax,) = sweep_figure(summary(settings)).axes
    places, means, half = bars(ax)
    assert places == [4, 32] and means == pytest.approx([0.2, 0.5])
    assert half == pytest.approx([np.std([0.1, 0.3], ddof=1), 0])
    assert ax.get_xlabel() == "mask tokens per tile" and ax.get_xscale() == "log"
    assert seeds(ax) == [(4, 0.1), (4, 0.3), (32, 0.5), (32, 0.5)]


def test_shares_are_in_percent_with_words_and_no_bar_ends_beyond_100():
    settings = [
        setting("exact_tokens 4", {"exact_tokens": 4}, unique=[0.8, 1.0]),
        setting("exact_tokens 8", {"exact_tokens": 8}, unique=[1.0, 0.9]),
    ]
    (ax,) = sweep_figure(summary(settings, ["unique"])).axes
    assert bars(ax)[1] == pytest.approx([90, 95]) and ax.get_title() == "unique captions, % ↑"
    (segments,) = [one for one in ax.collections if isinstance(one, LineCollection)]
    assert max(end[:, 1].max() for end in segments.get_segments()) == pytest.approx(100)
    sizes = [SettingSummary("num_mask_tokens 4", {"num_mask_tokens": 4}, 2, {
        "by_size.large.unique": measure({"0": 0.8, "1": 1.0})})]  # fmt: skip
    (ax,) = size_effect_figure(summary(sizes)).axes
    assert ax.get_legend().get_texts()[0].get_text() == "mask tokens per tile 4"
    assert ax.collections[0].get_segments()[0][:, 1].max() == pytest.approx(100)


def test_the_line_goes_from_left_to_right_however_the_settings_are_listed():
    settings = [setting(str(n), {"n": n}, exact=[n / 10, n / 10]) for n in (8, 2, 4)]
    (ax,) = sweep_figure(summary(settings)).axes
    places, means, _ = bars(ax)
    assert places == [2, 4, 8] and means == pytest.approx([0.2, 0.4, 0.8])


@pytest.mark.parametrize(
    "parameters",
    [
        [{"mask": "none"}, {"mask": "single"}],
        [{}, {"a": 1}],
        [{"a": True}, {"a": 2}],
        [{"clip": 1.0}, {"clip": float("inf")}],
    ],
)
def test_other_settings_stand_one_below_the_other(parameters):
    settings = [
        setting(f"setting ${number}", item, exact=[number, number], size=[1, 2])
        for number, item in enumerate(parameters)
    ]
    figure = sweep_figure(summary(settings, ["exact", "size", "lost"]))
    assert [ax.get_title() for ax in figure.axes] == ["exact", "size"]
    marks = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert [line.get_data() for line in marks] == [([0], [0]), ([1], [1])]
    assert seeds(figure.axes[0]) == [(0, 0), (0, 0), (1, 1), (1, 1)]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [r"setting \$0", r"setting \$1"]
    assert figure.axes[0].yaxis_inverted()


def test_a_setting_that_was_not_run_says_so():
    settings = [setting("one", {}, exact=[1, 2]), setting("two", {"a": 1})]
    (ax,) = sweep_figure(summary(settings)).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two (not run)"]
    sizes = [sized("single", [0.1, 0.3], [0.8, 0.8]), sized("dynamic", None, None)]
    (ax,) = size_effect_figure(summary(sizes)).axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["single"]


def test_long_labels_do_not_overlap():
    names = ["baseline, tuned without masks, at equal steps", "+ mask encoder", "+ dynamic mask"]
    settings = [setting(name, {"mask": name}, exact=[1, 2]) for name in names]
    figure = sweep_figure(summary(settings))
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[n + 1 :])
    assert all(box.x0 >= 0 for box in boxes)


def test_nothing_measured_is_an_error():
    with pytest.raises(ValueError, match="trial: none of its values was measured"):
        sweep_figure(summary([setting("a", {})]))


def sized(label, small, large):
    """A setting with a value by size over two seeds, as a sweep's summary has it."""
    found = {"by_size.below 0.1%.unique": small, "by_size.from 10%.unique": large}
    measures = {name: measure(dict(enumerate(values))) for name, values in found.items() if values}
    return SettingSummary(label, {}, 2, measures)


def test_sizes_are_in_order_and_every_setting_has_its_line():
    settings = [sized("single", [0.1, 0.3], [0.8, 0.8]), sized("dynamic", [0.5, 0.5], None)]
    (ax,) = size_effect_figure(summary(settings)).axes
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == ["< 0.1", "≥ 10"]
    drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert list(drawn) == ["single", "dynamic"]
    assert drawn["single"] == pytest.approx([20, 80])
    assert drawn["dynamic"] == pytest.approx([50])
    with pytest.raises(ValueError, match="no run recorded 'exact' in 'by_size'"):
        size_effect_figure(summary(settings), "exact")
