"""Generated scenes: masks, tree, sizes, twins, and the same scene for the same seed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.scenes import Scene, SceneSpecification, generate_scene
from ureca_lib.scenes.kinds import KINDS
from ureca_lib.scenes.lexicon import BACKGROUNDS
from ureca_lib.scenes.measure import pixels_left
from ureca_lib.scenes.palette import COLORS, MATERIALS

SPEC = SceneSpecification()
LANDSCAPE = {*BACKGROUNDS, "cloud", "hill", "mountain"}  # drawn in shades of their color


def digest(scene: Scene) -> str:
    """One hash of pixels, masks and captions."""
    parts = [scene.image.tobytes(), repr(scene.captions).encode()]
    parts += [region.rle["counts"] for region in scene.regions]
    return hashlib.sha256(b"|".join(parts)).hexdigest()


def test_the_true_tree_is_the_one_found_from_the_masks(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.tree == build_mask_tree(scene.regions), scene.seed
        first = build_mask_tree(scene.regions, parent_rule="first")
        for region in scene.regions:
            assert first.parent(region.id) == scene.tree.parent(region.id)


def test_masks_nest_exactly_and_are_disjoint_otherwise(scenes: list[Scene]) -> None:
    """By decoded arrays, of a few scenes."""
    for scene in scenes[:5]:
        masks = {region.id: region.mask for region in scene.regions}
        for one, mask in masks.items():
            inside = {*scene.tree.ancestors(one)}
            for other, its in masks.items():
                shared = int((mask & its).sum())
                if other in inside:
                    assert shared == mask.sum() < its.sum()
                elif one not in scene.tree.ancestors(other) and one != other:
                    assert shared == 0


def test_a_scene_is_what_the_specification_says(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert (scene.width, scene.height) in SPEC.canvases
        assert scene.image.shape == (scene.height, scene.width, 3)
        assert scene.image.dtype == np.uint8
        assert SPEC.regions[0] <= len(scene.regions) <= SPEC.regions[1]
        assert scene.tree.height() >= SPEC.min_depth
        assert min(region.area for region in scene.regions) >= SPEC.smallest_region
        whole = [facts.kind for facts in scene.description.facts if facts.kind in KINDS]
        assert len(whole) >= SPEC.min_objects
        assert max(Counter(whole).values()) >= SPEC.min_twins
        for region, facts in zip(scene.regions, scene.description.facts, strict=True):
            assert isinstance(region.id, int)
            assert region.id == facts.id
            assert region.name == facts.kind


def test_scenes_are_rich(scenes: list[Scene]) -> None:
    facts = [each for scene in scenes for each in scene.description.facts]
    assert {each.kind for each in facts} >= set(KINDS)
    assert len({each.surface for each in facts if each.mention}) >= 12
    assert len(COLORS) + len(MATERIALS) >= 10
    assert {each.pattern for each in facts} == set(SPEC.patterns)
    assert {each.kind for each in facts if each.member} == {"pair", "row"}
    assert {each.place for each in facts} >= {"left", "middle", "right"}
    alike = Counter(
        max(Counter((f.kind, f.surface) for f in s.description.facts if f.kind in KINDS).values())
        > 1
        for s in scenes
    )
    assert alike[True] >= len(scenes) / 3


def test_many_regions_nearly_vanish_at_a_fifth_and_none_does_in_tiles(
    scenes: list[Scene],
) -> None:
    small = [left for scene in scenes for left in pixels_left(scene, (112, 112))]
    assert sum(left <= 2 for left in small) / len(small) >= 0.1
    for scene in scenes[:20]:
        grid = (336, 224) if scene.width >= scene.height else (224, 336)
        assert min(pixels_left(scene, grid)) >= 1


def test_colours_are_seen_where_captions_say_them(scenes: list[Scene]) -> None:
    """The color of a plain part's own pixels is nearest to the palette's color of its name."""
    names, table = list(COLORS), np.array(list(COLORS.values()), float)
    right = total = 0
    for scene in scenes:
        for facts in scene.description.facts:
            plain = facts.pattern == "plain" and facts.surface in COLORS
            if not (facts.mention and plain) or facts.kind in LANDSCAPE:
                continue
            own, area = scene.regions[facts.id].mask, scene.regions[facts.id].area
            for child in scene.description.children(facts.id):
                own &= ~scene.regions[child.id].mask
            if own.sum() >= 0.4 * area:  # others are wholes seen by their parts' colors
                colour = np.median(scene.image[own], axis=0)
                nearest = names[int(((table - colour) ** 2).sum(1).argmin())]
                right, total = right + (nearest == facts.surface), total + 1
    assert total > 150
    assert right / total > 0.98


def test_places_are_where_captions_say(scenes: list[Scene]) -> None:
    """An object that stands free lies where its place is; occlusion moves the seen middle."""
    limits = {"left": (0.0, 0.4), "middle": (0.32, 0.68), "right": (0.6, 1.0)}
    for scene in scenes:
        for facts in scene.description.facts:
            if facts.place and facts.kind in KINDS:
                x, _, wide, _ = scene.regions[facts.id].bbox
                low, high = limits[facts.place]
                assert low <= (x + wide / 2) / scene.width <= high, (scene.seed, facts)


def test_sides_are_where_captions_say(scenes: list[Scene]) -> None:
    for scene in scenes:
        for facts in scene.description.facts:
            if facts.side != ("left",):
                continue
            for other in scene.description.children(facts.parent):
                if other.kind == facts.kind and other.side == ("right",):
                    mine, its = (scene.regions[each.id].bbox for each in (facts, other))
                    assert mine[0] < its[0] + its[2]
                    assert mine[0] + mine[2] / 2 < its[0] + its[2] / 2


def test_two_processes_make_the_same_scene() -> None:
    code = (
        "import hashlib\n"
        "from ureca_lib.scenes import generate_scene\n"
        "for seed in (5, 1_000_007):\n"
        "    scene = generate_scene(seed)\n"
        "    parts = [scene.image.tobytes(), repr(scene.captions).encode()]\n"
        "    parts += [region.rle['counts'] for region in scene.regions]\n"
        "    print(hashlib.sha256(b'|'.join(parts)).hexdigest())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [digest(generate_scene(seed)) for seed in (5, 1_000_007)]


def test_seeds_differ_and_order_does_not_matter() -> None:
    forwards = [digest(generate_scene(seed)) for seed in (11, 12, 13)]
    backwards = [digest(generate_scene(seed)) for seed in (13, 12, 11)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == 3


def test_a_size_can_be_asked_for() -> None:
    scene = generate_scene(1, size=(720, 480))
    assert scene.image.shape == (480, 720, 3)
    with pytest.raises(ValueError, match="300 x 500"):
        generate_scene(1, size=(300, 500))


def test_more_than_a_scene_can_hold_is_an_error() -> None:
    with pytest.raises(ValueError, match="seed 0"):
        generate_scene(0, SceneSpecification(min_objects=60))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"canvases": ((300, 448),)}, "at least 448"),
        ({"canvases": ()}, "at least 448"),
        ({"regions": (30, 20)}, "30, 20"),
        ({"group_share": 1.5}, "group_share"),
        ({"smallest_region": 0}, "smallest_region"),
        ({"palette": ("red", "mauve")}, "mauve"),
        ({"patterns": ("striped",)}, "plain"),
        ({"test_seeds": (500, 600)}, "overlap"),
    ],
)
def test_a_bad_setting_is_named(change: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SceneSpecification(**change)


def test_splits_are_disjoint_and_bounded() -> None:
    seeds = [set(SPEC.seeds(split, 1000)) for split in ("train", "validation", "test")]
    assert len(set.union(*seeds)) == 3000
    assert list(SPEC.seeds("test", 2)) == [2_000_000, 2_000_001]
    with pytest.raises(ValueError, match="10000 seeds, not 10001"):
        SPEC.seeds("test", 10_001)
    with pytest.raises(ValueError, match="'dev'"):
        SPEC.seeds("dev")
