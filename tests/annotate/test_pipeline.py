"""The pipeline: concurrent, stopped and started at will, never stopped by one bad image."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_annotators import (
    AsyncAnnotator,
    FakeAnnotator,
    distinct_reply,
    small_image,
    write_images,
)
from typer.testing import CliRunner

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.look_alikes import normalized
from ureca_lib.annotate.progress import read_status
from ureca_lib.annotate.protocol import BudgetSpentError, Reply
from ureca_lib.annotate.run import Summary, annotate_images
from ureca_lib.annotate.settings import CheckSettings, PipelineSettings, TreeSettings
from ureca_lib.annotate.sources import SplitRule, find_sources
from ureca_lib.annotate.store import Store
from ureca_lib.annotate.views import ViewSettings
from ureca_lib.cli import app
from ureca_lib.regions import RegionImage, load_sa1b

SMALL = PipelineSettings(views=ViewSettings(min_side=0))  # enlarging 48 pixels takes time
REGIONS = 7  # of `small_image`


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "photos", 3)
    return tmp_path / "photos"


def run(images, store, annotator, settings=SMALL, **options):
    return annotate_images(images, store, annotator, settings, progress=False, **options)


def contents(path) -> dict:
    """Everything that two runs have to agree on."""
    with Store(path, create=False) as store:
        return {
            row.image: (
                row.status,
                row.error,
                {step: replace(a, seconds=0.0) for step, a in store.answers(row.image).items()},
                store.captions(row.image),
            )
            for row in store.images()
        }


@pytest.fixture
def expected(folder, tmp_path):
    run(folder, tmp_path / "expected.db", FakeAnnotator())
    return contents(tmp_path / "expected.db")


def test_every_region_gets_a_caption_with_its_provenance(folder, tmp_path):
    annotator = FakeAnnotator("fake:1")
    summary = run(folder, tmp_path / "s.db", annotator)
    assert summary.complete and (summary.images, summary.done) == (3, 3)
    assert summary.states == {"unique": 3 * REGIONS}
    assert summary.calls == len(annotator.calls) == len(set(map(id, annotator.requests)))
    with Store(tmp_path / "s.db") as store:
        rows = store.images()
        assert [row.image for row in rows] == [f"photos/image_{n}.json" for n in range(3)]
        assert rows[0].photo.endswith("image_0.png") and (rows[0].width, rows[0].height) == (48, 48)
        answers = store.answers(rows[1].image).values()
        asked = [answer for answer in answers if answer.status == "done"]
        assert {answer.annotator for answer in asked} == {"fake:1"}
        versions = {answer.prompt_version for answer in asked}
        assert {"short/1", "short-main/1", "long/1", "unique/1"} == versions
        assert all(a.inputs_hash and a.prompt_tokens > 0 and a.attempts == 1 for a in asked)
        captions = store.captions(rows[1].image)
        assert [caption.region_id for caption in captions] == [1, 2, 3, 4, 5, "six", "7"]
        assert len({caption.text for caption in captions}) == REGIONS


def test_requests_hold_views_prompt_and_context(folder, tmp_path):
    annotator = FakeAnnotator()
    run(folder / "image_0.json", tmp_path / "s.db", annotator)
    for request in annotator.requests:
        assert len(request.views) == (2 if request.stage == "short" else 1)
        assert all(view.dtype == np.uint8 and view.ndim == 3 for view in request.views)
        assert request.region_id in request.tree and len(request.image) == REGIONS
        assert request.context.parent is None or request.context.parent in request.prompt


def test_a_second_run_asks_nothing(folder, tmp_path):
    run(folder, tmp_path / "s.db", FakeAnnotator())
    before, annotator = contents(tmp_path / "s.db"), FakeAnnotator()
    summary = run(folder, tmp_path / "s.db", annotator)
    assert annotator.calls == [] and summary.already == 3 and summary.complete
    assert contents(tmp_path / "s.db") == before


def test_threads_or_not_the_captions_are_the_same(folder, tmp_path, expected):
    slow = FakeAnnotator(max_in_flight=16, latency=0.01)
    run(folder, tmp_path / "s.db", slow)
    run(folder, tmp_path / "one.db", FakeAnnotator(), in_flight=1)
    assert contents(tmp_path / "s.db") == contents(tmp_path / "one.db") == expected


def test_coroutines_or_not_the_captions_are_the_same(folder, tmp_path, expected):
    annotator = AsyncAnnotator(max_in_flight=16, latency=0.01)
    summary = run(folder, tmp_path / "s.db", annotator)
    assert contents(tmp_path / "s.db") == expected
    assert summary.calls == len(annotator.calls) and annotator.most_active > 2


def test_it_runs_in_a_notebook_cell(folder, tmp_path, expected):
    async def cell():  # the kernel's loop runs while a cell does
        return run(folder, tmp_path / "s.db", FakeAnnotator())

    assert asyncio.run(cell()).complete
    assert contents(tmp_path / "s.db") == expected


@pytest.mark.parametrize("kind", [FakeAnnotator, AsyncAnnotator])
@pytest.mark.parametrize(("most", "in_flight", "reached"), [(3, None, 3), (8, 2, 2), (1, 5, 1)])
def test_no_more_calls_in_flight_than_allowed(folder, tmp_path, kind, most, in_flight, reached):
    annotator = kind(max_in_flight=most, latency=0.02)
    run(folder, tmp_path / "s.db", annotator, in_flight=in_flight)
    assert annotator.most_active == reached


def test_a_touched_file_is_looked_at_but_not_asked_about(folder, tmp_path):
    run(folder, tmp_path / "s.db", FakeAnnotator())
    path = folder / "image_1.json"
    path.write_text(path.read_text() + "\n")
    annotator = FakeAnnotator()
    summary = run(folder, tmp_path / "s.db", annotator)
    assert annotator.calls == [] and (summary.already, summary.done) == (2, 1)
    assert summary.reused > 0


def test_a_changed_photo_is_asked_about_again(folder, tmp_path):
    run(folder, tmp_path / "s.db", FakeAnnotator())
    (folder / "image_1.png").write_bytes((folder / "image_2.png").read_bytes())
    annotator = FakeAnnotator()
    run(folder, tmp_path / "s.db", annotator)
    assert {request.image.file_name for request in annotator.requests} == {"image_1.png"}
    assert {request.stage for request in annotator.requests} == {"short", "long", "unique"}


def test_store_and_images_can_be_moved_together(folder, tmp_path, expected):
    run(folder, tmp_path / "s.db", FakeAnnotator())
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "s.db").rename(moved / "s.db")
    folder.rename(moved / "photos")
    annotator = FakeAnnotator()
    run(moved / "photos", moved / "s.db", annotator)
    assert annotator.calls == [] and contents(moved / "s.db") == expected


def stages_asked(folder, store, settings, annotator=None, **options) -> set[str]:
    annotator = annotator or FakeAnnotator()
    run(folder, store, annotator, settings, **options)
    return {request.stage for request in annotator.requests}


def test_a_changed_setting_redoes_what_depends_on_it(folder, tmp_path):
    store = tmp_path / "s.db"

    def same(request):
        return Reply("same") if request.stage == "unique" else distinct_reply(request)

    asker = FakeAnnotator(say=same)
    one = replace(SMALL, check=CheckSettings(rounds=1))
    assert stages_asked(folder, store, one, asker) == {"short", "long", "unique"}
    calls = len(asker.calls)
    assert stages_asked(folder, store, replace(one, retry_failed=False)) == set()
    # a second round asks for itself alone
    asker = FakeAnnotator(say=same)
    assert stages_asked(folder, store, replace(SMALL, check=CheckSettings(rounds=2)), asker) == {
        "unique"
    }
    assert len(asker.calls) < calls
    # other look-alikes change stage 4 alone
    strict = replace(one, look_alikes=replace(one.look_alikes, threshold=0.97))
    assert stages_asked(folder, store, strict, FakeAnnotator(say=same)) <= {"unique"}
    # verification asks for itself alone
    verified = replace(one, verify_splits=("train",))
    assert "verify" in stages_asked(folder, store, verified, FakeAnnotator(say=same))
    assert stages_asked(folder, store, verified, FakeAnnotator(say=same)) == set()
    other = FakeAnnotator("other")
    captioner = FakeAnnotator(say=same)
    assert stages_asked(folder, store, verified, captioner, verifier=other) == set()
    assert {stage for stage, _ in other.calls} == {"verify"}
    # another annotator redoes everything, other views too
    assert stages_asked(folder, store, one, FakeAnnotator("new", say=same)) == {
        "short",
        "long",
        "unique",
    }
    warm = FakeAnnotator("new", say=same)
    warm.answer_settings = {"temperature": 1}
    assert stages_asked(folder, store, one, warm) == {"short", "long", "unique"}
    narrow = replace(one, views=ViewSettings(min_side=0, margin=0.2))
    assert stages_asked(folder, store, narrow, FakeAnnotator("new")) == {"short", "long", "unique"}


def test_going_back_to_fewer_rounds_gives_the_same_as_never_having_left(folder, tmp_path):
    def same(request):
        return Reply("same") if request.stage == "unique" else distinct_reply(request)

    one = replace(SMALL, check=CheckSettings(rounds=1))
    run(folder, tmp_path / "one.db", FakeAnnotator(say=same), one)
    for settings in (one, SMALL, one):
        run(folder, tmp_path / "s.db", FakeAnnotator(say=same), settings)
    assert contents(tmp_path / "s.db") == contents(tmp_path / "one.db")


@pytest.mark.parametrize("seed", range(3))
def test_a_faulty_annotator_loses_nothing(folder, tmp_path, expected, seed):
    """Fails a third of all questions, runs out of budget again and again; ends as if it had not."""
    chance, lock, budget = random.Random(seed), threading.Lock(), [0]

    def say(request):
        with lock:
            budget[0] -= 1
            fault = chance.random() < 0.3
            if budget[0] < 0:
                raise BudgetSpentError("the budget is spent")
        return Reply("", "failed", "status 500") if fault else distinct_reply(request)

    runs = 0
    while True:
        budget[0] = chance.randrange(1, 25) if runs < 12 else 1000
        runs += 1
        summary = run(folder, tmp_path / "s.db", FakeAnnotator(say=say))
        assert runs < 40
        if summary.complete:
            break
    assert runs > 4
    assert contents(tmp_path / "s.db") == expected


def test_a_run_with_other_settings_that_was_stopped_is_no_obstacle(folder, tmp_path, expected):
    store, kept = tmp_path / "s.db", replace(SMALL, retry_failed=False)
    run(folder, store, FakeAnnotator())

    def say(request):
        raise BudgetSpentError("spent")

    other = replace(SMALL, views=ViewSettings(min_side=0, margin=0.3))
    assert run(folder, store, FakeAnnotator(say=say), other).stopped == "BudgetSpentError: spent"
    annotator = FakeAnnotator()
    assert run(folder, store, annotator, kept).complete
    assert annotator.calls == [] and contents(store) == expected


def test_failed_answers_are_listed_and_not_asked_again_unless_wanted(folder, tmp_path):
    def say(request):
        bad = request.stage == "long" and request.region_id == 3
        return Reply("", "failed", "refused") if bad else distinct_reply(request)

    summary = run(folder, tmp_path / "s.db", FakeAnnotator(say=say))
    assert (summary.partial, summary.done, summary.complete) == (3, 0, False)
    assert summary.states == {"unique": 3 * (REGIONS - 1), "failed": 3}
    kept = replace(SMALL, retry_failed=False)
    annotator = FakeAnnotator()
    summary = run(folder, tmp_path / "s.db", annotator, kept)
    assert annotator.calls == [] and summary.partial == 3
    with Store(tmp_path / "s.db") as store:
        shown = read_status(store)
    assert [failure[:3] for failure in shown.failures] == [("long", "refused", 3)]
    assert shown.answers["unique", "blocked"] == 3
    annotator = FakeAnnotator()
    assert run(folder, tmp_path / "s.db", annotator).complete
    assert ("long", 3) in annotator.calls and ("short", 3) not in annotator.calls


@pytest.mark.parametrize(
    "bad", [Reply(""), Reply(" \n"), Reply("", "failed"), Reply("text", "failed", "why")]
)
def test_no_empty_or_failed_text_is_kept(tmp_path, bad):
    run(small_image(0), tmp_path / "s.db", FakeAnnotator(say=lambda request: bad))
    with Store(tmp_path / "s.db") as store:
        answers = store.answers("image_0.png").values()
        captions = store.captions("image_0.png")
    assert {answer.status for answer in answers} == {"failed", "blocked"}
    assert all(answer.text == "" and answer.error for answer in answers)
    assert {(caption.state, caption.text) for caption in captions} == {("failed", "")}
    assert all(caption.reason for caption in captions)


def test_what_is_no_verdict_fails_and_halves_of_characters_are_replaced(tmp_path):
    def say(request):
        return Reply("perhaps" if request.stage == "verify" else f"\ud83d{request.prompt[-40:]}")

    settings = replace(SMALL, verify_splits=("train",))
    summary = run(small_image(0), tmp_path / "s.db", FakeAnnotator(say=say), settings)
    assert summary.partial == 1
    with Store(tmp_path / "s.db") as store:
        assert all("keep or drop" in c.reason for c in store.captions("image_0.png"))


@pytest.mark.parametrize("kind", [FakeAnnotator, AsyncAnnotator])
def test_a_server_that_is_gone_stops_the_run_and_keeps_what_was_said(folder, tmp_path, kind):
    calls = iter(range(1000))

    def say(request):
        if next(calls) >= 20:
            raise ConnectionError("no server at http://localhost:1")
        return distinct_reply(request)

    annotator = kind(say=say, latency=0.005)
    summary = run(folder, tmp_path / "s.db", annotator)
    assert summary.stopped == "ConnectionError: no server at http://localhost:1"
    assert summary.done < 3 and not summary.complete
    assert len(annotator.calls) <= 20 + annotator.max_in_flight
    with Store(tmp_path / "s.db") as store:
        saved = sum(len(store.answers(row.image)) for row in store.images())
        assert saved >= 20
        assert "no server" in str(read_status(store))
        assert all(store.claim(row.image) for row in store.images())


def test_an_annotator_that_raises_stop_iteration_ends_the_run(folder, tmp_path):
    def say(request):
        raise StopIteration

    summary = run(folder, tmp_path / "s.db", FakeAnnotator(say=say))
    assert "StopIteration" in summary.stopped


def test_bad_images_are_recorded_and_the_others_go_on(folder, tmp_path):
    (folder / "a_truncated.json").write_text('{"image": {')
    good = (folder / "image_0.json").read_text()
    (folder / "b_nophoto.json").write_text(good.replace("image_0.png", "gone.png"))
    (folder / "image_1.png").write_bytes((folder / "image_1.png").read_bytes()[:200])
    summary = run(folder, tmp_path / "s.db", FakeAnnotator())
    assert (summary.failed, summary.done) == (3, 2)
    with Store(tmp_path / "s.db") as store:
        errors = {row.image: row.error for row in store.images() if row.status == "failed"}
        shown = str(read_status(store))
    assert set(errors) == {f"photos/{n}.json" for n in ("a_truncated", "b_nophoto", "image_1")}
    assert sorted(summary.failures) == sorted(errors.items())
    assert "a_truncated.json" in errors["photos/a_truncated.json"]
    assert "gone.png" in errors["photos/b_nophoto.json"]
    assert "image_1.png" in errors["photos/image_1.json"]
    assert "3 train failed" in shown and "gone.png" in shown
    # once mended, it is done
    write_images(folder, 2)
    assert run(folder / "image_1.json", tmp_path / "s.db", FakeAnnotator()).complete


@pytest.mark.parametrize("name", ["missing.json", "missing.png", "missing"])
def test_a_path_that_does_not_exist_is_refused_before_anything_is_written(folder, tmp_path, name):
    annotator = FakeAnnotator()
    with pytest.raises(FileNotFoundError, match=name):
        run([folder, folder / name], tmp_path / "new" / "s.db", annotator)
    assert annotator.calls == [] and not (tmp_path / "new").exists()


def test_a_bad_mask_fails_its_image_or_is_left_out(folder, tmp_path):
    path = folder / "image_0.json"
    path.write_text(path.read_text().replace('"id": 5', '"id": 4'))
    assert run(path, tmp_path / "s.db", FakeAnnotator()).failed == 1
    lenient = replace(SMALL, strict=False)
    summary = run(path, tmp_path / "s.db", FakeAnnotator(), lenient)
    assert summary.done == 1 and summary.states["unique"] == REGIONS - 1
    with Store(tmp_path / "s.db") as store:
        (left,) = store.image("photos/image_0.json").left_out
    assert "region 4: a region before it" in left


def test_a_fault_of_our_own_in_one_image_is_recorded(folder, tmp_path):
    class Faulty:
        name, threshold = "faulty", 0.5

        def __call__(self, image, region_ids):
            if image.file_name == "image_1.png":
                raise RuntimeError("CUDA out of memory")
            return {region_id: np.ones(3, np.float32) for region_id in region_ids}

    summary = run(folder, tmp_path / "s.db", FakeAnnotator(), features=Faulty())
    assert (summary.done, summary.failed) == (2, 1)
    with Store(tmp_path / "s.db") as store:
        error = store.image("photos/image_1.json").error
    assert error == "photos/image_1.json: RuntimeError: CUDA out of memory"


@pytest.mark.parametrize("part", ["photos", "scenes"])
def test_every_region_of_the_samples_ends_with_a_caption_of_its_own(samples, tmp_path, part):
    store = tmp_path / "s.db"
    images = sorted((samples / part).glob("[!.]*.json"))[:6]
    assert len(images) >= 4
    summary = run(images, store, AttributeAnnotator())
    assert summary.complete and set(summary.states) <= {"unique", "unresolved"}
    with Store(store) as opened:
        for row in opened.images():
            captions = opened.captions(row.image)
            told = [normalized(c.text) for c in captions if c.state == "unique"]
            assert len(captions) >= 12 and all(told) and len(set(told)) == len(told)
            assert all(c.text and c.reason for c in captions if c.state == "unresolved")
            assert len(told) > 0.95 * len(captions)


def test_annotators_by_split(folder, tmp_path):
    annotators = {"train": FakeAnnotator("8b"), "test": FakeAnnotator("38b")}
    rule = SplitRule(named={"image_1": "test"})
    settings = replace(SMALL, verify_splits=("test",))
    verifier = FakeAnnotator("gpt")
    run(folder, tmp_path / "s.db", annotators, settings, splits=rule, verifier=verifier)
    assert {r.image.file_name for r in annotators["test"].requests} == {"image_1.png"}
    assert {r.image.file_name for r in verifier.requests} == {"image_1.png"}
    assert {stage for stage, _ in verifier.calls} == {"verify"}
    with Store(tmp_path / "s.db") as store:
        assert Counter(row.split for row in store.images()) == {"train": 2, "test": 1}
    with pytest.raises(ValueError, match="no annotator for the split 'test'"):
        run(folder, tmp_path / "s.db", {"train": FakeAnnotator()}, splits=rule)


def test_splits_are_by_image_and_stable(tmp_path):
    rule = SplitRule({"test": 0.2, "val": 0.1})
    names = [f"folder/sa_{number}.json" for number in range(4000)]
    drawn = Counter(rule.split_of(name) for name in names)
    assert abs(drawn["test"] / 4000 - 0.2) < 0.025 and abs(drawn["val"] / 4000 - 0.1) < 0.02
    assert rule.split_of("x/sa_7.json") == rule.split_of("sa_7.png")
    more = SplitRule({"test": 0.3})
    assert all(more.split_of(n) == "test" for n in names if rule.split_of(n) == "test")
    assert SplitRule.parse("test").split_of("a") == "test"
    assert SplitRule.parse("test=1").split_of("a") == "test"
    file = tmp_path / "splits.json"
    file.write_text('{"sa_7.jpg": "val", "sa_8": "test"}')
    listed = SplitRule.parse(str(file))
    assert [listed.split_of(n) for n in ("x/sa_7.jpg", "sa_8.json", "sa_9.json")] == [
        "val",
        "test",
        "train",
    ]
    for wrong in ("test=2", "test=x", str(tmp_path / "none.json")):
        with pytest.raises(ValueError, match=r"shares|float|none\.json"):
            SplitRule.parse(wrong)
    file.write_text("[]")
    with pytest.raises(ValueError, match="object"):
        SplitRule.parse(str(file))


def test_a_list_of_splits_may_name_photos(folder, tmp_path):
    rule = SplitRule(named={"image_1.png": "test", "image_2.JPG": "val"})
    run(folder, tmp_path / "s.db", FakeAnnotator(), splits=rule)
    with Store(tmp_path / "s.db") as store:
        splits = {Path(row.image).stem: row.split for row in store.images()}
    assert splits == {"image_0": "train", "image_1": "test", "image_2": "val"}
    both = SplitRule(named={"a.jpg": "test", "a.png": "val"})
    assert (both.split_of("a.jpg"), both.split_of("a.png")) == ("test", "val")
    with pytest.raises(ValueError, match=r"x/a\.json: a\.jpg, a\.png have several splits"):
        both.split_of("x/a.json")


def splits_of(path):
    with Store(path) as store:
        return {Path(row.image).stem: row.split for row in store.images()}


def test_an_image_stays_in_its_split_unless_a_list_moves_it(folder, tmp_path):
    """Without a word, test images would become training data where an option is left out."""
    store, rule = tmp_path / "s.db", SplitRule(rest="test")
    run(folder / "image_1.json", store, FakeAnnotator(), splits=rule)
    trained, tested = FakeAnnotator("train"), FakeAnnotator()
    with pytest.warns(
        UserWarning, match=r"1 image .*stay there.*: .*image_1.json \(test, not train"
    ):
        run(folder, store, {"train": trained, "test": tested})
    assert splits_of(store) == {"image_0": "train", "image_1": "test", "image_2": "train"}
    assert tested.calls == [] and "image_1.png" not in {r.image.file_name for r in trained.requests}
    listed = SplitRule(named={"image_1.png": "train"})
    with pytest.warns(UserWarning, match=r"1 image .*move, .*image_1.json \(from test to train\)"):
        run(folder, store, FakeAnnotator("train"), splits=listed)
    assert set(splits_of(store).values()) == {"train"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(folder, store, FakeAnnotator("train"))
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="for the split 'train'"):
        run(folder, store, {"test": FakeAnnotator()}, splits=rule)


def test_entries_of_a_list_of_splits_that_are_no_image_are_named(folder, tmp_path):
    named = {f"sa_{number}.jpg": "test" for number in range(5)}
    with pytest.raises(ValueError, match=r"5 of 5 entries.*: sa_0.jpg, .*sa_2.jpg, \.\.\."):
        run(folder, tmp_path / "s.db", FakeAnnotator(), splits=SplitRule(named=named))
    assert not (tmp_path / "s.db").exists()
    with pytest.warns(UserWarning, match=r"5 of 6 entries"):  # a list of more than this run
        splits = SplitRule(named=named | {"image_1": "test"})
        assert run(folder, tmp_path / "s.db", FakeAnnotator(), splits=splits).done == 3


def test_sources_are_found_once_each(folder, tmp_path):
    (folder / "deep").mkdir()
    (folder / "deep" / "more.json").write_text("{}")
    (folder / ".hidden.json").write_text("{}")
    given = [folder, folder / "image_0.json", folder / "image_0.png"]
    names = [source.name for source in find_sources(given, tmp_path / "s.db")]
    images = [f"photos/image_{number}.json" for number in range(3)]
    assert names == ["photos/deep/more.json", *images]
    with pytest.raises(ValueError, match=r"image_0\.png"):
        find_sources([small_image(0), small_image(0)], tmp_path / "s.db")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: the folder holds no annotation files"):
        find_sources(tmp_path / "empty", tmp_path / "s.db")


def test_images_in_memory(tmp_path):
    images = [small_image(seed) for seed in (3, 4)]
    summary = run(images, tmp_path / "s.db", FakeAnnotator())
    assert summary.done == 2
    annotator = FakeAnnotator()
    summary = run(images, tmp_path / "s.db", annotator)
    assert annotator.calls == [] and summary.reused == summary.calls + summary.reused > 0


def test_an_image_in_memory_is_looked_at_again_though_it_was_read_from_a_file(folder, tmp_path):
    whole = load_sa1b(folder / "image_0.json")

    def part(*region_ids):
        regions = [whole[region_id] for region_id in region_ids]
        return RegionImage(regions, 48, 48, whole.photo, 0, "image_0.png", whole.path)

    run(part(1, 3), tmp_path / "s.db", FakeAnnotator())
    summary = run(part(3, 4), tmp_path / "s.db", FakeAnnotator())
    assert (summary.done, summary.already) == (1, 0)
    with Store(tmp_path / "s.db") as store:
        assert [caption.region_id for caption in store.captions("image_0.png")] == [3, 4]


def test_the_paper_settings_skip_what_is_no_main_object(folder, tmp_path):
    settings = replace(SMALL, tree=TreeSettings.paper())
    summary = run(folder, tmp_path / "s.db", FakeAnnotator(), settings)
    assert summary.states == {"skipped": 3 * REGIONS} and summary.calls == 0
    assert PipelineSettings.paper().check.rounds == 1
    assert PipelineSettings.paper().verify_splits == ("test",)
    leaves = replace(SMALL, describe_leaves=PipelineSettings.paper().describe_leaves)
    annotator = FakeAnnotator()
    assert run(folder, tmp_path / "leaves.db", annotator, leaves).states == {"unique": 3 * REGIONS}
    assert {region_id for stage, region_id in annotator.calls if stage == "long"} == {1, 2, 3}
    assert run(folder, tmp_path / "leaves.db", annotator, leaves).already == 3


def test_another_process_takes_other_images(folder, tmp_path):
    store = tmp_path / "s.db"
    with Store(store) as other:
        other.register([("photos/image_1.json", "train")])
        assert other.claim("photos/image_1.json")
        summary = run(folder, store, FakeAnnotator(), wait=False)
        assert (summary.done, summary.elsewhere, summary.complete) == (2, 1, False)
        assert "1 in another process" in str(summary)
    summary = run(folder, store, FakeAnnotator())
    assert (summary.done, summary.already, summary.complete) == (1, 2, True)


@pytest.mark.parametrize("finishes", [True, False])
def test_an_image_of_another_process_is_waited_for(folder, tmp_path, expected, finishes):
    name = "photos/image_1.json"
    with Store(tmp_path / "s.db") as other:
        other.register([(name, "train")])
        assert other.claim(name)
        found, annotator = [], FakeAnnotator()
        waiting = threading.Thread(
            target=lambda: found.append(run(folder, tmp_path / "s.db", annotator))
        )
        waiting.start()
        waiting.join(timeout=2.0)
        assert waiting.is_alive() and not found  # the others are done by now
        if finishes:
            run(folder / "image_1.json", other, FakeAnnotator())
    waiting.join(timeout=30)
    (summary,) = found
    assert summary.complete and (summary.already, summary.done) == (finishes, 3 - finishes)
    assert {r.image.file_name for r in annotator.requests} >= {"image_0.png", "image_2.png"}
    assert finishes != ("image_1.png" in {r.image.file_name for r in annotator.requests})
    assert contents(tmp_path / "s.db") == expected


def test_two_runs_at_once_share_the_work(tmp_path, request):
    write_images(tmp_path / "photos", 8)
    run(tmp_path / "photos", tmp_path / "expected.db", FakeAnnotator())
    annotators = [FakeAnnotator(latency=0.01), FakeAnnotator(latency=0.01)]
    threads = [
        threading.Thread(target=run, args=(tmp_path / "photos", tmp_path / "s.db", annotator))
        for annotator in annotators
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(tmp_path / "s.db") == contents(tmp_path / "expected.db")
    asked = [{r.image.file_name for r in annotator.requests} for annotator in annotators]
    assert not asked[0] & asked[1] and len(asked[0] | asked[1]) == 8


@pytest.mark.parametrize("kind", ["FakeAnnotator", "AsyncAnnotator"])
def test_an_interrupt_keeps_what_is_in_flight(folder, tmp_path, expected, kind):
    code = (
        "import signal, sys; from pathlib import Path\n"
        # as from a terminal: a shell's background job starts with interrupts ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from fake_annotators import {kind}\n"
        "from ureca_lib.annotate.run import annotate_images\n"
        "from ureca_lib.annotate.settings import PipelineSettings, ViewSettings\n"
        f"annotate_images(sys.argv[1], sys.argv[2], {kind}(latency=.05, log=Path(sys.argv[3])"
        "), PipelineSettings(views=ViewSettings(min_side=0)), progress=False)"
    )
    log, store = tmp_path / "log", tmp_path / "s.db"
    command = [sys.executable, "-c", code, folder, store, log]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    child = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
    while not log.exists() or len(log.read_text().splitlines()) < 12:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(2)
    _, errors = child.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    begun = len(log.read_text().splitlines())
    with Store(store) as opened:
        answers = [a for row in opened.images() for a in opened.answers(row.image).values()]
        assert len(answers) == begun
        assert read_status(opened).stopped == "interrupted"
    run(folder, store, FakeAnnotator())
    assert contents(store) == expected


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """At no time are more images alive than may be open."""
    alive, most = weakref.WeakSet(), [0]

    class Watched(FakeAnnotator):
        def answer(self, request):
            alive.add(request.image)
            most[0] = max(most[0], len(alive))
            reply = super().answer(request)
            self.requests.clear()
            return reply

    write_images(tmp_path / "photos", 50, side=24)
    gc.disable()  # what only a cycle keeps alive counts as well
    try:
        summary = run(tmp_path / "photos", tmp_path / "s.db", Watched(max_in_flight=4))
    finally:
        gc.enable()
    assert summary.done == 50
    assert 1 < most[0] <= 6


def test_the_commands(folder, tmp_path, monkeypatch):
    made = []

    def make(kind, model, base_url, device, api_key_env, in_flight):
        made.append((kind, model, base_url, device, api_key_env))
        return FakeAnnotator(f"{kind}:{model}")

    monkeypatch.setattr("ureca_lib.annotate.annotators.make_annotator", make)
    store, runner = str(tmp_path / "s.db"), CliRunner()
    splits = tmp_path / "splits.json"
    splits.write_text('{"image_1": "test", "image_2": "val"}')
    command = ["annotate", str(folder), "-o", store, "--annotator", "openai", "--split"]
    command += [str(splits), "--model", "small", "--model", "test=large", "--verify", "test"]
    command += ["--base-url", "http://localhost:1/v1?key=1", "--no-progress", "--rounds", "1"]
    command += ["--device", "cpu", "--api-key-env", "test=LAB_KEY"]
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "3 images: 3 done" in done.output and "21 unique" in done.output
    url = "http://localhost:1/v1?key=1"
    large, small = ("large", url, "cpu", "LAB_KEY"), ("small", url, "cpu", None)
    assert sorted(made) == [("openai", *large), ("openai", *small)]
    with Store(store) as opened:
        used = opened.settings()
        assert used["annotators"]["test"] == [["openai:large", None]] * 2
        assert used["annotators"]["val"] == used["annotators"]["train"]
        assert used["annotators"]["train"] == [["openai:small", None]] * 2
        assert used["check"]["rounds"] == 1 and used["verify_splits"] == ["test"]
    again = runner.invoke(app, command)
    assert again.exit_code == 0 and "3 were done before" in again.output
    assert "the store holds 21 regions; 0 calls" in again.output
    assert "unreadable" not in again.output and "another process" not in again.output
    shown = runner.invoke(app, ["status", store])
    assert shown.exit_code == 0 and "21 unique" in shown.output
    bad = folder / "bad.json"
    bad.write_text("{")
    failed = runner.invoke(app, [*command, "--no-strict"])
    assert failed.exit_code == 1 and "1 unreadable" in failed.output
    assert failed.stderr.count("failed: ") == 1 and "bad.json" in failed.stderr
    assert "bad.json" in runner.invoke(app, ["status", store]).output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--annotator", "parrot"], "parrot"),
        (["--annotator", "openai"], "--model"),
        (["--model", "x"], "--annotator"),
        (["--annotator", "transformers", "--model", "x", "--base-url", "y"], "--base-url"),
        (["--annotator", "transformers", "--model", "./nowhere"], "nowhere"),
        (["--dino", "./nowhere"], "nowhere"),
        (["--model", "a", "--model", "b"], "given twice"),
        (["--temperature", "0.5"], "temperature: no model is asked"),
        (["--rounds", "0"], "rounds"),
        (["--split", "test=2"], "shares"),
        (["--in-flight", "0"], "in_flight"),
        (["--paper", "--rounds", "3"], "--rounds"),
        (["--split", "test", "--verifier-model", "x", "--verifier-url", "http://h/v1"], "--verify"),
        (["--verifier-url", "http://h/v1", "--verify", "train"], "--verifier-model"),
        (["--split", "test=0.1", "--verify", "tset"], "'tset'; --split gives test, train"),
        (["--annotator", "openai", "--model", "a", "--model", "tset=b"], "'tset'"),
        (["--split", "test-dev"], "'test-dev' cannot name"),
    ],
)
def test_commands_with_wrong_options(folder, tmp_path, options, said):
    command = ["annotate", str(folder), "-o", str(tmp_path / "s.db"), *options]
    wrong = CliRunner().invoke(app, command)
    assert wrong.exit_code == 2 and said in wrong.output
    assert "Traceback" not in wrong.output
    with Store(tmp_path / "s.db") as store:
        assert store.rows("SELECT count(*) FROM answers") == [(0,)]
    missing = CliRunner().invoke(app, ["status", str(tmp_path / "none.db")])
    assert missing.exit_code == 2 and "there is no store" in missing.output


def test_more_calls_in_flight_are_the_annotators_own_limit(folder, tmp_path, monkeypatch):
    pytest.importorskip("openai", reason="the openai extra is not installed")
    made = []

    def keep(images, store, annotator, *rest, verifier, in_flight, **options):
        made.extend([annotator["train"], verifier])
        return Summary()

    monkeypatch.setattr("ureca_lib.annotate.run.annotate_images", keep)
    command = ["annotate", str(folder), "-o", str(tmp_path / "s.db"), "--in-flight", "64"]
    command += ["--annotator", "openai", "--model", "a", "--base-url", "http://127.0.0.1:9/v1"]
    command += ["--verify", "train", "--verifier-model", "b"]
    command += ["--verifier-url", "http://127.0.0.1:9/v1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert [(one.chat.model, one.max_in_flight) for one in made] == [("a", 64), ("b", 64)]


def test_status_shows_counts_rate_and_time_left(folder, tmp_path):
    store = tmp_path / "s.db"
    with Store(store) as opened:
        opened.register([("photos/not_yet.json", "train")])
        run(folder, opened, FakeAnnotator())
        shown = read_status(opened)
    assert shown.images == {("train", "done"): 3, ("train", "waiting"): 1}
    assert shown.states == {"unique": 3 * REGIONS}
    assert shown.answers["short", "done"] == shown.answers["long", "done"] == 3 * REGIONS
    assert shown.rate > 0 and shown.left == pytest.approx(1 / shown.rate)
    assert "21 unique" in str(shown) and "images a minute, 00:0" in str(shown)


def test_status_lists_what_could_not_be_told_apart(folder, tmp_path):
    def say(request):
        same = request.stage == "unique" and request.region_id in ("six", "7")
        return Reply("a square") if same else distinct_reply(request)

    run(folder, tmp_path / "s.db", FakeAnnotator(say=say))
    with Store(tmp_path / "s.db") as store:
        shown = read_status(store)
    assert shown.states == {"unique": 15, "unresolved": 6}
    assert ("photos/image_0.json", '"7"', "reads like six") in shown.unresolved
    assert 'alike     photos/image_0.json, region "7": reads like six' in str(shown)
