"""Masks for a photo without any: the superpixel hierarchy and SAM."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage
from tiny_sam import MEANS, save_sam
from transformers import AutoModelForMaskGeneration, SamImageProcessorPil, SamModel

from ureca_lib.mask_tree import build_mask_tree, containment_matrix
from ureca_lib.regions import (
    FileMissingError,
    Region,
    RegionImage,
    load_image,
    load_sa1b,
    save_sa1b,
)
from ureca_lib.segment import (
    Sam,
    regions_at,
    regions_in,
    sam,
    sam_regions,
    segment_image,
    superpixel_regions,
    superpixels,
)
from ureca_lib.segment.sam import _points_per_batch, suppress_boxes
from ureca_lib.segment.superpixels import nested_labels

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg")


@pytest.fixture(scope="module", params=PHOTOS)
def photo(request, samples):
    return samples / "photos" / request.param


@pytest.fixture(scope="module")
def cut(photo):
    return superpixel_regions(photo)


def noise(height, width, seed=0, channels=3):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def discs():
    """Two discs, the left with a smaller one inside, on grey with noise; and the three masks."""
    rows, columns = np.mgrid[:240, :320]
    masks = [
        (rows - 120) ** 2 + (columns - x) ** 2 < radius**2
        for x, radius in ((90, 60), (90, 25), (230, 60))
    ]
    image = np.full((240, 320, 3), 190.0)
    for mask, color in zip(masks, ((200, 40, 40), (240, 220, 60), (40, 60, 190)), strict=True):
        image[mask] = color
    image += np.random.default_rng(0).normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), masks


def assert_sound(regions, least=0.0005):
    """What every result is: numbered, sorted, distinct, connected, nested or apart, covering."""
    assert [region.id for region in regions] == list(range(1, len(regions) + 1))
    areas = [region.area for region in regions]
    assert areas == sorted(areas, reverse=True)
    # 0.05 * 3 * 20 is a little more than 3
    assert min(areas) >= least * regions.width * regions.height - 1e-9
    assert len({region.rle["counts"] for region in regions}) == len(regions)
    for region in regions:
        assert ndimage.label(region.mask)[1] == 1, region
    share = containment_matrix(regions.regions)
    assert np.all(np.isclose(share, 0) | (share == 1) | (share.T == 1))
    assert np.logical_or.reduce([region.mask for region in regions]).all()


def test_photos_give_a_sound_tree_of_three_levels_or_more(cut):
    assert_sound(cut)
    assert 20 <= len(cut) <= 150
    assert build_mask_tree(cut.regions).height() >= 3


def test_levels_cover_the_photo_and_are_nested(photo):
    pixels = load_image(photo)
    levels = nested_labels(pixels, (3, 9, 30))
    for labels, most in zip(levels, (3, 9, 30), strict=True):
        assert labels.shape == pixels.shape[:2]
        assert set(np.unique(labels)) == set(range(labels.max() + 1))
        assert labels.max() + 1 == most
        for label in range(most):
            assert ndimage.label(labels == label)[1] == 1
    for coarse, fine in itertools.pairwise(levels):
        pairs = np.unique(np.stack([fine.ravel(), coarse.ravel()]), axis=1)
        assert len(pairs[0]) == fine.max() + 1  # each fine label meets one coarse label


@pytest.mark.parametrize(
    ("name", "objects", "least"),
    [
        ("coins", ["coin"] * 20, 0.9),
        ("coffee", ["coffee", "inner wall", "grip"], 0.8),
        ("chelsea", ["eye", "eye", "pupil", "pupil"], 0.8),
        ("astronaut", ["hair", "head", "shell"], 0.8),
    ],
)
def test_objects_drawn_by_hand_are_found(samples, name, objects, least):
    drawn = load_sa1b(samples / "photos" / f"{name}.json")
    found = superpixel_regions(samples / "photos" / f"{name}.png")
    good = [label for label, overlap in best_overlap(drawn, found) if overlap > least]
    for label in set(objects):
        assert good.count(label) >= objects.count(label), label


def best_overlap(drawn, found):
    """The name of each region drawn, and its largest IoU with a region found."""
    a = np.stack([region.mask.ravel() for region in drawn]).astype(np.float32)
    b = np.stack([region.mask.ravel() for region in found]).astype(np.float32)
    shared = a @ b.T  # (R, pixels) x (pixels, R) -> (R, R)
    iou = shared / (a.sum(1)[:, None] + b.sum(1) - shared)
    return list(zip([region.name for region in drawn], iou.max(axis=1), strict=True))


def test_a_surrounded_region_is_a_part_and_the_ground_keeps_its_holes():
    image, (disc, inner, other) = discs()
    found = superpixel_regions(image)
    assert_sound(found)
    assert len(found) == 4  # noise splits nothing
    ground, *rest = found.regions
    wanted = [~(disc | other), disc, other, inner]
    for region, mask in zip([ground, *rest], wanted, strict=True):
        overlap = (region.mask & mask).sum() / (region.mask | mask).sum()
        assert overlap > 0.96
    tree = build_mask_tree(found.regions)
    assert [tree.parent(region.id) for region in found] == [None, None, None, rest[0].id]


def test_near_repetitions_are_left_out(monkeypatch):
    image, _ = discs()
    monkeypatch.setattr(superpixels, "DISTINCT", 1)
    every = superpixel_regions(image, levels=(2, 3, 4, 5))
    monkeypatch.setattr(superpixels, "DISTINCT", 0.5)
    some = superpixel_regions(image, levels=(2, 3, 4, 5))
    assert len(some) < len(every)
    share = containment_matrix(some.regions)
    iou = 1 / (1 / share.clip(1e-9) + 1 / share.T.clip(1e-9) - 1)
    assert iou[~np.eye(len(some), dtype=bool)].max() < 0.5


@pytest.mark.parametrize("value", [0, 127, 255])
def test_an_even_photo_is_one_region(value):
    found = superpixel_regions(np.full((60, 80, 3), value, np.uint8))
    assert [region.area for region in found] == [60 * 80]


def test_noise_alone_is_one_region():
    image = np.random.default_rng(0).normal(128, 6, (150, 200, 3))
    assert len(superpixel_regions(np.clip(image, 0, 255).astype(np.uint8))) == 1


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (2, 1), (3, 3), (1, 500), (500, 1), (7, 11), (3, 9000), (4000, 8)]
)
def test_odd_sizes(size):
    found = superpixel_regions(noise(*size))
    assert (found.height, found.width) == size
    assert_sound(found)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 999),
    st.integers(2, 4),
    st.sampled_from([0.0, 0.0005, 0.05]),
    st.sampled_from([60, 500, 300_000]),
)
def test_any_image_gives_a_sound_result(height, width, seed, colors, min_area, work_pixels):
    palette = noise(1, colors, seed)[0]
    pick = np.random.default_rng(seed).integers(0, colors, (height, width))
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(superpixels, "MIN_AREA", min_area)
        changed.setattr(superpixels, "MIN_COST", 0)
        changed.setattr(superpixels, "WORK_PIXELS", work_pixels)
        found = superpixel_regions(palette[ndimage.median_filter(pick, 3)], (2, 4, 9))
    assert_sound(found, min_area)


def test_large_photos_are_worked_on_small_and_their_masks_are_full_size(monkeypatch):
    image, masks = discs()
    large = np.asarray(Image.fromarray(image).resize((1501, 1127), Image.Resampling.BICUBIC))
    monkeypatch.setattr(superpixels, "WORK_PIXELS", 50_000)
    found = superpixel_regions(large)
    assert (found.height, found.width) == (1127, 1501)
    assert_sound(found)
    disc = np.asarray(Image.fromarray(masks[0]).resize((1501, 1127)))
    overlap = [(r.mask & disc).sum() / (r.mask | disc).sum() for r in found]
    assert max(overlap) > 0.95


def test_every_kind_of_photo_is_read(tmp_path):
    image, _ = discs()
    whole = superpixel_regions(image)
    opaque = np.concatenate([image, np.full((*image.shape[:2], 1), 255, np.uint8)], axis=2)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    for same in (opaque, image.astype(np.uint16) * 257, image / 255, Image.open(buffer)):
        assert superpixel_regions(same).regions == whole.regions
    grey = image[..., 0]
    assert superpixel_regions(grey).regions == superpixel_regions(np.stack([grey] * 3, 2)).regions


def test_two_processes_give_the_same(root, samples):
    script = (
        "import sys, hashlib; from ureca_lib.segment import segment_image\n"
        "found = segment_image(sys.argv[1])\n"
        "print(hashlib.sha256(b' '.join(r.rle['counts'] for r in found)).hexdigest())"
    )
    command = [sys.executable, "-c", script, str(samples / "photos" / "chelsea.png")]
    runs = [
        subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert len(runs[0].strip()) == 64
    assert runs[0] == runs[1]


def test_what_is_found_is_written_and_read(tmp_path, samples):
    found = segment_image(samples / "photos" / "coins.png")
    assert found.file_name == "coins.png"
    save_sa1b(found, tmp_path / "coins.json")
    again = load_sa1b(tmp_path / "coins.json")
    assert again.regions == found.regions
    assert json.loads((tmp_path / "coins.json").read_text())["image"]["file_name"] == "coins.png"


@pytest.mark.parametrize("levels", [(), (4, 4), (8, 4), (0, 4), (-1, 4), (50, 101)])
def test_levels_rise_and_have_150_regions_at_most(levels):
    with pytest.raises(ValueError, match=r"levels rise .* 150"):
        segment_image(noise(8, 8), levels=levels)


def test_bad_calls(tmp_path):
    with pytest.raises(ValueError, match=r"superpixels, sam.*'magic'"):
        segment_image(noise(8, 8), method="magic")
    with pytest.raises(TypeError, match="colour"):
        segment_image(noise(8, 8), colour="red")
    for method in ("superpixels", "sam"):
        with pytest.raises(FileMissingError, match=r"none\.png"):
            segment_image(tmp_path / "none.png", method)


def test_the_most_alike_are_merged_first_and_what_is_too_small_is_no_region():
    greys = np.repeat([10, 40, 200, 100], (40, 40, 40, 1))[None].repeat(40, axis=0)  # (40, 121)
    levels = nested_labels(np.stack([greys] * 3, axis=2).astype(np.uint8), (2, 3, 4))
    # the last column has 1/121 of the image, and borders on the third part alone
    assert [len(np.unique(level)) for level in levels] == [2, 3, 4]
    two, three, _ = levels
    assert len(np.unique(two[20, [20, 60]])) == 1 and len(np.unique(two[20, [20, 100]])) == 2
    assert len(np.unique(three[20, [20, 60, 100]])) == 3
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(superpixels, "MIN_AREA", 0.02)
        assert len(np.unique(nested_labels(np.stack([greys] * 3, 2).astype(np.uint8), (4,)))) == 3


# ---- SAM, on a tiny checkpoint with random weights through the whole of transformers' pipeline


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_sam("sam", tmp_path_factory.mktemp("sam"))


ROUNDING = 5e-3  # of logits up to 108; batches of another size differ by at most 6e-4


def logits_by_definition(folder, image, side, pred_iou, stability):
    """All masks at once from the model itself, filtered as SAM's authors say: (K, H, W), (K,).

    The filters decide by more than rounding, so that any machine keeps the same masks.
    """
    model, processor = (
        SamModel.from_pretrained(folder),
        SamImageProcessorPil.from_pretrained(folder),
    )
    inputs = processor(Image.fromarray(image), return_tensors="pt")
    resized = inputs["reshaped_input_sizes"][0]
    steps = (torch.arange(side) + 0.5) / side
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(1, -1, 1, 2)
    with torch.no_grad():
        output = model(inputs["pixel_values"], input_points=grid * resized.flip(0))
    (logits,) = processor.post_process_masks(
        output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=False
    )
    logits, scores = logits.flatten(0, 1), output.iou_scores.flatten()
    keep = torch.ones(len(scores), dtype=torch.bool)
    if pred_iou:
        assert ((scores - pred_iou).abs() > 1e-3).all()
        keep &= scores > pred_iou
    if stability:
        least, most = (
            (logits > 1 + slack).sum((1, 2)) / (logits > -1 - slack).sum((1, 2))
            for slack in (ROUNDING, -ROUNDING)
        )
        assert ((least > stability) == (most > stability)).all()
        keep &= least > stability
    assert (scores.sort().values.diff() > 1e-4).all()  # those of batches differ by 1e-5
    return logits[keep].numpy(), scores[keep].numpy()


def cut_by_definition(mask, logits):
    """Whether a mask is that of the logits, but for pixels within rounding of 0."""
    return mask[logits > ROUNDING].all() and not mask[logits < -ROUNDING].any()


def boxes_of(masks):
    found = []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        empty = not len(rows)
        found.append(
            [0, 0, 0, 0] if empty else [columns.min(), rows.min(), columns.max(), rows.max()]
        )
    return np.array(found, float).reshape(-1, 4)


def suppressed_by_definition(boxes, scores, max_iou):
    """Non-maximum suppression, box by box."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        good = True
        for j in kept:
            (ax, ay, bx, by), (cx, cy, dx, dy) = boxes[i], boxes[j]
            shared = max(0, min(bx, dx) - max(ax, cx)) * max(0, min(by, dy) - max(ay, cy))
            union = (bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - shared
            good &= not (union > 0 and shared / union > max_iou)
        if good:
            kept.append(i)
    return kept


@pytest.mark.parametrize(
    ("pred_iou", "stability", "box_iou"),
    [(0, 0, 1), (0, 0, 0.65), (0, 0.5, 0.9), (0.5, 0, 1), (0, 0.945, 1)],
)
def test_sam_gives_the_masks_of_its_definition(
    checkpoint, pred_iou, stability, box_iou, monkeypatch
):
    monkeypatch.setattr(sam, "_BATCH_BYTES", 7 * 4 * 3 * 48 * 80)  # of 7 points
    image = noise(48, 80, 2)
    found = sam_regions(
        image,
        checkpoint,
        points_per_side=5,
        pred_iou_threshold=pred_iou,
        stability_threshold=stability,
        box_iou_threshold=box_iou,
    )
    logits, scores = logits_by_definition(checkpoint, image, 5, pred_iou, stability)
    kept, same = (
        suppressed_by_definition(boxes_of(logits > least), scores, box_iou)
        for least in (ROUNDING, -ROUNDING)
    )
    assert kept == same  # by more than rounding, as the filters
    expected = logits[kept]
    matches = [
        [i for i, mask in enumerate(expected) if cut_by_definition(region.mask, mask)]
        for region in found
    ]
    assert sorted(matches) == [[i] for i in range(len(expected))]
    assert [region.id for region in found] == list(range(1, len(found) + 1))
    areas = [region.area for region in found]
    assert areas == sorted(areas, reverse=True)


def test_the_cases_of_the_definition_are_not_empty(checkpoint):
    logits, scores = logits_by_definition(checkpoint, noise(48, 80, 2), 5, 0, 0)
    masks = logits > 0
    assert masks.any((1, 2)).all()
    assert len({mask.tobytes() for mask in masks}) > 20
    kept = suppressed_by_definition(boxes_of(masks), scores, 0.65)
    assert 2 <= len(kept) < len(masks)
    stable, _ = logits_by_definition(checkpoint, noise(48, 80, 2), 5, 0, 0.945)
    assert 0 < len(stable) < len(masks)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 999), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_suppression_is_that_of_its_definition(count, seed, max_iou):
    generator = np.random.default_rng(seed)
    low = generator.integers(0, 8, (count, 2))
    boxes = np.concatenate([low, low + generator.integers(0, 8, (count, 2))], axis=1)
    scores = generator.integers(0, 5, count) / 4  # with ties
    sides = np.concatenate([low, boxes[:, 2:] - low], axis=1).astype(float)
    kept = suppress_boxes(sides, scores, max_iou)
    assert kept == suppressed_by_definition(boxes, scores, max_iou)


def test_sam_regions_are_written_and_nested(checkpoint, samples, tmp_path):
    photo = samples / "photos" / "coins.png"
    found = segment_image(
        photo,
        "sam",
        model=str(checkpoint),
        points_per_side=3,
        pred_iou_threshold=0,
        stability_threshold=0,
        box_iou_threshold=1,
    )
    assert len(found) >= 2
    assert found.file_name == "coins.png"
    save_sa1b(found, tmp_path / "coins.json")
    assert load_sa1b(tmp_path / "coins.json").regions == found.regions
    assert len(build_mask_tree(found.regions)) == len(found)


def square_definition(folder, image, points):
    """SAM 2 and SAM 3 as transformers' processors define them: (K, 3, H, W) logits, (K, 3)."""
    model = AutoModelForMaskGeneration.from_pretrained(folder).eval()
    side = model.config.prompt_encoder_config.image_size
    height, width = image.shape[:2]
    small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
    values = (small / 255 - MEANS[model.config.model_type]) / [0.25, 0.5, 0.5]
    values = torch.tensor(values, dtype=torch.float32).permute(2, 0, 1)[None]
    scaled = torch.tensor([[[[x * side / width, y * side / height]] for x, y in points]])
    with torch.no_grad():
        output = model(values, input_points=scaled)
    logits = output.pred_masks[0]
    size = {"size": (height, width), "mode": "bilinear", "align_corners": False}
    return torch.nn.functional.interpolate(logits, **size), output.iou_scores[0]


@pytest.fixture(scope="module", params=["sam2", "sam3_tracker"])
def square(request, tmp_path_factory):
    return save_sam(request.param, tmp_path_factory.mktemp(request.param), seed=8)


def test_points_of_sam_2_and_3_give_the_masks_of_their_definition(square):
    image, points = noise(48, 80, 2), [(5, 7), (60.5, 30), (79, 47)]
    logits, scores = square_definition(square, image, points)
    found = Sam(square).at_points(image, points)
    assert [region.id for region in found] == ["point 5,7", "point 60.5,30", "point 79,47"]
    for region, masks, score in zip(found, logits, scores, strict=True):
        assert np.array_equal(region.mask, (masks[score.argmax()] > 0).numpy())


def test_all_regions_of_sam_2_and_3_come_from_a_grid_of_points(square, monkeypatch):
    monkeypatch.setattr(sam, "_BATCH_BYTES", 3 * 4 * 3 * 48 * 80)  # of 3 points
    image, side = noise(48, 80, 2), 4
    points = [((i + 0.5) * 80 / side, (j + 0.5) * 48 / side) for j in range(side) for i in range(4)]
    logits, _ = square_definition(square, image, points)
    expected = np.unique((logits.flatten(0, 1) > 0).numpy(), axis=0)
    loose = {"pred_iou_threshold": 0, "stability_threshold": 0, "box_iou_threshold": 1}
    found = sam_regions(image, square, points_per_side=side, **loose)
    masks = np.stack([region.mask for region in found])
    # batches round differently: a few pixels at the edges may differ
    apart = (masks[:, None] != expected[None]).sum((2, 3))  # (found, expected)
    assert apart.min(axis=1).max() <= 0.005 * 48 * 80
    assert apart[:, expected.any((1, 2))].min(axis=0).max() <= 0.005 * 48 * 80
    assert len(found) > 3


@pytest.mark.parametrize("kind", ["sam", "sam_hq", "sam2", "sam3_tracker"])
def test_every_sam_takes_points_and_boxes(kind, tmp_path):
    model, image = Sam(save_sam(kind, tmp_path / kind, seed=8)), noise(48, 80, 2)
    for ask, prompts in (
        (model.at_points, [(5, 7), (60.5, 30), (79, 47)]),
        (model.in_boxes, [(2, 3, 30, 20), (40, 20, 30, 25), (0, 0, 80, 48)]),
    ):
        apart = [ask(image, [prompt])[0] for prompt in prompts]
        for one, other in zip(ask(image, prompts), apart, strict=True):
            assert one.id == other.id and (one.mask != other.mask).mean() <= 0.005
        assert all(region.size == (48, 80) for region in apart)
        assert len({region.rle["counts"] for region in apart}) > 1


def test_a_box_reaches_sam_2_by_its_corners_in_the_models_square(square):
    image, model = noise(48, 80, 2), Sam(square)
    side = model.network.config.prompt_encoder_config.image_size
    (region,) = model.in_boxes(image, [(8, 12, 40, 24)])
    corners = [8 * side / 80, 12 * side / 48, 48 * side / 80, 36 * side / 48]
    with torch.no_grad():
        output = model.network(
            **model._encode(image).features,
            input_boxes=torch.tensor([[corners]]),
            multimask_output=False,
        )
    size = {"size": (48, 80), "mode": "bilinear", "align_corners": False}
    logits = torch.nn.functional.interpolate(output.pred_masks[0], **size)
    assert np.array_equal(region.mask, (logits[0, 0] > 0).numpy())


def test_sam_hq_checkpoints_run_too(tmp_path):
    folder = save_sam("sam_hq", tmp_path / "hq")
    loose = {"pred_iou_threshold": 0, "stability_threshold": 0, "box_iou_threshold": 1}
    found = sam_regions(noise(48, 80), folder, points_per_side=4, **loose)
    assert 5 < len(found) <= 4 * 4 * 3


def test_the_hierarchy_answers_points_and_boxes_without_a_model():
    image, (disc, *_) = discs()
    regions = superpixel_regions(image)
    assert [r.id for r in regions_at(regions, [(90, 120), (130, 120), (0, 0)])] == [4, 2, 1]
    assert [r.id for r in regions_in(regions, [(170, 60, 120, 120), (65, 95, 50, 50)])] == [3, 4]
    with pytest.raises(ValueError, match=r"point 500,2 .* 320 x 240"):
        regions_at(regions, [(500, 2)])
    with pytest.raises(ValueError, match=r"box 300,0,100,10 .* 320 x 240"):
        regions_in(regions, [(300, 0, 100, 10)])
    with pytest.raises(ValueError, match="no region"):
        regions_at(RegionImage([Region.from_mask(1, disc)], 320, 240), [(0, 0)])


def test_sam_may_find_nothing(checkpoint):
    strict = {"pred_iou_threshold": 1, "stability_threshold": 1}
    assert len(sam_regions(noise(20, 30), checkpoint, points_per_side=2, **strict)) == 0


def test_large_photos_are_asked_about_few_points_at_a_time():
    assert _points_per_batch(48, 80) == 64
    assert _points_per_batch(3000, 4000) == 3
    assert _points_per_batch(40_000, 40_000) == 1


def test_a_checkpoint_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    for model in (tmp_path / "none", tmp_path / "empty", "someone/no-such-model"):
        with pytest.raises(OSError, match=str(model)):
            sam_regions(noise(8, 8), model)


def copied(checkpoint, folder, **config):
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    values = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_a_checkpoint_that_is_damaged(checkpoint, tmp_path):
    other = copied(checkpoint, tmp_path / "other", model_type="bert")
    with pytest.raises(OSError, match=r"other'.* is a bert model"):
        sam_regions(noise(8, 8), other)
    weights = copied(checkpoint, tmp_path / "cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(OSError, match="cut"):
        sam_regions(noise(8, 8), weights.parent)
    weights = copied(checkpoint, tmp_path / "unsafe") / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(OSError, match="unsafe"):
        sam_regions(noise(8, 8), weights.parent)
    weights = copied(checkpoint, tmp_path / "lacking") / "model.safetensors"
    tensors = load_file(weights)
    tensors.pop("mask_decoder.iou_token.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(OSError, match=r"lack mask_decoder\.iou_token\.weight"):
        sam_regions(noise(8, 8), weights.parent)


def test_a_device_that_is_not_there(checkpoint):
    for device in ("zebra", "cuda:99"):
        with pytest.raises(OSError, match=device):
            sam_regions(noise(8, 8), checkpoint, device=device)
