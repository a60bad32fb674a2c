"""The grouped step against samples run one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from ureca_lib.conversation import IGNORED, Conversation
from ureca_lib.train.grouped import GroupedBatch, grouped_forward, pad_rows, split_prompt

ANSWERS = ("a cat", "the left ear of the cat", "sky", "the nose", "a dog")
IMAGE_OF = (0, 0, 1, 1, 1)
TILES = (2, 3)  # of each image, its masks have as many


@pytest.fixture(scope="module")
def model():
    return tiny_model(mask_position="after_image")


def samples(model):
    """Ids and labels of each region, placeholders repeated."""
    tokenizer, config = tiny_tokenizer(), model.config
    rows = []
    for answer, image in zip(ANSWERS, IMAGE_OF, strict=True):
        repeats = {
            config.image_token_id: TILES[image] * config.image_seq_length,
            config.mask_token_id: TILES[image] * config.num_mask_tokens,
        }
        conversation = Conversation(tokenizer, "after_image")
        rows.append(conversation.tokenize(answer=answer, repeats=repeats))
    return rows


def values(model):
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(count, 3, 56, 56, generator=generator) for count in TILES]
    masks = [(torch.rand(TILES[i], 1, 56, 56, generator=generator) > 0.5).float() for i in IMAGE_OF]
    return images, masks


def grouped(model, image_of=IMAGE_OF):
    images, masks = values(model)
    heads, tails, labels = [None] * len(TILES), [], []
    for (ids, marks), image in zip(samples(model), IMAGE_OF, strict=True):
        heads[image], tail = split_prompt(ids, model.config.image_token_id)
        tails.append(tail)
        labels.append(marks[len(heads[image]) :])
    return GroupedBatch(
        image_ids=pad_rows(heads, 0, left=True),
        image_attention=pad_rows([[1] * len(head) for head in heads], 0, left=True),
        region_ids=pad_rows(tails, 0),
        region_attention=pad_rows([[1] * len(tail) for tail in tails], 0),
        labels=pad_rows(labels, IGNORED),
        image_of=torch.tensor(image_of),
        pixel_values=torch.cat(images),
        mask_values=torch.cat(masks),
    )


def one_by_one(model):
    """Summed loss and number of tokens of samples run apart, with their gradients."""
    images, masks = values(model)
    total, tokens, right = 0.0, 0, []
    for (ids, labels), image, mask in zip(samples(model), IMAGE_OF, masks, strict=True):
        output = model(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            pixel_values=images[image],
            mask_values=mask,
        )
        wanted = torch.tensor(labels[1:])
        where = wanted != IGNORED
        logits = output.logits[0, :-1][where]
        total = total + torch.nn.functional.cross_entropy(logits, wanted[where], reduction="sum")
        tokens += int(where.sum())
        right.append(bool((logits.argmax(-1) == wanted[where]).all()))
    return total / tokens, tokens, right


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_loss_and_gradients_are_those_of_samples_run_apart(model, implementation):
    model.set_attn_implementation(implementation)
    model.zero_grad()
    apart, tokens, right = one_by_one(model)
    apart.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    batch = grouped(model)
    together = grouped_forward(model, batch)
    together.loss.backward()
    assert batch.tokens == tokens
    torch.testing.assert_close(together.loss, apart, rtol=0, atol=4e-6)
    assert together.correct.tolist() == right
    for name, parameter in model.named_parameters():
        if name in expected:
            scale = expected[name].abs().max().clamp(min=1e-3)
            error = ((parameter.grad - expected[name]).abs().max() / scale).item()
            assert error < 2e-4, name


def test_images_with_as_many_regions_are_grouped_without_changing_the_loss(model):
    batch = grouped(model)
    even = replace(  # the last region left out: two regions of each image, in order
        batch,
        region_ids=batch.region_ids[:4],
        region_attention=batch.region_attention[:4],
        labels=batch.labels[:4],
        image_of=batch.image_of[:4],
        mask_values=batch.mask_values[: 2 * 2 + 2 * 3],
    )
    order = torch.tensor([2, 0, 1, 3])  # the same regions where images are not in order
    tiles = [even.mask_values[:2], even.mask_values[2:4], even.mask_values[4:7]]
    tiles.append(even.mask_values[7:])
    shuffled = replace(
        even,
        region_ids=even.region_ids[order],
        region_attention=even.region_attention[order],
        labels=even.labels[order],
        image_of=even.image_of[order],
        mask_values=torch.cat([tiles[i] for i in order]),
    )
    one, two = grouped_forward(model, even), grouped_forward(model, shuffled)
    torch.testing.assert_close(one.loss, two.loss, rtol=0, atol=1e-6)
    assert one.correct[order].tolist() == two.correct.tolist()


def test_accumulated_batches_add_up_to_the_whole(model):
    batch = grouped(model)
    parts = []
    for rows, masks in ((slice(0, 2), slice(0, 4)), (slice(2, 5), slice(4, 13))):
        part = replace(
            batch,
            region_ids=batch.region_ids[rows],
            region_attention=batch.region_attention[rows],
            labels=batch.labels[rows],
            image_of=batch.image_of[rows],
            mask_values=batch.mask_values[masks],
        )
        parts.append(grouped_forward(model, part, tokens=batch.tokens).loss)
    torch.testing.assert_close(sum(parts), grouped_forward(model, batch).loss, rtol=0, atol=4e-6)


def test_gaps_move_only_the_regions_that_have_them(model):
    batch = grouped(model)
    still = grouped_forward(model, replace(batch, gaps=torch.zeros(5, dtype=torch.long)))
    torch.testing.assert_close(still.loss, grouped_forward(model, batch).loss)
    moved = grouped_forward(model, replace(batch, gaps=torch.tensor([0, 0, 0, 0, 9])))
    assert (moved.loss - still.loss).abs() > 1e-5


def test_a_sample_without_an_image_is_refused():
    with pytest.raises(ValueError, match="no image placeholder"):
        split_prompt([1, 2, 3], image_token_id=7)
