"""Scenes on disk: SA-1B JSON that also holds the description, and the picture beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from tqdm.auto import tqdm

from ureca_lib.journal import replacing, write_json, write_text
from ureca_lib.regions import AnnotationFormatError, RegionError, load_sa1b
from ureca_lib.regions.sa1b import get, read_json
from ureca_lib.scenes.description import Description
from ureca_lib.scenes.generate import generate_scene
from ureca_lib.scenes.scene import Scene
from ureca_lib.scenes.specification import SceneSpecification

ImageFormat = Literal["png", "jpg"]
_Chunk = tuple[list[int], str, SceneSpecification, ImageFormat]
SETTINGS_FILE = ".specification.json"
JPEG_QUALITY = 92
_CHUNK = 32  # scenes handed to a process at once


def scene_name(seed: int) -> str:
    """The stem of a scene's files."""
    return f"scene_{seed:07d}"


def save_scene(scene: Scene, folder: str | Path, image_format: ImageFormat = "png") -> Path:
    """Write a scene as a picture and SA-1B JSON, each file atomically, the JSON last.

    Args:
        scene: the scene to write.
        folder: the target folder; created if missing.
        image_format: "png" keeps every pixel, "jpg" is smaller and faster, and not exact.

    Returns:
        The JSON's path.

    Raises:
        ValueError: no such format.
    """
    if image_format not in ("png", "jpg"):
        raise ValueError(f"image_format must be 'png' or 'jpg', not {image_format!r}")
    path = Path(folder) / f"{scene_name(scene.seed)}.json"
    picture = path.with_suffix(f".{image_format}")
    kind, options = ("PNG", {}) if image_format == "png" else ("JPEG", {"quality": JPEG_QUALITY})
    with replacing(picture, "wb") as file:
        Image.fromarray(scene.image).save(file, kind, **options)
    return write_text(path, _to_json(scene, picture.name))


def load_scene(json_path: str | Path) -> Scene:
    """Read a scene back: regions, description, and so tree, captions and `resolve`.

    Args:
        json_path: written by `save_scene` or `write_scenes`; the picture is loaded when needed.

    Raises:
        RegionError: the file is missing or at fault; names it.
    """
    path = Path(json_path)
    regions = load_sa1b(path)
    try:
        told = get(read_json(path), "scene", dict)
        seed, version = get(told, "seed", int), get(told, "version", str)
        rows = get(told, "description", list)
    except RegionError as error:
        raise error.located(path) from None
    try:
        return Scene(regions, Description.from_list(rows), seed, version)
    except ValueError as error:
        raise AnnotationFormatError(str(error), path) from None


def write_scenes(
    seeds: Iterable[int],
    folder: str | Path,
    spec: SceneSpecification | None = None,
    jobs: int = 1,
    image_format: ImageFormat = "jpg",
    progress: bool = True,
) -> list[Path]:
    """Write the scenes of seeds; existing ones are skipped.

    Each process generates and writes its own scenes, so that none is sent between processes. With
    more than one, a script must guard its entry point with `if __name__ == "__main__"`.

    Args:
        seeds: one scene per seed.
        folder: the target. It holds scenes of one specification, which is written beside them.
        spec: settings of the generator; None is the frozen specification.
        jobs: processes. image_format: see `save_scene`. progress: show a bar.

    Returns:
        The JSON paths, in the order of the seeds, each seed once.

    Raises:
        ValueError: the folder holds scenes of another specification, or jobs below 1.
    """
    spec = SceneSpecification() if spec is None else spec
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    _agree(target, spec)
    paths = {seed: target / f"{scene_name(seed)}.json" for seed in seeds}
    missing = [seed for seed, path in paths.items() if not _is_complete(path, image_format)]
    chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
    work = [(chunk, str(target), spec, image_format) for chunk in chunks]
    with tqdm(total=len(paths), initial=len(paths) - len(missing), disable=not progress) as bar:
        for count in _write(work, jobs):
            bar.update(count)
    return list(paths.values())


def _is_complete(path: Path, image_format: ImageFormat) -> bool:
    return path.is_file() and path.with_suffix(f".{image_format}").is_file()


def _write(work: list[_Chunk], jobs: int) -> Iterator[int]:
    if jobs == 1 or len(work) < 2:
        yield from map(_write_chunk, work)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_write_chunk, work)


def _write_chunk(work: _Chunk) -> int:
    seeds, folder, spec, image_format = work
    for seed in seeds:
        save_scene(generate_scene(seed, spec), folder, image_format)
    return len(seeds)


def _agree(folder: Path, spec: SceneSpecification) -> None:
    """Write the specification into a folder, or check that the folder has the same one."""
    path, told = folder / SETTINGS_FILE, json.loads(json.dumps(spec.to_dict()))
    if path.is_file():
        there = read_json(path)
        differing = sorted(key for key in {*there, *told} if there.get(key) != told.get(key))
        if differing:
            names = ", ".join(differing)
            raise ValueError(f"{folder} holds scenes of another specification: {names} differ")
        return
    write_json(path, told)


def _to_json(scene: Scene, file_name: str) -> str:
    image = {"image_id": scene.seed, "width": scene.width, "height": scene.height}
    captions = scene.captions
    annotations = []
    for region in scene.regions:
        size, counts = list(region.size), region.rle["counts"].decode("ascii")
        row: dict[str, Any] = {"id": region.id, "name": region.name, "area": region.area}
        row |= {"bbox": list(region.bbox), "caption": captions[region.id]}
        annotations.append(row | {"segmentation": {"size": size, "counts": counts}})
    lines = ",\n".join(json.dumps(row) for row in annotations)
    told = {"seed": scene.seed, "version": scene.version}
    told["description"] = scene.description.to_list()
    head = json.dumps(image | {"file_name": file_name})
    return f'{{"image": {head},\n"annotations": [\n{lines}\n],\n"scene": {json.dumps(told)}}}\n'
