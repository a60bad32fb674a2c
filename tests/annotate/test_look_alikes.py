"""Look-alikes: similar pairs of the samples' photos, features by id, DINOv2 on a tiny model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from fake_annotators import small_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    AutoModel,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    ViTConfig,
)
from typer.testing import CliRunner

from ureca_lib.annotate import PAPER_DIFFERENCES
from ureca_lib.annotate.look_alikes import (
    ColorTextureFeatures,
    DinoFeatures,
    LookAlikeSettings,
    cosine_similarity,
    find_look_alikes,
    survey_similarities,
)
from ureca_lib.annotate.settings import PipelineSettings
from ureca_lib.cli import app
from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import FileMissingError, Region, RegionImage, load_sa1b, save_sa1b


def squares(count: int = 4) -> list[Region]:
    """Squares beside one another."""
    regions = []
    for number in range(count):
        mask = np.zeros((8, 8 * count), bool)
        mask[2:6, 8 * number + 2 : 8 * number + 6] = True
        regions.append(Region.from_mask(number, mask))
    return regions


def vectors(*rows: list[float]) -> dict[int, np.ndarray]:
    return {number: np.asarray(row, np.float32) for number, row in enumerate(rows)}


def test_most_similar_first_and_no_more_than_the_most():
    tree = build_mask_tree(squares())
    features = vectors([1, 0], [1, 0.5], [1, 0.1], [-1, 0])
    found = find_look_alikes(features, tree, LookAlikeSettings(), 0.8)
    assert found == {0: [2, 1], 1: [2, 0], 2: [0, 1], 3: []}
    found = find_look_alikes(features, tree, LookAlikeSettings(most=1), 0.8)
    assert found == {0: [2], 1: [2], 2: [0], 3: []}


def test_ties_go_by_the_order_and_the_threshold_counts():
    tree = build_mask_tree(squares())
    features = vectors([1, 0], [3, 0], [0, 0], [4, 3])
    assert find_look_alikes(features, tree, LookAlikeSettings(), 0.8)[0] == [1, 3]
    assert find_look_alikes(features, tree, LookAlikeSettings(), 0.81)[0] == [1]
    assert find_look_alikes(features, tree, LookAlikeSettings(), -1.0)[2] == [0, 1, 3]


def test_features_are_matched_by_id_not_by_row():
    tree = build_mask_tree(squares())
    some = {3: np.array([0.0, 1]), 1: np.array([1.0, 0]), 0: np.array([0.1, 1])}
    assert find_look_alikes(some, tree, LookAlikeSettings(), 0.9) == {3: [0], 1: [], 0: [3]}


def test_family_is_left_out_unless_wanted():
    image = small_image(0)
    tree = build_mask_tree(image.regions)
    features = {region.id: np.ones(2) for region in image}
    without = find_look_alikes(features, tree, LookAlikeSettings(most=9), 0.9)
    assert without[5] == [2, 4, "six", "7"]  # 3 and 1 hold it
    assert without[1] == [2, "six", "7"]
    every = find_look_alikes(features, tree, LookAlikeSettings(most=9, family=True), 0.9)
    assert all(len(found) == 6 for found in every.values())


def test_the_same_mask_is_always_a_look_alike():
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    whole = np.ones((8, 8), bool)
    regions = [Region.from_mask(n, m) for n, m in (("a", mask), ("b", mask), ("c", whole))]
    tree = build_mask_tree(regions)
    assert tree.parent("b") == "a"
    features = {"a": np.array([1.0, 0]), "b": np.array([0, 1.0]), "c": np.array([1.0, 0])}
    found = find_look_alikes(features, tree, LookAlikeSettings(), 1.0)
    assert found == {"a": ["b"], "b": ["a"], "c": []}


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10_000))
def test_similarity_is_the_definition(count, length, seed):
    rows = np.random.default_rng(seed).normal(size=(count, length))
    expected = [
        [float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for b in rows] for a in rows
    ]
    np.testing.assert_allclose(cosine_similarity(dict(enumerate(rows))), expected, atol=1e-12)


def test_paper_has_no_limit_and_counts_the_family():
    settings = PipelineSettings.paper().look_alikes
    assert settings == LookAlikeSettings.paper()
    regions = squares(12)
    whole = Region.from_mask("whole", np.ones((8, 96), bool))
    tree = build_mask_tree([whole, *regions])
    features = {region.id: np.ones(2) for region in (whole, *regions)}
    found = find_look_alikes(features, tree, settings, 0.9)
    assert all(len(others) == 12 for others in found.values())
    found = find_look_alikes(features, tree, LookAlikeSettings(), 0.9)
    assert found["whole"] == [] and all(len(found[number]) == 8 for number in range(12))


def test_paper_says_what_is_still_different():
    told = PipelineSettings.paper.__doc__
    assert PAPER_DIFFERENCES in told and "DINO v1 at 0.8" in told
    shown = CliRunner().invoke(app, ["annotate", "--help"], env={"COLUMNS": "80"}).output
    lines = [line.strip() for line in shown.splitlines()]
    assert all(line.strip() in lines for line in PAPER_DIFFERENCES.splitlines())


def test_survey_gives_all_pairs_within_images_and_those_near_the_threshold():
    images = [(f"{seed}", small_image(seed)) for seed in range(2)]
    images = [(name, image, build_mask_tree(image.regions)) for name, image in images]
    features = ColorTextureFeatures()
    values, near = survey_similarities(images, features, 0.8, family=True, shown=5)
    expected = {}
    for name, image, _ in images:
        similar = cosine_similarity(features(image, [region.id for region in image]))
        for i, one in enumerate(image):
            for j, other in enumerate(image):
                if i < j:
                    expected[name, one.id, other.id] = similar[i, j]
    assert sorted(values) == pytest.approx(sorted(expected.values()))
    assert [pair.similarity for pair in near] == sorted(
        sorted(expected.values(), key=lambda value: abs(value - 0.8))[:5], reverse=True
    )
    for pair in near:
        assert expected[pair.name, *pair.region_ids] == pair.similarity
        for crop, region_id in zip(pair.crops, pair.region_ids, strict=True):
            image = dict((name, image) for name, image, _ in images)[pair.name]
            _, _, columns, rows = image[region_id].pixel_box
            assert crop.shape == (rows, columns, 3) and crop.dtype == np.uint8
    apart, _ = survey_similarities(images, features, 0.8)
    held = sum(len(tree.ancestors(region.id)) for _, image, tree in images for region in image)
    assert len(apart) == len(values) - held


def test_the_command_shows_the_share_of_pairs_and_a_figure(samples, tmp_path):
    figure = tmp_path / "alike.png"
    run = CliRunner().invoke(
        app, ["look-alikes", str(samples / "photos" / "chelsea.json"), "-o", str(figure)]
    )
    assert run.exit_code == 0, run.output
    assert "1 photos, " in run.output and "0.85:" in run.output and "<- threshold" in run.output
    assert figure.stat().st_size > 10_000
    run = CliRunner().invoke(app, ["look-alikes", str(tmp_path / "gone.json"), "-o", str(figure)])
    assert run.exit_code == 2 and "gone.json" in run.output


def test_a_photo_without_pairs_is_an_error(tmp_path):
    image = RegionImage(squares(1), 8, 8, np.zeros((8, 8, 3), np.uint8))
    save_sa1b(image, tmp_path / "one.json", "one.png")
    Image.fromarray(image.pixels).save(tmp_path / "one.png")
    figure = str(tmp_path / "alike.png")
    run = CliRunner().invoke(app, ["look-alikes", str(tmp_path / "one.json"), "-o", figure])
    assert run.exit_code == 2 and "two regions" in run.output
    assert not (tmp_path / "alike.png").exists()


def test_bad_features_are_named():
    tree = build_mask_tree(squares())
    with pytest.raises(ValueError, match="region 1 are not finite"):
        find_look_alikes(vectors([1, 0], [np.nan, 0]), tree, LookAlikeSettings(), 0.5)
    with pytest.raises(ValueError, match="same shape"):
        find_look_alikes(vectors([1, 0], [1]), tree, LookAlikeSettings(), 0.5)
    with pytest.raises(ValueError, match="most"):
        LookAlikeSettings(most=0)
    assert find_look_alikes({}, tree, LookAlikeSettings(), 0.5) == {}


@pytest.fixture(scope="module")
def photos(samples):
    """For each photo its regions, and their similarities by id."""
    features, found = ColorTextureFeatures(), {}
    for path in sorted((samples / "photos").glob("*.json")):
        image = load_sa1b(path)
        ids = [region.id for region in image]
        similar = cosine_similarity(features(image, ids))
        found[path.stem] = (
            image,
            {
                (one, other): similar[i, j]
                for i, one in enumerate(ids)
                for j, other in enumerate(ids)
                if i < j
            },
        )
    return found


@pytest.mark.parametrize(
    ("photo", "name", "share"),
    [
        ("astronaut", "eye", 1.0),
        ("chelsea", "eye", 1.0),
        ("chelsea", "iris", 1.0),
        ("chelsea", "ear", 1.0),
        ("coins", "coin", 0.99),
        ("rocket", "bulb", 0.9),
    ],
)
def test_what_a_person_calls_alike_is(photos, photo, name, share):
    image, similar = photos[photo]
    ids = {region.id for region in image if region.name == name}
    pairs = [value for (one, other), value in similar.items() if {one, other} <= ids]
    alike = np.mean([value >= ColorTextureFeatures.threshold for value in pairs])
    assert len(ids) >= 2 and alike >= share


@pytest.mark.parametrize(
    ("photo", "one", "other"),
    [
        ("chelsea", "cat", "background"),
        ("chelsea", "eye", "cloth"),
        ("astronaut", "face", "flag"),
        ("astronaut", "eye", "stripe"),
        ("coffee", "coffee", "table"),
        ("coffee", "spoon", "saucer"),
        ("rocket", "sky", "rocket"),
        ("rocket", "light", "tower"),
    ],
)
def test_what_a_person_calls_different_is(photos, photo, one, other):
    image, similar = photos[photo]
    pairs = [v for (a, b), v in similar.items() if {image[a].name, image[b].name} == {one, other}]
    assert pairs and max(pairs) < ColorTextureFeatures.threshold


def test_the_stated_shares_hold(photos):
    """The numbers in the docstring."""
    pairs = []
    for image, similar in photos.values():
        tree = build_mask_tree(image.regions)
        for (one, other), value in similar.items():
            if one not in tree.ancestors(other) and other not in tree.ancestors(one):
                same = image[one].name == image[other].name
                pairs.append((same, value >= ColorTextureFeatures.threshold))
    same, alike = np.array(pairs).T
    assert alike[same].mean() == pytest.approx(0.70, abs=0.02)
    assert alike.mean() == pytest.approx(0.16, abs=0.01)
    assert same[alike].mean() == pytest.approx(0.47, abs=0.02)


def image_of(pixels: np.ndarray, *masks: np.ndarray) -> RegionImage:
    regions = [Region.from_mask(number, mask) for number, mask in enumerate(masks)]
    return RegionImage(regions, pixels.shape[1], pixels.shape[0], pixels, file_name="x.png")


def test_only_the_masks_own_pixels_count_for_colour():
    mask = np.zeros((32, 64), bool)
    mask[8:24, 8:24] = True
    other = np.roll(mask, 32, axis=1)
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[mask] = pixels[other] = (200, 60, 60)
    plain = image_of(pixels, mask, other)
    changed = pixels.copy()
    changed[:, 32:][~other[:, 32:]] = (0, 255, 0)
    found = ColorTextureFeatures()(image_of(changed, mask, other), [0, 1])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    both = cosine_similarity(ColorTextureFeatures()(plain, [0, 1]))
    assert both[0, 1] == pytest.approx(1)
    pixels[other] = (60, 60, 200)
    blue = cosine_similarity(ColorTextureFeatures()(image_of(pixels, mask, other), [0, 1]))
    assert blue[0, 1] < 0.75


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (60, 1), (60, 60)])
def test_masks_of_every_size_have_features(shape):
    mask = np.zeros((64, 64), bool)
    mask[2 : 2 + shape[0], 2 : 2 + shape[1]] = True
    thin = np.zeros((64, 64), bool)
    thin[np.arange(64), np.arange(64)] = True
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    found = ColorTextureFeatures()(image_of(pixels, mask, thin), [0, 1])
    assert all(np.isfinite(v).all() and v.dtype == np.float32 for v in found.values())
    norms = [np.linalg.norm(v) for v in found.values()]
    assert norms == pytest.approx([np.sqrt(6)] * 2, rel=1e-5)  # the sum of the blocks' weights


def test_features_need_the_photo(tmp_path):
    image = RegionImage(squares(1), 8, 8, file_name="gone.png")
    with pytest.raises(FileMissingError, match=r"gone\.png"):
        ColorTextureFeatures()(image, [0])


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
DINO = {
    "dinov2": Dinov2Config(**SIZES, image_size=56, patch_size=14),
    "dinov2_with_registers": Dinov2WithRegistersConfig(**SIZES, image_size=56, patch_size=14),
    "dinov3_vit": DINOv3ViTConfig(
        **SIZES, intermediate_size=64, image_size=64, patch_size=16, num_register_tokens=4
    ),
    "dinov3_convnext": DINOv3ConvNextConfig(hidden_sizes=[8, 8, 16, 32], depths=[1, 1, 1, 1]),
}


def save_dino(folder, kind):
    """A tiny random checkpoint with the processor file that the published ones have."""
    torch.manual_seed(0)
    AutoModel.from_config(DINO[kind]).save_pretrained(folder)
    shared = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    if kind.startswith("dinov2"):
        size = {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}}
        shared |= {"image_processor_type": "BitImageProcessor", "do_center_crop": True}
    else:
        size = {"size": {"height": 64, "width": 64}, "do_rescale": True}
        shared |= {"image_processor_type": "DINOv3ViTImageProcessorFast", "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(shared | size))
    return folder


@pytest.fixture(scope="module", params=DINO)
def any_dino(request, tmp_path_factory):
    return save_dino(tmp_path_factory.mktemp("dino") / f"tiny-{request.param}", request.param)


@pytest.fixture(scope="module")
def tiny_dino(tmp_path_factory):
    return save_dino(tmp_path_factory.mktemp("dino") / "tiny-dino", "dinov2")


def test_every_dino_gives_the_class_token_of_the_whole_crop(any_dino):
    kind = any_dino.name.removeprefix("tiny-")
    mask = np.zeros((64, 64), bool)
    mask[2:62, 2:62] = True
    pixels = np.random.default_rng(2).integers(0, 255, (64, 64, 3), np.uint8)
    features = DinoFeatures(any_dino, margin=0)
    assert features.name == f"{kind}:{any_dino.name}:margin=0"
    (vector,) = features(image_of(pixels, mask), [0]).values()
    # by hand: bicubic or bilinear resize of the square crop, center crop, normalize
    side = 56 if kind.startswith("dinov2") else 64
    resample = Image.Resampling.BICUBIC if side == 56 else Image.Resampling.BILINEAR
    shown = np.asarray(Image.fromarray(pixels[2:62, 2:62]).resize((64, 64), resample)) / 255
    edge = (64 - side) // 2
    shown = shown[edge : edge + side, edge : edge + side]
    shown = (shown - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    inputs = torch.tensor(shown.transpose(2, 0, 1)[None], dtype=torch.float32)
    with torch.no_grad():
        expected = AutoModel.from_pretrained(any_dino).eval()(inputs).pooler_output[0]
    np.testing.assert_allclose(vector, expected.numpy(), atol=1e-4)


def test_a_model_of_another_kind_is_refused_by_name(tmp_path):
    ViTConfig(**SIZES).save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match=r"vit is a vit model; --dino takes dinov2, dinov2_with"):
        DinoFeatures(tmp_path / "vit")


def test_dinov2_features_come_by_id_whatever_the_batch(tiny_dino, samples):
    image = load_sa1b(samples / "photos" / "chelsea.json")
    ids = [region.id for region in image][:7]
    features = DinoFeatures(tiny_dino, batch_size=3)
    assert features.name.startswith("dinov2:tiny-dino") and features.threshold == 0.8
    found = features(image, ids)
    assert list(found) == ids and all(v.shape == (32,) for v in found.values())
    alone = DinoFeatures(tiny_dino, batch_size=1)(image, ids[::-1])
    for region_id in ids:
        np.testing.assert_allclose(found[region_id], alone[region_id], atol=1e-5)
    assert not np.allclose(found[ids[0]], found[ids[1]])
    assert features(image, []) == {}


def test_dinov2_sees_the_region_alone_and_whole(tiny_dino):
    mask = np.zeros((40, 40), bool)
    mask[10:30, 5:15] = True
    pixels = np.random.default_rng(1).integers(0, 255, (40, 40, 3), np.uint8)
    changed = np.where(mask[..., None], pixels, 0).astype(np.uint8)
    features = DinoFeatures(tiny_dino)
    one, other = (features(image_of(p, mask), [0])[0] for p in (pixels, changed))
    np.testing.assert_array_equal(one, other)
    changed = pixels.copy()
    changed[29, 14] = 255 - changed[29, 14]
    assert not np.array_equal(one, features(image_of(changed, mask), [0])[0])


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        DinoFeatures(tmp_path / "nowhere")
