"""The grouped step against samples run one by one."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from ureca_lib.conversation import IGNORED, Conversation
from ureca_lib.train.grouped import group_rows, grouped_forward

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
        conversation = Conversation(tokenizer, "after_image")
        repeats = {
            config.image_token_id: TILES[image] * config.image_seq_length,
            config.mask_token_id: TILES[image] * config.num_mask_tokens,
        }
        rows.append(conversation.tokenize(answer=answer, repeats=repeats))
    return rows


def values(model):
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(count, 3, 56, 56, generator=generator) for count in TILES]
    masks = [(torch.rand(TILES[i], 1, 56, 56, generator=generator) > 0.5).float() for i in IMAGE_OF]
    return images, masks


def grouped(model):
    images, masks = values(model)
    groups = [[], []]
    for row, image in zip(samples(model), IMAGE_OF, strict=True):
        groups[image].append(row)
    features = model.get_image_features(torch.cat(images), return_dict=True).pooler_output
    batch = group_rows(groups, model.config.image_token_id, 0)
    assert batch["image_of"].tolist() == list(IMAGE_OF)
    return batch | {"image_features": features, "mask_values": torch.cat(masks)}


def tokens_of(batch):
    return int((batch["labels"] != IGNORED).sum())


def part_of(batch, rows, masks):
    """Some regions of a batch."""
    names = ("region_ids", "region_attention", "labels", "image_of")
    return batch | {name: batch[name][rows] for name in names} | {"mask_values": masks}


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
    loss, correct = grouped_forward(model, **batch)
    loss.backward()
    assert tokens_of(batch) == tokens
    torch.testing.assert_close(loss, apart, rtol=0, atol=4e-6)
    assert correct.tolist() == right
    for name, parameter in model.named_parameters():
        if name in expected:
            scale = expected[name].abs().max().clamp(min=1e-3)
            error = ((parameter.grad - expected[name]).abs().max() / scale).item()
            assert error < 2e-4, name


def test_images_with_as_many_regions_are_grouped_without_changing_the_loss(model):
    batch = grouped(model)
    masks = batch["mask_values"]
    # the last region left out: two regions of each image, in order
    tiles = [masks[:2], masks[2:4], masks[4:7], masks[7:10]]
    even = part_of(batch, slice(4), torch.cat(tiles))
    order = torch.tensor([2, 0, 1, 3])  # the same regions where images are not in order
    shuffled = part_of(batch, order, torch.cat([tiles[i] for i in order]))
    one, two = grouped_forward(model, **even), grouped_forward(model, **shuffled)
    torch.testing.assert_close(one[0], two[0], rtol=0, atol=1e-6)
    assert one[1][order].tolist() == two[1].tolist()


def test_accumulated_batches_add_up_to_the_whole(model):
    batch = grouped(model)
    parts = []
    for rows, masks in ((slice(0, 2), slice(0, 4)), (slice(2, 5), slice(4, 13))):
        part = part_of(batch, rows, batch["mask_values"][masks])
        parts.append(grouped_forward(model, **part, tokens=tokens_of(batch))[0])
    whole, _ = grouped_forward(model, **batch)
    torch.testing.assert_close(sum(parts), whole, rtol=0, atol=4e-6)


def test_gaps_move_only_the_regions_that_have_them(model):
    batch = grouped(model)
    still, _ = grouped_forward(model, **batch, gaps=torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(still, grouped_forward(model, **batch)[0])
    moved, _ = grouped_forward(model, **batch, gaps=torch.tensor([0, 0, 0, 0, 9]))
    assert (moved - still).abs() > 1e-5


def test_outputs_on_images_and_on_regions_are_given_to_who_asks(model):
    model.set_attn_implementation("eager")
    batch, hidden, outputs = grouped(model), [], []
    layer = model.model.language_model.layers[0]
    hook = layer.register_forward_hook(lambda _module, _inputs, output: hidden.append(output))
    loss, _ = grouped_forward(model, **batch, seen=outputs)
    hook.remove()
    for output, expected in zip(outputs, hidden, strict=True):
        assert torch.equal(output.hidden_states[1], expected)
    (images, length), (regions, new) = batch["image_ids"].shape, batch["region_ids"].shape
    assert outputs[0].hidden_states[1].shape[:2] == (images, length)
    for weights in outputs[1].attentions:  # regions look back at their image
        assert weights.shape[0] == regions and weights.shape[2:] == (new, length + new)
    assert torch.equal(loss, grouped_forward(model, **batch)[0])


def test_a_sample_without_an_image_is_refused():
    with pytest.raises(ValueError):
        group_rows([[([1, 2, 3], [1, 2, 3])]], image_token_id=7, filler=0)
