"""The embedded annotator as the pipeline asks it: what each stage adds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.pipeline import parse_verdict
from ureca_lib.annotate.protocol import Annotator, Context, Request
from ureca_lib.annotate.referring.english import plural
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import Region, RegionImage, load_sa1b

PHOTOS = Path(__file__).resolve().parents[2] / "data_samples" / "photos"
ANNOTATOR = AttributeAnnotator()


@pytest.fixture(params=sorted(path.stem for path in PHOTOS.glob("*.json")))
def photo(request):
    image = load_sa1b(PHOTOS / f"{request.param}.json")
    return image, build_mask_tree(image)


def ask(stage, image, tree, region_id, **known):
    context = Context(**known)
    return ANNOTATOR.answer(Request(stage, image, tree, region_id, "", "", (), context))


def test_it_is_an_annotator():
    assert isinstance(ANNOTATOR, Annotator)


def test_short_captions_differ_among_siblings_and_need_not_elsewhere(photo):
    image, tree = photo
    texts = {region.id: ask("short", image, tree, region.id).text for region in image}
    for parent in (None, *texts):
        family = [texts[child] for child in tree.children(parent)]
        assert len(set(family)) == len(family)
        assert all(text.startswith("the ") and "\n" not in text for text in family)


def test_unique_captions_differ_in_the_whole_image_and_say_so(photo):
    image, tree = photo
    replies = [ask("unique", image, tree, region.id) for region in image]
    assert len({reply.text for reply in replies}) == len(image)
    assert all(reply.unique for reply in replies)


def test_long_captions_name_the_children_that_have_captions(photo):
    image, tree = photo
    for region in image:
        children = {child: "a caption" for child in tree.children(region.id)}
        with_parts = ask("long", image, tree, region.id, children=children).text
        alone = ask("long", image, tree, region.id).text
        assert with_parts.endswith(".") and alone.endswith(".")
        # "the eyes with two eyes" would say nothing
        named = {image[child].name for child in children}
        named = {name for name in named if plural(name) != region.name}
        assert (", with " in with_parts) == bool(named)
        assert all(name in with_parts or plural(name) in with_parts for name in named)
        assert ", with " not in alone


def test_an_identical_mask_is_never_unique_and_is_dropped():
    pixels = np.zeros((40, 40, 3), np.uint8)
    square = np.zeros((40, 40), bool)
    square[5:20, 5:20] = True
    regions = [Region.from_mask(number, square, "box") for number in (1, 2)]
    image = RegionImage(regions, 40, 40, pixels)
    tree = build_mask_tree(image)
    reply = ask("unique", image, tree, 1)
    assert reply.unique is False
    assert not parse_verdict(ask("verify", image, tree, 1, current=reply.text).text)[0]


def test_verification_keeps_its_own_unique_captions(photo):
    image, tree = photo
    for region in image.regions[::5]:
        text = ask("unique", image, tree, region.id).text
        assert parse_verdict(ask("verify", image, tree, region.id, current=text).text)[0]


def test_verification_of_others_captions_is_a_failure_that_says_why(photo):
    image, tree = photo
    reply = ask("verify", image, tree, image.regions[0].id, current="Quite another thing.")
    assert reply.status == "failed"
    assert "wrote itself" in reply.error


def test_a_short_caption_that_fits_two_regions_is_dropped():
    image = load_sa1b(PHOTOS / "chelsea.json")
    tree = build_mask_tree(image)
    pupils = [region.id for region in image if region.name == "pupil"]
    texts = {ask("short", image, tree, pupil).text for pupil in pupils}
    assert len(texts) == 1
    verdict = ask("verify", image, tree, pupils[0], current=texts.pop()).text
    assert not parse_verdict(verdict)[0]


def test_answers_do_not_depend_on_the_order_of_the_questions(photo):
    image, tree = photo
    fresh = AttributeAnnotator()
    ids = [region.id for region in image]
    for stage in ("unique", "short", "long"):
        for region_id in reversed(ids):
            request = Request(stage, image, tree, region_id, "", "", (), Context())
            assert fresh.answer(request) == ask(stage, image, tree, region_id)
