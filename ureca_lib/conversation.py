"""The conversation around a region: chat format, special tokens, question and answer as ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from transformers import PreTrainedTokenizerBase

IMAGE_START, IMAGE_END, IMAGE_CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
MASK_START, MASK_END, MASK_CONTEXT = "<mask>", "</mask>", "<MASK_CONTEXT>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"

# in the order that published training adds them, so that ids agree with it
VISUAL_TOKENS = (IMAGE_START, IMAGE_END, IMAGE_CONTEXT, MASK_CONTEXT, MASK_START, MASK_END)

QUESTION = "Describe this region in the image."
MARKS = ("<image>", "<mask>")  # places of image and mask tokens in a question

_VISUALS = {
    "<image>": f"{IMAGE_START}{IMAGE_CONTEXT}{IMAGE_END}",
    "<mask>": f"{MASK_START}{MASK_CONTEXT}{MASK_END}",
}
IGNORED = -100  # a label without loss


def add_visual_tokens(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Add the placeholder tokens that a tokenizer lacks, at its end; the same object."""
    known = tokenizer.get_vocab()
    lacking = [token for token in VISUAL_TOKENS if token not in known]
    tokenizer.add_tokens(lacking, special_tokens=True)
    return tokenizer


def require_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer has all special tokens of a conversation.

    Raises:
        ValueError: names those it lacks.
    """
    known = tokenizer.get_vocab()
    needed = (*VISUAL_TOKENS, TURN_START, TURN_END)
    if lacking := [token for token in needed if token not in known]:
        raise ValueError(
            f"the tokenizer lacks {', '.join(lacking)}; add_visual_tokens adds the visual ones"
        )


@dataclass(frozen=True)
class Conversation:
    """InternVL2.5's chat format with an image and a mask in the user's turn.

    Args:
        tokenizer: has every special token; see `add_visual_tokens`.
        mask_position: "before_image" or "after_image", for questions without marks.
        system_message: opens the conversation; empty for none.
        with_mask: false for a model without masks: the user's turn holds an image only.
    """

    tokenizer: PreTrainedTokenizerBase
    mask_position: str = "before_image"
    system_message: str = ""
    with_mask: bool = True

    def prompt(self, question: str = QUESTION) -> str:
        """The text before the answer, each placeholder once.

        A question may place `<image>` and `<mask>` itself, each once; the others are
        put before it, in the order of `mask_position`.

        Raises:
            ValueError: a mark stands twice, or where it has no place, or the question holds a
                special token.
        """
        marks = MARKS if self.with_mask else MARKS[:1]
        order = marks if self.mask_position == "after_image" else marks[::-1]
        lead = "".join(f"{mark}\n" for mark in order if mark not in question)
        pieces = re.split("(<image>|<mask>)", lead + question)
        for mark in MARKS:
            if (count := pieces.count(mark)) > marks.count(mark):
                many = "one" if mark in marks else "no"
                raise ValueError(f"a question has {many} {mark}, got {count}")
        self._check_plain("question", "".join(p for p in pieces if p not in MARKS))
        body = "".join(_VISUALS.get(piece, piece) for piece in pieces)
        system = self._turn("system", self.system_message) if self.system_message else ""
        return f"{system}{self._turn('user', body)}{TURN_START}assistant\n"

    def tokenize(
        self,
        question: str = QUESTION,
        answer: str | None = None,
        repeats: Mapping[int, int] = MappingProxyType({}),
    ) -> tuple[list[int], list[int]]:
        """Question and optional answer as ids and labels.

        Labels are the ids of the answer and of the token that ends it, and `IGNORED` before.

        Args:
            question: see `prompt`.
            answer: None for a prompt.
            repeats: how often ids of placeholders stand; others stand once.

        Raises:
            ValueError: see `prompt`; or the answer holds a special token.
        """
        prompt = self.prompt(question)
        ids = start = self._ids(prompt)
        if answer is not None:
            self.check_answer(answer)
            end = self.tokenizer.convert_tokens_to_ids(TURN_END)
            ids = [*self._ids(f"{prompt}{answer.strip()}"), end]
        pairs = zip(start, ids, strict=False)
        shared = next((i for i, (one, two) in enumerate(pairs) if one != two), len(start))
        labels = [IGNORED] * shared + ids[shared:]
        times = [repeats.get(token, 1) for token in ids]
        return np.repeat(ids, times).tolist(), np.repeat(labels, times).tolist()

    def answer_ids(self, answer: str, question: str = QUESTION) -> list[int]:
        """The answer's ids as they stand after the question, with the token that ends it."""
        return [label for label in self.tokenize(question, answer)[1] if label != IGNORED]

    def _ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text).input_ids
        # some tokenizers end every text
        return ids[:-1] if ids[-1] == self.tokenizer.eos_token_id else ids

    @staticmethod
    def _turn(role: str, text: str) -> str:
        return f"{TURN_START}{role}\n{text}{TURN_END}\n"

    def check_answer(self, answer: str) -> None:
        """Check that an answer can be trained on.

        Raises:
            ValueError: it holds a special token.
        """
        self._check_plain("answer", answer)

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        """Tokens that neither a question nor an answer may hold."""
        tokens = {*VISUAL_TOKENS, TURN_START, TURN_END, *self.tokenizer.all_special_tokens}
        return frozenset(tokens)

    def _check_plain(self, what: str, text: str) -> None:
        if found := sorted(token for token in self.special_tokens if token in text):
            raise ValueError(f"the {what} holds the special token {found[0]}: {text!r}")
