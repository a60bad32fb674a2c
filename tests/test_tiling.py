"""Tiles against the published vectors, Pillow and transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)

from ureca_lib.regions import (
    AnnotationFormatError,
    Region,
    RegionError,
    SizeMismatchError,
)
from ureca_lib.tiling import (
    best_grid,
    distinct_mask_tiles,
    masks_from_tiles,
    nearest_pixels,
    tile_image,
    tile_masks,
)

SIDES = st.integers(1, 70)


def encode(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def uncompressed(mask: np.ndarray) -> dict:
    flat = mask.ravel(order="F").astype(int)
    ends = np.flatnonzero(np.diff(flat, prepend=0, append=2))
    return {"size": list(mask.shape), "counts": np.diff(ends, prepend=0).tolist()}


def random_mask(seed: int, height: int, width: int) -> np.ndarray:
    """Noise, a rectangle, or a rectangle with noise: at least one pixel."""
    generator = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    y, x = generator.integers(height), generator.integers(width)
    if seed % 3:
        mask[
            y : y + generator.integers(1, height + 1), x : x + generator.integers(1, width + 1)
        ] = 1
    if seed % 2:
        mask ^= generator.random(mask.shape) < generator.choice([0.02, 0.5])
    mask[y, x] = True
    return mask


def pillow_tiles(mask: np.ndarray, max_tiles: int, size: int, thumbnail: bool) -> np.ndarray:
    """The published steps with Pillow: a float image of 0 and 255, resized, cropped, cast."""
    image = Image.fromarray(mask.astype(np.float32) * 255)
    columns, rows = best_grid(*image.size, max_tiles, tile_size=size)
    canvas = image.resize((columns * size, rows * size), Image.NEAREST)
    tiles = [
        canvas.crop((c * size, r * size, (c + 1) * size, (r + 1) * size))
        for r in range(rows)
        for c in range(columns)
    ]
    if thumbnail and len(tiles) > 1:
        tiles.append(image.resize((size, size), Image.BICUBIC))
    return np.stack([np.asarray(tile).astype(np.int64).astype(np.uint8) for tile in tiles])


def level_distance(values: torch.Tensor, levels: np.ndarray) -> float:
    """Largest distance in levels of 1/255, around the circle on which they wrap."""
    distance = (values.double().numpy() * 255 - levels) % 256
    return float(np.minimum(distance, 256 - distance).max())


# the grid


def test_grids_are_the_published_ones(peer):
    grids = json.loads((peer / "tiling" / "official_grids.json").read_text())
    assert len(grids) > 100
    for grid in grids:
        found = best_grid(grid["width"], grid["height"], grid["max_tiles"])
        assert found == (grid["columns"], grid["rows"]), grid


@settings(max_examples=400, deadline=None)
@given(
    st.integers(1, 6000),
    st.integers(1, 6000),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([28, 112, 448]),
)
def test_grids_are_those_of_transformers(width, height, one, other, size):
    low, high = sorted((one, other))
    theirs = get_optimal_tiled_canvas((height, width), (size, size), low, high)
    assert best_grid(width, height, high, low, size) == theirs


@pytest.mark.parametrize("side", [1, 300, 448, 633, 634, 896, 1268, 4000])
def test_ties_go_to_more_tiles_only_in_large_images(side):
    # every square grid fits a square image: the image must fill more than half of a larger one
    best = max(n for n in (1, 2, 3) if n == 1 or side * side > 0.5 * (448 * n) ** 2)
    assert best_grid(side, side, 12) == (best, best)


def test_extreme_shapes_take_the_longest_grid():
    assert best_grid(10_000, 1, 12) == (12, 1)
    assert best_grid(1, 10_000, 6) == (1, 6)


@pytest.mark.parametrize(
    "arguments",
    [(0, 5, 12), (5, 0, 12), (5, 5, 0), (5, 5, 3, 4), (5, 5, 3, 0), (5, 5, 3, 1, 0)],
)
def test_impossible_grids_are_refused(arguments):
    with pytest.raises(ValueError, match=r"no pixels|min_tiles"):
        best_grid(*arguments)


# Pillow's rules


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 9000), st.integers(1, 3000))
def test_nearest_pixels_are_pillows(length, size):
    ramp = Image.fromarray(np.arange(length, dtype=np.int32)[None])
    expected = np.asarray(ramp.resize((size, 1), Image.NEAREST))[0]
    assert np.array_equal(nearest_pixels(length, size), expected)


def test_nearest_pixels_add_the_step_up_as_pillow_does():
    # multiplied instead of added, some center falls on the other side of a pixel's edge
    sizes = [(length, 448) for length in range(1, 3000)]
    differ = [
        (length, size)
        for length, size in sizes
        if (nearest_pixels(length, size) != ((np.arange(size) + 0.5) * (length / size)) // 1).any()
    ]
    assert differ
    for length, size in differ:
        ramp = Image.fromarray(np.arange(length, dtype=np.int32)[None])
        expected = np.asarray(ramp.resize((size, 1), Image.NEAREST))[0]
        assert np.array_equal(nearest_pixels(length, size), expected), (length, size)


# images


@pytest.mark.parametrize(("width", "height"), [(90, 60), (61, 140), (200, 200), (300, 11), (1, 1)])
@pytest.mark.parametrize("max_tiles", [1, 6, 12])
def test_image_tiles_are_those_of_transformers(width, height, max_tiles):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    processor = GotOcr2ImageProcessorPil(
        size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=max_tiles
    )
    theirs = processor(
        pixels,
        do_rescale=False,
        do_normalize=False,
        return_tensors="np",
        input_data_format="channels_last",
    )
    tiles = tile_image(pixels, max_tiles, 28)
    assert tiles.dtype == torch.uint8
    assert np.array_equal(tiles.permute(0, 3, 1, 2).numpy(), theirs["pixel_values"])


def test_image_tiles_without_a_thumbnail_are_one_less():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    assert torch.equal(tile_image(pixels, 6, 28)[:-1], tile_image(pixels, 6, 28, thumbnail=False))


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16", "P", "1"])
def test_image_tiles_take_every_kind_of_photo(mode, tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (60, 90), np.uint8)
    photo = Image.fromarray(levels.astype(np.uint16) * 256) if mode == "I;16" else None
    photo = photo or Image.fromarray(levels).convert("RGB").convert(mode)
    photo.save(path := tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png"))
    tiles = tile_image(path, 6, 28)
    assert tiles.shape == (7, 28, 28, 3)
    assert tiles.float().std() > 10  # not one flat color


def test_image_tiles_refuse_what_is_no_image(tmp_path):
    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(RegionError, match=r"notes\.png"):
        tile_image(tmp_path / "notes.png")


# masks


@pytest.mark.parametrize("name", range(4))
def test_mask_tiles_are_the_published_ones(peer, name):
    vectors = np.load(peer / "tiling" / "official_masks.npz")
    mask, expected = vectors[f"mask{name}"], vectors[f"tiles{name}"]
    width, height, max_tiles, size = (int(number) for number in vectors[f"spec{name}"])
    assert mask.shape == (height, width)
    for source in (mask[None], [encode(mask)]):
        tiles = tile_masks(source, max_tiles, size, thumbnail=True)
        assert np.array_equal((tiles[0] * 255).round().numpy(), expected)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10_000),
    SIDES,
    SIDES,
    st.integers(1, 12),
    st.sampled_from([5, 8, 28]),
    st.booleans(),
)
def test_mask_tiles_are_pillows(seed, height, width, max_tiles, size, thumbnail):
    mask = random_mask(seed, height, width)
    expected = pillow_tiles(mask, max_tiles, size, thumbnail)
    cut = 0 if len(expected) == 1 or not thumbnail else -1
    for source in (mask[None], [encode(mask)]):
        tiles = tile_masks(source, max_tiles, size, thumbnail=thumbnail)[0]
        assert tiles.shape == expected.shape
        whole = slice(None, cut or None)
        assert np.array_equal(tiles[whole].numpy() * 255, expected[whole])
        assert level_distance(tiles, expected) <= 1


def test_every_form_of_mask_gives_the_same_tiles():
    masks = np.stack([random_mask(seed, 53, 131) for seed in range(12)])
    forms = {
        "bool": masks,
        "0 and 255": masks.astype(np.uint8) * 255,
        "float": masks.astype(np.float32),
        "list": list(masks),
        "tuple of tensors": tuple(torch.tensor(masks)),
        "tensor": torch.tensor(masks),
        "bfloat16": torch.tensor(masks).bfloat16(),
        "read-only": np.broadcast_to(masks, masks.shape),
        "not contiguous": np.ascontiguousarray(masks[:, ::-1, ::-1])[:, ::-1, ::-1],
        "encodings": [encode(mask) for mask in masks],
        "text encodings": [
            {"size": rle["size"], "counts": rle["counts"].decode()} for rle in map(encode, masks)
        ],
        "uncompressed": [uncompressed(mask) for mask in masks],
        "regions": [Region.from_mask(i, mask) for i, mask in enumerate(masks)],
        "generator": (mask for mask in masks),
        "mixed": [encode(masks[0]), torch.tensor(masks[1]), *masks[2:]],
    }
    expected = np.stack([pillow_tiles(mask, 6, 28, True) for mask in masks])
    for name, form in forms.items():
        tiles = tile_masks(form, 6, 28, thumbnail=True)
        assert level_distance(tiles, expected) <= 1, name
        assert np.array_equal(tiles[:, :-1].numpy() * 255, expected[:, :-1]), name


def test_encodings_are_never_decoded(monkeypatch):
    region = Region.from_mask(1, random_mask(3, 40, 70))
    monkeypatch.setattr(coco_mask, "decode", lambda rle: pytest.fail("decoded"))
    assert tile_masks([region, region.rle], 6, 28, thumbnail=True).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (3, 2000), (2, 2)])
@pytest.mark.parametrize("fill", ["one pixel", "all"])
def test_extreme_images_and_masks(shape, fill):
    mask = np.zeros(shape, bool)
    mask[-1, -1] = True
    mask |= fill == "all"
    tiles = tile_masks(mask[None], 12, 28, thumbnail=True)
    assert level_distance(tiles, pillow_tiles(mask, 12, 28, True)[None]) <= 1
    assert torch.equal(tiles, tile_masks([encode(mask)], 12, 28, thumbnail=True))
    if fill == "all":
        assert (tiles == 1).all()


def test_a_mask_without_pixels_is_zero_in_every_form():
    empty, full = np.zeros((60, 90), bool), np.ones((60, 90), bool)
    for form in ([empty, full], [encode(empty), encode(full)], np.stack([empty, full])):
        tiles = tile_masks(form, 6, 28, thumbnail=True)
        assert not tiles[0].any()
        assert (tiles[1] == 1).all()


def test_a_thumbnail_may_be_clipped_instead_of_wrapped():
    mask = np.zeros((120, 180), bool)
    mask[30:90, 40:140] = True
    published, clipped = (
        tile_masks(mask[None], 6, 28, thumbnail=True, overshoot=name)[0, -1]
        for name in ("wrap", "clip")
    )
    levels = np.asarray(Image.fromarray(mask * np.float32(255)).resize((28, 28), Image.BICUBIC))
    assert levels.min() < -1 and levels.max() > 256
    assert np.allclose(clipped.numpy() * 255, levels.clip(0, 255), atol=1e-3)
    calm = torch.tensor((levels > -1) & (levels < 256))
    assert ((published - clipped)[calm] * 255).abs().max() <= 1
    assert ((published - clipped)[~calm].abs() * 255).min() > 100


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), SIDES, SIDES, st.sampled_from([5, 8, 28]), st.booleans())
def test_distinct_tiles_are_those_of_the_masks_and_no_others(seed, height, width, size, thumbnail):
    masks = [random_mask(seed + i, height, width) for i in range(3)]
    masks.append(np.ones((height, width), bool))
    tiles = distinct_mask_tiles(masks, 12, size, thumbnail)
    dense = tile_masks(masks, 12, size, thumbnail)
    assert tiles.distinct.dtype == torch.uint8
    assert torch.equal(tiles.distinct[tiles.index].float() / 255, dense)
    assert torch.equal(tiles.values()[tiles.index], dense)
    assert not tiles.distinct[0].any()
    # blank and full tiles are shared, all others are stored once
    others = tiles.index[tiles.index > 1]
    assert len(others.unique()) == len(others) == len(tiles.distinct) - 2
    assert all(kind.any() and not (kind == 255).all() for kind in tiles.distinct[2:])


def test_distinct_tiles_of_many_small_masks_take_a_fraction_of_the_memory():
    masks = np.zeros((40, 600, 900), bool)
    for number in range(40):
        masks[number, 10 * number : 10 * number + 30, 15 * number : 15 * number + 40] = True
    tiles = distinct_mask_tiles(masks, 12, 112, thumbnail=True)
    dense = tile_masks(masks, 12, 112, thumbnail=True)
    assert tiles.distinct.nbytes < dense.nbytes / 10


def test_clipped_thumbnails_keep_their_fractions():
    mask = random_mask(4, 60, 90)[None]
    options = {"thumbnail": True, "overshoot": "clip"}
    tiles = distinct_mask_tiles(mask, 6, 28, **options)
    assert tiles.distinct.dtype == torch.float32
    assert (tiles.distinct % 1 != 0).any()
    assert torch.equal(tiles.values()[tiles.index], tile_masks(mask, 6, 28, **options))
    assert torch.equal(tiles.values(255), tiles.values() * 255)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_masks_on_a_gpu_stay_there():
    masks = torch.tensor(np.stack([random_mask(seed, 83, 61) for seed in range(6)]))
    here = tile_masks(masks, 6, 28, thumbnail=True)
    there = tile_masks(masks.cuda(), 6, 28, thumbnail=True)
    assert there.is_cuda
    assert level_distance(there.cpu(), (here * 255).round().numpy()) <= 1


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        ([], ValueError, "no masks"),
        (np.zeros((0, 4, 4)), ValueError, "no masks"),
        (np.ones((4, 4)), AnnotationFormatError, "region 0: .*1-dimensional"),
        (np.ones((1, 1, 4, 4)), AnnotationFormatError, "region 0: .*3-dimensional"),
        (np.ones((2, 0, 4)), ValueError, "no pixels"),
        ([np.ones((4, 0))], ValueError, "no pixels"),
        ([np.ones((4, 5)), np.ones((5, 4))], SizeMismatchError, "region 1: .*4 x 5.*5 x 4"),
        ([np.ones((4, 5)), np.ones(4)], AnnotationFormatError, "region 1: .*1-dimensional"),
        ([np.full((2, 2), np.nan)], AnnotationFormatError, "region 0: .*NaN"),
        ([np.full((2, 2), "a")], AnnotationFormatError, "region 0"),
        (["mask.png"], AnnotationFormatError, "region 0"),
        ([None], AnnotationFormatError, "region 0"),
        ({"size": [2, 2], "counts": [0, 4]}, AnnotationFormatError, "region 0"),
        ([{"size": [2, 2], "counts": [0, 5]}], AnnotationFormatError, "region 0: .*5 pixels.* 4"),
        ([{"size": [2, 2], "counts": "\x01"}], AnnotationFormatError, "region 0"),
        ([{"counts": [0, 4]}], RegionError, "region 0: .*size"),
    ],
)
def test_bad_masks_are_refused(masks, error, message):
    with pytest.raises(error, match=message):
        tile_masks(masks)


def test_a_region_of_another_size_is_named():
    regions = [Region.from_mask("sky", np.ones((4, 5))), Region.from_mask("boot", np.ones((5, 5)))]
    with pytest.raises(SizeMismatchError, match=r"boot.*5 x 5.*5 x 4"):
        tile_masks(regions)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"max_tiles": 0}, "max_tiles"),
        ({"tile_size": 0}, "tile_size"),
    ],
)
def test_bad_settings_are_refused(settings_, message):
    with pytest.raises(ValueError, match=message):
        tile_masks(np.ones((1, 4, 4)), **settings_)


def test_many_masks_of_a_photo():
    # pycocotools 2.0.11 fails on more than 255 masks in one call
    masks = np.stack([random_mask(seed, 30, 40) for seed in range(300)])
    tiles = tile_masks([encode(mask) for mask in masks], 6, 14)
    assert np.array_equal(
        tiles.numpy() * 255, np.stack([pillow_tiles(mask, 6, 14, False) for mask in masks])
    )


@pytest.mark.parametrize("thumbnail", [False, True])
def test_tiles_go_back_together(thumbnail):
    # the grid's canvas, 84 x 56, is larger than the image: no pixel is lost on the way
    masks = np.stack([random_mask(seed, 54, 81) for seed in range(5)])
    tiles = tile_masks(masks, 6, 28, thumbnail=thumbnail)
    assert tiles.shape[1] == 6 + thumbnail
    assert np.array_equal(masks_from_tiles(tiles, 54, 81, 6).numpy(), masks)
