"""The second losses of the tiny base, against brute force."""

from __future__ import annotations

import pytest
import torch

from ureca_lib.scenes import generate_scene
from ureca_lib.scenes.lexicon import KINDS
from ureca_lib.tiling import tile_masks
from ureca_lib.train.tiny_base.data import (
    KINDS_PER_PATCH,
    NEARLY,
    NOTHING,
    BaseBatches,
    SceneArrays,
    inside,
    scene_arrays,
    token_extents,
)
from ureca_lib.train.tiny_base.losses import (
    LOOKING,
    OWN,
    PARENT,
    WHOLE,
    attention_loss,
    seen_loss,
)
from ureca_lib.train.tiny_base.model import scene_tokenizer


@pytest.mark.parametrize(("grid", "side"), [((3, 2), 4), ((2, 3), 2), ((1, 1), 4)])
def test_tokens_cover_the_image_once_by_tiles_and_once_by_the_thumbnail(grid, side):
    extents = token_extents(grid, side)
    tiles = grid[0] * grid[1]
    assert len(extents) == (tiles + (tiles > 1)) * side**2
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0))
    hit = ((extents[:, None, :2] <= points) & (points < extents[:, None, 2:])).all(-1)
    of_tiles, of_thumbnail = hit[: tiles * side**2], hit[tiles * side**2 :]
    assert (of_tiles.sum(0) == 1).all()
    assert tiles == 1 or (of_thumbnail.sum(0) == 1).all()


def test_tokens_inside_a_box_are_those_whose_tiles_show_the_region():
    """The extents stand for what the tiling really puts into each token."""
    scene = generate_scene(6)
    region = max((r for r in scene.regions if scene.description[r.id].place), key=lambda r: r.area)
    height, width = region.size
    masks = tile_masks([region], max_tiles=6, tile_size=112, thumbnail=True)[0]
    cells = masks.reshape(-1, 4, 28, 4, 28).mean(dim=(2, 4)).flatten()  # (T * 16,)
    grid = (3, 2) if width >= height else (2, 3)
    x, y, w, h = region.pixel_box
    box = torch.tensor([[x / width, y / height, (x + w) / width, (y + h) / height]])
    found = inside(token_extents(grid, 4)[None], box)[0]
    assert found[cells.argmax()]
    assert not cells[~found & (cells < 0.2)].gt(0.2).any()
    full = cells > 0.9
    assert found[full].all()


def test_a_box_within_one_token_is_in_that_token_of_tiles_and_thumbnail():
    extents = token_extents((3, 2), 4)[None]
    box = torch.tensor([[0.01, 0.01, 0.02, 0.02]])
    assert inside(extents, box)[0].nonzero().flatten().tolist() == [0, 6 * 16]
    assert 0 < NEARLY < 1


def test_no_token_is_in_a_box_that_is_not_there():
    assert not inside(token_extents((3, 2), 4)[None], torch.zeros(1, 4)).any()


def test_looking_at_the_box_costs_nothing_and_looking_away_costs():
    wanted = torch.zeros(3, 2, 8, dtype=torch.bool)
    wanted[:, :, 3:5] = True
    asking = torch.zeros(2, 5, dtype=torch.bool)
    asking[:, 2:] = True
    right, wrong = torch.zeros(2, 4, 5, 12), torch.zeros(2, 4, 5, 12)
    right[..., 1 + 3 : 1 + 5] = 0.5
    wrong[..., 0] = 1.0
    layers = 1 + max(layer for layer, *_ in LOOKING)
    assert attention_loss([right] * layers, 1, wanted, asking) < 1e-4
    assert attention_loss([wrong] * layers, 1, wanted, asking) > 10
    assert attention_loss([wrong], 1, wanted, asking) == 0  # too shallow for a head that is taught
    idle = right.clone()
    idle[:, :, :2] = wrong[:, :, :2]  # positions that do not look are not judged
    assert attention_loss([idle] * layers, 1, wanted, asking) < 1e-4


@pytest.mark.parametrize("kind", [OWN, PARENT, WHOLE])
def test_each_head_is_judged_by_its_own_box_and_only_where_there_is_one(kind):
    wanted = torch.zeros(3, 2, 8, dtype=torch.bool)
    wanted[OWN, :, 1] = wanted[PARENT, 0, 2] = wanted[WHOLE, 0, 3] = True  # region 1 is no part
    asking = torch.ones(2, 5, dtype=torch.bool)
    given = torch.zeros(1 + max(layer for layer, *_ in LOOKING), 2, 4, 5, 12)
    for layer, head, box in LOOKING:
        given[layer][:, head, :, 1 + box] = 1.0
    assert attention_loss(given, 0, wanted, asking) < 1e-4
    for layer, head, box in LOOKING:
        if box == kind:
            given[layer][1, head] = 0.0  # the region without a parent looks elsewhere
    assert (attention_loss(given, 0, wanted, asking) < 1e-4) == (kind != OWN)
    for layer, head, box in LOOKING:
        if box == kind:
            given[layer][0, head] = 0.0
    assert attention_loss(given, 0, wanted, asking) > 1


def test_things_weigh_more_than_backgrounds():
    generator = torch.Generator().manual_seed(0)
    sky, cat = KINDS.index("sky"), KINDS.index("cat")
    rows = [[sky, NOTHING, NOTHING, sky, 5, 5], [cat, NOTHING, NOTHING, cat, 1, 1]]
    labels = torch.tensor(rows, dtype=torch.uint8)
    size = seen_loss.__globals__["_SIZES"]
    logits = torch.randn(2, sum(size), generator=generator, requires_grad=True)
    seen_loss(logits, labels).backward()
    of_sky, of_cat = logits.grad.norm(dim=1)
    assert of_cat > 10 * of_sky > 0


def test_a_patch_is_told_right_when_all_its_labels_are():
    label = torch.tensor([[3, 40, NOTHING, 3, 2, NOTHING]], dtype=torch.uint8)
    sizes = seen_loss.__globals__["_SIZES"]
    starts = [0, *torch.tensor(sizes).cumsum(0)[:-1].tolist()]
    logits = torch.full((1, sum(sizes)), -20.0)
    logits[0, [3, 40, starts[1] + 3, starts[2] + 2]] = 20.0
    assert seen_loss(logits, label) < 1e-3
    logits[0, 40] = -20.0
    assert seen_loss(logits, label) > 10


def test_boxes_come_from_the_questions_and_who_looks_from_the_ids():
    scene = generate_scene(2)
    tiles, patches, *_ = scene_arrays(scene)
    question = "<image>\n<box> 0 32 63 127 </box>\nDescribe this region in the image."
    ear = "<image>\n<box> 0 32 31 63 </box>\nDescribe this region in the image."
    told = [question, ear, ear], ["the cat", "the ear of the cat", "the tip of the ear of the cat"]
    arrays = SceneArrays(tiles, patches, *told, ["cat"], (3, 2), [-1, 0, 1])
    batches = BaseBatches(scene_tokenizer(), 16)
    import numpy as np

    own, parent, whole = batches.batch([arrays]).boxes.tolist()
    cat, ear, none = [0.0, 0.25, 0.5, 1.0], [0.0, 0.25, 0.25, 0.5], [0.0, 0.0, 0.0, 0.0]
    assert (own, parent, whole) == ([cat, ear, ear], [none, cat, ear], [none, cat, cat])
    batch = batches.batch([arrays], 3, np.random.default_rng(0))
    assert not batch.boxes[:, 3].any() and not batch.asking[3].any()  # the scene as a whole
    ids = batch.grouped["region_ids"][0]
    words = batches.tokenizer.convert_ids_to_tokens(ids)
    assert batch.asking[0].nonzero()[0].item() == words.index("</box>")
    assert batch.asking[0].sum() == batch.grouped["region_attention"][0].sum() - words.index(
        "</box>"
    )
    assert (batch.patches[..., KINDS_PER_PATCH] != NOTHING).all()
