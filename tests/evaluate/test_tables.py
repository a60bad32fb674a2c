"""Tables 2 to 6: every printed figure, and measured ones that cannot be taken for printed."""

from __future__ import annotations

import math
from decimal import Decimal
from html.parser import HTMLParser

import pytest

from ureca_lib.evaluate.tables import (
    cell_text,
    html,
    latex,
    latex_escaped,
    markdown,
    paper_table,
    table_with,
    zero_shot_row,
)

# sums of the columns of the paper's own text, against a slip in any digit
SUMS = {
    2: "300.68 174.61 98.79 58.49 333.53 357.14 771.17 546.26",
    3: "95.27 109.69 212.52",
    4: "144.17 152.99 294.77",
    5: "111.45 117.76 222.83",
    6: "197.5 103.3",
}
# (table, row, column): figures looked up in the paper one by one, in every row
ANCHORS = {
    (2, "None", "B@1"): "17.06",
    (2, "None", "CLAIR"): "47.50",
    (2, "Contour", "METEOR"): "25.49",
    (2, "Crop", "B@4"): "0.85",
    (2, "GPT-4o", "CLAIR"): "58.62",
    (2, "SCA", "ROUGE"): "30.76",
    (2, "KOSMOS-2", "B@2"): "18.12",
    (2, "Osprey", "BERT-S"): "73.42",
    (2, "OMG-LLaVA", "CLAIR"): "29.09",
    (2, "ViP-LLaVA (7B)", "B@4"): "9.00",
    (2, "ViP-LLaVA (13B)", "ROUGE"): "38.97",
    (2, "URECA (Ours)", "B@3"): "15.42",
    (2, "URECA (Ours)", "CLAIR"): "66.96",
    (3, "Baseline", "METEOR"): "27.72",
    (3, "+ Mask Encoder", "ROUGE"): "38.46",
    (3, "+ Dynamic Mask", "BERTScore"): "75.11",
    (4, "1B", "ROUGE"): "32.00",
    (4, "2B", "METEOR"): "39.00",
    (4, "4B", "BERTScore"): "73.97",
    (4, "8B", "METEOR"): "41.25",
    (5, "4", "ROUGE"): "35.44",
    (5, "8", "METEOR"): "38.50",
    (5, "16", "BERTScore"): "75.11",
    (6, "ControlMLLM", "RefCOCOg"): "14.0",
    (6, "GRiT", "Visual Genome"): "17.1",
    (6, "SLR", "RefCOCOg"): "15.9",
    (6, "Groma", "Visual Genome"): "16.8",
    (6, "Draw-and-Understand", "RefCOCOg"): "23.9",
    (6, "URECA (Zero-Shot)", "RefCOCOg"): "16.1",
    (6, "URECA (Zero-Shot)", "Visual Genome"): "18.4",
}


def row_of(number, system):
    return next(row for row in paper_table(number).rows if row.system == system)


@pytest.mark.parametrize("number", SUMS)
def test_columns_of_the_printed_tables_add_up(number):
    table = paper_table(number)
    sums = [
        sum(Decimal(row.cells[key].get("printed", "0")) for row in table.rows)
        for key in table.columns
    ]
    assert " ".join(map(str, sums)) == SUMS[number]


@pytest.mark.parametrize(("number", "system", "column"), ANCHORS)
def test_printed_figures_stand_where_the_paper_has_them(number, system, column):
    table = paper_table(number)
    key = next(key for key, label in table.columns.items() if label == column)
    cell = row_of(number, system).cells[key]
    assert cell_text(cell, table.decimals) == ANCHORS[number, system, column]
    assert cell["value"] == float(cell["printed"])


def test_rows_that_the_paper_prints_twice_are_the_same():
    def figures(number, system):
        cells = row_of(number, system).cells
        return [cells[key]["printed"] for key in ("rouge_l", "meteor", "bertscore")]

    assert figures(3, "Baseline") == figures(2, "None")
    ours = figures(2, "URECA (Ours)")
    assert figures(3, "+ Dynamic Mask") == figures(4, "8B") == figures(5, "16") == ours


def test_blue_scores_fall_with_the_length_of_n_grams():
    for row in paper_table(2).rows:
        values = [row.cells[f"bleu_{n}"]["value"] for n in (1, 2, 3, 4)]
        assert values == sorted(values, reverse=True), row.system


def test_what_the_systems_of_table_2_and_3_were_trained_on():
    released = {row.system for row in paper_table(2).rows if row.trained_on != "URECA"}
    assert released == {"None", "Contour", "Crop", "GPT-4o"}
    assert row_of(3, "Baseline").trained_on == row_of(2, "None").trained_on
    assert row_of(3, "+ Mask Encoder").trained_on == "URECA"


def test_dashes_of_table_6_are_the_papers():
    without = [
        row.system
        for row in paper_table(6).rows
        if row.cells["visual_genome"]["value"] is None
        and row.cells["visual_genome"]["reason"] == "the paper prints none"
    ]
    assert without == [
        "ControlMLLM", "Kosmos-2", "SLR", "OMG-LLaVA", "ViP-LLaVA", "Draw-and-Understand"
    ]  # fmt: skip


def score(value, label="ROUGE-L", **more):
    return {"value": value, "label": label, "low": None, "high": None, "backend": "own"} | more


def record(system="ours", sha="f" * 64, **more):
    meta = {"trained_on": "scenes", "data": "scenes:test:9", "command": ["ureca", "predict", "a b"]}
    rouge = score(0.5, low=0.45, high=0.61234, version="1", tokenizer="ptb", settings={"beta": 1.2})
    metrics = {"rouge_l": rouge, "meteor": score(0.25, "METEOR without synonyms")}
    plain = {"system": system, "predictions": "p.jsonl", "sha256": sha, "meta": meta}
    return plain | {"metrics": metrics} | more


def test_a_measured_row_stands_below_with_its_provenance():
    table = table_with(3, [record()])
    *quoted, ours = table.rows
    assert [row.origin for row in quoted] == ["quoted"] * 3
    assert (ours.origin, ours.trained_on, ours.data) == ("measured", "scenes", "scenes:test:9")
    rouge = ours.cells["rouge_l"]
    assert (rouge["value"], rouge["low"], rouge["high"]) == (50, 45, pytest.approx(61.234))
    assert (
        cell_text(rouge, 2) == "50.00"
        and cell_text(rouge, 2, intervals=True) == "50.00 [45.00, 61.23]"
    )
    assert rouge["place"] == "p.jsonl" and rouge["sha256"] == "f" * 64
    assert rouge["command"] == "ureca predict 'a b'" and rouge["tokenizer"] == "ptb"
    assert rouge["settings"] == {"beta": 1.2}
    assert ours.cells["bertscore"]["value"] is None
    assert ours.cells["bertscore"]["reason"] == "not measured"


def test_a_dash_says_why():
    reason = "no model at hand"
    metrics = {"bertscore": {"value": None, "reason": reason, "label": "BERTScore"}}
    table = table_with(2, [record(metrics=metrics)])
    cells = table.rows[-1].cells
    assert cells["bertscore"]["reason"] == reason
    assert "judge" in cells["clair"]["reason"]
    text = markdown(table)
    assert f"{reason}." in text and "none was asked." in text
    assert "| – (a) |" in text


def test_a_quoted_row_cannot_be_added_as_a_measured_one():
    with pytest.raises(ValueError, match="a row that is added is measured"):
        paper_table(3).with_rows([row_of(3, "Baseline")])
    assert {row.origin for row in table_with(3, [record()]).rows[:-1]} == {"quoted"}


def test_every_cell_has_a_figure_or_a_reason():
    for table in (*map(paper_table, range(2, 7)), table_with(2, [record(), record("theirs")])):
        for row in table.rows:
            cells = [row.cells[key] for key in table.columns]
            assert all((cell["value"] is None) == bool(cell.get("reason")) for cell in cells)


def test_a_recall_stands_with_its_chance_and_a_model_listener_with_a_warning():
    settings = {"chance": 0.03, "candidates": 36.12}
    recall = score(0.4, "Recall at 1", model="listener tiny-1a2b", settings=settings)
    text = markdown(table_with(2, [record(metrics={}, overall={"recall_at_1": recall})]))
    assert "Recall at 1 (a guess: 3.0, of 36.1 regions on average) by own" in text.replace("\\", "")
    assert "prefers the style of its training captions" in text
    exact = recall | {"model": "listener exact"}
    text = markdown(table_with(2, [record(metrics={}, overall={"recall_at_1": exact})]))
    assert "prefers the style" not in text


def test_records_of_other_predictions_make_rows_of_their_own():
    uniqueness = record(metrics={}, overall={"recall_at_1": score(0.75, "Recall at 1")})
    table = table_with(2, [record(), uniqueness, record(sha="e" * 64), record("theirs")])
    assert [row.system for row in table.rows[-3:]] == ["ours", "ours", "theirs"]
    first, second = table.rows[-3:-1]
    assert first.cells["recall_at_1"]["value"] == 75 and first.cells["rouge_l"]["value"] == 50
    assert second.cells["recall_at_1"]["reason"] == "not measured"
    assert table.rows[0].cells["recall_at_1"]["reason"] == "the paper does not measure it"
    assert list(table.columns)[-1] == "recall_at_1"
    assert "recall_at_1" not in table_with(2, [record(), uniqueness], ours=False).columns


def test_a_row_of_table_6_takes_meteor_from_each_benchmark():
    other = record(metrics={"meteor": score(0.2, "METEOR")}, sha="e" * 64, predictions="vg.jsonl")
    row = zero_shot_row({"refcocog": record(), "visual_genome": other})
    assert row.cells["refcocog"]["value"] == 25 and row.cells["visual_genome"]["value"] == 20
    assert row.cells["visual_genome"]["place"] == "vg.jsonl"
    alone = zero_shot_row({"refcocog": record()})
    assert alone.cells["visual_genome"]["reason"] == "not measured"
    assert cell_text(paper_table(6).with_rows([row]).rows[-1].cells["refcocog"], 1) == "25.0"
    with pytest.raises(ValueError, match="refcocog, visual_genome, not coco"):
        zero_shot_row({"coco": record()})
    with pytest.raises(ValueError, match="of one system, not of ours, theirs"):
        zero_shot_row({"refcocog": record(), "visual_genome": record("theirs")})
    with pytest.raises(ValueError, match="a column for each benchmark"):
        table_with(6, [record()])
    with pytest.raises(ValueError, match="Tables 2, 3, 4, 5, 6, not 7"):
        paper_table(7)


def test_a_frame_holds_the_figures_and_all_of_the_provenance():
    table = table_with(3, [record()])
    cells = table.cells_frame()
    assert len(cells) == 12
    assert cells[cells.column == "ROUGE"]["value"].tolist() == [17.86, 38.46, 38.95, 50.0]
    dash = cells[cells.column == "BERTScore"]["value"]
    assert str(dash.dtype) == "float64" and math.isnan(dash.iloc[-1])
    ours = cells[(cells.origin == "measured") & (cells.column == "METEOR")].iloc[0]
    assert (ours.value, ours.label, ours.place) == (25, "METEOR without synonyms", "p.jsonl")
    assert set(cells[cells.origin == "quoted"]["place"]) == {"the paper, Table 3"}


HOSTILE = '<script>alert("&")</script> | $x^2_1$ \\input{a} 100% #1 ~ *b* [l](u)'


class Tags(HTMLParser):
    """Collects tags and texts."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_texts_from_records_cannot_become_markup():
    meta = {"trained_on": HOSTILE, "data": HOSTILE, "command": [HOSTILE]}
    table = table_with(3, [record(HOSTILE, meta=meta, predictions=HOSTILE)])
    parsed = Tags()
    parsed.feed(html(table))
    assert "script" not in parsed.tags and parsed.texts.count(HOSTILE) == 3
    assert table._repr_html_() == html(table)
    marked = markdown(table)
    assert "\\<script" in marked and "<script" not in marked.replace("\\<script", "")
    lines = [line for line in marked.splitlines() if line.startswith("|")]
    plain = [line.replace("\\\\", "").replace("\\|", "") for line in lines]
    assert {line.count("|") for line in plain} == {7}
    text = latex(table)
    assert "\\input" not in text and "\\textbackslash{}input\\{a\\}" in text


def test_latex_escapes_every_special_sign():
    assert latex_escaped("a_b & 5% $ # {x} ~ ^ \\") == (
        r"a\_b \& 5\% \$ \# \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}"
    )
    assert latex_escaped("a\nb") == "a b"


@pytest.mark.parametrize("write", [markdown, latex, html])
def test_printed_and_measured_rows_are_never_in_one_list(write):
    text = write(table_with(3, [record("theirs"), record()]), intervals=True)
    printed, measured = text.split("Measured here:")
    assert "Printed in the paper:" in printed and "Dynamic Mask" in printed
    assert "theirs" not in printed and "Dynamic Mask" not in measured.split("theirs")[1]
    assert measured.index("theirs") < measured.index("ours")
    starts = {markdown: "\n| --- |", latex: r"\begin{tabular}", html: "<table"}
    assert printed.count(starts[write]) == measured.count(starts[write]) == 1
    assert "Measured here" not in write(paper_table(3))


def test_latex_has_booktabs_rules_and_as_many_cells_in_every_line():
    text = latex(table_with(3, [record()]), intervals=True)
    assert text.count(r"\midrule") == text.count(r"\bottomrule") == 2
    assert "50.00 [45.00, 61.23]" in text and "-- (a)" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {5} and len(rows) == 6
    assert text.count("{") == text.count("}")


def test_notes_say_what_computed_measured_figures_and_that_other_data_do_not_compare():
    text = markdown(table_with(3, [record()]))
    assert "ours: ROUGE-L by own 1, ptb tokens; METEOR without synonyms by own;" in text
    assert "sha256 ffffffffffff" in text and "made by ureca predict 'a b'" in text
    assert "Rows of different data do not compare." in text
    assert "Rows of different data" not in markdown(paper_table(3))
    long = record(meta={"command": ["word"] * 300, "data": "x"})
    assert markdown(table_with(3, [long])).count("word") == 300
