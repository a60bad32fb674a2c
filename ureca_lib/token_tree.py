"""Sequences that begin alike, run through the language model together and only once.

All regions of an image share the image; all captions of a region share the region. Such sequences
are the branches of a tree. The whole tree is one row of tokens with one cache: a token sees its
ancestors and itself, and stands at the position that it has in its own sequence. What is computed
is what each sequence alone would give, up to the order in which sums are rounded.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import DynamicCache

from ureca_lib.configuration import CACHE

ROOT = 0


class TokenTree:
    """A language model's state over a tree of token sequences.

    Args:
        language_model: a decoder of transformers that takes `inputs_embeds`, a four-dimensional
            additive `attention_mask`, `position_ids` and a cache.

    Attributes:
        depths: length of the sequence that ends with each branch, ancestors included.
    """

    def __init__(self, language_model: nn.Module):
        self.language_model = language_model
        self.cache = DynamicCache()
        self.device = language_model.embed_tokens.weight.device
        self.depths = [0]
        self._above = [[ROOT]]  # of each branch: itself and its ancestors
        self._branches = torch.empty(0, dtype=torch.long, device=self.device)  # (K,) of each key
        self._positions = torch.empty(0, dtype=torch.long, device=self.device)  # (K,) of each key

    def __len__(self) -> int:
        return len(self._branches)

    def sprout(self, parent: int, count: int = 1) -> list[int]:
        """Begin new branches where `parent` ends now. `parent` must not grow any more."""
        first = len(self.depths)
        new = list(range(first, first + count))
        self._above += [[*self._above[parent], branch] for branch in new]
        self.depths += [self.depths[parent]] * count
        return new

    def grow(self, branches: list[int], embeds: list[torch.Tensor]) -> list[torch.Tensor]:
        """Append tokens to branches, none of which is another's ancestor.

        Args:
            branches: which to grow, each once.
            embeds: for each, (L, D) embeddings of the tokens to append.

        Returns:
            For each, the (L, D) hidden states of those tokens, as the language head takes them.
        """
        lengths = [len(part) for part in embeds]
        if not any(lengths):
            return embeds
        own = torch.tensor(branches, device=self.device)
        own = own.repeat_interleave(torch.tensor(lengths, device=self.device))
        places = [
            torch.arange(self.depths[branch], self.depths[branch] + length, device=self.device)
            for branch, length in zip(branches, lengths, strict=True)
        ]
        positions = torch.cat(places)
        self._branches = torch.cat([self._branches, own])
        self._positions = torch.cat([self._positions, positions])
        joined = torch.cat(embeds).unsqueeze(0)  # (L, D) each -> (1, all, D)
        out = self.language_model(
            inputs_embeds=joined,
            attention_mask=self._mask(own, positions, joined.dtype),
            position_ids=positions.unsqueeze(0),
            use_cache=True,
            **{CACHE: self.cache},
        )
        for branch, length in zip(branches, lengths, strict=True):
            self.depths[branch] += length
        return list(out.last_hidden_state[0].split(lengths))

    def _mask(
        self, own: torch.Tensor, positions: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor | None:
        """(1, 1, new, keys), 0 where a new token may look and the least number elsewhere."""
        if len(self.depths) == 1:
            return None  # a stem without branches is plainly causal
        count = len(self.depths)
        related = torch.zeros(count, count, dtype=torch.bool)
        for branch, above in enumerate(self._above):
            related[branch, above] = True
        seen = related.to(self.device)[own][:, self._branches]  # (new, keys)
        seen &= self._positions <= positions.unsqueeze(1)
        mask = torch.zeros(seen.shape, dtype=dtype, device=self.device)
        return mask.masked_fill_(~seen, torch.finfo(dtype).min)[None, None]

    def mark(self) -> tuple[int, int]:
        """Where the tree stands; `cut` takes it back there."""
        return len(self), len(self.depths)

    def cut(self, mark: tuple[int, int]) -> None:
        """Take off every token and branch since `mark`, which must have left old branches alone."""
        length, branches = mark
        for layer in self.cache.layers:
            # layer by layer: a run that failed half-way has reached some of them only
            if (extra := layer.get_seq_length() - length) > 0:
                layer.crop(-extra)
        self._branches, self._positions = self._branches[:length], self._positions[:length]
        del self.depths[branches:], self._above[branches:]
