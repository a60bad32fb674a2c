"""The pipeline's figure says what the store says of a region and of those around it."""

from __future__ import annotations

import shutil

import pytest
from figures.drawn import faults, says
from matplotlib import pyplot as plt

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.replay import AnnotatedImage
from ureca_lib.annotate.run import annotate_images
from ureca_lib.annotate.store import Store
from ureca_lib.figures import pipeline_figure, spread_examples, telling_region


@pytest.fixture(scope="module")
def work(tmp_path_factory, samples):
    folder = tmp_path_factory.mktemp("pipeline")
    for name in ("chelsea.png", "chelsea.json"):
        shutil.copy(samples / "photos" / name, folder)
    with Store(folder / "store.sqlite") as store:
        annotate_images(folder / "chelsea.json", store, AttributeAnnotator(), progress=False)
        return AnnotatedImage(folder / "chelsea.json", store)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("region_id", [1, 20, 16, 19])
def test_every_stage_of_a_region_is_told(work, region_id):
    figure = pipeline_figure(work, region_id)
    assert not faults(figure)
    for stage in ("short", "long", "unique"):
        assert says(figure, work.text(stage, region_id))
    parent = work.tree.parent(region_id)
    if parent is not None:
        assert says(figure, work.text("short", parent))
    for child in work.tree.children(region_id)[:2]:
        assert says(figure, work.text("long", child))
    for other in work.finals[region_id].look_alikes[:2]:
        assert says(figure, work.text("unique", other))


def test_parts_that_are_not_shown_are_counted(work):
    many = max(work.finals, key=lambda one: len(work.tree.children(one)))
    rest = len(work.tree.children(many)) - 2
    assert says(pipeline_figure(work, many), f"and {rest} more")


def test_the_telling_region_shows_all_that_any_does(work):
    one = telling_region(work)
    assert work.tree.parent(one) is not None and work.tree.children(one)
    assert work.finals[one].look_alikes and work.text("long", one) != work.text("unique", one)


def test_examples_come_from_all_images_and_several_levels(work):
    examples = spread_examples({"cat": work, "again": work}, 7)
    assert len(examples) == 7
    names = [example.head.split(" · ")[0] for example in examples]
    assert names == ["cat"] * 4 + ["again"] * 3
    assert len({example.head.split(" · ")[1] for example in examples[:4]}) >= 3
    assert all(example.caption == work.captions[example.region.id] for example in examples)


def test_a_region_that_is_not_there_is_refused(work):
    with pytest.raises(KeyError):
        pipeline_figure(work, 999)
