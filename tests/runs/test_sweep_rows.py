"""Rows of a sweep in the paper's tables: means in percent, spreads as intervals, dashes."""

from __future__ import annotations

import numpy as np
import pytest

from ureca_lib.runs.summary import SettingSummary, SweepSummary, measure
from ureca_lib.runs.sweep_rows import ablation_tables, sweep_table

EXACT = {0: 0.5, 1: 0.75, 2: 0.6}


@pytest.fixture
def summary():
    settings = [
        SettingSummary("4 tokens", {"num_mask_tokens": 4}, 3, {"exact_match": measure(EXACT)}),
        SettingSummary("8 tokens", {"num_mask_tokens": 8}, 3, {"rouge_l": measure({0: 0.25})}),
        SettingSummary("16 tokens", {"num_mask_tokens": 16}, 3, {}),
    ]
    fixed = {"steps_1": 250, "steps_2": 450, "data": "scenes:train:9"}
    return SweepSummary("t5", "T", "07.ipynb", [0, 1, 2], fixed, [], settings, [], [], [], 1)


def test_measured_rows_stand_below_the_papers(summary):
    table = sweep_table(5, summary, "sweeps/t5/summary.json", "100 test scenes")
    quoted = [row for row in table.rows if row.origin == "quoted"]
    assert [row.system for row in quoted] == ["4", "8", "16"]
    four, eight, sixteen = table.rows[3:]
    cell = four.cells["exact_match"]
    numbers = 100 * np.array(list(EXACT.values()))
    assert cell["value"] == pytest.approx(numbers.mean())
    assert cell["high"] - cell["value"] == pytest.approx(numbers.std(ddof=1))
    assert cell["value"] - cell["low"] == pytest.approx(numbers.std(ddof=1))
    assert "mean of 3 seeds" in cell["label"]
    assert eight.cells["rouge_l"]["value"] == 25.0 and "low" not in eight.cells["rouge_l"]
    assert eight.cells["exact_match"]["reason"] == "not measured"
    assert sixteen.cells["exact_match"]["reason"] == "no run is done yet"
    assert four.trained_on == "250 + 450 steps on scenes:train:9" and four.data == "100 test scenes"
    assert [row.origin for row in table.rows] == ["quoted"] * 3 + ["measured"] * 3


def test_only_tables_of_the_paper(summary):
    with pytest.raises(ValueError, match="not 7"):
        sweep_table(7, summary, "summary.json", "scenes")


def test_a_table_without_a_sweep_is_as_printed(summary):
    tables = ablation_tables({"table_5_mask_tokens": summary}, "sweeps")
    assert list(tables) == [3, 4, 5]
    measured = {n: sum(row.origin == "measured" for row in t.rows) for n, t in tables.items()}
    assert measured == {3: 0, 4: 0, 5: 3}
    cell = tables[5].rows[3].cells["exact_match"]
    assert cell["place"] == "sweeps/table_5_mask_tokens/summary.json"
