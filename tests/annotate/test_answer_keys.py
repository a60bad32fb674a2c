"""Keys of stored answers: nothing that was paid for is asked again, and no answer is outdated."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_annotators import FakeAnnotator, distinct_reply, small_image, write_images

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.protocol import Reply
from ureca_lib.annotate.replay import AnnotatedImage
from ureca_lib.annotate.run import annotate_images
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.annotate.sources import SplitRule
from ureca_lib.annotate.store import Store
from ureca_lib.annotate.views import ViewSettings
from ureca_lib.regions import Region, RegionImage

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
from annotate_child import say

STORE_V3 = Path(__file__).parent / "data" / "store_v3.db"
SMALL = PipelineSettings(views=ViewSettings(min_side=0), verify_splits=("test",))
SPLITS = SplitRule(named={"image_1": "test", "image_2": "val"})


@pytest.fixture
def old(tmp_path):
    """A store from before the keys had recipes, with its images: three splits, three rounds."""
    write_images(tmp_path / "photos", 3, side=24)
    shutil.copy(STORE_V3, tmp_path / "s.db")
    return tmp_path / "s.db"


def run(store, annotators, settings=SMALL):
    images = store.parent / "photos"
    return annotate_images(images, store, annotators, settings, splits=SPLITS, progress=False)


def annotators(**changes):
    paid = FakeAnnotator("paid", say=say)
    return {"train": paid, "test": paid, "val": AttributeAnnotator()} | changes


def contents(path):
    with Store(path, create=False) as store:
        return {
            image.image: (
                image.split,
                image.status,
                {s: replace(a, seconds=0.0) for s, a in store.answers(image.image).items()},
                store.reviewed_captions(image.image),
            )
            for image in store.images()
        }


def test_an_old_store_is_opened_and_nothing_paid_is_asked_again(old):
    before, asked = contents(old), annotators()
    summary = run(old, asked)
    assert asked["train"].calls == [] and summary.complete
    after = contents(old)
    for name in ("photos/image_0.json", "photos/image_1.json"):
        assert after[name] == before[name]
        rounds = {step.round for step in after[name][2]}
        assert rounds == {0, 1, 2, 3}
    assert run(old, annotators()).already == 3  # nor does it need another look


def test_new_answers_of_an_old_store_are_kept_by_its_recipe(old):
    with Store(old) as store:
        assert store.recipe == 1
    other = annotators(train=FakeAnnotator("other", say=say))
    assert run(old, other).complete and {r.image.file_name for r in other["train"].requests} == {
        "image_0.png"
    }
    path = old.parent / "photos" / "image_0.json"
    path.write_text(path.read_text() + "\n")  # looked at again
    again = annotators(train=FakeAnnotator("other", say=say))
    assert run(old, again).complete and again["train"].calls == []


def test_captions_of_the_embedded_annotator_are_todays(old, tmp_path):
    """They are free, and its version is part of their keys: corrected captions replace old ones."""
    run(old, annotators())
    (tmp_path / "fresh").mkdir()
    write_images(tmp_path / "fresh" / "photos", 3, side=24)
    run(tmp_path / "fresh" / "s.db", annotators())
    name = "photos/image_2.json"
    assert contents(old)[name][3] == contents(tmp_path / "fresh" / "s.db")[name][3]


@pytest.mark.parametrize("made_before", [True, False])
def test_another_version_of_an_annotator_answers_again(old, made_before):
    if not made_before:
        old.unlink()
        run(old, annotators())
    newer = FakeAnnotator("paid", say=say)
    newer.version = "2"
    asked = annotators(train=newer)
    assert run(old, asked).complete
    assert {r.image.file_name for r in newer.requests} == {"image_0.png"}
    assert asked["test"].calls == []
    asked = FakeAnnotator("paid", say=say)
    asked.version = "2"
    assert run(old, annotators(train=asked)).already == 3 and asked.calls == []


def test_an_old_store_keeps_the_pictures_that_it_was_made_with(old):
    settings = SMALL.for_store(1)
    assert SMALL.for_store(2) is SMALL
    assert replace(SMALL, describe_leaves=False).for_store(1) == settings
    assert settings.record(1)["views"] == {
        **{"blur_sigma": 100.0, "contour_width": 3, "contour_color": (255, 255, 0)},
        **{"context_blur": "parent", "look_alike_frame": "crop", "margin": 0.1, "min_margin": 8},
        **{"min_side": 0, "max_side": 1792, "number_height": 0.04},
    }
    asked = FakeAnnotator("other", say=say)
    run(old, annotators(train=asked))
    with Store(old) as store:
        work = AnnotatedImage(old.parent / "photos" / "image_0.json", store, SMALL)
    shown = {(r.stage, r.region_id): r.views for r in asked.requests if r.context.look_alikes}
    for (stage, region_id), views in shown.items():
        if work.finals[region_id].round == 1:
            for one, other in zip(work.views(stage, region_id), views, strict=True):
                np.testing.assert_array_equal(one, other)


def in_memory(store, image, annotator, settings=SMALL):
    return annotate_images(image, store, annotator, settings, progress=False)


def renamed(image, name):
    regions = [Region(r.id, r.rle, name=name) for r in image.regions]
    return RegionImage(regions, 48, 48, image.pixels, image_id=0, file_name="image_0.png")


def test_a_new_store_asks_again_only_where_the_annotator_sees_another_thing(tmp_path):
    image, store = small_image(0), tmp_path / "s.db"
    in_memory(store, image, FakeAnnotator())
    with Store(store) as opened:
        assert opened.recipe == 2
    # neither names nor settings that change no pixel are seen
    for same, settings in (
        (renamed(image, "box"), SMALL),
        (image, replace(SMALL, views=ViewSettings(min_side=0, max_side=1700))),
    ):
        annotator = FakeAnnotator()
        in_memory(store, same, annotator, settings)
        assert annotator.calls == []
    # one changed pixel is, where it is shown
    pixels = image.pixels.copy()
    pixels[5, 5] ^= 255
    changed = RegionImage(image.regions, 48, 48, pixels, image_id=0, file_name="image_0.png")
    annotator = FakeAnnotator(
        say=lambda r: Reply("short") if r.stage == "short" else distinct_reply(r)
    )
    in_memory(store, changed, annotator)
    asked = {(stage, region_id) for stage, region_id in annotator.calls}
    assert ("short", 1) in asked and ("long", 2) in asked


def test_a_program_is_asked_again_where_it_could_read_another_thing(tmp_path):
    image, store = small_image(0), tmp_path / "s.db"

    def program():
        annotator = FakeAnnotator()
        annotator.version = 1
        return annotator

    in_memory(store, image, program())
    annotator = program()
    in_memory(store, image, annotator)
    assert annotator.calls == []
    in_memory(store, renamed(image, "box"), annotator)
    assert len(annotator.calls) >= 2 * len(image)
