"""Looking into a finished image gives what was asked and answered."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fake_annotators import FakeAnnotator, distinct_reply, write_images

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.protocol import Reply
from ureca_lib.annotate.replay import AnnotatedImage
from ureca_lib.annotate.run import annotate_images
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.annotate.store import Store, StoreError

PHOTOS = Path(__file__).resolve().parents[2] / "data_samples" / "photos"


class Listening(AttributeAnnotator):
    """Keeps the questions."""

    def answer(self, request):
        HEARD[request.stage, request.region_id] = request
        return super().answer(request)


HEARD: dict = {}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay")
    for name in ("coins.png", "coins.json"):
        shutil.copy(PHOTOS / name, folder)
    with Store(folder / "store.sqlite") as store:
        annotate_images(folder / "coins.json", store, Listening(), progress=False)
        return AnnotatedImage(folder / "coins.json", store)


def test_prompts_contexts_and_views_are_those_that_were_asked(work):
    assert len(HEARD) > 2 * len(work.image)
    for (stage, region_id), request in HEARD.items():
        if stage == "unique" and work.finals[region_id].round > 1:
            continue
        assert work.context(stage, region_id) == request.context
        assert work.prompt(stage, region_id).text == request.prompt
        shown = work.views(stage, region_id)
        assert [view.tobytes() for view in shown] == [view.tobytes() for view in request.views]


def test_texts_are_those_of_the_store(work):
    for region in work.image:
        assert work.text("short", region.id).startswith("the ")
        assert work.text("unique", region.id) == work.captions[region.id]


def test_an_image_that_is_not_in_the_store_is_an_error(tmp_path):
    with (
        Store(tmp_path / "s.sqlite") as store,
        pytest.raises(StoreError, match=r"coins\.json is not in this store"),
    ):
        AnnotatedImage(PHOTOS / "coins.json", store)


def test_a_region_that_was_not_asked_says_why(tmp_path):
    def say(request):
        bad = request.stage == "short" and request.region_id == 1
        return Reply("", "failed", "refused") if bad else distinct_reply(request)

    (path,) = write_images(tmp_path, 1)
    annotator = FakeAnnotator(say=say)
    settings = PipelineSettings(verify_splits=("train",))
    with Store(tmp_path / "s.sqlite") as store:
        annotate_images(path, store, annotator, settings, progress=False)
        found = AnnotatedImage(path, store)
    assert found.context("short", 1).parent is None
    for stage in ("long", "unique"):
        why = f"region 1 was not asked in stage {stage}: short: refused"
        for ask in (found.context, found.prompt, found.views):
            with pytest.raises(StoreError, match=why):
                ask(stage, 1)
    with pytest.raises(StoreError, match="region 1 was not asked in stage verify: short: refused"):
        found.context("verify", 1)
    verified = [request for request in annotator.requests if request.stage == "verify"]
    assert len(verified) == len(found.image) - 1
    for request in verified:
        assert found.context("verify", request.region_id) == request.context


class Gone(AttributeAnnotator):
    """A server that is not there."""

    def answer(self, request):
        raise ConnectionError("no server")


def test_an_image_that_is_not_finished_is_an_error_that_says_why(tmp_path):
    path = tmp_path / "coins.json"
    path.write_text((PHOTOS / "coins.json").read_text())
    with Store(tmp_path / "s.sqlite") as store:
        annotate_images(path, store, AttributeAnnotator(), progress=False)
        with pytest.raises(StoreError, match=r"coins\.json failed: .*coins\.png"):
            AnnotatedImage(path, store)
        shutil.copy(PHOTOS / "coins.png", tmp_path)
        annotate_images(path, store, Gone(), progress=False)
        with pytest.raises(StoreError, match=r"not finished: the latest run stopped: .*no server"):
            AnnotatedImage(path, store)
        with Store(store.path) as other:
            assert other.claim("coins.json")
            summary = annotate_images(path, store, AttributeAnnotator(), wait=False, progress=False)
            assert summary.elsewhere == 1
            with pytest.raises(StoreError, match="another process is working on it"):
                AnnotatedImage(path, store)
        annotate_images(path, store, AttributeAnnotator(), progress=False)
        assert AnnotatedImage(path, store).captions
