"""Data of the tiny base: scenes as arrays, made once and read many times, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pycocotools import mask as coco_mask
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ureca_lib.boxes import BOX_MARKS, SCENE_QUESTION, box_question, told_box
from ureca_lib.configuration import MAX_TILES_TRAIN
from ureca_lib.conversation import IMAGE_CONTEXT, Conversation
from ureca_lib.journal import replacing
from ureca_lib.processor import IMAGENET_MEAN, IMAGENET_STD
from ureca_lib.scenes import Scene, generate_scene
from ureca_lib.scenes.lexicon import KINDS, SURFACES
from ureca_lib.tiling import best_grid, tile_image
from ureca_lib.train.grouped import Row, group_rows

TILE = 112  # side of a tile in pixels, as the tiny preset has it
PATCH = 14  # side of a vision patch in pixels
KINDS_PER_PATCH = 3  # at most so many kinds of parts are told of a patch
NOTHING = 255
NEARLY = 0.3  # share of the most overlap with a box from which a token counts as in it
MAX_GAP = 120  # free positions between image and region: 7 tiles of 16 mask tokens fit in
_NO_BOX = (0.0, 0.0, 0.0, 0.0)


class SceneArrays(NamedTuple):
    """One scene as its file holds it.

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

    tiles: np.ndarray
    patches: np.ndarray
    questions: Sequence[str]
    captions: Sequence[str]
    kinds: Sequence[str]
    grid: Sequence[int]
    parents: Sequence[int]


def make_scenes(seeds: Sequence[int], folder: str | Path, jobs: int = 1) -> list[Path]:
    """Write scenes to files, those that are not there yet.

    Args:
        seeds: of the scenes, in the order that they are wanted.
        folder: one a specification; named after it by the caller.
        jobs: processes.

    Returns:
        The files in order.
    """
    files = [Path(folder) / f"{seed}.npz" for seed in seeds]
    todo = [file for file in files if not file.exists()]
    with get_context("spawn").Pool(jobs) as pool:
        for _ in tqdm(pool.imap_unordered(_write_scene, todo, 16), "scenes", len(todo)):
            pass
    return files


def _write_scene(file: Path) -> None:
    torch.set_num_threads(1)
    with replacing(file, "wb") as unfinished:
        np.savez(unfinished, **scene_arrays(generate_scene(int(file.stem)))._asdict())


def read_scene(file: Path) -> SceneArrays:
    """A scene that `make_scenes` wrote."""
    with np.load(file) as arrays:
        tiles, patches, *others = (arrays[name] for name in SceneArrays._fields)
    return SceneArrays(tiles, patches, *(array.tolist() for array in others))


def scene_arrays(scene: Scene) -> SceneArrays:
    """Tiles and texts of a scene, and what is seen in each patch."""
    tiles = tile_image(scene.image, max_tiles=MAX_TILES_TRAIN, tile_size=TILE, thumbnail=True)
    columns, rows = best_grid(scene.width, scene.height, MAX_TILES_TRAIN, tile_size=TILE)
    masks = coco_mask.decode([region.rle for region in scene.regions])
    shown = np.zeros(scene.image.shape[:2], np.uint8)
    for i in range(masks.shape[2]):  # parts come after their wholes
        shown[masks[:, :, i] > 0] = i + 1
    grid = _nearest(shown, rows * TILE, columns * TILE)
    ids = grid.reshape(rows, TILE, columns, TILE).transpose(0, 2, 1, 3).reshape(-1, TILE, TILE)
    if len(ids) > 1:
        ids = np.concatenate([ids, _nearest(shown, TILE, TILE)[None]])
    places = {region.id: place for place, region in enumerate(scene.regions)} | {None: -1}
    captions, facts = scene.captions, scene.description
    return SceneArrays(
        tiles=tiles.to(torch.uint8).numpy(),
        patches=_patch_labels(scene, ids),
        questions=[box_question(region) for region in scene.regions],
        captions=[captions[region.id] for region in scene.regions],
        kinds=[each.kind for each in facts.children(None)],
        grid=(columns, rows),
        parents=[places[facts[region.id].parent] for region in scene.regions],
    )


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
    order = np.argsort(-seen, axis=1, kind="stable")[:, :KINDS_PER_PATCH]
    there = np.take_along_axis(seen, order, 1) > 0
    kinds = np.where(there, table[order, 0], NOTHING)
    labels = np.concatenate([kinds, table[order[:, 0], 1:]], axis=1)
    return labels.astype(np.uint8).reshape(tiles, n * n, -1)


class BaseBatch(NamedTuple):
    """A grouped batch and what the second losses need.

    Attributes:
        grouped: see `group_rows`; with `gaps` where they are drawn.
        pixel_values: (T, 3, S, S).
        patches: (T, patches, 6) uint8, labels of the tiles' patches.
        extents: (B, tokens, 4), see `token_extents`.
        boxes: (3, R, 4) in shares of the image, left, top, right, bottom: the region's own, its
            parent's, and that of the object it is part of; zeros where there is none.
        asking: (R, L) bool, positions after the box; none where there is none.
    """

    grouped: dict[str, torch.Tensor]
    pixel_values: torch.Tensor
    patches: torch.Tensor
    extents: torch.Tensor
    boxes: torch.Tensor
    asking: torch.Tensor


class BaseBatches:
    """Scenes into grouped batches.

    Args:
        tokenizer: see `scene_tokenizer`.
        tokens_per_tile: image tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens_per_tile: int):
        self.tokenizer, self.tokens_per_tile = tokenizer, tokens_per_tile
        self.conversation = Conversation(tokenizer, "after_image", with_mask=False)
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_CONTEXT)

    def batch(
        self,
        scenes: list[SceneArrays],
        regions: int | None = None,
        random: np.random.Generator | None = None,
    ) -> BaseBatch:
        """A batch of scenes with as many tiles each.

        Args:
            scenes: B of them.
            regions: so many of each scene, drawn by `random`, and the scene as a whole besides;
                by default all regions, and nothing else.
            random: where regions, and the gaps before them, are drawn from.
        """
        groups, boxes = [], []
        for scene in scenes:
            count = len(scene.captions)
            places: list[int | None] = list(range(count))
            if random is not None:
                drawn = random.permutation(count)[np.arange(regions) % count]
                places = [*drawn.tolist(), None]
            groups.append([self._row(scene, place) for place in places])
            boxes += [_boxes(scene, place) for place in places]
        grouped = group_rows(groups, self.image_token_id, self.tokenizer.pad_token_id)
        if random is not None:
            gaps = random.integers(0, MAX_GAP + 1, len(boxes))
            grouped["gaps"] = torch.from_numpy(gaps)
        side = round(self.tokens_per_tile**0.5)
        # from the mark that ends the box on
        ends = grouped["region_ids"] == self.tokenizer.convert_tokens_to_ids(BOX_MARKS[1])
        return BaseBatch(
            grouped,
            as_pixel_values(torch.from_numpy(np.concatenate([scene.tiles for scene in scenes]))),
            torch.from_numpy(np.concatenate([scene.patches for scene in scenes])),
            torch.stack([token_extents(scene.grid, side) for scene in scenes]),
            torch.tensor(boxes).transpose(0, 1),  # (R, 3, 4) -> (3, R, 4)
            (ends.cumsum(1) > 0) & (grouped["region_attention"] > 0),
        )

    def _row(self, scene: SceneArrays, place: int | None) -> Row:
        """Ids and labels of a region; None asks for the scene as a whole."""
        if place is None:
            question, answer = SCENE_QUESTION, " ".join(scene.kinds)
        else:
            question, answer = scene.questions[place], scene.captions[place]
        repeats = {self.image_token_id: len(scene.tiles) * self.tokens_per_tile}
        return self.conversation.tokenize(question, answer, repeats)


def _boxes(scene: SceneArrays, place: int | None) -> list[tuple[float, ...]]:
    """Boxes of a region, of its parent, and of the object at the top of it; zeros for none."""
    if place is None:
        return [_NO_BOX] * 3
    parent = whole = scene.parents[place]
    while whole >= 0 and scene.parents[whole] >= 0:
        whole = scene.parents[whole]
    places = (place, parent, whole)
    return [told_box(scene.questions[p]) or _NO_BOX if p >= 0 else _NO_BOX for p in places]


def as_pixel_values(tiles: torch.Tensor) -> torch.Tensor:
    """(T, S, S, 3) uint8 -> (T, 3, S, S) float32 with ImageNet's mean and deviation taken off."""
    mean = torch.tensor(IMAGENET_MEAN) * 255
    std = torch.tensor(IMAGENET_STD) * 255
    return ((tiles - mean) / std).permute(0, 3, 1, 2).contiguous()


def token_extents(grid: Sequence[int], side: int) -> torch.Tensor:
    """(tokens, 4): left, top, right, bottom of each image token, in shares of the image.

    Args:
        grid: (columns, rows) of tiles; where there is more than one, a thumbnail follows them.
        side: tokens along a tile.
    """
    columns, rows = grid
    tiles = [
        (c / columns, r / rows, 1 / columns, 1 / rows) for r in range(rows) for c in range(columns)
    ]
    if len(tiles) > 1:
        tiles.append((0.0, 0.0, 1.0, 1.0))
    x, y, w, h = torch.tensor(tiles, dtype=torch.float64).T[..., None, None]  # (T, 1, 1) each
    i, j = torch.arange(side), torch.arange(side)[:, None]
    edges = (x + w * i / side, y + h * j / side, x + w * (i + 1) / side, y + h * (j + 1) / side)
    return torch.stack(torch.broadcast_tensors(*edges), -1).flatten(0, 2).float()


def inside(extents: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(R, tokens) bool: the tokens that a box lies on, of those it lies on most.

    Args:
        extents: (R, tokens, 4) of the region's image.
        boxes: (R, 4), left, top, right, bottom in shares of the image; one without an area lies
            on none.
    """
    low = torch.maximum(extents[..., :2], boxes[:, None, :2])
    high = torch.minimum(extents[..., 2:], boxes[:, None, 2:])
    overlap = (high - low).clamp(min=0).prod(-1)  # (R, tokens, 2) -> (R, tokens)
    return overlap > NEARLY * overlap.amax(1, keepdim=True)  # of no area: 0 > 0
