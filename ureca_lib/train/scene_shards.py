"""Scenes as arrays, made once and read many times: what the tiny base learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco_mask
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from ureca_lib.configuration import MAX_TILES_TRAIN
from ureca_lib.scenes import Scene, SceneSpecification, generate_scene
from ureca_lib.scenes.lexicon import KINDS, SURFACES
from ureca_lib.tiling import best_grid, tile_image
from ureca_lib.train.boxes import box_question

SHARD = 250  # scenes a file: what a killed run loses at most, twice
PATCH = 14  # side of a vision patch in pixels
KINDS_A_PATCH = 3  # at most so many kinds of parts are told of a patch
NOTHING = 255
FIELDS = ("kinds", "whole", "surface", "whole_surface")  # of a patch


@dataclass(frozen=True)
class SceneArrays:
    """One scene as its shard holds it.

    Attributes:
        tiles: (T, S, S, 3) uint8.
        patches: (T, patches, 6) uint8: three kinds that are seen in the patch, the kind of the
            whole thing that fills most of it, that part's surface, that whole's surface;
            `NOTHING` where there is none.
        questions: with the region's box in text.
        captions: as many.
        kinds: kinds of the things in the scene that are no parts, in order.
        grid: (columns, rows) of tiles, the thumbnail not counted.
        parents: of each region the place of its parent among them, -1 where that is the image.
    """

    tiles: torch.Tensor
    patches: torch.Tensor
    questions: list[str]
    captions: list[str]
    kinds: list[str]
    grid: tuple[int, int]
    parents: list[int]


def make_shards(
    seeds: Sequence[int],
    folder: str | Path,
    tile_size: int = 112,
    max_tiles: int = MAX_TILES_TRAIN,
    jobs: int = 1,
) -> list[Path]:
    """Write scenes to safetensors files of `SHARD` scenes each, those that are not there yet.

    Args:
        seeds: of the scenes, in the order that they are wanted.
        folder: one a specification and tile size; named after them by the caller.
        tile_size, max_tiles: of the grid, S and T - 1.
        jobs: processes.

    Returns:
        The files in order.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [list(seeds[i : i + SHARD]) for i in range(0, len(seeds), SHARD)]
    files = [folder / f"{part[0]}_{part[-1]}.safetensors" for part in parts]
    todo = [(part, file) for part, file in zip(parts, files, strict=True) if not file.exists()]
    write = partial(_write_shard, tile_size=tile_size, max_tiles=max_tiles)
    with get_context("spawn").Pool(jobs) as pool:
        for _ in tqdm(pool.imap_unordered(write, todo), "shards", len(todo), disable=not todo):
            pass
    return files


def _write_shard(job: tuple[list[int], Path], tile_size: int, max_tiles: int) -> None:
    torch.set_num_threads(1)
    seeds, file = job
    arrays: dict[str, torch.Tensor] = {}
    texts: dict[str, str] = {}
    for i, seed in enumerate(seeds):
        scene = generate_scene(seed)
        tiles, patches = scene_arrays(scene, tile_size, max_tiles)
        arrays[f"{i}.tiles"], arrays[f"{i}.patches"] = tiles, patches
        captions = scene.captions
        texts[f"{i}.captions"] = "\n".join(captions[r.id] for r in scene.regions)
        texts[f"{i}.questions"] = "|".join(box_question(r) for r in scene.regions)
        columns, rows = best_grid(scene.width, scene.height, max_tiles, tile_size=tile_size)
        texts[f"{i}.grid"] = f"{columns} {rows}"
        texts[f"{i}.parents"] = " ".join(map(str, _parents(scene)))
        texts[f"{i}.kinds"] = " ".join(f.kind for f in scene.description.children(None))
    unfinished = file.with_suffix(".part")
    save_file(arrays, unfinished, metadata=texts | {"version": SceneSpecification().version})
    unfinished.replace(file)


def _parents(scene: Scene) -> list[int]:
    places = {region.id: place for place, region in enumerate(scene.regions)}
    parents = (scene.description[region.id].parent for region in scene.regions)
    return [-1 if parent is None else places[parent] for parent in parents]


def scene_arrays(
    scene: Scene, tile_size: int = 112, max_tiles: int = MAX_TILES_TRAIN
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tiles (T, S, S, 3) uint8 and what is seen in each of their patches (T, patches, 6) uint8."""
    tiles = tile_image(scene.image, max_tiles=max_tiles, tile_size=tile_size, thumbnail=True).to(
        torch.uint8
    )
    masks = coco_mask.decode([region.rle for region in scene.regions])
    shown = np.zeros(scene.image.shape[:2], np.uint8)
    for i in range(masks.shape[2]):  # parts come after their wholes
        shown[masks[:, :, i] > 0] = i + 1
    columns, rows = best_grid(scene.width, scene.height, max_tiles, tile_size=tile_size)
    grid = _nearest(shown, rows * tile_size, columns * tile_size)
    cut = grid.reshape(rows, tile_size, columns, tile_size).transpose(0, 2, 1, 3)
    ids = cut.reshape(-1, tile_size, tile_size)
    if len(ids) > 1:
        ids = np.concatenate([ids, _nearest(shown, tile_size, tile_size)[None]])
    return tiles, torch.from_numpy(_patch_labels(scene, ids))


def _nearest(ids: np.ndarray, height: int, width: int) -> np.ndarray:
    rows = (np.arange(height) * 2 + 1) * ids.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * ids.shape[1] // (2 * width)
    return ids[rows][:, columns]


def _patch_labels(scene: Scene, ids: np.ndarray) -> np.ndarray:
    """(T, S, S) numbers of the foremost regions -> (T, patches, 6)."""
    count = len(scene.regions) + 1
    table = np.full((count, 4), NOTHING, np.uint8)
    for i, region in enumerate(scene.regions):
        facts = scene.description[region.id]
        up = [facts.id, *scene.description.ancestors(region.id)]
        whole = scene.description.standing(region.id) or scene.description[up[-1]]
        table[i + 1] = (
            KINDS.index(facts.kind),
            KINDS.index(whole.kind),
            SURFACES.index(facts.surface) if facts.surface else NOTHING,
            SURFACES.index(whole.surface) if whole.surface else NOTHING,
        )
    tiles, side, _ = ids.shape
    n = side // PATCH
    cells = ids.reshape(tiles, n, PATCH, n, PATCH).transpose(0, 1, 3, 2, 4)
    cells = cells.reshape(tiles * n * n, PATCH * PATCH).astype(np.int64)
    flat = cells + np.arange(len(cells))[:, None] * count
    seen = np.bincount(flat.ravel(), minlength=len(cells) * count).reshape(-1, count)
    order = np.argsort(-seen, axis=1, kind="stable")[:, :KINDS_A_PATCH]
    there = np.take_along_axis(seen, order, 1) > 0
    kinds = np.where(there, table[order, 0], NOTHING)
    labels = np.concatenate([kinds, table[order[:, 0], 1:]], axis=1)
    return labels.astype(np.uint8).reshape(tiles, n * n, -1)


class SceneShards:
    """Scenes of shards by number: `len`, and `[i]` gives `SceneArrays`. Read when asked for."""

    def __init__(self, files: Sequence[Path]):
        self._open = [safe_open(file, "pt") for file in files]
        self._texts = [each.metadata() for each in self._open]
        self._where = [
            (shard, i)
            for shard, texts in enumerate(self._texts)
            for i in range(sum(key.endswith(".kinds") for key in texts))
        ]

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, number: int) -> SceneArrays:
        shard, i = self._where[number]
        file, texts = self._open[shard], self._texts[shard]
        return SceneArrays(
            file.get_tensor(f"{i}.tiles"),
            file.get_tensor(f"{i}.patches"),
            texts[f"{i}.questions"].split("|"),
            texts[f"{i}.captions"].split("\n"),
            texts[f"{i}.kinds"].split(" "),
            tuple(map(int, texts[f"{i}.grid"].split())),
            [int(place) for place in texts[f"{i}.parents"].split()],
        )
