"""Stores to export: one made by the pipeline, and ones with captions written by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from fake_annotators import small_image, write_images

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.export import Exported, export_dataset
from ureca_lib.annotate.records import Answer, FinalCaption, ImageRow, Step
from ureca_lib.annotate.run import annotate_images
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.annotate.sources import SplitRule
from ureca_lib.annotate.store import Store


@pytest.fixture(scope="session")
def pipeline_store(tmp_path_factory, samples) -> Path:
    """Two samples and a tiny image, captioned by the pipeline; the coins are the test split."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "photos").mkdir()
    for name in ("coffee.json", "coffee.png", "coins.json", "coins.png"):
        shutil.copy(samples / "photos" / name, folder / "photos" / name)
    write_images(folder / "photos", 1)
    rule = SplitRule(named={"coins": "test"})
    settings = PipelineSettings(verify_splits=("test",))
    annotate_images(
        folder / "photos",
        folder / "s.db",
        AttributeAnnotator(),
        settings,
        splits=rule,
        progress=False,
    )
    return folder / "s.db"


@pytest.fixture(scope="session")
def exported(pipeline_store) -> Exported:
    """The data set of `pipeline_store`."""
    return export_dataset(pipeline_store, pipeline_store.parent / "out", progress=False)


StoreMaker = Callable[[Path, Mapping[str, Sequence[FinalCaption]]], Path]


@pytest.fixture
def write_store() -> StoreMaker:
    """Makes a store of tiny images with the captions given; returns its path."""
    return _write_store


def _write_store(
    folder: Path, captions: Mapping[str, Sequence[FinalCaption]], split: str = "train"
) -> Path:
    """Images are in "memory" where their name is no JSON file's."""
    paths = write_images(folder, 1)
    with Store(folder / "hand.db") as store:
        store.register((name, split) for name in captions)
        for name, finals in captions.items():
            path = None
            if name.endswith(".json"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                if not (folder / name).exists():
                    shutil.copy(paths[0], folder / name)
                path = str(folder / name)
            answers = [_answer(final) for final in finals if final.text]
            for answer in answers:
                store.save(name, answer)
            photo = str(Path(name).with_suffix(".png")) if path else None
            row = ImageRow(name, split, "done", None, path, photo, 48, 48, (), None)
            store.finish(row, answers, finals)
    return folder / "hand.db"


def _answer(final: FinalCaption) -> Answer:
    return Answer(Step("long", 0, final.region_id), final.text, annotator="hand", attempts=1)


@pytest.fixture
def finals() -> Callable[..., list[FinalCaption]]:
    """Captions for all regions of a tiny image: those given by id, else "caption ID"."""

    def make(**given: FinalCaption) -> list[FinalCaption]:
        known = {final.region_id: final for final in given.values()}
        return [
            known.get(region.id) or FinalCaption(region.id, f"caption {region.id}", "unique")
            for region in small_image(0)
        ]

    return make
