"""The tiny base: its tokenizer, its first weights, and the InternVL that it is stored as."""

from __future__ import annotations

import math

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import nn
from transformers import InternVLConfig, InternVLForConditionalGeneration, PreTrainedTokenizerFast

from ureca_lib.boxes import BOX_MARKS, NUMBERS
from ureca_lib.conversation import TURN_END, TURN_START, VISUAL_TOKENS
from ureca_lib.model import UrecaForConditionalGeneration
from ureca_lib.presets import preset_config
from ureca_lib.scenes import vocabulary

EMBEDDING_STD = 0.05
TEXT_END, UNKNOWN = "<|endoftext|>", "<unk>"
CHAT_WORDS = ("user", "assistant", "system", "describe", "this", "region", "image", "a", "the", "?")
_SHARED = ("vision_config", "text_config", "image_token_id", "tie_word_embeddings")


def scene_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of all scene captions, coordinates and the chat format.

    Words are split at spaces, full stops and commas, and lower-cased; a word that no scene caption
    has becomes `<unk>`. The placeholder tokens are the last, in the order of `VISUAL_TOKENS`, as
    `preset_config` expects. The same on every call: it is the vocabulary of the committed weights.
    """
    words = sorted({*vocabulary(), *CHAT_WORDS})
    special = [TEXT_END, UNKNOWN, TURN_START, TURN_END]
    ids = {word: i for i, word in enumerate([*special, *words, *BOX_MARKS, *NUMBERS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    marks = [pre_tokenizers.Split(mark, "isolated") for mark in (".", ",", "?")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), *marks])
    tokenizer.decoder = decoders.WordPiece(cleanup=True)  # no space before a full stop
    added = [AddedToken(token, special=True, normalized=False) for token in special]
    added += [AddedToken(token, special=True, normalized=False) for token in VISUAL_TOKENS]
    tokenizer.add_special_tokens(added)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=TEXT_END,
        eos_token=TURN_END,
        unk_token=UNKNOWN,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def new_base(
    seed: int, width: int | None = None, depth: int | None = None
) -> UrecaForConditionalGeneration:
    """Preset tiny with the scenes' vocabulary and first weights that learn fast at this width.

    Xavier for linear layers, sines and cosines for the vision tower's positions and for the words
    that are numbers, residual scales of 1 (InternVL's 0.1 is for towers of 24 layers).

    Args:
        seed: of the weights.
        width, depth: hidden size and layers of both transformers; by default the preset's.

    Returns:
        A URECA model whose mask encoder is not to be used: its base alone is trained and saved.
    """
    torch.manual_seed(seed)
    tokenizer = scene_tokenizer()
    vocab_size = len(tokenizer)
    config = preset_config("tiny", vocab_size=vocab_size, mask_position="after_image")
    for part in (config.vision_config, config.text_config):
        ratio = part.intermediate_size // part.hidden_size
        part.hidden_size = width or part.hidden_size
        part.intermediate_size = ratio * part.hidden_size
        part.num_hidden_layers = depth or part.num_hidden_layers
    config.text_config.layer_types = config.text_config.layer_types[:depth]
    # eager attention: its gradient is twice as fast as the fused one on a CPU at this size
    config._attn_implementation = "eager"
    model = UrecaForConditionalGeneration(config)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING_STD)
    model.tie_weights()
    tower = model.model.vision_tower
    with torch.no_grad():
        words = model.get_input_embeddings().weight
        words[tokenizer.convert_tokens_to_ids(list(NUMBERS))] = _waves(len(NUMBERS), words.shape[1])
        tower.embeddings.position_embeddings.copy_(_grid_positions(tower.embeddings))
        for layer in tower.encoder.layer:
            layer.lambda_1.fill_(1.0)
            layer.lambda_2.fill_(1.0)
    for parameter in model.model.mask_encoder.parameters():
        parameter.requires_grad_(False)
    return model


def _waves(count: int, size: int) -> torch.Tensor:
    """(count, size): numbers near each other are alike, as no drawn embeddings are."""
    rates = torch.logspace(math.log10(math.pi / 2), math.log10(math.pi * count / 4), size // 2)
    at = (torch.arange(count)[:, None] + 0.5) / count * rates  # (count, size / 2)
    return torch.cat([at.sin(), at.cos()], dim=1) * (EMBEDDING_STD * 2**0.5)


def _grid_positions(embeddings: nn.Module) -> torch.Tensor:
    """(1, 1 + n * n, D): a quarter of the channels each for sine and cosine of row and column."""
    count, size = embeddings.position_embeddings.shape[1:]
    side = round((count - 1) ** 0.5)
    rates = 100 ** (-torch.arange(size // 4) / (size // 4))
    at = torch.arange(side)[:, None] * rates  # (n, D / 4)
    waves = torch.cat([at.sin(), at.cos()], dim=1)  # (n, D / 2)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    grid = torch.cat([rows, columns], dim=-1).flatten(0, 1)  # (n, n, D) -> (n * n, D)
    return torch.cat([torch.zeros(1, size), grid * 0.2])[None]


def as_internvl(model: UrecaForConditionalGeneration) -> InternVLForConditionalGeneration:
    """The base as transformers' own class, without a mask encoder: an MLLM that sees no masks."""
    carried = {name: getattr(model.config, name) for name in _SHARED}
    base = InternVLForConditionalGeneration(InternVLConfig(**carried))
    weights = {k: v for k, v in model.state_dict().items() if ".mask_encoder." not in k}
    base.load_state_dict(weights)
    return base.eval()
