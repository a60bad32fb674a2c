"""The tiny preset's tokenizer: a word a token, made of the scenes' language."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ureca_lib.conversation import TURN_END, TURN_START, VISUAL_TOKENS
from ureca_lib.scenes import vocabulary
from ureca_lib.train.boxes import BOX_MARKS, NUMBERS

TEXT_END, UNKNOWN = "<|endoftext|>", "<unk>"
CHAT_WORDS = ("user", "assistant", "system", "describe", "this", "region", "image", "a", "the", "?")


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
