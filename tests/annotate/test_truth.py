"""Whatever the embedded annotator states is true, and nothing is called unique that is not.

The captions' logical forms are read back here from the decoded masks, without the code that
composed them or reads them in the package. Only the words that name a color or a shape are taken
from the package's measurements.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from annotate.drawn import image_of, images, matching, rectangle
from hypothesis import given, settings
from PIL import Image

from ureca_lib.annotate.annotators import AttributeAnnotator
from ureca_lib.annotate.referring.annotator import ImageCaptions
from ureca_lib.annotate.referring.expressions import phrase
from ureca_lib.annotate.referring.predicates import ImageAttributes
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import Region, RegionImage, load_masks, load_sa1b

PHOTOS = Path(__file__).resolve().parents[2] / "data_samples" / "photos"
MASKS = [
    *(rectangle((90, 120), 2, 2, 30), rectangle((90, 120), 80, 2, 30)),
    rectangle((90, 120), 45, 50, 20),
]
STAGES = ("short", "long", "unique", "verify")


class Reader:
    """Decides from pixels which regions of an image a logical form fits."""

    def __init__(self, image: RegionImage):
        self.image, self.tree = image, build_mask_tree(image.regions)
        self.scene = ImageAttributes(image, self.tree)
        self.words = dict(zip(self.scene.ids, self.scene.regions, strict=True))
        self.nouns = dict(zip(self.scene.ids, self.scene.nouns, strict=True))
        self.masks = {region.id: region.mask.tobytes() for region in image}
        self.keys = {region.id: keys_of(region.mask) for region in image}
        self.known: dict = {}
        self.above = {
            region.id: [
                other
                for other in self.tree.ancestors(region.id)
                if self.masks[other] != self.masks[region.id]
            ]
            for region in image
        }

    def fits(self, description) -> set:
        if description not in self.known:
            self.known[description] = self.read(description)
        return self.known[description]

    def read(self, description) -> set:
        left = {region.id for region in self.image}
        for place, attribute in enumerate(description):
            if attribute.kind in ("rank", "row"):
                assert attribute.among == description[:place]  # the scope is the one stated
            if attribute.kind in ("row", "place", "extent"):
                # read by the package; their definitions have tests of their own
                left &= set(matching(self.scene, description[: place + 1]))
            left &= {i for i in left if self.one(i, attribute, left)}
            if attribute.kind == "rank":  # and no word but another count comes after a count
                assert {a.kind for a in description[place:]} == {"rank"}
        return left

    def one(self, i, attribute, left) -> bool:
        kind, value = attribute.kind, attribute.value
        if kind == "type":
            return value == "region" or self.is_a(i, value)
        if kind in ("color", "shape"):
            return value in self.words[i].fits
        if kind == "whole":
            return bool(self.fits(attribute.among) & set(self.above[i]))
        if kind == "with":
            # regions of one mask are one thing, and have the same parts
            parts = {
                self.masks[part]
                for part, above in self.above.items()
                if self.is_a(part, value)
                and self.masks[i]
                in {self.masks[one] for one in (above[:1] if value == "part" else above)}
            }
            few = attribute.number in (1, 10)
            return len(parts) >= attribute.number if few else len(parts) == attribute.number
        if kind == "rank":
            return self.has_rank(i, attribute, left)
        return kind in ("row", "place", "extent")

    def is_a(self, i, noun) -> bool:
        if noun in ("main region", "part"):
            return bool(self.above[i]) == (noun == "part")
        return self.nouns[i].casefold() == noun.casefold()

    def has_rank(self, i, attribute, left) -> bool:
        keys = {self.masks[other]: self.keys[other][attribute.value] for other in left}
        before = sum(key < keys[self.masks[i]] for key in keys.values())
        return len(keys) == attribute.of and before == attribute.number - 1


def keys_of(mask: np.ndarray) -> dict[str, float]:
    """Numbers that are smallest for the first region of each direction."""
    ys, xs = np.nonzero(mask)
    area, wide, tall = len(xs), np.ptp(xs), np.ptp(ys)
    # sums first, so that equal centers are equal to the last bit
    x, y = int(xs.sum()) / area, int(ys.sum()) / area
    return {
        **{"left": x, "right": -x, "top": y, "bottom": -y, "largest": -area, "smallest": area},
        **{"widest": -wide, "narrowest": wide, "tallest": -tall, "shortest": tall},
        **{"far left": xs.min(), "far right": -xs.max(), "far up": ys.min(), "far down": -ys.max()},
    }


def check(image: RegionImage) -> None:
    """All captions of all stages against the pixels."""
    reader = Reader(image)
    tree, scene = reader.tree, reader.scene
    captions = ImageCaptions(image, tree)
    for region in image:
        for stage in STAGES:
            caption = captions.caption(stage, region.id, tree.children(region.id))
            description = caption.attributes
            fits = reader.fits(description) & set(matching(scene, description))
            assert region.id in fits, (stage, caption)
            assert region.id in reader.fits(caption.claims), (stage, caption)
            assert region.id in matching(scene, caption.claims), (stage, caption)
            assert fits <= {region.id, *caption.same_as, *caption.confused_with}, (stage, caption)
            # what is said of the region itself holds clearly, and not just in a wider sense
            index = scene.index[region.id]
            assert scene.fits(description, clearly=True)[index], (stage, caption)
            if caption.unique:
                assert fits == {region.id}, (stage, caption)
                assert sum(mask == reader.masks[region.id] for mask in reader.masks.values()) == 1
            if stage == "verify":
                assert caption.text == phrase(description)
            else:
                assert caption.text.casefold().startswith(phrase(description).casefold())
            check_words(caption.text, region.id, reader)


def check_words(text: str, region_id, reader: Reader) -> None:
    """Superlatives without a scope hold in the whole image."""
    words = text.rstrip(".").casefold().split()
    noun = reader.nouns[region_id].casefold()
    for word, best in (("largest", max), ("smallest", min)):
        if words[: 2 + len(noun.split())] == ["the", word, *noun.split()] and (
            len(words) == 2 + len(noun.split()) or words[2 + len(noun.split())] in ("is", "are")
        ):
            areas = {r.id: r.area for r in reader.image if reader.is_a(r.id, noun)}
            assert areas[region_id] == best(areas.values()), text


def nested(seed: int) -> RegionImage:
    """A few dozen rectangles within rectangles, half of them without a name."""
    rng = np.random.default_rng(seed)
    boxes, masks, names = [(0, 0, 200, 150)], [], []
    while len(masks) < 30:
        x, y, columns, rows = boxes[rng.integers(len(boxes))]
        if min(columns, rows) < 6:
            continue
        w, h = int(rng.integers(3, columns)), int(rng.integers(3, rows))
        x, y = x + int(rng.integers(columns - w + 1)), y + int(rng.integers(rows - h + 1))
        boxes.append((x, y, w, h))
        masks.append(rectangle((150, 200), x, y, w, h))
        names.append(rng.choice(["box", "boxes", "row of boxes", "eye", "", "", "", ""]) or None)
    return image_of(masks, names, [tuple(color) for color in rng.integers(0, 255, (30, 3))])


@settings(max_examples=40, deadline=None)
@given(images())
def test_everything_stated_of_small_images_is_true(image):
    check(image)


@settings(max_examples=20, deadline=None)
@given(images(named=False))
def test_everything_stated_of_regions_without_names_is_true(image):
    check(image)


def test_parts_of_regions_with_one_mask_are_counted_wherever_they_stand():
    size = (32, 32)
    line, shifted = rectangle(size, 4, 4, 5, 1), rectangle(size, 5, 4, 5, 1)
    main = rectangle(size, 2, 2, 20)
    # the third region holds 80% of the fourth, which has the mask of the second
    check(image_of([main, line, shifted, line]))
    # a region whose only child has its own mask, which in turn has a part
    check(image_of([main, main, line]))
    check(image_of([main, line, line]))


@pytest.mark.parametrize("seed", range(8))
def test_everything_stated_of_deep_trees_is_true(seed):
    check(nested(seed))


@pytest.mark.parametrize("path", sorted(PHOTOS.glob("*.json")), ids=lambda path: path.stem)
def test_everything_stated_of_the_samples_is_true(path):
    check(load_sa1b(path))


@pytest.mark.parametrize("path", sorted(PHOTOS.glob("*.json")), ids=lambda path: path.stem)
def test_everything_stated_of_the_samples_without_names_is_true(path):
    image = load_sa1b(path)
    bare = [Region(region.id, region.rle) for region in image]
    check(RegionImage(bare, image.width, image.height, image.pixels))


def test_a_superlative_is_of_its_stated_scope_and_not_of_the_siblings():
    # two roots, of which the smaller holds the smallest region, and the larger the second largest
    masks = [rectangle((90, 120), 2, 2, 70), rectangle((90, 120), 80, 2, 30)]
    masks += [rectangle((90, 120), 5, 5, 50), rectangle((90, 120), 85, 5, 5)]
    texts = [caption.text for caption in AttributeAnnotator().caption(image_of(masks))]
    assert texts == [
        *("the left main region", "the right main region"),
        *("the part of the left main region", "the part of the right main region"),
    ]
    image = image_of(masks, ["box", "lid", "box", "box"])
    texts = [caption.text for caption in AttributeAnnotator().caption(image)]
    assert all("lid" in text or "box" in text for text in texts)
    check(image)


def test_a_crowd_is_not_counted_as_one_thing():
    masks = [rectangle((90, 120), 2, 2, 60)]
    masks += [rectangle((90, 120), 70 + 15 * i, 60, 10, 20) for i in range(2)]
    regions = [
        Region(i, Region.from_mask(i, mask).rle, name="person", crowd=i == 0)
        for i, mask in enumerate(masks)
    ]
    image = RegionImage(regions, 120, 90, np.full((90, 120, 3), 90, np.uint8))
    texts = [caption.text for caption in AttributeAnnotator().caption(image)]
    assert texts == ["the people", "the left person", "the right person"]


def test_wording_does_not_repeat():
    for path in sorted(PHOTOS.glob("*.json")):
        image = load_sa1b(path)
        tree = build_mask_tree(image.regions)
        captions = ImageCaptions(image, tree)
        texts = [
            captions.caption("unique", region.id, tree.children(region.id)).text for region in image
        ]
        assert not any("far up and down" in text or "far across" in text for text in texts)
        for text, region in zip(texts, image, strict=True):
            assert f"{region.name} with" not in text and " a hair" not in text
            said = text.partition(" image")[0]
            assert said.count(" is ") + said.count(" are ") <= 1, text


def test_names_of_mask_files_are_used(tmp_path):
    for name, mask in (("lake_1", MASKS[0]), ("lake_2", MASKS[1]), ("pagoda", MASKS[2])):
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"{name}.png")
    image = load_masks(tmp_path, np.full((90, 120, 3), 90, np.uint8))
    captions = AttributeAnnotator().caption(image)
    texts = {image[caption.region_id].name: caption.text for caption in captions}
    assert texts == {"lake_1": "the left lake", "lake_2": "the right lake", "pagoda": "the pagoda"}
