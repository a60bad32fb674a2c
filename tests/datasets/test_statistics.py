"""What is counted of a data set, its card, and Table 1."""

from __future__ import annotations

from collections import Counter

import pytest

from ureca_lib.annotate.card import (
    AREA_BOUNDS,
    CAPABILITIES,
    CardTexts,
    DatasetStatistics,
    ImageRecord,
    Listed,
    RegionRecord,
    attribute_kinds,
    data_card,
    table_one,
    table_one_markdown,
)
from ureca_lib.annotate.export import export_dataset, read_parquet
from ureca_lib.annotate.records import Answer, FinalCaption, ImageRow, Step
from ureca_lib.regions import Region


def record(region_id, text, state="unique", *, area=1, depth=1, alike=(), short="", long=None):
    """A region of `area` pixels in an image of 1,000 x 1."""
    rle = {"size": [1, 1000], "counts": [0, area, 1000 - area]}
    final = FinalCaption(region_id, text, state, depth=depth, look_alikes=alike)
    answers = [Answer(Step("short", 0, region_id), short, annotator="m", prompt_version="short/1")]
    if long is not None:
        answers.append(Answer(Step("long", 0, region_id), long, annotator="m", seconds=2.0))
    return RegionRecord(f"i_{region_id}", Region(region_id, rle), final, tuple(answers))


def counted(*records, split="train"):
    found = DatasetStatistics()
    found.add(ImageRecord("i", "i.png", split, 1000, 1, records))
    return found


def test_regions_by_depth_area_and_uniqueness():
    found = counted(
        record(1, "one two three", area=1),
        record(2, "The same.", area=7, depth=2),
        record(3, "same", area=6, depth=2),
        record(4, "five words of a caption", "unresolved", area=700, depth=2),
        record(5, "", "skipped", area=699, depth=3),
    )
    depths = {
        depth: (g.regions, g.captioned, g.unique, g.words) for depth, g in found.depths.items()
    }
    assert depths == {1: (1, 1, 1, 3), 2: (3, 3, 0, 8), 3: (1, 0, 0, 0)}
    assert AREA_BOUNDS == (0.001, 0.007, 0.05, 0.2, 0.7)
    assert {place: g.regions for place, g in found.areas.items()} == {1: 2, 2: 1, 5: 1, 4: 1}
    assert (found.total.regions, found.total.captioned, found.total.unique) == (5, 4, 1)
    assert found.words["final"] == {3: 1, 2: 1, 1: 1, 5: 1}
    assert found.regions == {
        ("train", "unique"): 3,
        ("train", "unresolved"): 1,
        ("train", "skipped"): 1,
    }
    assert [(row.region, row.why) for row in found.not_unique] == [
        ("2", "another region's caption reads the same"),
        ("3", "another region's caption reads the same"),
        ("4", ""),
    ]


def test_sets_of_look_alikes_are_linked_in_either_direction():
    found = counted(
        record(1, "a", alike=(2,)),
        record(2, "b"),
        record(3, "c", alike=(2,)),
        record(4, "d", alike=(5,)),
        record(5, "e", "unresolved"),
        record(6, "f"),
    )
    assert found.look_alike_sets == {3: 1, 2: 1}
    assert found.look_alike_sets_resolved == 1


def test_work_and_failures_of_annotators():
    failed = Answer(
        Step("unique", 1, 1), "", "failed", "timed out", "n", "unique/1", "", 1.5, 10, 0, 3
    )
    blocked = Answer(Step("unique", 1, 1), "", "blocked", "short: no")
    base = record(1, "a b", short="a", long="a b")
    found = counted(
        RegionRecord("i_1", base.region, base.caption, (*base.answers, failed, blocked))
    )
    counted_work = ("answers", "failed", "seconds", "prompt_tokens")
    work = {key: tuple(w[name] for name in counted_work) for key, w in found.work.items()}
    assert work == {
        ("train", "short", "m", "short/1"): (1, 0, 0.0, 0),
        ("train", "long", "m", ""): (1, 0, 2.0, 0),
        ("train", "unique", "n", "unique/1"): (1, 1, 1.5, 10),
    }
    assert found.failures == {("unique", "timed out"): 1}
    assert found.examples == {("unique", "timed out"): "i_1"}
    assert found.words["short"] == {1: 1} and found.words["final"] == {2: 1}


def test_very_many_reasons_do_not_fill_the_memory():
    found = DatasetStatistics()
    rows = (
        ImageRow(f"{n}.json", "train", "failed", f"bad {n}", None, None, None, None, (), None)
        for n in range(2000)
    )
    found.add_images(rows)
    assert len(found.failures) == 501 and found.failures.total() == 2000
    assert found.failures["image", "other reasons"] == 1500


@pytest.mark.parametrize(
    ("caption", "kinds"),
    [
        ("a dog", set()),
        ("The red dog.", {"color"}),
        ("A large RED dog on the left, with a collar", {"size", "color", "position", "parts"}),
        ("a round wooden table", {"shape", "texture"}),
        ("a redhead", set()),
    ],
)
def test_kinds_of_attributes(caption, kinds):
    assert attribute_kinds(caption) == kinds


def captioned(count, unique, dense, short, nested):
    return [
        record(
            n,
            f"a red dog on the left number {n}" if n < dense else f"dog {n}",
            "unique" if n < unique else "unresolved",
            depth=2 if n < nested else 1,
            short="dog" if n < short else "",
        )
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("unique", "dense", "short", "nested", "has"),
    [
        (20, 20, 20, 10, "SDRMU"),
        (19, 10, 10, 1, "SDRMU"),
        (18, 10, 10, 1, "SDRM"),
        (19, 9, 10, 1, "SRMU"),
        (19, 10, 9, 1, "DRMU"),
        (19, 10, 10, 0, "SDRU"),
    ],
)
def test_our_row_of_table_one_is_measured(unique, dense, short, nested, has):
    found = counted(*captioned(20, unique, dense, short, nested), record(99, "", "skipped"))
    rows, shares = table_one(found)
    assert list(rows)[-1] == "this data set" and rows["this data set"] == set(has)
    counts = dict(zip("SDRMU", (short, dense, 20, nested, unique), strict=True))
    assert shares == {name: count / 20 for name, count in counts.items()}
    line = table_one_markdown(found).splitlines()[-1]
    assert line.count("✓") == len(has) and f"{5 * unique:.1f}%" in line


def test_an_empty_data_set_has_nothing():
    rows, shares = table_one(DatasetStatistics())
    assert rows["this data set"] == set() and set(shares.values()) == {0.0}


def test_a_long_caption_counts_as_dense_where_the_final_one_is_short():
    found = counted(record(1, "dog", long="a red dog on the left"), record(2, "dog two"))
    assert found.dense == 1


def test_the_rows_of_the_paper():
    rows, _ = table_one(DatasetStatistics())
    del rows["this data set"]
    assert len(rows) == 16
    counts = Counter(capability for has in rows.values() for capability in has)
    # marks in the columns of Table 1
    assert counts == {"S": 16, "D": 12, "R": 13, "M": 5, "U": 1}
    assert rows["URECA dataset (the paper's)"] == set(CAPABILITIES)
    text = table_one_markdown(DatasetStatistics())
    assert "| RefCOCOg (Yu et al., 2016) | ✓ | ✗ | ✓ | ✗ | ✗ |" in text
    assert "| USE (Wang et al., 2024b) | ✓ | ✓ | ✗ | ✓ | ✗ |" in text
    assert text.splitlines()[-2] == "| URECA dataset (the paper's) | ✓ | ✓ | ✓ | ✓ | ✓ |"


def test_a_parquet_file_is_counted_as_the_export_counted_it(exported):
    paths = [exported.folder / f"parquet/{split}.parquet" for split in ("train", "test")]
    images = [image for path in paths for image in read_parquet(path)]
    found = DatasetStatistics()
    for image in images:
        found.add(image)
    for name in ("regions", "depths", "heights", "areas", "words", "look_alike_sets"):
        assert getattr(found, name) == getattr(exported.statistics, name), name
    assert table_one(found) == table_one(exported.statistics)


def test_the_card_says_the_numbers(exported):
    card = (exported.folder / "DATA_CARD.md").read_text(encoding="utf-8")
    found = exported.statistics
    for heading in (
        *("Granularity", "Length", "Uniqueness", "Failures", "How it was made"),
        *("Beside other data sets", "Limits", "Licenses"),
    ):
        assert f"\n## {heading}\n" in card
    total = found.total
    assert f"| all | {total.regions} | {total.captioned} | {total.unique} |" in card
    tested = sum(count for (split, _), count in found.regions.items() if split == "test")
    assert f"| test | 1 | 0 | 0 | {tested} |" in card
    assert f"{sum(found.look_alike_sets.values())} sets of look-alikes" in card
    assert "| test | verify | attributes | verify/1 |" in card
    assert "Split test was verified by attributes." in card
    assert "Split train was not verified; its captions are as written" in card
    assert card.count("*to be filled in*") == 3
    assert "Bias of the teacher" in card and "A closed vocabulary" in card
    for row in found.not_unique:
        assert f"| {row.image} | {row.region} | {row.state} |" in card
    assert table_one_markdown(found) == (exported.folder / "table_1.md").read_text()
    assert table_one_markdown(found) in card


def test_what_does_not_apply_is_not_said():
    found = counted(record(1, "a b", short="a", long="a b"))
    found.images["train", "done"] = 1
    card = data_card(found, {}, ("unique",))
    assert "closed vocabulary" not in card and "\n## Failures\n\nNone.\n" in card
    assert "1 of 1 captions (100.0%) are unique" in card
    assert "Regions without a unique caption" not in card


def test_the_card_of_a_models_captions_says_which_examples_in_the_prompts_are_ours(exported):
    found = counted(record(1, "a b", short="a", long="a b"))
    said = "It does not print the eight in-context examples of Table 7"
    assert said in data_card(found, {}, ("unique",))
    # the embedded annotator reads no prompt
    assert said not in (exported.folder / "DATA_CARD.md").read_text(encoding="utf-8")


def test_text_from_outside_cannot_change_the_card():
    evil = "x | <b>y</b>\n# z [a](http://b)"
    bad = Answer(Step("long", 0, 1), "", "failed", evil, evil, evil)
    base = record(1, evil, "unresolved")
    found = counted(RegionRecord("i_1", base.region, base.caption, (bad,)), split="train")
    found.images["train", "done"] = 1
    card = data_card(found, {evil: {evil: [evil]}}, ("unique",), CardTexts(evil, evil, evil, evil))
    assert evil not in card and "<b>" not in card and "\n# z" not in card
    assert card.count("x \\| \\<b\\>y\\</b\\> # z \\[a\\](http\\://b)") >= 9


def test_ids_are_names_and_no_numbers():
    found = DatasetStatistics()
    found.not_unique.append(Listed("sa_1", "523353737", "failed", "", "no answer"))
    assert "| 523353737 |" in data_card(found, {}, ("unique",), CardTexts("", "", "", ""))


def test_regions_that_could_not_be_told_apart_are_listed(tmp_path, write_store, finals):
    twins = finals(
        a=FinalCaption(3, "an eye", "unresolved", "reads like 4"),
        b=FinalCaption(4, "an eye", "unresolved", "reads like 3"),
    )
    path = write_store(tmp_path, {"photos/a.json": twins})
    export_dataset(path, tmp_path / "out", progress=False)
    card = (tmp_path / "out" / "DATA_CARD.md").read_text(encoding="utf-8")
    assert "5 of 7 captions (71.4%) are unique" in card
    assert "| a | 3 | unresolved | an eye | reads like 4 |" in card
    assert "| a | 4 | unresolved | an eye | reads like 3 |" in card
