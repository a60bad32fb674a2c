"""Captions and log-likelihoods of many regions of one image at a time.

All regions of an image share the image; all captions of a region share the region. Such sequences
are the branches of a tree: the whole tree is one row of tokens with one cache, in which a token
sees its ancestors and itself, at the position that it has in its own sequence. The result is
that of each sequence alone, up to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import psutil
import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import DynamicCache, PreTrainedConfig

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
        """Start new branches at the end of `parent`, which must not grow any more."""
        first = len(self.depths)
        new = list(range(first, first + count))
        self._above += [[*self._above[parent], branch] for branch in new]
        self.depths += [self.depths[parent]] * count
        return new

    def grow(
        self,
        branches: list[int],
        embeds: list[torch.Tensor],
        position_ids: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Append tokens to branches, none of which is another's ancestor.

        Args:
            branches: the branches to grow, each once.
            embeds: for each, (L, D) embeddings of the tokens to append.
            position_ids: (L,) of each branch's tokens, instead of their places in the sequence.

        Returns:
            For each, the (L, D) hidden states of those tokens, as the language head takes them.
        """
        lengths = [len(part) for part in embeds]
        if not any(lengths):
            return embeds
        depths = [self.depths[branch] for branch in branches]
        own = torch.tensor(np.repeat(branches, lengths), device=self.device)
        places = [torch.arange(d, d + n) for d, n in zip(depths, lengths, strict=True)]
        positions = torch.cat(places).to(self.device)
        self._branches = torch.cat([self._branches, own])
        self._positions = torch.cat([self._positions, positions])
        joined = torch.cat(embeds).unsqueeze(0)  # (L, D) each -> (1, all, D)
        out = self.language_model(
            inputs_embeds=joined,
            attention_mask=self._mask(own, positions, joined.dtype),
            position_ids=(
                positions if position_ids is None else position_ids.repeat(len(branches))
            ).unsqueeze(0),
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

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Remove, at the end, every token and branch that is added within."""
        length, depths = len(self), list(self.depths)
        try:
            yield
        finally:
            for layer in self.cache.layers:
                # layer by layer: a run that failed half-way has reached some of them only
                if (extra := layer.get_seq_length() - length) > 0:
                    layer.crop(-extra)
            self._branches, self._positions = self._branches[:length], self._positions[:length]
            self.depths, self._above = depths, self._above[: len(depths)]


_POSITIONS_PER_HEAD = 256  # positions whose logits exist at one time; a vocabulary is large


@dataclass
class Decoded:
    """Generated ids, the one that ended them left out, and the log-probability of them all."""

    ids: list[int]
    log_likelihood: float = 0.0
    tokens: int = 0  # with the one that ended them


Run = Callable[[torch.Tensor, list[int]], torch.Tensor]  # see `greedy`


def branch_runner(tree: TokenTree, count: int, position_ids: torch.Tensor) -> Run:
    """Run `count` sequences as branches of a tree, whose root they share.

    Args:
        tree: the shared part.
        count: number of branches.
        position_ids: (L,) of a prompt's tokens; those of generated tokens are counted.
    """
    branches, prompt = tree.sprout(ROOT, count), [position_ids]

    def run(embeds: torch.Tensor, rows: list[int]) -> torch.Tensor:
        given = prompt.pop() if prompt else None
        grown = tree.grow([branches[row] for row in rows], list(embeds), given)
        return torch.stack([hidden[-1] for hidden in grown])

    return run


def batch_runner(language_model: nn.Module, count: int, position_ids: torch.Tensor) -> Run:
    """Run `count` sequences that share nothing: an ordinary batch; see `branch_runner`."""
    cache, kept, prompt = DynamicCache(), list(range(count)), [position_ids]

    def run(embeds: torch.Tensor, rows: list[int]) -> torch.Tensor:
        if rows != kept:
            cache.batch_select_indices(torch.tensor([kept.index(row) for row in rows]))
            kept[:] = rows
        given = prompt.pop().expand(len(rows), -1) if prompt else None
        out = language_model(
            inputs_embeds=embeds, position_ids=given, use_cache=True, **{CACHE: cache}
        )
        return out.last_hidden_state[:, -1]

    return run


def greedy(
    run: Run,
    prompts: torch.Tensor,
    head: nn.Module,
    embedding: nn.Module,
    stops: set[int],
    max_new_tokens: int,
) -> list[Decoded]:
    """Greedy decoding: append the most likely token until each sequence ends.

    Args:
        run: appends (A, L, D) embeddings to A of the sequences, given their numbers; returns the
            (A, D) hidden states that predict their next tokens.
        prompts: (R, L, D) embeddings.
        head: (A, D) hidden states -> (A, V) logits.
        embedding: (A,) ids -> (A, D).
        stops: ids that end a sequence.
        max_new_tokens: maximum number, the one that ends the sequence included.
    """
    embeds, active = prompts, list(range(len(prompts)))
    decoded = [Decoded([]) for _ in active]
    for _ in range(max_new_tokens):
        logits = head(run(embeds, active)).float()
        best = logits.argmax(dim=-1)
        gains = torch.log_softmax(logits, dim=-1).gather(1, best[:, None])[:, 0].tolist()
        going = []
        for place, (token, gain) in enumerate(zip(best.tolist(), gains, strict=True)):
            row = decoded[active[place]]
            row.log_likelihood += gain
            row.tokens += 1
            if token not in stops:
                row.ids.append(token)
                going.append(place)
        if not going:
            break
        active = [active[place] for place in going]
        embeds = embedding(best[going]).unsqueeze(1)  # (A, D) -> (A, 1, D)
    return decoded


def log_likelihoods(
    tree: TokenTree,
    starts: dict[int, torch.Tensor],
    captions: list[list[int]],
    head: nn.Module,
    embedding: nn.Module,
) -> torch.Tensor:
    """log p(caption | branch), summed over the caption's tokens.

    Args:
        tree: its branches hold what each caption is conditioned on; it is left as it was.
        starts: for each of R branches, the (D,) hidden state of its last token.
        captions: C lists of ids, the one that ends a caption included.
        head: (A, D) hidden states -> (A, V) logits.
        embedding: (A,) ids -> (A, D).

    Returns:
        (R, C) float32, on the CPU.
    """
    targets = [torch.tensor(ids, device=tree.device) for ids in captions]
    pairs = [(branch, target) for branch in starts for target in targets]
    with tree.restored():
        leaves = [tree.sprout(branch)[0] for branch, _ in pairs]
        grown = tree.grow(leaves, [embedding(target[:-1]) for _, target in pairs])
    # what predicts a caption's first token is the branch's last state
    states = [torch.cat([starts[b][None], own]) for (b, _), own in zip(pairs, grown, strict=True)]
    gains = _log_probabilities(torch.cat(states), torch.cat([t for _, t in pairs]), head)
    totals = torch.stack([part.sum() for part in gains.split([len(t) for _, t in pairs])])
    return totals.view(len(starts), len(captions)).cpu()


def _log_probabilities(
    hidden: torch.Tensor, targets: torch.Tensor, head: nn.Module
) -> torch.Tensor:
    """(L, D) hidden states and the (L,) ids that follow them -> (L,) log-probabilities."""
    parts = zip(hidden.split(_POSITIONS_PER_HEAD), targets.split(_POSITIONS_PER_HEAD), strict=True)
    found = []
    for states, ids in parts:
        logits = head(states).float()  # on the head's device, which may be another
        chosen = ids[:, None].to(logits.device)
        found.append(torch.log_softmax(logits, dim=-1).gather(1, chosen)[:, 0])
    return torch.cat(found)


Item = TypeVar("Item")
Result = TypeVar("Result")

_CPU_SHARE, _CUDA_SHARE = 0.4, 0.7  # of the memory that is free now


def free_bytes(device: torch.device) -> int:
    """Memory that a run may take: a share of what is free on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _CUDA_SHARE)
    return int(psutil.virtual_memory().available * _CPU_SHARE)


def sequence_bytes(text: PreTrainedConfig, length: int, item: int) -> int:
    """Estimate of the memory of a sequence: keys and values, embeddings, logits of one token.

    Args:
        text: the language model's configuration.
        length: tokens, those to come included.
        item: bytes per number.
    """
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    keys = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim
    return item * length * (keys + text.hidden_size) + 3 * 4 * text.vocab_size


def activation_bytes(text: PreTrainedConfig, tokens: int, item: int) -> int:
    """Estimate of the temporary memory of running `tokens` together."""
    return item * tokens * (3 * text.intermediate_size + 8 * text.hidden_size)


def in_groups(
    items: Sequence[Item],
    size: int,
    run: Callable[[Sequence[Item]], list[Result]],
    progress: bool = False,
) -> list[Result]:
    """Run items in groups. If memory runs out, the group is halved and tried again.

    Args:
        items: all items, in order.
        size: initial size of a group; once halved, it stays smaller.
        run: maps a group to one result per item; must leave no state behind when it fails.
        progress: show a bar.

    Raises:
        torch.OutOfMemoryError, MemoryError: one item alone does not fit.
    """
    results: list[Result] = []
    with tqdm(total=len(items), desc="regions", disable=not progress) as bar:
        while len(results) < len(items):
            group = items[len(results) : len(results) + size]
            try:
                results += run(group)
                bar.update(len(group))
                continue
            except (MemoryError, RuntimeError) as error:
                known = isinstance(error, torch.OutOfMemoryError | MemoryError)
                # the CPU allocator has no error type of its own
                if len(group) == 1 or not (known or "can't allocate memory" in str(error)):
                    raise
            # outside the handler: the error held on to the tensors of the group that failed
            size = len(group) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return results


def give_back_freed() -> None:
    """Return freed memory to the system if the C library can (glibc).

    glibc keeps freed blocks below one that is still in use. Large tensors that come and go between
    small ones that stay, as mask tiles do, make a process grow to several times what it holds.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
