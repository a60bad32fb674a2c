"""Scenes written to disk and read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ureca_lib.mask_tree import build_mask_tree
from ureca_lib.regions import AnnotationFormatError, load_sa1b
from ureca_lib.scenes import (
    STYLES,
    Scene,
    SceneSpecification,
    generate_scene,
    load_scene,
    resolve,
    save_scene,
    storage,
    write_scenes,
)


def test_a_stored_scene_is_the_scene(scenes: list[Scene], tmp_path: Path) -> None:
    scene = scenes[0]
    again = load_scene(save_scene(scene, tmp_path))
    assert again.regions.regions == scene.regions.regions
    assert again.tree == scene.tree
    assert again.description == scene.description
    assert (again.seed, again.version) == (scene.seed, scene.version)
    assert (again.image == scene.image).all()
    for style in STYLES:
        assert again.captions_in(style) == scene.captions_in(style)
    for region_id, caption in scene.captions.items():
        assert resolve(caption, again) == {region_id}


def test_a_stored_scene_is_sa1b_with_captions(scenes: list[Scene], tmp_path: Path) -> None:
    path = save_scene(scenes[1], tmp_path, "jpg")
    regions = load_sa1b(path)
    assert [region.area for region in regions] == [region.area for region in scenes[1].regions]
    told = {row["id"]: row["caption"] for row in json.loads(path.read_text())["annotations"]}
    assert told == scenes[1].captions
    difference = np.abs(regions.pixels.astype(int) - scenes[1].image).mean()
    assert difference < 4
    assert {each.suffix for each in tmp_path.iterdir()} == {".json", ".jpg"}


def test_scenes_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    first = write_scenes([3, 4], tmp_path, progress=False)
    before = {path: path.stat().st_mtime_ns for path in first}
    first[1].with_suffix(".jpg").unlink()
    paths = write_scenes([4, 3, 5, 3], tmp_path, progress=False)
    assert [path.name for path in paths] == [f"scene_000000{seed}.json" for seed in (4, 3, 5)]
    assert first[0].stat().st_mtime_ns == before[first[0]]
    assert first[1].stat().st_mtime_ns > before[first[1]]
    assert load_scene(paths[2]).captions == generate_scene(5).captions


def test_a_picture_without_json_counts_as_missing(tmp_path: Path) -> None:
    (path,) = write_scenes([3], tmp_path, progress=False)
    whole = path.read_text()
    path.unlink()
    write_scenes([3], tmp_path, progress=False)
    assert path.read_text() == whole


def test_processes_write_what_one_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_CHUNK", 2)
    seeds = range(6)
    alone = write_scenes(seeds, tmp_path / "alone", progress=False)
    shared = write_scenes(seeds, tmp_path / "shared", jobs=2, progress=False)
    for one, other in zip(alone, shared, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert one.with_suffix(".jpg").read_bytes() == other.with_suffix(".jpg").read_bytes()
    assert not [path for path in (tmp_path / "shared").glob(".*") if "scene" in path.name]


def test_a_folder_holds_scenes_of_one_specification(tmp_path: Path) -> None:
    write_scenes([1], tmp_path, progress=False)
    with pytest.raises(ValueError, match="another specification: noise differ"):
        write_scenes([2], tmp_path, SceneSpecification(noise=0), progress=False)
    with pytest.raises(ValueError, match="jobs"):
        write_scenes([2], tmp_path, jobs=0)
    with pytest.raises(ValueError, match="'bmp'"):
        save_scene(generate_scene(1), tmp_path, "bmp")


def test_damaged_files_are_named(scenes: list[Scene], tmp_path: Path) -> None:
    path = save_scene(scenes[0], tmp_path)
    good = json.loads(path.read_text())
    for change, error, reason in (
        (lambda d: d.pop("scene"), AnnotationFormatError, "'scene'"),
        (lambda d: d["scene"].pop("description"), AnnotationFormatError, "'description'"),
        (lambda d: d["scene"]["description"].pop(), AnnotationFormatError, "differ in the ids"),
        (lambda d: d["scene"]["description"][0].pop("kind"), AnnotationFormatError, "row 0"),
        (
            lambda d: d["scene"]["description"][0].update(smell="sweet"),
            AnnotationFormatError,
            "row",
        ),
        (lambda d: d["scene"]["description"].insert(0, 5), AnnotationFormatError, "row 0"),
    ):
        document = json.loads(json.dumps(good))
        change(document)
        path.write_text(json.dumps(document))
        with pytest.raises(error, match=reason) as caught:
            load_scene(path)
        assert str(path) in str(caught.value)


def test_committed_scenes(samples: Path) -> None:
    paths = sorted((samples / "scenes").glob("scene_*.json"))
    assert len(paths) == 12
    # an index that training makes beside its data is hidden, and not committed
    files = [path for path in (samples / "scenes").iterdir() if path.suffix in (".json", ".png")]
    assert sum(path.stat().st_size for path in files) <= 2 * 2**20
    spec = SceneSpecification()
    there = json.loads((samples / "scenes" / ".specification.json").read_text())
    assert there == json.loads(json.dumps(spec.to_dict()))
    for path in paths:
        scene = load_scene(path)
        assert scene.seed in spec.seeds("validation")
        assert scene.tree == build_mask_tree(scene.regions)
        assert {i for text in scene.captions.values() for i in resolve(text, scene)} == set(
            scene.captions
        )
        with Image.open(path.with_suffix(".png")) as photo:
            assert photo.size == (scene.width, scene.height)
        assert generate_scene(scene.seed).captions == scene.captions
