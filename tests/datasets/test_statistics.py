"""What is counted of a data set, its card, and Table 1."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from ureca_lib.annotate.card import (
    AREA_BOUNDS,
    CAPABILITIES,
    CardTexts,
    DatasetStatistics,
    attribute_kinds,
    capability_shares,
    data_card,
    table_one,
)
from ureca_lib.annotate.export import SCHEMA, export_dataset
from ureca_lib.annotate.records import FinalCaption, ImageRow, region_key


def record(
    region_id, text, state="unique", *, area=1, depth=1, alike=(), short="", long=None, more=()
):
    """The row of a region of `area` pixels in an image of 1,000 x 1."""
    answers = [answer("short", short)] + (
        [] if long is None else [answer("long", long, seconds=2.0)]
    )
    return {
        **{"id": f"i_{region_id}", "split": "train", "image_key": "i", "image": "i.png"},
        **{"width": 1000, "height": 1, "area": area, "mask_id": region_key(region_id)},
        **{"caption": text, "state": state, "tree": {"depth": depth, "height": 1}},
        "look_alikes": [region_key(other) for other in alike],
        "answers": [*answers, *more],
    }


def answer(stage, text, status="done", annotator="m", **more):
    prompt = "short/1" if stage == "short" else ""
    counts = dict.fromkeys(("round", "prompt_tokens", "reply_tokens", "attempts"), 0)
    made = {"annotator": annotator, "prompt_version": prompt, "seconds": 0.0}
    return {"stage": stage, "text": text, "status": status, **counts, **made, **more}


def counted(*records, images=()):
    return DatasetStatistics(pa.Table.from_pylist(list(records), SCHEMA), images)


def image_row(name="i.json", status="done", error=None):
    return ImageRow(name, "train", status, error, None, None, None, None, (), None)


def lines_of(card: str, heading: str) -> list[str]:
    """The rows of the first table below a heading, without its head."""
    lines = card.split(f"\n## {heading}\n")[1].split("\n\n")
    table = next(part for part in lines if part.lstrip().startswith("|"))
    return table.strip().splitlines()[2:]


def test_regions_by_depth_area_and_uniqueness():
    found = counted(
        record(1, "one two three", area=1),
        record(2, "The same.", area=7, depth=2),
        record(3, "same", area=6, depth=2),
        record(4, "five words of a caption", "unresolved", area=700, depth=2),
        record(5, "", "skipped", area=699, depth=3),
        images=[image_row()],
    )
    card = data_card(found, {}, ("unique",))
    assert lines_of(card, "Granularity") == [
        "| 1 | 1 | 1 | 1 | 100.0% | 3.0 |",
        "| 2 | 3 | 3 | 0 | 0.0% | 2.7 |",
        "| 3 | 1 | 0 | 0 | – | – |",
        "| all | 5 | 4 | 1 | 25.0% | 2.8 |",
    ]
    assert AREA_BOUNDS == (0.001, 0.007, 0.05, 0.2, 0.7)
    areas = found.regions.area.value_counts().to_dict()
    assert {name: count for name, count in areas.items() if count} == {
        **{"0.1% to 0.7%": 2, "0.7% to 5%": 1, "from 70%": 1, "20% to 70%": 1}
    }
    assert lines_of(card, "Length")[-1] == "| final | 4 | 1 | 2.5 | 2.8 | 5 |"
    assert "| train | 1 | 0 | 0 | 5 | 3 | 1 | 0 | 0 | 1 | 3 | – |" in card
    assert lines_of(card, "Uniqueness") == [
        "| i | 2 | unique | The same. | another region's caption reads the same |",
        "| i | 3 | unique | same | another region's caption reads the same |",
        "| i | 4 | unresolved | five words of a caption |  |",
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
    sets = found.look_alike_sets.itertuples(index=False, name=None)
    assert sorted(sets) == [(2, False), (3, True)]


def test_work_and_failures_of_annotators():
    work = {"prompt_version": "unique/1", "seconds": 1.5, "prompt_tokens": 10, "attempts": 3}
    failed = answer("unique", "", "failed", "n", error="timed out", **work)
    blocked = answer("unique", "", "blocked", "", error="short: no")
    found = counted(
        record(1, "a b", short="a", long="a b", more=(failed, blocked)), images=[image_row()]
    )
    card = data_card(found, {}, ("unique",))
    assert lines_of(card, "How it was made") == [
        "| train | short | m | short/1 | 1 | 0 | 0 | 0 | 0.0 |",
        "| train | long | m |  | 1 | 0 | 0 | 0 | 2.0 |",
        "| train | unique | n | unique/1 | 1 | 1 | 10 | 0 | 1.5 |",
    ]
    assert lines_of(card, "Failures") == ["| unique | timed out | 1 | i\\_1 |"]
    lengths = lines_of(card, "Length")
    assert lengths[0] == "| short | 1 | 1 | 1 | 1.0 | 1 |"
    assert lengths[2] == "| unique | 0 | – | – | – | – |"
    assert lengths[3] == "| final | 1 | 2 | 2 | 2.0 | 2 |"


def test_the_most_frequent_failures_are_listed():
    images = [image_row(f"{n}.json", "failed", f"bad {n}") for n in range(60)]
    images += [image_row(f"{n}.png", "failed", "worse") for n in range(3)]
    lines = lines_of(data_card(counted(record(1, "a"), images=images), {}, ("unique",)), "Failures")
    assert len(lines) == 50 and lines[0] == "| image | worse | 3 | 0.png |"


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
    shares = capability_shares(found)
    counts = dict(zip("SDRMU", (short, dense, 20, nested, unique), strict=True))
    assert shares == {name: count / 20 for name, count in counts.items()}
    line = table_one(found).splitlines()[-1]
    ticks = dict(zip("SDRMU", line.split("|")[2:-1], strict=True))
    assert {name for name, tick in ticks.items() if "✓" in tick} == set(has)
    assert line.startswith("| this data set |") and f"{5 * unique:.1f}%" in ticks["U"]


def test_an_empty_data_set_has_nothing():
    assert set(capability_shares(counted()).values()) == {0.0}
    assert "✓" not in table_one(counted()).splitlines()[-1]


def test_a_long_caption_counts_as_dense_where_the_final_one_is_short():
    found = counted(record(1, "dog", long="a red dog on the left"), record(2, "dog two"))
    assert capability_shares(found)["D"] == 0.5


def test_the_rows_of_the_paper():
    text = table_one(counted())
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:-1]]
    assert len(rows) == 16
    counts = {name: [row[n] for row in rows].count("✓") for n, name in enumerate(CAPABILITIES, 1)}
    # marks in the columns of Table 1
    assert counts == {"S": 16, "D": 12, "R": 13, "M": 5, "U": 1}
    assert "| RefCOCOg (Yu et al., 2016) | ✓ | ✗ | ✓ | ✗ | ✗ |" in text
    assert "| USE (Wang et al., 2024b) | ✓ | ✓ | ✗ | ✓ | ✗ |" in text
    assert text.splitlines()[-2] == "| URECA dataset (the paper's) | ✓ | ✓ | ✓ | ✓ | ✓ |"


def test_the_card_says_the_numbers(exported):
    card = (exported.folder / "README.md").read_text(encoding="utf-8")
    regions = exported.statistics.regions
    for heading in (
        *("Granularity", "Length", "Uniqueness", "Failures", "How it was made"),
        *("Beside other data sets", "Limits", "Licenses"),
    ):
        assert f"\n## {heading}\n" in card
    captioned, unique = regions.captioned.sum(), regions.unique.sum()
    assert f"| all | {len(regions)} | {captioned} | {unique} |" in card
    assert f"| test | 1 | 0 | 0 | {(regions.split == 'test').sum()} |" in card
    assert f"{len(exported.statistics.look_alike_sets)} sets of look-alikes" in card
    assert "| test | verify | attributes | verify/1 |" in card
    head = card[: card.index("## Granularity")].splitlines()
    splits = {line.split()[1]: line for line in head if line.startswith("| t")}
    assert splits["test"].endswith("| attributes |") and splits["train"].endswith("| – |")
    assert "a split that nobody verified are as they were written" in card
    assert card.count("*to be filled in*") == 3
    assert "Bias of the teacher" in card and "A closed vocabulary" in card
    for row in regions[~regions.unique].itertuples():
        assert f"| {row.image_key} | {json.loads(row.mask_id)} | {row.state} |" in card
    table = table_one(exported.statistics)
    assert table == (exported.folder / "table_1.md").read_text() and table in card


def test_what_does_not_apply_is_not_said():
    found = counted(record(1, "a b", short="a", long="a b"), images=[image_row()])
    card = data_card(found, {}, ("unique",))
    assert "closed vocabulary" not in card and "\n## Failures\n\nNone.\n" in card
    assert "1 of 1 captions (100.0%) are unique" in card
    assert "Regions without a unique caption" not in card


def test_the_card_of_a_models_captions_says_which_examples_in_the_prompts_are_ours(exported):
    found = counted(record(1, "a b", short="a", long="a b"))
    said = "It does not print the eight in-context examples of Table 7"
    assert said in data_card(found, {}, ("unique",))
    # the embedded annotator reads no prompt
    assert said not in (exported.folder / "README.md").read_text(encoding="utf-8")


def test_text_from_outside_cannot_change_the_card():
    evil = "x | <b>y</b>\n# z [a](http://b)"
    bad = answer("long", "", "failed", evil, error=evil, prompt_version=evil)
    found = counted(record(1, evil, "unresolved", more=[bad]), images=[image_row()])
    card = data_card(found, {evil: evil}, ("unique",), CardTexts(evil, evil, evil, evil))
    assert evil not in card and "<b>" not in card and "\n# z" not in card
    assert card.count("x \\| \\<b\\>y\\</b\\> # z \\[a\\](http\\://b)") >= 9


def test_ids_are_names_and_no_numbers():
    found = counted(record(523353737, "", "failed"), images=[image_row()])
    assert "| 523353737 |" in data_card(found, {}, ("unique",), CardTexts("", "", "", ""))


def test_regions_that_could_not_be_told_apart_are_listed(tmp_path, write_store, finals):
    twins = finals(
        a=FinalCaption(3, "an eye", "unresolved", "reads like 4"),
        b=FinalCaption(4, "an eye", "unresolved", "reads like 3"),
    )
    path = write_store(tmp_path, {"photos/a.json": twins})
    export_dataset(path, tmp_path / "out", progress=False)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "5 of 7 captions (71.4%) are unique" in card
    assert "| a | 3 | unresolved | an eye | reads like 4 |" in card
    assert "| a | 4 | unresolved | an eye | reads like 3 |" in card
