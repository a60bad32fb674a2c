"""Data of the tiny base: scenes as arrays, made once and read many times, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco_mask
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from ureca_lib.boxes import BOX_MARKS, SCENE_QUESTION, box_question, told_box
from ureca_lib.configuration import MAX_TILES_TRAIN
from ureca_lib.conversation import Conversation
from ureca_lib.processor import IMAGENET_MEAN, IMAGENET_STD
from ureca_lib.scenes import Scene, SceneSpecification, generate_scene
from ureca_lib.scenes.lexicon import KINDS, SURFACES
from ureca_lib.tiling import best_grid, tile_image
from ureca_lib.train.grouped import GroupedBatch, pad_rows, split_prompt

SHARD = 250  # scenes a file: what a killed run loses at most, twice
PATCH = 14  # side of a vision patch in pixels
KINDS_PER_PATCH = 3  # at most so many kinds of parts are told of a patch
NOTHING = 255
NEARLY = 0.3  # share of the most overlap with a box from which a token counts as in it
MAX_GAP = 120  # free positions between image and region: 7 tiles of 16 mask tokens fit in
_NO_BOX = (0.0, 0.0, 0.0, 0.0)


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
    order = np.argsort(-seen, axis=1, kind="stable")[:, :KINDS_PER_PATCH]
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


@dataclass(frozen=True)
class BaseBatch:
    """A grouped batch and what the second losses need.

    Attributes:
        grouped: see `GroupedBatch`.
        patches: (T, patches, 6) uint8, labels of the tiles' patches.
        extents: (B, tokens, 4), see `token_extents`.
        boxes: (3, R, 4) in shares of the image, left, top, right, bottom: the region's own, its
            parent's, and that of the object it is part of; zeros where there is none.
        asking: (R, L) bool, positions after the box; none where there is none.
    """

    grouped: GroupedBatch
    patches: torch.Tensor
    extents: torch.Tensor
    boxes: torch.Tensor
    asking: torch.Tensor

    def to(self, device: str | torch.device) -> BaseBatch:
        """The same on another device."""
        moved = {each.name: getattr(self, each.name).to(device) for each in fields(self)}
        return BaseBatch(**moved)


class BaseBatches:
    """Scenes into grouped batches.

    Args:
        tokenizer: see `scene_tokenizer`.
        tokens_per_tile: image tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens_per_tile: int):
        self.tokenizer = tokenizer
        self.conversation = Conversation(tokenizer, "after_image", with_mask=False)
        self.image_token_id = self.conversation.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        self.tokens_per_tile = tokens_per_tile

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
        heads, rows, image_of, boxes = [], [], [], []
        for i, scene in enumerate(scenes):
            places = self._places(scene, regions, random)
            parts = [self._split(*_turn(scene, place), len(scene.tiles)) for place in places]
            heads.append(parts[0][0])
            rows += [part[1:] for part in parts]
            image_of += [i] * len(parts)
            boxes += [_boxes(scene, place) for place in places]
        filler = self.tokenizer.pad_token_id
        gaps = None
        if random is not None:
            gaps = torch.from_numpy(random.integers(0, MAX_GAP + 1, len(rows)))
        region_ids = [ids for ids, _ in rows]
        grouped = GroupedBatch(
            image_ids=pad_rows(heads, filler, left=True),
            image_attention=pad_rows([[1] * len(head) for head in heads], 0, left=True),
            region_ids=pad_rows(region_ids, filler),
            region_attention=pad_rows([[1] * len(ids) for ids in region_ids], 0),
            labels=pad_rows([labels for _, labels in rows], -100),
            image_of=torch.tensor(image_of),
            pixel_values=as_pixel_values(torch.cat([scene.tiles for scene in scenes])),
            gaps=gaps,
        )
        patches = torch.cat([scene.patches for scene in scenes])
        side = round(self.tokens_per_tile**0.5)
        extents = torch.stack([token_extents(scene.grid, side) for scene in scenes])
        boxes = torch.tensor(boxes).transpose(0, 1)  # (R, 3, 4) -> (3, R, 4)
        return BaseBatch(grouped, patches, extents, boxes, self._asking(grouped))

    def _asking(self, grouped: GroupedBatch) -> torch.Tensor:
        """(R, L) bool: from the mark that ends the box on."""
        ends = grouped.region_ids == self.tokenizer.convert_tokens_to_ids(BOX_MARKS[1])
        return (ends.cumsum(1) > 0) & (grouped.region_attention > 0)

    def _places(
        self, scene: SceneArrays, regions: int | None, random: np.random.Generator | None
    ) -> list[int | None]:
        """Which regions are asked for; None is the scene as a whole."""
        count = len(scene.captions)
        if regions is None or random is None:
            return list(range(count))
        return [*random.permutation(count)[np.arange(regions) % count].tolist(), None]

    def _split(
        self, question: str, answer: str, tiles: int
    ) -> tuple[list[int], list[int], list[int]]:
        repeats = {self.image_token_id: tiles * self.tokens_per_tile}
        ids, labels = self.conversation.tokenize(question, answer, repeats)
        image, region = split_prompt(ids, self.image_token_id)
        return image, region, labels[len(image) :]


def _turn(scene: SceneArrays, place: int | None) -> tuple[str, str]:
    """Question and answer."""
    if place is None:
        return SCENE_QUESTION, " ".join(scene.kinds)
    return scene.questions[place], scene.captions[place]


def _boxes(scene: SceneArrays, place: int | None) -> list[tuple[float, ...]]:
    """Boxes of a region, of its parent, and of the object at the top of it; zeros for none."""
    if place is None:
        return [_NO_BOX] * 3
    parent = whole = scene.parents[place]
    while whole >= 0 and scene.parents[whole] >= 0:
        whole = scene.parents[whole]
    return [told_box(scene.questions[p]) or _NO_BOX if p >= 0 else _NO_BOX
            for p in (place, parent, whole)]  # fmt: skip


def as_pixel_values(tiles: torch.Tensor) -> torch.Tensor:
    """(T, S, S, 3) uint8 -> (T, 3, S, S) float32 with ImageNet's mean and deviation taken off."""
    mean = torch.tensor(IMAGENET_MEAN) * 255
    std = torch.tensor(IMAGENET_STD) * 255
    return ((tiles - mean) / std).permute(0, 3, 1, 2).contiguous()


def token_extents(grid: tuple[int, int], side: int) -> torch.Tensor:
    """(tokens, 4): left, top, right, bottom of each image token, in shares of the image.

    Args:
        grid: (columns, rows) of tiles; where there is more than one, a thumbnail follows them.
        side: tokens along a tile.
    """
    columns, rows = grid
    tiles = [(c / columns, r / rows, 1 / columns, 1 / rows) for r in range(rows)
             for c in range(columns)]  # fmt: skip
    if len(tiles) > 1:
        tiles.append((0.0, 0.0, 1.0, 1.0))
    return torch.tensor(
        [
            (x + w * i / side, y + h * j / side, x + w * (i + 1) / side, y + h * (j + 1) / side)
            for x, y, w, h in tiles
            for j in range(side)
            for i in range(side)
        ]
    )


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
