"""Rows of a comparison are drawn without looking at captions; marks are as counted."""

from __future__ import annotations

import json

import pytest
from figures.drawn import predictions_of

from ureca_lib.datasets.captioned import CaptionedImage, open_captioned
from ureca_lib.evaluate.predictions import Prediction
from ureca_lib.evaluate.systems import build_system
from ureca_lib.figures.comparison import REFERENCE, compared_regions, read_systems
from ureca_lib.scenes import resolve


@pytest.fixture(scope="module")
def images():
    return list(open_captioned("scenes:test:2"))


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    scenes, folder = open_captioned("scenes:test:2"), tmp_path_factory.mktemp("systems")
    names = ("oracle", "class-name")
    return {name: predictions_of(build_system(name), scenes, folder) for name in names}


def places(rows):
    return [(row.region.id, row.note) for row in rows]


def test_what_captions_say_does_not_decide_which_rows_are_drawn(images, systems):
    silly = [Prediction(row.id, row.image_id, row.region_id, "") for row in systems["oracle"]]
    drawn = compared_regions(images, systems, 6, seed=3)
    assert places(drawn) == places(compared_regions(images, {"a": silly, "b": silly}, 6, seed=3))
    assert places(drawn) == places(compared_regions(images, systems, 6, seed=3))
    others = [places(compared_regions(images, systems, 6, seed=seed)) for seed in range(4)]
    assert len({str(rows) for rows in others}) > 1


def test_rows_are_of_every_size_and_image(images, systems):
    rows = compared_regions(images, systems, 6)
    shares = [row.region.area / (row.image.shape[0] * row.image.shape[1]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    every = sorted(r.area / (i.size[0] * i.size[1]) for i in images for r in i.regions)
    ranks = [sum(one < share for one in every) * 6 // len(every) for share in reversed(shares)]
    assert ranks == list(range(6))
    first = sum(any(row.image is image.pixels for image in images[:1]) for row in rows)
    assert first == 3


def test_captions_and_marks_are_the_systems_own(images, systems):
    for row in compared_regions(images, systems, 4):
        (image,) = [one for one in images if one.pixels is row.image]
        assert list(row.captions) == [REFERENCE, "oracle", "class-name"]
        assert row.captions["class-name"] == f"the {row.region.name}"
        for name, text in row.captions.items():
            ids = resolve(text, image.scene)
            assert row.fits[name] == (len(ids), row.region.id in ids)
        assert row.fits[REFERENCE] == (1, True)


def test_a_caption_outside_the_grammar_has_no_count(images, systems):
    odd = [Prediction(row.id, row.image_id, row.region_id, "wow!") for row in systems["oracle"]]
    rows = compared_regions(images, {"odd": odd}, 2)
    assert [row.fits["odd"] for row in rows] == [None, None]


def test_only_regions_that_all_systems_captioned_are_drawn(images, systems):
    some = systems["oracle"][3:5]
    rows = compared_regions(images, systems | {"some": some}, 6)
    assert {row.region.id for row in rows} == {row.region_id for row in some} and len(rows) == 2
    with pytest.raises(ValueError, match="no region of these images has a caption of each of a"):
        compared_regions(images, {"a": []})


def test_without_references_there_is_no_such_column(images, systems):
    bare = [CaptionedImage(one.image_id, one.image) for one in images]
    rows = compared_regions(bare, systems, 2)
    assert list(rows[0].captions) == ["oracle", "class-name"] and rows[0].fits is None


def write(folder, name, system=None):
    path = folder / f"{name}.jsonl"
    path.write_text(json.dumps({"id": "a/1", "caption": "x"}) + "\n")
    if system:
        (folder / f"{name}.meta.json").write_text(json.dumps({"system": system}))
    return path


def test_files_are_named_by_their_system_or_where_two_are_alike_by_themselves(tmp_path):
    one, other = write(tmp_path, "p", "ureca"), write(tmp_path, "q")
    assert list(read_systems([one, other])) == ["ureca", "q"]
    again = write(tmp_path, "r", "ureca")
    assert list(read_systems([one, again])) == ["p", "r"]
    assert read_systems([one])["ureca"][0].caption == "x"
